// A Hugging Face model under torch.compile: its forward as one function, or several. Loops and optimizers stay eager.
#pragma once

#include <optional>

#include "passes/compiled_function.hpp"
#include "passes/compiled_mixture.hpp"
#include "passes/transformer.hpp"

namespace dryfit::eager {

class CompiledTransformer {
 public:
  // model: whose weights are read and trained; outlives this.
  CompiledTransformer(Tape& tape, const Architecture& architecture, const Training& training, const Transformer& model, CompileTarget target);
  Transformer::Outputs forward(const Transformer::Batch& batch);

 private:
  const Transformer& model_;
  bool rotary_;                      // frequencies are an input
  std::optional<CompiledMixture> mixture_;  // in place of one graph up to the loss
  std::optional<CompiledFunction> forward_;
  std::optional<CompiledFunction> loss_, handed_out_;  // where Dynamo ends its graph at the loss
};

}  // namespace dryfit::eager
