// nanochat's step as it runs without torch.compile (chat_rl, the older chat_sft, a base_train whose compilation is switched off): nanochat/gpt.py
// op by op on the eager engine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "graph/graph.hpp"
#include "passes/program.hpp"

namespace dryfit {

struct EagerStep {
  enum Part : std::uint8_t { inputs, forward, backward, forward_again, backward_again, validation };  // again: with the gradients of the first still there
  Program program;                       // tensors: first the graph's inputs, one by one; segments: the parts, in their order
  std::vector<std::int32_t> gradients;   // per input: the tensor that is its gradient, or -1
  std::span<const Event> events(Part part) const;
};

// inputs: nanochat_forward's graph, whose inputs are the parameters and buffers.
EagerStep nanochat_eager_step(const Workload& workload, const Graph& inputs, Attention attention, const Target& target);

}  // namespace dryfit
