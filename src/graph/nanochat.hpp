// nanochat's forward pass with loss, written down as a graph: one training micro-step at one device batch.
#pragma once

#include "graph/graph.hpp"
#include "workload/workload.hpp"

namespace dryfit {

// attention: resolved, not automatic. B, T, fp8 and dtypes from workload.run.
Graph nanochat_forward(const Workload& workload, Attention attention);

}  // namespace dryfit
