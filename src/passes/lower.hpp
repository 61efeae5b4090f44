// What Inductor's lowerings write down that the partitioner has not seen: a whole tensor's maximum in two steps, and operands in the strides that
// fp8 products fix. Source: torch/_inductor/{ir,lowering,choices}.py (2.9.1).
#pragma once

#include <vector>

#include "graph/graph.hpp"

namespace dryfit {

// `compute` is one half of a joint graph in its order. Its new nodes are appended to the graph and stand in the order that is returned.
std::vector<NodeId> lower(Graph& graph, const std::vector<NodeId>& compute);

}  // namespace dryfit
