// See compiled_transformer.hpp.
#include "passes/compiled_transformer.hpp"

#include "graph/transformers.hpp"

namespace dryfit::eager {

namespace {

std::vector<std::int32_t> adapted(const Architecture& a, const Transformer& model) {
  std::vector<std::int32_t> places;
  const std::vector<Parameter> all = parameters_of(a);
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (model.adapts(all[i])) places.push_back(static_cast<std::int32_t>(i));
  }
  return places;
}

}  // namespace

CompiledTransformer::CompiledTransformer(Tape& tape, const Architecture& a, const Training& r, const Transformer& model, int multiprocessors)
    : model_(model), forward_(tape, transformer_forward(a, r, adapted(a, model), multiprocessors), static_cast<std::int64_t>(model.weights().size())) {}

Transformer::Outputs CompiledTransformer::forward(const Transformer::Batch& batch) {
  std::vector<Tensor> inputs{batch.ids, batch.mask, {}};  // and the frequencies of the rotary tables
  for (const Transformer::Weight& w : model_.weights()) inputs.push_back(w.tensor);
  inputs.push_back(batch.labels);
  const std::vector<Tensor> outs = forward_(inputs);
  return {outs[0], outs[1], {}};
}

}  // namespace dryfit::eager
