// What would change the answer: each memory lever with its predicted effect, whether training stays identical, what it costs.
#pragma once

#include <vector>

#include "plan/plan.hpp"

namespace dryfit {

std::vector<Alternative> find_alternatives(const Report& report, const Program& program, const EstimateOptions& options);

// Of a transformers run: batch and accumulation, recompute, 8-bit moments, length, adapters.
std::vector<Alternative> transformers_alternatives(const Report& report, const EstimateOptions& options);

}  // namespace dryfit
