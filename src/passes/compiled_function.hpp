// A function as torch.compile runs it: one autograd node on the tape, whose two halves play Inductor's buffers. The graph and its passes are compile.hpp's.
// Source: torch/_functorch/_aot_autograd/runtime_wrappers.py (2.9.1).
#pragma once

#include "passes/compile.hpp"
#include "passes/eager.hpp"

namespace dryfit::eager {

class CompiledFunction {
 public:
  // parameters: of the module, whose guards are looked at when it is entered.
  CompiledFunction(Tape& tape, Graph forward, std::int64_t parameters);
  // inputs: one for each of the graph's; undefined where no tensor of the run stands for it. Returns the loss, where the graph has one, and its outputs.
  std::vector<Tensor> operator()(std::span<const Tensor> inputs);

 private:
  using Buffers = std::vector<Tensor>;  // by node
  void play(const std::vector<BufferStep>& steps, TimingsToCome timings, bool spares, Buffers& buffers);
  void after(const BufferStep& step);
  Tensor made(NodeId v, Tensor onto);
  std::vector<Tensor> backward(std::span<const Tensor> given, std::vector<Tensor>& saved);

  Tape& t_;
  CompiledStep step_;
  std::vector<NodeId> kept_;       // what crosses to backward: step_.saved and inputs of each call
  std::vector<bool> gradient_;     // of a node: whether a parameter's gradient lies there at the end
  std::vector<Dims> wanted_;       // of what wants a gradient, which has its shape
  std::vector<Work> forward_work_, backward_work_;
};

}  // namespace dryfit::eager
