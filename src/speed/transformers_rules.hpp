// What a token of a transformers run costs by the usual arithmetic, for MFU, and how long the run trains. The kernels' own FLOPs, recomputation
// included, are in StepTime.
#pragma once

#include <optional>

#include "speed/nanochat_rules.hpp"

namespace dryfit {

// PaLM's: 6 FLOP a parameter in matrix products (of a mixture those a token meets; the head once, the embedding not), 12 H h T L for scores, masked
// ones included (arXiv 2204.02311, appendix B). Where the weights are frozen their gradients are not computed: 4 and 12.
double transformers_flops_per_token(const Workload& workload);

// As far as --max-steps, --max-tokens, or a pasted train.max_tokens, say.
std::optional<Horizon> transformers_horizon(const Workload& workload);

}  // namespace dryfit
