// nanochat's forward pass with loss, written down as a graph: one micro-step at one device batch, in training or as it is evaluated.
#pragma once

#include "graph/graph.hpp"
#include "workload/workload.hpp"

namespace dryfit {

// Whether nanochat/fp8.py takes a weight of [out, in]: both multiples of 16 and at least 128.
constexpr bool fp8_fits(std::int64_t out, std::int64_t in) { return out % 16 == 0 && in % 16 == 0 && out >= 128 && in >= 128; }

// attention: resolved, not automatic. B, T, fp8 and dtypes from workload.run. evaluated: without gradients, and never in fp8.
Graph nanochat_forward(const Workload& workload, Attention attention, bool evaluated = false);

}  // namespace dryfit
