// A transformer's mixture of experts as transformers 5 runs it unless told otherwise: tokens sorted by expert, and two products of groups of rows with
// matrices of their own. See transformer.hpp. N tokens, D width, F an expert's, E experts, k of them for each token, S = N*k rows; how they are shared
// out moves no memory. Source: transformers 5.17, integrations/moe.py (grouped_mm_experts_forward), models/*/modeling_*.py.
#include <array>

#include "passes/transformer.hpp"

namespace dryfit::eager {

// Weights of the chosen experts, as the model's router makes them; its logits have a name in the block.
Tensor Transformer::choice(const Block& b, const Tensor& given, Tensor& logits, Tensor& selected) {
  const MixtureOfExperts& m = *a_.moe;
  const Linear& router = b.linear.at("router");
  const Tensor x = a_.latent ? given : into(&router, {router.weight, router.bias}, given);
  if (a_.latent) {
    logits = router_logits(b, x);
    return m.router == RouterKind::sigmoid_group_topk ? sigmoid_choice(b, logits, selected) : softmax_choice(b, logits, selected);
  }
  logits = t_.linear(x, router.weight, "router", router.bias);
  const Dims chosen = dims({N, m.top_k}, true);
  if (m.router == RouterKind::topk_softmax) return out_of(&router, t_.softmax(best(logits, chosen, selected), "router.weights", logits.dtype()));
  const bool mixtral = a_.family == Family::mixtral;  // whose logits are cast first, and whose weights stay fp32
  const Tensor all = t_.softmax(mixtral ? t_.to(logits, Dtype::fp32, "router") : logits, "router.probs", Dtype::fp32);
  Tensor weights = best(all, chosen, selected);
  if (mixtral || m.normalize_top_k) {  // divided in place, after a copy of what was there where autograd wants it
    const Tensor total = t_.mean_last(weights, "router.sum");
    if (t_.grad_enabled() || !r_.reentrant) weights = t_.mul(weights, total, "router.weights");
  }
  return out_of(&router, mixtral ? weights : t_.to(weights, logits.dtype(), "router.weights"));
}

Tensor Transformer::grouped_mixture(const Block& b, const Tensor& given) {
  const MixtureOfExperts& m = *a_.moe;
  const Tensor x = t_.view(given, {N, a_.width});
  Tensor shared, logits, selected;
  if (m.shared_gate) shared = mlp(b, b.shared, "shared.", x);
  const Tensor weights = choice(b, x, logits, selected);
  Tensor out = grouped_experts(b, x, selected, weights);
  if (m.shared_gate) {
    const Tensor gate = t_.unary(project(b.linear.at("shared.router"), x, "shared.router"), Tape::Keep::result, "shared.router");
    shared = t_.mul(gate, shared, "shared.gated");
    out = t_.add(out, shared, "moe.out");
  }
  out = t_.view(out, {B, T, a_.width});
  return m.shared_ffn > 0 && !m.shared_gate ? t_.add(out, mlp(b, b.shared, "shared.", given), "moe.out") : out;
}

// both: gate and up of each row, one beside the other, or in turns.
Tensor Transformer::gate_of_experts(const Tensor& both) {
  const std::int64_t F = a_.moe->expert_ffn;
  if (!a_.moe->stacked) {
    const std::vector<Tensor> parts = t_.split(both, -1, std::array{F, F});
    return t_.mul(activate(parts[0], "expert.act"), parts[1], "expert.product");
  }
  Tensor gate = t_.slice(both, -1, F), up = t_.slice(both, -1, F);
  gate = t_.unary(gate, Tape::Keep::input, "expert.gate");
  up = t_.unary(up, Tape::Keep::input, "expert.up");
  const Tensor glu = t_.mul(gate, t_.unary(t_.scale(gate, "expert.act"), Tape::Keep::result, "expert.act"), "expert.glu");
  return t_.mul(t_.shift(up, "expert.up"), glu, "expert.product");
}

Tensor Transformer::grouped_experts(const Block& b, const Tensor& given, const Tensor& selected, const Tensor& weights) {
  const Linear &first = b.linear.at("experts.gate_up"), &second = b.linear.at("experts.down");
  const Tensor x = into(&b.experts, {first.weight, first.bias, second.weight, second.bias}, given);
  const std::int64_t D = a_.width, E = a_.moe->experts, F = a_.moe->expert_ffn, S = N * a_.moe->top_k;
  const auto indices = [&](const char* role, Dtype d = Dtype::int64) { return t_.empty(role, dims({S}, true), d); };
  const Tensor shares = t_.view(weights, {S}), choices = t_.view(selected, {S});
  const Tensor ids = indices("moe.expert"), order = indices("moe.order");
  const Tensor state = t_.index(x, indices("moe.rows"), dims({S, D}, true), "moe.x");
  const Tensor share = t_.index(shares, order, dims({S}, true), "moe.weight");
  const Tensor counted = indices("moe.expert", Dtype::int32);
  const Tensor counts = t_.empty("moe.counts", dims({E}, false), Dtype::int32), ends = t_.empty("moe.ends", dims({E}, false), Dtype::int32);
  const Tensor outside = indices("moe.outside", Dtype::bool8);  // rows of no expert, of which there are some under expert parallelism alone
  const auto bias_of = [&](const Linear& l, std::int64_t width) { return l.bias.defined() ? t_.index(l.bias, ids, dims({S, width}, true), "expert.bias") : Tensor(); };
  Tensor bias = bias_of(first, 2 * F);
  t_.masked_in_place(state, outside);
  const auto product = [&](const Tensor& rows, const Linear& l, const char* role) {
    const Tensor weight = a_.moe->stacked ? l.weight : t_.transpose(l.weight, 1, 2);
    const Tensor y = t_.grouped(t_.to(rows, weight.dtype(), "moe.x"), weight, ends, role);
    return bias.defined() ? t_.add_in_place(y, bias) : y;
  };
  Tensor h = product(state, first, "expert.gate_up");
  h = t_.masked(h, outside, "expert.gate_up");
  h = gate_of_experts(h);
  bias = bias_of(second, D);
  h = product(h, second, "expert.down");
  h = t_.masked(h, outside, "expert.down");
  Tensor weighted = t_.mul(h, t_.view(share, {S, 1}), "moe.weighted");
  const Tensor back = indices("moe.back");
  indices("moe.range");
  weighted = t_.index(weighted, back, dims({S, D}, true), "moe.unsorted");
  const Tensor sum = t_.sum(t_.view(weighted, {N, a_.moe->top_k, D}), 1, "moe.out", t_.autocast() ? std::optional(Dtype::fp32) : std::nullopt);
  return out_of(&b.experts, t_.to(sum, x.dtype(), "moe.out"));
}

}  // namespace dryfit::eager
