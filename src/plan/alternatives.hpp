// What would change the answer: each memory lever with its predicted effect, whether training stays identical, what it costs.
#pragma once

#include <vector>

#include "plan/plan.hpp"

namespace dryfit {

std::vector<Alternative> find_alternatives(const Report& report, const Program& program, const EstimateOptions& options);

}  // namespace dryfit
