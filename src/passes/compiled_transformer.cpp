// See compiled_transformer.hpp.
#include "passes/compiled_transformer.hpp"

#include <array>

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

CompiledTransformer::CompiledTransformer(Tape& tape, const Architecture& a, const Training& r, const Transformer& model, CompileTarget target)
    : model_(model), rotary_(a.position == Position::rotary) {
  if (has_mixture_graph(a)) mixture_.emplace(tape, a, r, adapted(a, model), model, target);
  else forward_.emplace(tape, transformer_forward(a, r, adapted(a, model), target), static_cast<std::int64_t>(model.weights().size()));
  if (!mixture_ && !loss_is_apart(a)) return;
  if (!mixture_) loss_.emplace(tape, transformer_loss(a, r), 0);
  if (r.mixed != MixedPrecision::none) handed_out_.emplace(tape, logits_handed_out(a, r), 0);
}

Transformer::Outputs CompiledTransformer::forward(const Transformer::Batch& batch) {
  if (mixture_) {
    Transformer::Outputs outs = mixture_->forward(batch);
    if (handed_out_) outs.logits = (*handed_out_)(std::array{outs.logits}).front();
    return outs;
  }
  std::vector<Tensor> inputs{batch.ids, batch.mask};
  if (rotary_) inputs.emplace_back();  // the frequencies of its tables
  for (const Transformer::Weight& w : model_.weights()) inputs.push_back(w.tensor);
  if (!loss_) {
    inputs.push_back(batch.labels);
    const std::vector<Tensor> outs = (*forward_)(inputs);
    return {outs[0], outs[1], {}};
  }
  std::vector<Tensor> outs = (*forward_)(inputs);  // the cache is named until the outputs are handed out, what the head was given until the model returns
  const Tensor loss = (*loss_)(std::array{outs[0], batch.labels}).front();
  outs.pop_back();
  return {loss, handed_out_ ? (*handed_out_)(std::array{outs[0]}).front() : outs[0], {}};
}

}  // namespace dryfit::eager
