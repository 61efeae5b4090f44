// The min-cut partitioner of AOTAutograd: which forward values are saved for the backward pass and which are recomputed there.
// Source: torch/_functorch/partitioners.py (2.9.1), solve_min_cut with its default bans and weights.
#pragma once

#include <vector>

#include "passes/autograd.hpp"

namespace dryfit {

// Forward nodes whose values cross to the backward pass (graph inputs among them), ascending.
std::vector<NodeId> min_cut_saved(const JointGraph& joint);
// Without torch.compile: what eager autograd saves, op by op.
std::vector<NodeId> eager_saved(const JointGraph& joint);

}  // namespace dryfit
