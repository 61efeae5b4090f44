// A Hugging Face model under torch.compile: its forward as one function. Loops and optimizers stay eager.
#pragma once

#include "passes/compiled_function.hpp"
#include "passes/transformer.hpp"

namespace dryfit::eager {

class CompiledTransformer {
 public:
  // model: whose weights are read and trained; outlives this.
  CompiledTransformer(Tape& tape, const Architecture& architecture, const Training& training, const Transformer& model, int multiprocessors);
  Transformer::Outputs forward(const Transformer::Batch& batch);

 private:
  const Transformer& model_;
  CompiledFunction forward_;
};

}  // namespace dryfit::eager
