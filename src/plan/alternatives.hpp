// What would change the answer: each memory lever with its predicted effect, whether training stays identical, what it costs.
#pragma once

#include <vector>

#include "plan/plan.hpp"

namespace dryfit {

std::vector<Alternative> find_alternatives(const Report& report, const Program& program, const EstimateOptions& options);

// The same run with segments that grow (expandable_segments), where that is not on, may be had, and saves more than a hundredth of the card.
std::optional<Alternative> growing_segments(const Report& report, const Program& program, EstimateOptions options);

// The same, asked only where much of the card holds nothing but the allocator's cache. built: the run's program; where it is not at hand it is built.
std::optional<Alternative> growing_segments_of(const Report& report, const EstimateOptions& options, const Program* built);

// The first change of an argument that makes it fit: one that leaves the training as it is before one that does not. None: no single one does.
const Alternative* smallest_change(const Report& report);

// The command with the change made; empty: not one command.
std::string command_of(const Alternative& alternative, const Report& report);

// The changed run's answer as an alternative; how its speed compares is left open.
Alternative alternative(std::vector<std::pair<std::string, std::string>> change, const Report& result, bool identical, std::string note);

// Of a transformers run: batch and accumulation, recompute, 8-bit moments, length, adapters.
std::vector<Alternative> transformers_alternatives(const Report& report, const Program& program, const EstimateOptions& options);

}  // namespace dryfit
