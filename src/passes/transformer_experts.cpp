// A transformer's mixture of experts, op by op. See transformer.hpp. N tokens, D width, E experts, k of them for each token, whose rows are taken to be
// shared evenly. Source: transformers 4.57, models/{mixtral,qwen2_moe,deepseek_v2,deepseek_v3}/modeling_*.py.
#include <algorithm>
#include <array>

#include "passes/transformer.hpp"

namespace dryfit::eager {

std::int64_t rows_of_expert(const Architecture& a, std::int64_t tokens) { return std::max<std::int64_t>(1, tokens * a.moe->top_k / a.moe->experts); }

bool is_leaf_mixture(const Architecture& a) { return a.family == Family::mixtral || a.family == Family::qwen2_moe || a.family == Family::qwen3_moe; }

Tensor Transformer::into_mixture(const Block& b, const Tensor& x) {
  if (!modules_.before_leaf || !is_leaf_mixture(a_)) {
    into(&b.mixture, {}, {});
    return x;
  }
  std::vector<Tensor> all;
  for (const auto& [name, l] : b.linear) {
    if (!name.starts_with("router") && !name.starts_with("expert") && !name.starts_with("shared.")) continue;
    all.push_back(l.weight);
    if (l.lora) all.insert(all.end(), {l.lora->a, l.lora->b});
  }
  const Tensor given = stopped_ ? x : modules_.before_leaf(&b.mixture, all, x);
  inside_leaf_ = true;
  return given;
}

Tensor Transformer::mixture(const Block& b, const Tensor& given) {
  const Tensor x = into_mixture(b, given);
  const Tensor y = [&] {
    if (groups_) return grouped_mixture(b, x);
    switch (a_.moe->router) {
      case RouterKind::softmax_topk: return a_.family == Family::deepseek_v2 ? sorted_mixture(b, x) : routed(b, x);
      case RouterKind::softmax_group_topk: return sorted_mixture(b, x);
      case RouterKind::sigmoid_group_topk: return corrected_mixture(b, x);
      case RouterKind::topk_softmax: return stacked_mixture(b, x);
    }
    return x;
  }();
  inside_leaf_ = false;
  return out_of(&b.mixture, y);
}

// One expert on its rows.
Tensor Transformer::expert(const Block& b, std::int64_t index, const Tensor& x) {
  const Block::Mlp& own = b.expert[static_cast<std::size_t>(index)];
  into(&own.self, {}, {});
  return out_of(&own.self, gated(b, own, "expert." + std::to_string(index) + ".", x, {"expert.gate", "expert.up", "expert.act", "expert.product", "expert.down"}));
}

// MixtralSparseMoeBlock: routing, then expert by expert on the rows that chose it.
Tensor Transformer::routed(const Block& b, const Tensor& given) {
  const MixtureOfExperts& m = *a_.moe;
  const std::int64_t D = a_.width, E = m.experts, k = m.top_k;
  const Tensor x = t_.view(given, {N, D});
  const Tensor logits = project(b.linear.at("router"), x, "router");
  Tensor all = t_.softmax(logits, "router.probs", Dtype::fp32);
  Tensor selected;
  Tensor weights = best(all, dims({N, k}, true), selected);
  all.reset();
  if (m.normalize_top_k || a_.family == Family::mixtral) weights = t_.mul(weights, t_.mean_last(weights, "router.sum"), "router.weights");
  weights = t_.to(weights, x.dtype(), "router.weights");
  Tensor out = t_.empty("moe.out", dims({N, D}, true), x.dtype());
  const Tensor mask = t_.empty("router.mask", dims({N, k, E}, true), Dtype::int64);
  const std::int64_t rows = expert_rows();
  for (std::int64_t e = 0; e < E; ++e) {
    const Tensor top = t_.empty("moe.rows", dims({rows}, true), Dtype::int64), index = t_.empty("moe.index", dims({rows}, true), Dtype::int64);
    const Tensor state = t_.index(x, top, dims({rows, D}, true), "moe.x");
    const Tensor y = expert(b, e, state);
    const Tensor weighted = t_.mul(y, t_.index(weights, index, dims({rows, 1}, true), "moe.weight"), "moe.weighted");
    out = t_.index_add(out, top, weighted);
  }
  if (m.shared_ffn > 0) {
    Tensor shared = mlp(b, b.shared, "shared.", x);
    if (m.shared_gate) {
      const Tensor gate = t_.unary(project(b.linear.at("shared.router"), x, "shared.router"), Tape::Keep::result, "shared.router");
      shared = t_.mul(gate, shared, "shared.gated");
    }
    out = t_.add(out, shared, "moe.out");
  }
  return t_.view(out, {B, T, D});
}

// GptOssMLP: the scores of all experts, zero but for the chosen; they keep a name in the layer.
Tensor Transformer::stacked_mixture(const Block& b, const Tensor& x) {
  const Linear& router = b.linear.at("router");
  const Tensor scores = [&] {
    const Tensor given = into(&router, {router.weight, router.bias}, x);
    const Tensor logits = t_.linear(t_.view(given, {N, a_.width}), router.weight, "router", router.bias);
    Tensor selected;
    Tensor weights = best(logits, dims({N, a_.moe->top_k}, true), selected);
    weights = t_.softmax(weights, "router.weights", weights.dtype());
    const Tensor none = t_.empty("router.scores", logits.dims(), logits.dtype());
    return out_of(&router, t_.index_put(none, selected, weights));
  }();
  return stacked_experts(b, x, scores);
}

// GptOssExperts while training: expert by expert; an expert's weights are a slice of the layer's, whose gradient is as large as all.
Tensor Transformer::stacked_experts(const Block& b, const Tensor& x, const Tensor& scores) {
  const Linear &first = b.linear.at("experts.gate_up"), &second = b.linear.at("experts.down");
  const Tensor given = into(&b.experts, {first.weight, first.bias, second.weight, second.bias}, x);
  const std::int64_t D = a_.width, E = a_.moe->experts, F = a_.moe->expert_ffn, rows = expert_rows();
  const Tensor states = t_.view(given, {N, D});
  Tensor out = t_.empty("moe.out", dims({N, D}, true), x.dtype());
  const Tensor mask = t_.empty("router.mask", dims({N, a_.moe->top_k, E + 1}, true), Dtype::int64);
  const auto of = [&](const Tensor& all, std::int64_t in, std::int64_t to) {
    const Tensor one = t_.slice(all, 0, 1, true);
    return in == 0 ? t_.view(one, {to}) : t_.view(one, {in, to});
  };
  const auto product = [&](const Tensor& h, const Linear& l, std::int64_t in, std::int64_t to, const char* role) {
    const Tensor weight = of(l.weight, in, to);
    const Tensor y = t_.matmul(h, weight, role);
    return t_.add(y, of(l.bias, 0, to), role);
  };
  Tensor top, token, state, both, gate, up, glu, h, y, weighted;  // names that live on into the next expert
  for (std::int64_t e = 0; e < E; ++e) {
    Tensor other = t_.empty("moe.index", dims({rows}, true), Dtype::int64), chosen = t_.empty("moe.rows", dims({rows}, true), Dtype::int64);
    top = std::move(other), token = std::move(chosen);
    state = t_.index(states, token, dims({rows, D}, true), "moe.x");
    both = product(state, first, D, 2 * F, "expert.gate_up");
    gate = t_.slice(both, -1, F), up = t_.slice(both, -1, F);
    gate = t_.unary(gate, Tape::Keep::input, "expert.gate");
    up = t_.unary(up, Tape::Keep::input, "expert.up");
    glu = t_.mul(gate, t_.unary(t_.scale(gate, "expert.act"), Tape::Keep::result, "expert.act"), "expert.glu");
    h = t_.mul(t_.shift(up, "expert.up"), glu, "expert.product");
    y = product(h, second, F, D, "expert.down");
    weighted = t_.mul(y, t_.index(t_.slice(scores, 1, 1, true), token, dims({rows, 1}, true), "moe.weight"), "moe.weighted");
    out = t_.index_add(out, token, t_.to(weighted, x.dtype(), "moe.weighted"));
  }
  return out_of(&b.experts, t_.view(out, {B, T, D}));
}

// A router in fp32, of 16-bit weights too.
Tensor Transformer::router_logits(const Block& b, const Tensor& given) {
  const Linear& router = b.linear.at("router");
  const Tensor x = into(&router, {router.weight}, given);
  const Tensor wide = t_.to(x, Dtype::fp32, "router.x"), weight = t_.to(router.weight, Dtype::fp32, "router.w");
  return t_.linear(wide, weight, "router");
}

// topk: values, and indices that its gradient needs. dims: what is left of the last dimension.
Tensor Transformer::best(const Tensor& x, Dims d, Tensor& indices) {
  indices = t_.empty("router.selected", d, Dtype::int64);
  return t_.gather(x, indices, d, "router.weights");
}

// Scores with zeros outside the best groups of experts, for the choice alone.
Tensor Transformer::in_best_groups(const Tensor& scores, const Tensor& of_groups) {
  const MixtureOfExperts& m = *a_.moe;
  Tensor chosen;
  {
    const NoGrad inside(t_);
    best(of_groups, dims({N, m.top_groups}, true), chosen);
  }
  const Tensor marks = t_.empty("router.groups", of_groups.dims(), Dtype::fp32), mask = t_.empty("router.mask", scores.dims(), Dtype::fp32);
  const auto booleans = [&] { return t_.empty("router.outside", scores.dims(), Dtype::bool8); };
  Tensor outside = booleans();
  outside = booleans();  // ~
  return t_.masked(scores, outside, "router.masked");
}

// DeepSeek-V2's router: the best of all experts, or of the best groups.
Tensor Transformer::softmax_choice(const Block& b, Tensor logits, Tensor& selected) {
  const MixtureOfExperts& m = *a_.moe;
  const Tensor scores = t_.softmax(logits, "router.probs", Dtype::fp32);
  logits.reset();
  Tensor weights;
  if (m.router == RouterKind::softmax_topk) {
    weights = best(scores, dims({N, m.top_k}, true), selected);
  } else {
    Tensor most;
    const Tensor of_groups = best(t_.view(scores, {N, m.groups, m.experts / m.groups}), dims({N, m.groups}, true), most);
    weights = best(in_best_groups(scores, of_groups), dims({N, m.top_k}, true), selected);
  }
  return out_of(&b.linear.at("router"), t_.scale(weights, "router.weights"));
}

// DeepSeek-V3's: sigmoid scores, a corrected choice among the best groups.
Tensor Transformer::sigmoid_choice(const Block& b, Tensor logits, Tensor& selected) {
  const MixtureOfExperts& m = *a_.moe;
  const std::int64_t E = m.experts, k = m.top_k;
  const Tensor scores = t_.unary(logits, Tape::Keep::result, "router.probs");
  logits.reset();
  {
    const NoGrad inside(t_);
    const Tensor corrected = t_.empty("router.corrected", dims({N, E}, true), Dtype::fp32);
    Tensor two, most;
    const Tensor of_groups = t_.sum(best(t_.view(corrected, {N, m.groups, E / m.groups}), dims({N, m.groups, 2}, true), two), 2, "router.groups");
    two.reset();
    best(in_best_groups(corrected, of_groups), dims({N, k}, true), selected);
  }
  Tensor weights = t_.gather(scores, selected, dims({N, k}, true), "router.weights");
  if (m.normalize_top_k) {  // autocast sums in fp32; divided in place
    const Tensor terms = t_.autocast() ? t_.to(weights, Dtype::fp32, "router.sum") : weights;
    const Tensor total = t_.shift(t_.mean_last(terms, "router.sum"), "router.sum");
    weights = t_.to(t_.mul(weights, total, "router.weights"), weights.dtype(), "router.weights");
  }
  return out_of(&b.linear.at("router"), t_.scale(weights, "router.weights"));
}

// DeepseekV2MoE: rows sorted by expert, each expert's a slice of them; the results put back and weighted.
Tensor Transformer::sorted_mixture(const Block& b, const Tensor& given) {
  const MixtureOfExperts& m = *a_.moe;
  const std::int64_t D = a_.width, E = m.experts, k = m.top_k;
  const Tensor x = t_.view(given, {N, D});
  Tensor selected;
  const Tensor weights = softmax_choice(b, router_logits(b, x), selected);
  Tensor out;
  {
    const Tensor counts = t_.empty("moe.counts", dims({N, E}, true), Dtype::int64), each = t_.empty("moe.counts", dims({E}, false), Dtype::int64);
    const Tensor order = t_.empty("moe.order", dims({N * k}, true), Dtype::int64);
    const Tensor sorted = [&] {
      const Tensor tokens = t_.empty("moe.rows", dims({N * k}, true), Dtype::int64);
      return t_.index(x, tokens, dims({N * k, D}, true), "moe.x");
    }();
    std::vector<Tensor> parts;  // each a slice's, whose gradient is as large as all of them
    const std::int64_t rows = expert_rows();
    Tensor end;  // on the GPU
    for (std::int64_t e = 0; e < E; ++e) {
      end = t_.empty("moe.end", dims({}, false), Dtype::int64);
      parts.push_back(expert(b, e, t_.slice(sorted, 0, rows)));
    }
    Tensor outs = t_.cat(parts, 0, "moe.joined");
    Tensor unsorted = t_.empty("moe.unsorted", outs.dims(), outs.dtype());
    unsorted = t_.index_put(unsorted, order, outs);
    Tensor wide = t_.to(t_.view(unsorted, {N, k, D}), weights.dtype(), "moe.wide");
    // mul_: in place, after a copy of what was there where autograd wants it; the newer checkpoints have it wanted in their first pass too
    const bool copied = t_.grad_enabled() || !r_.reentrant;
    Tensor weighted = copied ? t_.mul(wide, t_.view(weights, {N, k, 1}), "moe.weighted") : std::move(wide);
    wide.reset();
    out = t_.sum(weighted, 1, "moe.out");
    weighted.reset();  // one expression, none of whose parts has a name
    out = t_.to(out, x.dtype(), "moe.out");
  }
  return t_.add(t_.view(out, {B, T, D}), mlp(b, b.shared, "shared.", given), "moe.out");
}

// DeepseekV3MoE: results added in fp32.
Tensor Transformer::corrected_mixture(const Block& b, const Tensor& given) {
  const MixtureOfExperts& m = *a_.moe;
  const std::int64_t D = a_.width, E = m.experts, k = m.top_k;
  const Tensor x = t_.view(given, {N, D});
  Tensor selected;
  const Tensor weights = sigmoid_choice(b, router_logits(b, x), selected);
  const Tensor out = [&] {
    Tensor sum = t_.empty("moe.out", dims({N, D}, true), weights.dtype());
    const Tensor mask = t_.empty("router.mask", dims({N, k, E}, true), Dtype::int64);
    const std::int64_t rows = expert_rows();
    for (std::int64_t e = 0; e < E; ++e) {
      const Tensor tokens = t_.empty("moe.rows", dims({rows}, true), Dtype::int64), index = t_.empty("moe.index", dims({rows}, true), Dtype::int64);
      const Tensor share = t_.index(weights, index, dims({rows}, true), "moe.weight");
      const Tensor y = expert(b, e, t_.index(x, tokens, dims({rows, D}, true), "moe.x"));
      sum = t_.index_add(sum, tokens, t_.mul(y, t_.view(share, {rows, 1}), "moe.weighted"));
    }
    return t_.to(sum, x.dtype(), "moe.out");
  }();
  return t_.add(t_.view(out, {B, T, D}), mlp(b, b.shared, "shared.", given), "moe.out");
}

}  // namespace dryfit::eager
