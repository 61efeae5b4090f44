// See compiled_mixture.hpp. N tokens, D width, E experts, k of them for each token, whose rows are taken to be shared evenly.
// Source: transformers 4.57, models/{mixtral,qwen3_moe}/modeling_*.py; what Dynamo makes of it: docs/models.md.
#include "passes/compiled_mixture.hpp"

#include <utility>

namespace dryfit::eager {

CompiledMixture::CompiledMixture(Tape& tape, const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, const Transformer& model, CompileTarget target)
    : t_(tape), a_(a), r_(r), model_(model) {
  std::vector<std::size_t>* last = nullptr;
  for (std::size_t i = 0; i < model.weights().size(); ++i) {
    const Transformer::Weight& w = model.weights()[i];
    if (!std::string_view(w.role).starts_with("lora.")) last = &places_[{w.layer, w.role}];
    if (last != nullptr) last->push_back(i);
  }
  const std::int64_t rows = rows_of_expert(a, r.device_batch_size * r.seq_len);
  const auto function = [&](MixturePart part, bool first) {
    Graph graph = mixture_part(a, r, adapted, part, {rows, first, target});
    const auto weights = static_cast<std::int64_t>(graph.inputs.size());  // about as many as its guards look at
    return std::make_unique<CompiledFunction>(tape, std::move(graph), weights);
  };
  for (std::size_t i = 0; i < parts_.size(); ++i) parts_[i] = function(static_cast<MixturePart>(i), false);
  if (r.lora) first_ = function(MixturePart::attention, true);
}

Tensor CompiledMixture::weight(std::int64_t layer, std::string_view role, std::size_t index) const { return model_.weights()[places_.at({layer, role})[index]].tensor; }

// Those that have the role, of which there may be none; each with its adapter's.
std::vector<Tensor> CompiledMixture::weights(std::int64_t layer, std::string_view role) const {
  std::vector<Tensor> found;
  const auto it = places_.find({layer, role});
  if (it == places_.end()) return found;
  for (std::size_t i = 0; i < it->second.size(); ++i) found.push_back(weight(layer, role, i));
  return found;
}

Transformer::Outputs CompiledMixture::forward(const Transformer::Batch& batch) {
  const Tensor last = [&] {
    const Tensor embedded = t_.embedding(weight(-1, "wte"), batch.ids, "wte");  // named until the model returns
    Tensor x = embedded;
    const Tensor positions = t_.empty("positions", dims({r_.seq_len}, false), Dtype::int64);
    const Tensor mask = run(MixturePart::mask, std::array{batch.mask, positions}).front();
    std::vector<Tensor> tables = run(MixturePart::tables, std::array{Tensor(), positions});
    for (std::int64_t layer = 0; layer < a_.layers; ++layer) x = block(layer, x, {tables[0], tables[1], mask});
    return run(MixturePart::norm, std::array{x, weight(-1, "final")}).front();
  }();
  const std::vector<Tensor> outs = run(MixturePart::loss, std::array{last, weight(-1, "lm_head"), batch.labels});
  return {outs[0], outs[1], {}};
}

// shared: cosines, sines and the mask.
Tensor CompiledMixture::block(std::int64_t layer, const Tensor& x, const std::array<Tensor, 3>& shared) {
  std::vector<Tensor> inputs{x};
  for (const char* role : {"norm1", "attn.q", "attn.q_norm", "attn.k", "attn.k_norm", "attn.v"}) {
    const std::vector<Tensor> own = weights(layer, role);  // not all families have norms of heads
    inputs.insert(inputs.end(), own.begin(), own.end());
  }
  inputs.insert(inputs.end(), shared.begin(), shared.end());
  for (const char* role : {"attn.o", "norm2"}) {
    const std::vector<Tensor> own = weights(layer, role);
    inputs.insert(inputs.end(), own.begin(), own.end());
  }
  std::vector<Tensor> outs = first_ && layer == 0 ? (*first_)(inputs) : run(MixturePart::attention, inputs);
  Tensor logits;  // returned beside the mixture's output, and named until the block has its own
  const Tensor mixed = experts(layer, std::move(outs[0]), logits);
  return run(MixturePart::residual, std::array{outs[1], mixed}).front();
}

// What is left to Python: expert by expert on the rows that chose it.
Tensor CompiledMixture::experts(std::int64_t layer, Tensor given, Tensor& logits) {
  const std::int64_t N = r_.device_batch_size * r_.seq_len, D = a_.width, E = a_.moe->experts, k = a_.moe->top_k, rows = rows_of_expert(a_, N);
  std::vector<Tensor> routed = run(MixturePart::router, std::array{given, weight(layer, "router")});
  logits = std::move(routed[0]);
  const Tensor shares = std::move(routed[1]), choices = std::move(routed[3]);
  Tensor out = std::move(routed[2]);
  const Tensor x = t_.view(given, {N, D});  // an output of the function, made anew from its input
  given.reset();
  const Tensor hit = t_.empty("router.hit", dims({E, 1}, false), Dtype::int64);
  routed.clear();
  Tensor places, state, weighted;  // names that live on into the next expert
  for (std::int64_t e = 0; e < E; ++e) {
    {
      const Tensor chosen = t_.empty("router.mask", dims({1, k, N}, true), Dtype::int64);
      places = t_.empty("moe.rows", dims({rows, 2}, true), Dtype::int64);
    }
    state = t_.gather(x, places, dims({rows, D}, true), "moe.x");
    const auto at = static_cast<std::size_t>(e);
    const Tensor y = run(MixturePart::expert, std::array{weight(layer, "expert.gate", at), state, weight(layer, "expert.up", at), weight(layer, "expert.down", at)}).front();
    weighted = t_.mul(y, t_.gather(shares, places, dims({rows, 1}, true), "moe.weight"), "moe.weighted");
    weighted = t_.to(weighted, out.dtype(), "moe.weighted");
    out = t_.index_add(out, places, weighted);
  }
  return t_.view(out, {r_.device_batch_size, r_.seq_len, D});
}

}  // namespace dryfit::eager
