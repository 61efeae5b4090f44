// A mixture of experts as Megatron-LM's MoELayer runs it, op by op. See megatron.hpp. Which rows go where is decided while the run goes; every expert is taken
// to get the same number of them.
// Source: Megatron-LM megatron/core/transformer/moe/{moe_layer,router,token_dispatcher,experts,shared_experts,moe_utils}.py (2026-08), TransformerEngine
// transformer_engine/pytorch/{module/{linear,grouped_linear},permutation,router}.py.
// Symbols: n tokens of this rank, E experts, k of them a token, EP, ETP; G = EP*ETP ranks that share a layer's experts, e = E/EP experts of this rank.
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "passes/megatron.hpp"

namespace dryfit::eager {

std::int64_t MegatronChunk::tokens() const { return rank_rows() * r_.device_batch_size; }

// Rows that this rank sends to experts: k of each token, or what the experts' capacity lets in.
std::int64_t MegatronChunk::sent_rows() const {
  const MixtureOfExperts& moe = *a_.moe;
  const std::int64_t all = tokens() * moe.top_k;
  if (!moe.capacity_factor) return all;
  const auto capacity = static_cast<std::int64_t>(std::ceil(static_cast<double>(all) / static_cast<double>(moe.experts) * *moe.capacity_factor));
  return m_.experts.pad_to_capacity ? capacity * moe.experts : std::min(all, capacity * moe.experts);
}

Tensor MegatronChunk::table(const char* role, std::int64_t rows, std::int64_t width, Dtype d) { return t_.empty(role, dims({rows, width}, true), d); }
Tensor MegatronChunk::list(const char* role, std::int64_t n, Dtype d) { return t_.empty(role, dims({n}, true), d); }

// MoELayer registers the router, the experts of this rank, the shared ones.
MegatronChunk::Experts MegatronChunk::make_experts(int layer) {
  const MixtureOfExperts& moe = *a_.moe;
  const std::int64_t D = a_.width, F = moe.expert_ffn / m_.experts.tensor, shared = moe.shared_ffn / m_.tensor, gates = a_.gated_mlp ? 2 : 1, count = moe.experts / m_.experts.parallel;
  Experts out;
  out.router = weight("router", layer, {moe.experts, D});
  if (a_.mlp_bias) out.router_bias = weight("router", layer, {moe.experts});
  const bool apart = m_.experts.own_replicas(m_);
  const auto linear = [&](const char* role, std::int64_t wide, std::int64_t in, bool expert) {
    const std::size_t before = weights_.size();
    Linear made = make_linear(role, layer, wide, in, a_.mlp_bias);
    for (std::size_t i = before; i < weights_.size(); ++i) weights_[i].expert = expert;
    return made;
  };
  out.up.resize(static_cast<std::size_t>(count)), out.down.resize(static_cast<std::size_t>(count));
  if (m_.experts.grouped) {
    for (Linear& l : out.up) l = linear("experts.up", gates * F, D, apart);
    for (Linear& l : out.down) l = linear("experts.down", D, F, apart);
  } else {
    for (std::size_t i = 0; i < out.up.size(); ++i) {
      out.up[i] = linear("experts.up", gates * F, D, apart);
      out.down[i] = linear("experts.down", D, F, apart);
    }
  }
  if (moe.shared_ffn == 0) return out;
  if (moe.shared_gate) out.shared_gate = weight("shared.gate", layer, {1, D});
  out.shared_up = linear("shared.up", gates * shared, D, false);
  out.shared_down = linear("shared.down", D, shared, false);
  return out;
}

// -- the router: which experts a token goes to, and the weights of their results, [n, E] both

// RouterGatingLinearFunction: what went in is kept as it is; a router of more bits is one of copies.
Tensor MegatronChunk::router_logits(const Experts& e, const Tensor& x) {
  const Dtype wide = m_.experts.router_dtype.value_or(dtype());
  const Tensor out = table("router", tokens(), a_.moe->experts, wide);
  return t_.function(out, std::array{x, e.router, e.router_bias}, std::array{x}, "router", [this, e, wide](const Tensor&, std::vector<Tensor>& saved) {
    const bool casts = wide != dtype();
    const Dims of_x = contiguous(saved[0].dims()), of_w = e.router.dims();
    Gradients made(3);
    {
      Tensor weight;
      if (casts) weight = t_.empty("router", of_w, wide);
      made[0] = t_.empty("router", of_x, wide);
    }
    {
      Tensor input;
      if (casts) input = t_.empty("router", of_x, wide);
      made[1] = t_.empty("router", of_w, wide);
    }
    if (casts) made[0] = t_.empty("router", of_x, dtype());
    if (casts) made[1] = t_.empty("router", of_w, dtype());
    if (e.router_bias.defined()) made[2] = t_.empty("router", e.router_bias.dims(), dtype());
    return made;
  });
}

// Marks of what was chosen: zeros, the same with ones scattered into them, booleans.
Tensor MegatronChunk::routing_map() {
  const std::int64_t n = tokens(), E = a_.moe->experts;
  const Tensor marked = [&] {
    const Tensor zeros = table("router.map", n, E, Dtype::int32);
    return table("router.map", n, E, Dtype::int32);
  }();
  return table("router.map", n, E, Dtype::bool8);
}

// sinkhorn_load_balancing: the choice from normalised logits, the weights from the logits themselves.
MegatronChunk::Routing MegatronChunk::sinkhorn(const Tensor& logits) {
  const std::int64_t n = tokens(), E = a_.moe->experts, k = a_.moe->top_k;
  Tensor scores, map;
  {
    Tensor normal;
    {
      const Tensor cost = table("router.sinkhorn", n, E, Dtype::fp32), columns = table("router.sinkhorn", n, E, Dtype::fp32);
      normal = table("router.sinkhorn", n, E, Dtype::fp32);
    }
    const Tensor best = table("router.selected", n, k, Dtype::fp32), chosen = table("router.selected", n, k, Dtype::int64);
    scores = k == 1 ? t_.unary(logits, Tape::Keep::result, "router.probs") : t_.to(t_.softmax(logits, "router.probs", Dtype::fp32), logits.dtype(), "router.probs");
    map = routing_map();
  }
  const Tensor out = table("router.probs", n, E, logits.dtype());
  return {t_.function(out, std::array{scores}, std::array{map}, "router.probs", [this](const Tensor& g, std::vector<Tensor>&) { return Gradients{t_.empty("router.probs", contiguous(g.dims()), g.dtype())}; }), map};
}

// topk_routing_with_score_function. Weights stand where they were chosen, among zeros.
MegatronChunk::Routing MegatronChunk::top_k(const Tensor& logits) {
  const std::int64_t n = tokens(), E = a_.moe->experts, k = a_.moe->top_k;
  const MegatronExperts& how = m_.experts;
  if (how.router_fusion) {
    const Tensor out = table("router.probs", n, E, logits.dtype()), map = table("router.map", n, E, Dtype::bool8), between = table("router.probs", n, E, Dtype::fp32);
    return {t_.function(out, std::array{logits}, std::array{map, between}, "router.probs", [this](const Tensor& g, std::vector<Tensor>&) { return Gradients{t_.empty("router.probs", contiguous(g.dims()), g.dtype())}; }), map};
  }
  Tensor chosen, picked;
  const auto best = [&](const Tensor& of) {
    chosen = table("router.selected", n, k, Dtype::int64);
    return t_.gather(of, chosen, dims({n, k}, true), "router.weights");
  };
  if (how.score == MegatronScore::softmax) {
    picked = how.softmax_first ? best(t_.softmax(logits, "router.probs", Dtype::fp32)) : t_.softmax(best(logits), "router.weights", Dtype::fp32);
  } else {
    const Tensor scores = t_.unary(t_.to(logits, Dtype::fp32, "router"), Tape::Keep::result, "router.probs");
    {
      Tensor corrected;
      if (how.expert_bias) corrected = table("router.corrected", n, E, Dtype::fp32);
      picked = best(scores);
    }
    if (k > 1) picked = t_.mul(picked, t_.shift(t_.mean_last(picked, "router.sum"), "router.sum"), "router.weights");
  }
  if (how.scaled) picked = t_.scale(picked, "router.weights");
  picked = t_.to(picked, logits.dtype(), "router.weights");
  const Tensor out = [&] {
    Tensor zeros;
    if (!m_.deterministic) zeros = table("router.probs", n, E, logits.dtype());
    return table("router.probs", n, E, logits.dtype());
  }();
  const Tensor probs = t_.function(out, std::array{picked}, std::array{chosen}, "router.probs", [this, of = contiguous(picked.dims())](const Tensor& g, std::vector<Tensor>&) { return Gradients{t_.empty("router.weights", of, g.dtype())}; });
  return {probs, routing_map()};
}

// A balancing loss is made of scores of its own, whose graph hangs on the weights; its gradient is one number an expert.
Tensor MegatronChunk::with_balancing_loss(const Tensor& probs, const Tensor& logits) {
  if (m_.experts.balancing_losses == 0) return probs;
  const std::int64_t E = a_.moe->experts;
  Tensor scores;
  if (m_.experts.router_fusion) {
    const Tensor out = table("router.scores", tokens(), E, Dtype::fp32), between = table("router.scores", tokens(), E, Dtype::fp32);
    scores = t_.function(out, std::array{logits}, std::array{between}, "router.scores", [this, d = logits.dtype()](const Tensor& g, std::vector<Tensor>&) { return Gradients{t_.empty("router.scores", contiguous(g.dims()), d)}; });
  } else if (m_.experts.score == MegatronScore::softmax) {
    scores = t_.softmax(logits, "router.scores", Dtype::fp32);
  } else {
    scores = t_.unary(t_.to(logits, Dtype::fp32, "router"), Tape::Keep::result, "router.scores");
    scores = t_.mul(scores, t_.shift(t_.mean_last(scores, "router.sum"), "router.sum"), "router.scores");
  }
  const Tensor map = routing_map();
  Tensor out = probs;
  for (int i = 0; i < m_.experts.balancing_losses; ++i) {
    out = t_.function(out, std::array{out, scores}, {}, "router.loss", [this, of = scores.dims(), E](const Tensor& g, std::vector<Tensor>&) {
      return Gradients{g, t_.expand(t_.empty("router.loss", dims({1, E}, false), Dtype::fp32), of)};
    });
  }
  return out;
}

MegatronChunk::Routing MegatronChunk::route(const Experts& e, const Tensor& x) {
  const MegatronExperts& how = m_.experts;
  Tensor given = x;
  if (how.jitter) given = t_.mul(x, t_.empty("router.jitter", contiguous(x.dims()), dtype()), "router.jitter");
  Tensor logits = router_logits(e, given);
  if (how.z_loss) {
    logits = t_.function(logits, std::array{logits}, std::array{logits}, "router.loss", [this](const Tensor& g, std::vector<Tensor>&) {
      const Tensor of_loss = t_.empty("router.loss", contiguous(g.dims()), g.dtype());
      return Gradients{t_.empty("router.loss", contiguous(g.dims()), g.dtype())};
    });
  }
  Routing out = how.sinkhorn ? sinkhorn(logits) : top_k(logits);
  if (a_.moe->capacity_factor) {
    const Tensor map = table("router.map", tokens(), a_.moe->experts, Dtype::bool8);
    const Tensor kept = table("router.probs", tokens(), a_.moe->experts, out.probs.dtype());
    out = {t_.function(kept, std::array{out.probs}, std::array{map}, "router.probs", [this](const Tensor& g, std::vector<Tensor>&) { return Gradients{t_.empty("router.probs", contiguous(g.dims()), g.dtype())}; }), map};
  }
  out.probs = with_balancing_loss(out.probs, logits);
  return out;
}

// -- rows to experts and back

// permute: the rows [from] of each expert one after the other, [to]. TransformerEngine's kernel keeps a map of its own.
Tensor MegatronChunk::to_experts(const Tensor& x, const Tensor& order, std::int64_t to) {
  const std::int64_t D = a_.width;
  return t_.function(table("experts.x", to, D, dtype()), std::array{x}, std::array{order}, "experts.x", [this, of = contiguous(x.dims())](const Tensor& g, std::vector<Tensor>&) {
    Tensor dx = t_.empty("experts.x", of, dtype());
    add_rows(g);
    return Gradients{dx};
  });
}

// index_add_ into zeros: its deterministic kernel multiplies the rows by 1 first.
void MegatronChunk::add_rows(const Tensor& rows) {
  if (m_.deterministic && !m_.experts.permute_fusion) t_.empty("experts.rows", contiguous(rows.dims()), rows.dtype());
}

// unpermute: zeros, and the rows added where they came from. index_add_, which is what adds in deterministic runs, keeps them, too.
Tensor MegatronChunk::from_experts(const Tensor& x, const Tensor& order, std::int64_t to) {
  const bool adds = m_.deterministic && !m_.experts.permute_fusion;
  Tensor out = table("experts.out", to, a_.width, dtype()), kept;
  if (adds) out = table("experts.out", to, a_.width, dtype());  // made twice
  if (adds) kept = x;
  add_rows(x);
  return t_.function(out, std::array{x}, std::array{order, kept}, "experts.out", [this, of = contiguous(x.dims())](const Tensor&, std::vector<Tensor>&) { return Gradients{t_.empty("experts.out", of, dtype())}; });
}

// A collective that makes [to] rows of x, whose gradient is as many as x has. Nothing among one rank alone.
Tensor MegatronChunk::exchanged(const Tensor& x, std::int64_t to, std::int64_t ranks, const char* role) {
  if (ranks == 1) return x;
  Dims d = contiguous(x.dims());
  d.size[0] = to;
  return t_.function(t_.empty(role, contiguous(d), x.dtype()), std::array{x}, {}, role, [this, role, of = contiguous(x.dims())](const Tensor& g, std::vector<Tensor>&) {
    const Tensor laid = t_.contiguous(g, role);
    return Gradients{t_.empty(role, of, laid.dtype())};
  });
}

// sort_chunks_by_idxs: what the ranks sent, by expert instead of by rank.
Tensor MegatronChunk::sorted(const Tensor& x, const char* role) {
  if (a_.moe->experts == m_.experts.parallel) return x;
  return t_.function(t_.empty(role, contiguous(x.dims()), x.dtype()), std::array{x}, {}, role, [this, role](const Tensor& g, std::vector<Tensor>&) { return Gradients{t_.empty(role, contiguous(g.dims()), g.dtype())}; });
}

// MoEAllGatherTokenDispatcher: all ranks' tokens on each, in the global buffer, and of them the rows of the experts here. `held` is what its attributes name.
Tensor MegatronChunk::gathered_mixture(const Experts& e, const Tensor& x, Routing r, std::vector<Tensor>& held) {
  const std::int64_t n = tokens(), D = a_.width, ranks = m_.experts.parallel * m_.experts.tensor, all = n * ranks, here = a_.moe->experts / m_.experts.parallel, rows = sent_rows() * m_.experts.tensor;
  const Dtype of_probs = r.probs.dtype();
  Tensor everyones = x, map = r.map, probs = r.probs;
  if (ranks > 1) {
    map = table("router.map", all, a_.moe->experts, Dtype::bool8);
    probs = exchanged(probs, all, ranks, "router.probs");
    global_buffer(all * D);
    const auto in_buffer = [this](std::int64_t count, std::int64_t width) { return t_.view(t_.slice(shared_.global, 0, count * width, true), {count, width}); };
    everyones = t_.function(in_buffer(all, D), std::array{x}, {}, "experts.gathered", [this, in_buffer, n, all, D](const Tensor&, std::vector<Tensor>&) {
      global_buffer(all * D);
      return Gradients{in_buffer(n, D)};
    });
  }
  r = {};
  Tensor out;
  {
    const Tensor local_map = table("experts.map", all, here, Dtype::bool8);
    Tensor weights = t_.contiguous(t_.slice(probs, 1, here), "experts.weights");
    const Tensor order = list("experts.order", rows, Dtype::int64);
    const Tensor mine = to_experts(everyones, order, rows);
    {
      const Tensor turned = t_.contiguous(t_.transpose(weights, 0, 1), "experts.weights"), turned_map = table("experts.map", here, all, Dtype::bool8);
      weights = t_.function(list("experts.weights", rows, of_probs), std::array{turned}, std::array{turned_map}, "experts.weights", [this, of = contiguous(turned.dims())](const Tensor& g, std::vector<Tensor>&) { return Gradients{t_.empty("experts.weights", of, g.dtype())}; });
    }
    held = {local_map, order, weights};
    out = from_experts(run_experts(e, mine, weights), order, all);
  }
  if (ranks == 1) return out;
  const Tensor summed = exchanged(t_.to(out, of_probs, "experts.out"), n, ranks, "experts.out");
  return t_.to(summed, dtype(), "experts.out");
}

// MoEAlltoAllTokenDispatcher: each rank sends its rows to the experts' ranks and gets their results. What went out and came in is named to the end.
Tensor MegatronChunk::exchanged_mixture(const Experts& e, const Tensor& x, Routing r, std::vector<Tensor>& held, const std::function<void(int)>& beside) {
  const std::int64_t n = tokens(), E = a_.moe->experts, P = m_.experts.parallel, S = m_.experts.tensor, sent = sent_rows();
  const Dtype of_probs = r.probs.dtype();
  const bool fused = m_.experts.permute_fusion, padded = m_.experts.pad_to_capacity;
  beside(0);
  const Tensor order = fused ? table("experts.order", n, 2 * E + 1, Dtype::int32) : list("experts.order", sent, Dtype::int64);
  Tensor weights;
  {
    // the rows of each expert first: an index of all pairs is sorted, and what is chosen stays a part of it
    const Tensor index = fused ? order : list("experts.index", padded ? sent : E * n, Dtype::int64);
    const Tensor turned = fused ? r.probs : t_.contiguous(t_.transpose(r.probs, 0, 1), "experts.weights");
    weights = t_.function(list("experts.weights", sent, of_probs), std::array{turned}, std::array{index}, "experts.weights", [this, of = contiguous(turned.dims())](const Tensor& g, std::vector<Tensor>&) { return Gradients{t_.empty("experts.weights", of, g.dtype())}; });
  }
  held = {r.probs, r.map, order};
  const Tensor outgoing = to_experts(x, order, sent), incoming = exchanged(outgoing, sent, P, "experts.received");
  beside(1);
  weights = exchanged(weights, sent, P, "experts.weights");
  Tensor out;
  {
    Tensor mine = exchanged(incoming, sent * S, S, "experts.gathered");
    weights = exchanged(weights, sent * S, S, "experts.weights");
    mine = sorted(mine, "experts.sorted");
    weights = sorted(weights, "experts.weights");
    out = run_experts(e, mine, weights);
  }
  out = sorted(out, "experts.sorted");
  if (S > 1) out = t_.to(exchanged(t_.to(out, of_probs, "experts.out"), sent, S, "experts.out"), dtype(), "experts.out");
  out = exchanged(out, sent, P, "experts.received");
  beside(2);
  return from_experts(out, order, n);
}

// -- experts

// The products of experts over the rows of each, which stand one after the other. No rank's part of a sequence is asked for: dispatchers did.
Tensor MegatronChunk::expert_product(const Tensor& x, std::span<const Linear> experts, const char* role) {
  const Dims of_x = contiguous(x.dims());
  const std::int64_t rows = of_x.size[0], wide = experts[0].weight.dims().size[0];
  const bool te = m_.transformer_engine;
  std::vector<Tensor> inputs{x};
  for (const Linear& l : experts) inputs.push_back(l.weight);
  if (!te) product_workspace();
  const Tensor out = table(role, rows, wide, dtype());
  return t_.function(out, inputs, std::array{x}, role, [this, of_x, role, te, weights = std::vector<Tensor>(inputs.begin() + 1, inputs.end())](const Tensor& given, std::vector<Tensor>&) {
    if (!te) product_workspace();
    const Tensor g = t_.contiguous(given, role);
    Gradients made{t_.empty(role, of_x, dtype())};
    for (const Tensor& w : weights) made.push_back(weight_gradient(w, role));
    return made;
  });
}

// The activation, times the weight of each row.
Tensor MegatronChunk::weighed(const Tensor& given, const Tensor& bias, const Tensor& weights) {
  const std::int64_t rows = given.dims().size[0], F = a_.moe->expert_ffn / m_.experts.tensor;
  if (m_.bias_activation_fusion && a_.gated_mlp) {
    return t_.function(table("experts.act", rows, F, dtype()), std::array{given, weights}, std::array{given, weights}, "experts.act", [this](const Tensor&, std::vector<Tensor>& saved) {
      return Gradients{t_.empty("experts.act", contiguous(saved[0].dims()), dtype()), t_.empty("experts.weights", contiguous(saved[1].dims()), saved[1].dtype())};
    });
  }
  const Tensor x = bias.defined() ? t_.add(given, t_.view(bias, {1, bias.dims().size[0]}), "experts.up") : given;
  const Tensor active = unfused(x, F, "experts.act", "experts.product");
  return t_.to(t_.mul(active, t_.view(weights, {rows, 1}), "experts.weighed"), dtype(), "experts.weighed");
}

// Activation and second product. --recompute-modules moe_act: what lies between them goes, and is made again when the second one's gradient comes
// (CheckpointWithoutOutput); its graph then waits for the gradient of the activation.
Tensor MegatronChunk::down(const Tensor& up, const Tensor& bias, const Tensor& weights, std::span<const Linear> experts) {
  if (!m_.experts.recompute_activation) return expert_product(weighed(up, bias, weights), experts, "experts.down");
  struct Again { Tensor up, weights, active; };
  const auto again = std::make_shared<Again>();
  Tensor active;
  {
    const NoGrad none(t_);
    active = weighed(up, bias, weights);
  }
  active = t_.function(active, std::array{up, weights}, std::array{up, weights}, "experts.act", [this, again](const Tensor& g, std::vector<Tensor>&) {
    t_.backward(again->active, g);
    Gradients made{t_.gradient(again->up), t_.gradient(again->weights)};
    t_.zero_grad(again->up);
    t_.zero_grad(again->weights);
    *again = {};
    return made;
  });
  if (!m_.transformer_engine) product_workspace();
  std::vector<Tensor> inputs{active};
  for (const Linear& l : experts) inputs.push_back(l.weight);
  const Tensor out = table("experts.down", active.dims().size[0], a_.width, dtype());
  return t_.function(out, inputs, std::array{up, weights}, "experts.down", [this, again, bias, of = std::vector<Tensor>(inputs.begin() + 1, inputs.end())](const Tensor& given, std::vector<Tensor>& saved) {
    again->up = t_.leaf(saved[0]), again->weights = t_.leaf(saved[1]);
    t_.grad_enabled(true);
    again->active = weighed(again->up, bias, again->weights);
    t_.grad_enabled(false);
    if (!m_.transformer_engine) product_workspace();
    const Tensor g = t_.contiguous(given, "experts.down");
    Gradients made{t_.empty("experts.down", contiguous(again->active.dims()), dtype())};
    for (const Tensor& w : of) made.push_back(weight_gradient(w, "experts.down"));
    return made;
  });
}

// TEGroupedMLP, or SequentialMLP: expert by expert, a slice each, the results joined.
Tensor MegatronChunk::run_experts(const Experts& e, const Tensor& x, const Tensor& weights) {
  if (m_.experts.grouped) {
    grouped_workspaces();
    return down(expert_product(x, e.up, "experts.up"), {}, weights, e.down);
  }
  const auto one = [&](std::size_t i, const Tensor& rows, const Tensor& share) {
    const Tensor out = down(expert_product(rows, std::span(&e.up[i], 1), "experts.up"), e.up[i].bias, share, std::span(&e.down[i], 1));
    if (!e.down[i].bias.defined()) return out;
    const std::int64_t n = rows.dims().size[0];
    const Tensor bias = t_.view(e.down[i].bias, {1, a_.width}), column = t_.view(share, {n, 1});
    const Tensor shifted = t_.mul(bias, column, "experts.bias");
    return t_.add_in_place(out, t_.to(shifted, dtype(), "experts.bias"));
  };
  const auto count = static_cast<std::int64_t>(e.up.size());
  if (count == 1) return one(0, x, weights);
  std::vector<std::int64_t> lengths(e.up.size(), x.dims().size[0] / count);
  lengths.back() += x.dims().size[0] % count;
  const std::vector<Tensor> parts = t_.split(x, 0, lengths), shares = t_.split(weights, 0, lengths);
  std::vector<Tensor> outs;
  for (std::size_t i = 0; i < parts.size(); ++i) outs.push_back(one(i, parts[i], shares[i]));
  return t_.cat(outs, 0, "experts.joined");
}

// TransformerEngine's grouped product runs on four streams, each with a workspace.
void MegatronChunk::grouped_workspaces() {
  if (!shared_.grouped_workspaces.empty()) return;
  for (int i = 0; i < 4; ++i) shared_.grouped_workspaces.push_back(t_.buffer("te_workspace", shared_.te_workspace, Dtype::uint8, Category::workspace));
}

// SharedExpertMLP. Overlapped with the dispatcher, what it gathers is an input like any other, and is kept.
Tensor MegatronChunk::shared_up(const Experts& e, const Tensor& x) {
  Tensor up;
  if (m_.experts.shared_overlap) {
    Tensor whole = x;
    if (sequence_parallel()) whole = t_.function(rows(full_rows(), a_.width, dtype(), "shared.x"), std::array{x}, {}, "shared.x", [this](const Tensor&, std::vector<Tensor>&) { return Gradients{rows(rank_rows(), a_.width, dtype(), "shared.x")}; });
    up = expert_product(t_.view(whole, {full_rows() * r_.device_batch_size, a_.width}), std::span(&e.shared_up, 1), "shared.up");
    up = t_.view(up, {full_rows(), r_.device_batch_size, up.dims().back()});
  } else if (m_.transformer_engine) {
    up = gathering_linear(x, e.shared_up, "shared.up");
  } else {
    up = own_linear(x, e.shared_up.weight, {}, true, "shared.up");
  }
  return activate(up, {}, a_.moe->shared_ffn / m_.tensor);
}

Tensor MegatronChunk::shared_down(const Experts& e, const Tensor& active, const Tensor& x) {
  const Tensor out = row(active, e.shared_down, "shared.down");
  if (!e.shared_gate.defined()) return out;
  const Tensor gate = t_.unary(t_.linear(x, e.shared_gate, "shared.gate"), Tape::Keep::result, "shared.gate");
  return t_.mul(out, gate, "shared.gated");
}

Tensor MegatronChunk::gathering_linear(const Tensor& x, const Linear& w, const char* role) {
  const std::int64_t width = x.dims().back();
  Tensor out;
  {
    Tensor whole;
    if (sequence_parallel()) whole = rows(full_rows(), width, dtype(), role);
    out = rows(full_rows(), w.weight.dims().size[0], dtype(), role);
  }
  return t_.function(out, std::array{x, w.weight}, std::array{x}, role, [this, w, role, width](const Tensor& given, std::vector<Tensor>& saved) {
    const Tensor g = t_.contiguous(given, role);
    Tensor whole;
    if (sequence_parallel()) whole = rows(full_rows(), width, dtype(), role);
    Tensor dx = rows(full_rows(), width, dtype(), role);
    Gradients made(2);
    if (sequence_parallel()) made[0] = rows(rank_rows(), width, dtype(), role);
    made[1] = weight_gradient(w.weight, role);
    saved[0].reset();
    if (!sequence_parallel()) made[0] = dx;
    return made;
  });
}

// MoELayer.forward.
Tensor MegatronChunk::mixture(std::size_t i, const Tensor& given) {
  const Experts& e = *layers_[i].experts;
  const std::int64_t n = tokens(), D = a_.width;
  const bool overlap = m_.experts.shared_overlap, has_shared = a_.moe->shared_ffn > 0;
  Tensor shared, active;
  if (has_shared && !overlap) {
    const auto run = [this, i](const Tensor& in) { return shared_down(*layers_[i].experts, shared_up(*layers_[i].experts, in), in); };
    shared = m_.experts.recompute_shared ? t_.checkpoint(run, given, true) : run(given);
  }
  Routing r = route(e, given);
  const Tensor x = t_.view(given, {n, D});
  Tensor out;
  if (m_.experts.dispatcher == MegatronDispatcher::allgather) {
    out = gathered_mixture(e, x, std::move(r), held_[i]);
  } else {
    out = exchanged_mixture(e, x, std::move(r), held_[i], [&](int moment) {
      if (!has_shared || !overlap) return;
      if (moment == 1) active = shared_up(e, given);
      if (moment == 2) {
        shared = shared_down(e, active, given);
        active.reset();
      }
    });
  }
  out = t_.view(out, given.dims());
  if (!shared.defined()) return out;
  return overlap ? t_.add_in_place(out, shared) : t_.add(out, shared, "experts.out");
}

}  // namespace dryfit::eager
