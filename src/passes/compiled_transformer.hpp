// A Hugging Face model's forward and backward as torch.compile runs them: one autograd node on the tape, whose two halves play Inductor's buffers.
// The graph and its passes are compile.hpp's; loops and optimizers stay eager. Source: torch/_functorch/_aot_autograd/runtime_wrappers.py (2.9.1).
#pragma once

#include <memory>

#include "passes/compile.hpp"
#include "passes/transformer.hpp"

namespace dryfit::eager {

class CompiledTransformer {
 public:
  // model: whose weights are read and trained; outlives this.
  CompiledTransformer(Tape& tape, const Architecture& architecture, const Training& training, const Transformer& model, int multiprocessors);
  Transformer::Outputs forward(const Transformer::Batch& batch);

 private:
  using Buffers = std::vector<Tensor>;  // by node
  void play(const std::vector<BufferStep>& steps, Buffers& buffers);
  void after(const BufferStep& step);
  void tell(bool backward);
  Tensor made(NodeId v, Tensor onto);
  std::vector<Tensor> backward(std::vector<Tensor>& saved);

  Tape& t_;
  const Transformer& model_;
  CompiledStep step_;
  std::vector<NodeId> kept_;       // what crosses to backward: step_.saved and graph inputs that are no weights
  std::vector<bool> gradient_;     // of a node: whether a parameter's gradient lies there at the end
  std::vector<Work> forward_work_, backward_work_;
};

}  // namespace dryfit::eager
