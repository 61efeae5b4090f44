// torch.compile of one training micro-step: forward and backward as buffer events over one joint graph.
#pragma once

#include "passes/autograd.hpp"
#include "passes/fuse.hpp"

namespace dryfit {

struct CompiledStep {
  JointGraph joint;
  std::vector<NodeId> saved;          // forward to backward, graph inputs left out
  std::vector<NodeId> read_again;     // graph inputs of one call that backward reads: they live as long
  std::vector<BufferStep> forward;    // ends with the loss and the saved values alive
  std::vector<BufferStep> backward;   // ends with the gradients alive
  std::vector<Launch> forward_launches, backward_launches;
  std::vector<Timing> forward_timings, backward_timings;
  NodeId loss = kNone;
  std::vector<NodeId> outputs;        // beside it: the nodes that own their storage
  std::vector<NodeId> gradients;      // per graph input: the node that owns its storage, or kNone
};

// compile=false: eager autograd.
CompiledStep compile_step(Graph forward, bool compile);

// The forward pass by itself, compiled where no gradients are asked for.
struct CompiledForward {
  Graph graph;
  std::vector<BufferStep> steps;      // ends with the output alive
  NodeId output = kNone;              // the node that owns its storage
  std::vector<Timing> timings = {};
};
CompiledForward compile_forward(Graph forward);

}  // namespace dryfit
