// nanochat's forward pass with loss, written down as a graph: one micro-step at one device batch, in training or as it is evaluated.
#pragma once

#include "graph/graph.hpp"
#include "workload/workload.hpp"

namespace dryfit {

// attention: resolved, not automatic. B, T, fp8 and dtypes from workload.run. evaluated: without gradients, and never in fp8.
Graph nanochat_forward(const Workload& workload, Attention attention, bool evaluated = false);

}  // namespace dryfit
