// Autograd: appends the backward pass of a forward graph, node by node in the order torch's engine runs it.
#pragma once

#include <vector>

#include "graph/graph.hpp"

namespace dryfit {

constexpr int kOfPart = 1;  // the variant of a gradient of rotate_half where only the first elements of a head are turned

struct JointGraph {
  Graph graph;                     // forward nodes first, then backward nodes
  std::int32_t forward_count = 0;  // nodes [0, forward_count) are the forward pass
  NodeId tangent = kNone;          // gradient of the loss, an input; kNone without a loss
  std::vector<NodeId> tangents;    // per graph.outputs: likewise, or kNone
  std::vector<NodeId> gradients;   // per graph.inputs: its gradient, or kNone
};

// compiled: what backward needs of forward values alone stands with the forward nodes, for the partitioner to place.
JointGraph differentiate(Graph forward, bool compiled = true);

}  // namespace dryfit
