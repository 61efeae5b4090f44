// Mixtral and Qwen 3's mixtures under torch.compile: Dynamo's functions, and between them what Python runs op by op.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/mixture.hpp"
#include "passes/compiled_function.hpp"
#include "passes/transformer.hpp"

namespace dryfit::eager {

class CompiledMixture {
 public:
  // model: whose weights are read and trained; outlives this.
  // adapted: places in parameters_of(architecture) of weights with adapters.
  CompiledMixture(Tape& tape, const Architecture& architecture, const Training& training, std::span<const std::int32_t> adapted, const Transformer& model, CompileTarget target);
  // The logits as the model's own code returns them.
  Transformer::Outputs forward(const Transformer::Batch& batch);

 private:
  std::vector<Tensor> run(MixturePart part, std::span<const Tensor> inputs) { return (*parts_[static_cast<std::size_t>(part)])(inputs); }
  std::vector<Tensor> weights(std::int64_t layer, std::string_view role) const;
  Tensor weight(std::int64_t layer, std::string_view role, std::size_t index = 0) const;
  Tensor block(std::int64_t layer, const Tensor& x, const std::array<Tensor, 3>& shared);
  Tensor experts(std::int64_t layer, Tensor x, Tensor& logits);

  Tape& t_;
  const Architecture& a_;
  const Training& r_;
  const Transformer& model_;
  // in the model's weights(), by block (-1: outside of all) and role; an adapter's after its weight
  std::map<std::pair<std::int64_t, std::string_view>, std::vector<std::size_t>> places_;
  std::array<std::unique_ptr<CompiledFunction>, 8> parts_;
  std::unique_ptr<CompiledFunction> first_;  // the first block's attention, where its input wants no gradient
};

}  // namespace dryfit::eager
