// What would change the answer: each memory lever with its predicted effect, whether training stays identical, what it costs.
#pragma once

#include <vector>

#include "plan/plan.hpp"

namespace dryfit {

std::vector<Alternative> find_alternatives(const Report& report, const Program& program, const EstimateOptions& options);

// The same run with segments that grow (expandable_segments), where that is not on, may be had, and saves more than a hundredth of the card.
std::optional<Alternative> growing_segments(const Report& report, const Program& program, EstimateOptions options);

// The changed run's answer as an alternative; how its speed compares is left open.
Alternative alternative(std::vector<std::pair<std::string, std::string>> change, const Report& result, bool identical, std::string note);

// Of a transformers run: batch and accumulation, recompute, 8-bit moments, length, adapters.
std::vector<Alternative> transformers_alternatives(const Report& report, const Program& program, const EstimateOptions& options);

}  // namespace dryfit
