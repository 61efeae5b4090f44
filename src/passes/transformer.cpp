// Blocks and head of a transformer, op by op. See transformer.hpp. B batch, T length, N = B*T, D width, H heads, K KV heads, h head size.
#include "passes/transformer.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace dryfit::eager {

// A nested call keeps its temporaries to the end of the expression in C++ and only until the inner call returns in Python: no expression here
// nests deeper than two.

// LlamaRMSNorm, Gemma's, nn.LayerNorm and OLMo's without weights.
Tensor Transformer::norm(const Tensor& x, const std::pair<Tensor, Tensor>& w, const char* role) {
  if (!modules_.before) return normed(x, w, role);
  const Tensor given = into(&w, {w.first, w.second}, x);
  return out_of(&w, normed(given, w, role));
}

Tensor Transformer::normed(const Tensor& x, const std::pair<Tensor, Tensor>& w, const char* role) {
  if (a_.norm == NormKind::layer_norm) return t_.layer_norm(x, w.first, w.second, role);
  if (a_.norm == NormKind::non_parametric) return t_.to(t_.layer_norm(t_.to(x, Dtype::fp32, role), Tensor(), Tensor(), role), x.dtype(), role);
  const bool gemma = a_.norm == NormKind::rms_norm_plus_one;
  Tensor h = t_.to(x, Dtype::fp32, role);
  const Tensor variance = t_.mean_last(t_.power(h, role), role);
  const Tensor inverse = t_.rsqrt(t_.shift(variance, role), role);
  h = t_.mul(h, inverse, role);
  if (a_.family == Family::olmo2) return t_.to(t_.mul(w.first, h, role), x.dtype(), role);
  if (!gemma) return t_.mul(w.first, t_.to(h, x.dtype(), role), role);
  const Tensor gain = t_.shift(t_.to(w.first, Dtype::fp32, role), role);
  h = t_.mul(h, gain, role);
  return t_.to(h, x.dtype(), role);
}

// x * cos + rotate_half(x) * sin, each temporary gone as soon as Python's expression lets it.
Tensor Transformer::rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, const char* role) {
  const std::int64_t h = x.dims().back(), R = cos.dims().back();
  const auto turned = [&](const Tensor& part) {
    const Tensor straight = t_.mul(part, cos, role);
    const std::int64_t half = R / 2;
    const Tensor first = t_.slice(part, -1, half), second = t_.slice(part, -1, half);
    Tensor crossed = t_.cat(std::array{t_.scale(second, role), first}, -1, role);
    crossed = t_.mul(crossed, sin, role);
    return t_.add(straight, crossed, role);
  };
  const bool joins = a_.family == Family::phi || a_.family == Family::phi3 || a_.family == Family::gpt_neox;  // the code cuts and joins whatever is left
  if (R == h) return joins ? t_.cat(std::array{turned(x)}, -1, role) : turned(x);
  // partial rotation: the rest of the head passes through
  const Tensor rotated = t_.slice(x, -1, R), rest = t_.slice(x, -1, h - R);
  return t_.cat(std::array{turned(rotated), rest}, -1, role);
}

// LlamaRotaryEmbedding.forward: outer product, cat, cos and sin, cast to the stream's dtype (OLMo 1 and 2: not, and heads come back from fp32); no gradients.
std::pair<Tensor, Tensor> Transformer::rotary_tables(Dtype like) {
  const bool before = t_.grad_enabled();
  t_.grad_enabled(false);
  const std::int64_t R = a_.rotary_dims;
  std::pair<Tensor, Tensor> out;
  {
    const char* role = "rotary";
    const Tensor inverse = t_.empty(role, dims({1, R / 2, 1}, false), Dtype::fp32), positions = t_.empty(role, dims({1, 1, T}, false), Dtype::fp32);
    const Tensor product = t_.empty(role, dims({1, R / 2, T}, false), Dtype::fp32);
    const Tensor both = t_.empty(role, dims({1, T, R}, false), Dtype::fp32);
    const auto table = [&](const char* name) {
      const Tensor raw = t_.empty(name, both.dims(), Dtype::fp32);
      return t_.scale(raw, name);
    };
    const Tensor cos = table("rotary.cos"), sin = table("rotary.sin");
    if (fp32_rotary()) out = {cos, sin};
    else out = {t_.to(cos, like, "rotary.cos"), t_.to(sin, like, "rotary.sin")};  // in this order: braces are gone through from the left
  }
  t_.grad_enabled(before);
  return out;
}

Tensor Transformer::repeat_kv(const Tensor& x, const char* role) {
  const Dims d = x.dims();
  const std::int64_t times = a_.heads / d.size[1];
  if (times == 1) return x;
  const Tensor five = t_.view(x, {d.size[0], d.size[1], 1, d.size[2], d.size[3]});
  const Tensor wide = t_.expand(five, dims({d.size[0], d.size[1], times, d.size[2], d.size[3]}, d.batched));
  return t_.reshape(wide, dims({d.size[0], a_.heads, d.size[2], d.size[3]}, d.batched), role);
}

// attention_interface: q, k, v [B, H or K, T, h] to [B, T, H, h].
Tensor Transformer::run_attention(std::int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v) {
  const double p = r_.dropout ? a_.attention_dropout : 0;
  if (!o_.eager_attention) {
    const std::int64_t window = a_.windows.empty() ? 0 : a_.windows[static_cast<std::size_t>(layer)];
    const bool masked = r_.padded || (window > 0 && window < T);  // the kernel takes a mask instead of is_causal
    const Tensor key = masked ? repeat_kv(k, "attn.k_repeated") : k, value = masked ? repeat_kv(v, "attn.v_repeated") : v;
    const Attention kind = masked && o_.attention != Attention::math ? Attention::efficient : o_.attention;
    Tensor bias;  // booleans become zeros and minus infinity inside the call
    if (masked) bias = t_.empty("attn.mask", dims({B, 1, T, T}, true), t_.autocast().value_or(q.dtype()));
    const Tensor out = t_.attention(kind, q, key, value, bias, p, "attn.out");
    return t_.contiguous(t_.transpose(out, 1, 2), "attn.out");
  }
  if (a_.encoder) {  // BertSelfAttention: the scores keep their name until it returns
    Tensor scores = t_.scale(t_.matmul(q, t_.transpose(k, 2, 3), "attn.scores"), "attn.scores");
    if (mask_.defined()) scores = t_.add(scores, mask_, "attn.scores");
    Tensor probs = t_.softmax(scores, "attn.probs");
    probs = t_.dropout(probs, p, "attn.dropout");
    const Tensor mixed = t_.matmul(probs, v, "attn.out");
    return t_.contiguous(t_.transpose(mixed, 1, 2), "attn.out");
  }
  if (a_.family == Family::gpt2) {  // scaled and masked with numbers that are tensors; softmax in the dtype of the scores
    Tensor weights = t_.matmul(q, t_.transpose(k, 2, 3), "attn.scores");
    const Tensor root = t_.empty("attn.scale", dims({}, false), weights.dtype());
    weights = t_.scale(weights, "attn.scores");
    const Tensor least = t_.empty("attn.least", dims({}, false), weights.dtype());
    weights = t_.scale(weights, "attn.scores");
    if (mask_.defined()) weights = t_.add(weights, mask_, "attn.scores");
    weights = t_.softmax(weights, "attn.probs");
    weights = t_.to(weights, v.dtype(), "attn.probs");
    weights = t_.dropout(weights, p, "attn.dropout");
    held_ = weights;
    return t_.transpose(t_.matmul(weights, v, "attn.out"), 1, 2);
  }
  const Tensor key = repeat_kv(k, "attn.k_repeated"), value = repeat_kv(v, "attn.v_repeated");
  Tensor weights = t_.scale(t_.matmul(q, t_.transpose(key, 2, 3), "attn.scores"), "attn.scores");
  if (a_.attention_softcap) {
    weights = t_.scale(weights, "attn.scores");
    weights = t_.unary(weights, Tape::Keep::result, "attn.scores");
    weights = t_.scale(weights, "attn.scores");
  }
  if (mask_.defined()) weights = t_.add(weights, mask_, "attn.scores");
  weights = t_.to(t_.softmax(weights, "attn.softmax", Dtype::fp32), q.dtype(), "attn.probs");
  weights = t_.dropout(weights, p, "attn.dropout");
  Tensor out = t_.matmul(weights, value, "attn.out");
  out = t_.contiguous(t_.transpose(out, 1, 2), "attn.out");
  held_ = weights;
  return out;
}

Tensor Transformer::attention(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  into(&b.attention, {}, {});
  return out_of(&b.attention, attend(layer, x));
}

Tensor Transformer::attend(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const std::int64_t H = a_.heads, K = a_.kv_heads, h = a_.head_dim;
  Tensor q, k, v;
  if (a_.fused_qkv) {
    const Tensor all = project(b.linear.at("attn.qkv"), x, "attn.qkv");
    const std::array<std::int64_t, 3> parts = {H * h, K * h, K * h};
    const std::vector<Tensor> split = t_.split(all, -1, parts);
    const auto heads = [&](std::size_t i, std::int64_t n) { return t_.transpose(t_.view(split[i], {B, T, n, h}), 1, 2); };
    k = heads(1, K);
    v = heads(2, K);
    q = heads(0, H);
  } else {
    const auto heads = [&](const char* name, std::int64_t n, const char* normed) {
      Tensor y = project(b.linear.at(name), x, name);
      if (normed != nullptr && a_.qk_norm == QkNorm::full) y = norm(y, b.norm.at(normed), normed);
      y = t_.view(y, {B, T, n, h});
      if (normed != nullptr && a_.qk_norm == QkNorm::per_head) y = norm(y, b.norm.at(normed), normed);
      return t_.transpose(y, 1, 2);
    };
    const bool normed = a_.qk_norm != QkNorm::none;
    q = heads("attn.q", H, normed ? "attn.q_norm" : nullptr);
    k = heads("attn.k", K, normed ? "attn.k_norm" : nullptr);
    v = heads("attn.v", K, nullptr);
  }
  if (a_.position == Position::rotary) {
    // cos and sin gain a dimension: [1, 1, T, R]
    const Dims d = rotary_.first.dims();
    const Tensor cos = t_.view(rotary_.first, {1, 1, d.size[1], d.size[2]}), sin = t_.view(rotary_.second, {1, 1, d.size[1], d.size[2]});
    Tensor q_rotated = rotate(q, cos, sin, "attn.q_rot"), k_rotated = rotate(k, cos, sin, "attn.k_rot");
    if (fp32_rotary()) {
      const Dtype q_type = q.dtype(), k_type = k.dtype();
      Tensor narrow_q = t_.to(q_rotated, q_type, "attn.q_rot"), narrow_k = t_.to(k_rotated, k_type, "attn.k_rot");
      q_rotated = std::move(narrow_q), k_rotated = std::move(narrow_k);
    }
    q = std::move(q_rotated);
    k = std::move(k_rotated);
  }
  if (o_.use_cache && r_.recompute == Recompute::none) {
    // DynamicCache joins what comes to empty tensors of the first keys' dtype, values too
    k = t_.cat(std::array{k}, -2, "attn.k_cache");
    v = t_.cat(std::array{v}, -2, "attn.v_cache", k.dtype());
    cache_.push_back(k);
    cache_.push_back(v);
  }
  Tensor out = run_attention(layer, q, k, v);
  out = t_.contiguous(t_.reshape(out, dims({B, T, H * h}, true), "attn.out"), "attn.out");
  return project(b.linear.at("attn.o"), out, "attn.o");
}

Tensor Transformer::activate(const Tensor& x, const char* role) {
  switch (a_.activation) {
    case Activation::gelu_new: {  // 0.5 * x * (1 + tanh(c * (x + 0.044715 * x^3)))
      const Tensor half = t_.scale(x, role);
      Tensor inner = t_.scale(t_.power(x, role), role);
      inner = t_.add(x, inner, role);
      inner = t_.scale(inner, role);
      inner = t_.unary(inner, Tape::Keep::result, role);
      inner = t_.shift(inner, role);
      return t_.mul(half, inner, role);
    }
    case Activation::gelu_fast: {  // 0.5 * x * (1 + tanh(x * c * (1 + 0.044715 * x * x)))
      const Tensor half = t_.scale(x, role);
      const Tensor times = t_.scale(x, role);
      Tensor inner = t_.mul(t_.scale(x, role), x, role);
      inner = t_.shift(inner, role);
      inner = t_.mul(times, inner, role);
      inner = t_.unary(inner, Tape::Keep::result, role);
      inner = t_.shift(inner, role);
      return t_.mul(half, inner, role);
    }
    case Activation::quick_gelu: {
      const Tensor gate = t_.unary(t_.scale(x, role), Tape::Keep::result, role);
      return t_.mul(x, gate, role);
    }
    case Activation::relu_squared: return t_.power(t_.unary(x, Tape::Keep::result, role), role);
    case Activation::relu: return t_.unary(x, Tape::Keep::result, role);
    case Activation::gelu:
    case Activation::gelu_tanh:
    case Activation::silu: return t_.unary(x, Tape::Keep::input, role);
  }
  return x;
}

// The activation as a module of its own, as all of transformers' MLPs call it.
Tensor Transformer::activate(const Block& b, const Tensor& x) {
  into(&b.activation, {}, {});
  return out_of(&b.activation, activate(x, "mlp.act"));
}

Tensor Transformer::mlp(const Block& b, const std::string& name, const Tensor& x) {
  into(&b.mlp, {}, {});
  return out_of(&b.mlp, fed(b, name, x));
}

Tensor Transformer::fed(const Block& b, const std::string& name, const Tensor& x) {
  const double p = r_.dropout ? a_.residual_dropout : 0;
  if (!a_.gated_mlp) {
    Tensor h = project(b.linear.at(name + "up"), x, "mlp.up");
    h = activate(b, h);
    h = project(b.linear.at(name + "down"), h, "mlp.down");
    return a_.family == Family::gpt2 ? drop(&b.dropout, h, p, "mlp.dropout") : h;
  }
  if (a_.fused_gate_up) {
    const Tensor both = project(b.linear.at(name + "gate_up"), x, "mlp.gate_up");
    const std::array<std::int64_t, 2> halves = {both.dims().back() / 2, both.dims().back() / 2};
    const std::vector<Tensor> parts = t_.split(both, -1, halves);
    const Tensor product = t_.mul(parts[1], activate(b, parts[0]), "mlp.product");
    return project(b.linear.at(name + "down"), product, "mlp.down");
  }
  const Tensor product = [&] {
    const Tensor gate = activate(b, project(b.linear.at(name + "gate"), x, "mlp.gate"));
    return t_.mul(gate, project(b.linear.at(name + "up"), x, "mlp.up"), "mlp.product");
  }();
  return project(b.linear.at(name + "down"), product, "mlp.down");
}

Tensor Transformer::feed_forward(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  return a_.is_moe_layer(layer) ? mixture(b, x) : mlp(b, "mlp.", x);
}

// BertLayer: attention, dropout (not DistilBERT's), norm of the sum; then the same with the MLP.
Tensor Transformer::post_norm_block(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const double p = r_.dropout ? a_.residual_dropout : 0;
  Tensor attended = t_.dropout(attention(layer, x), a_.family == Family::distilbert ? 0 : p, "attn.dropout");
  attended = norm(t_.add(attended, x, "x_mid"), b.norm.at("norm1"), "attn.norm");
  Tensor h = feed_forward(layer, attended);
  h = t_.dropout(h, p, "mlp.dropout");
  return norm(t_.add(h, attended, "x"), b.norm.at("norm2"), "mlp.norm");
}

// GPTNeoXLayer, PhiDecoderLayer: both branches read x.
Tensor Transformer::parallel_block(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const double p = r_.dropout ? a_.residual_dropout : 0;
  const Tensor h = norm(x, b.norm.at("norm1"), "attn.norm");
  const Tensor attended = t_.dropout(attention(layer, h), p, "attn.dropout");
  held_.reset();
  const Tensor second = a_.shared_parallel_norm ? h : norm(x, b.norm.at("norm2"), "mlp.norm");
  const Tensor fed = t_.dropout(feed_forward(layer, second), p, "mlp.dropout");
  return t_.add(t_.add(fed, attended, "x_mid"), x, "x");
}

// Gemma 2 and 3: norms before and after each branch; OLMo 2: after only.
Tensor Transformer::output_norm_block(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const bool sandwich = a_.norm_placement == NormPlacement::sandwich;
  Tensor residual = x;
  Tensor h = sandwich ? norm(x, b.norm.at("norm1"), "attn.norm") : x;
  h = attention(layer, h);
  h = norm(h, b.norm.at("norm2"), "attn.post_norm");
  h = t_.add(residual, h, "x_mid");
  residual = h;
  if (sandwich) h = norm(h, b.norm.at("norm3"), "mlp.norm");
  h = feed_forward(layer, h);
  h = norm(h, b.norm.at("norm4"), "mlp.post_norm");
  return t_.add(residual, h, "x");
}

// Llama and its kin; GPT-2, which names the attention's output and adds the other way round.
Tensor Transformer::pre_norm_block(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const bool gpt2 = a_.family == Family::gpt2;
  Tensor residual = x;
  Tensor h = norm(x, b.norm.at("norm1"), "attn.norm");
  Tensor attended = attention(layer, h);
  if (gpt2) attended = drop(&b.attention_dropout, attended, r_.dropout ? a_.residual_dropout : 0, "attn.dropout");
  if (!gpt2) h = std::move(attended);
  h = gpt2 ? t_.add(attended, residual, "x_mid") : t_.add(residual, h, "x_mid");
  residual = h;
  h = norm(h, b.norm.at("norm2"), "mlp.norm");
  const Tensor named = gpt2 ? h : Tensor();  // GPT-2 gives the MLP's output a name of its own
  h = feed_forward(layer, h);
  return t_.add(residual, h, "x");
}

// One decoder layer: x stays named by the caller until it returns.
Tensor Transformer::block(std::int64_t layer, const Tensor& x) {
  t_.at(static_cast<int>(layer));
  Tensor out;
  if (a_.norm_placement == NormPlacement::post) out = post_norm_block(layer, x);
  else if (a_.parallel_residual) out = parallel_block(layer, x);
  else if (a_.norm_placement != NormPlacement::pre) out = output_norm_block(layer, x);
  else out = pre_norm_block(layer, x);
  held_.reset();
  t_.at(-1);
  return out;
}

Tensor Transformer::enter(std::int64_t unit, const Tensor& x) { return hooks_.before ? hooks_.before(static_cast<int>(unit), x) : x; }
Tensor Transformer::leave(std::int64_t unit, const Tensor& y) { return hooks_.after ? hooks_.after(static_cast<int>(unit), y) : y; }

Tensor Transformer::unit(std::int64_t layer, const Tensor& x) {
  const Tensor given = enter(layer, x);
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  into(&b, {}, {});
  return out_of(&b, leave(layer, block(layer, given)));
}

Tensor Transformer::into(Who who, std::initializer_list<Tensor> own, const Tensor& x) {
  return modules_.before && !stopped_ ? modules_.before(who, std::span(own.begin(), own.size()), x) : x;
}

// A block that runs again stops inside one of its modules: hooks after a forward pass are not met from there on.
Tensor Transformer::out_of(Who who, const Tensor& y) {
  if (!modules_.after || stopped_) return y;
  stopped_ = again_ && who == stop_;
  return stopped_ ? y : modules_.after(who, y, again_);
}

// Backward passes through the end of the block, whose modules save nothing after what is saved last; there the block runs again.
void Transformer::begin_again(std::int64_t layer) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const bool dropped = a_.family == Family::gpt2 && r_.dropout && a_.residual_dropout > 0;
  std::vector<Who> tail{&b};
  if (a_.norm_placement != NormPlacement::pre) {
    tail.push_back(&b.norm.at("norm4"));
  } else {
    tail.push_back(&b.mlp);
    if (a_.family == Family::gpt2) tail.push_back(&b.dropout);
    if (!dropped) tail.push_back(&b.linear.at("mlp.down"));
  }
  stop_ = tail.back();
  for (Who who : tail) modules_.before_backward(who);
}

// nn.Dropout, where it is a module.
Tensor Transformer::drop(Who who, const Tensor& x, double p, const char* role) {
  into(who, {}, {});
  return out_of(who, t_.dropout(x, p, role));
}

// nn.Embedding
Tensor Transformer::lookup(const char* table, const Tensor& ids) {
  const Tensor& weight = tables_.at(table);
  into(&weight, {weight}, ids);
  return out_of(&weight, t_.embedding(weight, ids, table));
}

// GradientCheckpointingLayer: the block's hooks lie inside what runs again. The newer form meets them only once: by the time it runs again the
// unit is there for its backward pass.
Tensor Transformer::recomputed(std::int64_t layer, const Tensor& x) {
  if (modules_.before && !r_.reentrant) {
    return t_.checkpoint([this, layer, again = false](const Tensor& in) mutable {
      if (again) begin_again(layer);
      again_ = std::exchange(again, true);
      Tensor y = unit(layer, in);
      again_ = stopped_ = false;
      return y;
    }, x, false);
  }
  if (r_.reentrant && !hooks_.wrap) return t_.checkpoint([this, layer](const Tensor& in) { return unit(layer, in); }, x, true);
  const Tensor given = enter(layer, x);
  return leave(layer, t_.checkpoint([this, layer](const Tensor& in) { return block(layer, in); }, given, r_.reentrant));
}

// The mask, built once: booleans [B, 1, T, T]; for eager attention then zeros and minus infinity in the stream's dtype.
Tensor Transformer::causal_mask(Dtype d) {
  const bool before = t_.grad_enabled();
  t_.grad_enabled(false);
  Tensor mask = t_.empty("attn.mask", dims({B, 1, T, T}, true), Dtype::bool8);
  if (o_.eager_attention) {
    const Tensor allowed = std::move(mask);
    mask = t_.empty("attn.mask", dims({B, 1, T, T}, true), d);
  }
  t_.grad_enabled(before);
  return mask;
}

Tensor Transformer::embed(const Batch& batch) {
  Tensor x = lookup("wte", batch.ids);
  // enable_input_require_grads: adapters behind checkpoints need a gradient to pass there
  if (r_.lora && r_.recompute == Recompute::full) input_ = x = t_.leaf(x);
  if (a_.embedding_scale) x = t_.scale(x, "x_embed");
  return x;
}

// The base model: everything up to the last norm.
Tensor Transformer::body(const Batch& batch) {
  Tensor embedded = embed(batch), position;  // names of the base model's forward
  Tensor x;
  if (a_.encoder) {
    x = bert_embeddings(std::move(embedded));
  } else {
    positions_ = t_.empty("positions", dims({T}, false), Dtype::int64);
    x = embedded;
    if (a_.position == Position::learned) {
      position = lookup("wpe", t_.view(positions_, {1, T}));
      x = t_.add(x, position, "x_embed");
    }
    t_.empty("attn.padding", dims({B, T}, true), Dtype::bool8);  // attention_mask as booleans: all ones, and needed no more
    if (o_.eager_attention || r_.padded || any_window()) mask_ = causal_mask(embedded.dtype());
  }
  if (a_.position == Position::rotary) {
    into(&outer_.rotary, {}, {});
    rotary_ = rotary_tables(x.dtype());
    out_of(&outer_.rotary, {});
  }
  const double p = r_.dropout ? a_.embedding_dropout : 0;
  if (!a_.encoder) x = a_.family == Family::gpt2 ? drop(&outer_.dropout, x, p, "x_embed") : t_.dropout(x, p, "x_embed");
  for (std::int64_t layer = 0; layer < a_.layers; ++layer) {
    x = r_.recompute == Recompute::full ? recomputed(layer, x) : unit(layer, x);
  }
  if (a_.final_norm && a_.norm_placement != NormPlacement::post) x = norm(x, outer_.norm.at("final"), "norm");
  if (r_.recompute == Recompute::none) finish();  // the base model's locals
  return x;
}

// BertEmbeddings: words and token types summed, positions added onto the sum, norm, dropout; then the mask over keys, [B, 1, 1, T].
// DistilBERT's: words and positions summed.
Tensor Transformer::bert_embeddings(Tensor words) {
  Tensor x;
  {
    const Tensor inputs = std::move(words);
    const auto positions = [&] { return t_.embedding(tables_.at("wpe"), t_.slice(buffers_[0], 1, T), "wpe"); };
    Tensor sum, added;
    if (a_.encoder->token_types > 0) {
      const Tensor types = t_.embedding(tables_.at("token_types"), t_.expand(t_.slice(buffers_[1], 1, T), dims({B, T}, true)), "token_types");
      sum = t_.add(inputs, types, "x_embed");
      added = positions();
      sum = t_.add_in_place(sum, added);
    } else {
      added = positions();
      sum = t_.add(inputs, added, "x_embed");
    }
    x = norm(sum, outer_.norm.at("embedding"), "norm_embed");
    x = t_.dropout(x, r_.dropout ? a_.embedding_dropout : 0, "x_embed");
  }
  if (o_.eager_attention) {
    const Tensor kept = t_.empty("attn.mask", dims({B, 1, 1, T}, true), x.dtype());
    const Tensor inverted = t_.scale(kept, "attn.mask");
    mask_ = t_.scale(inverted, "attn.mask");
  }
  return x;
}

bool Transformer::any_window() const {
  return std::ranges::any_of(a_.windows, [this](std::int64_t w) { return w > 0 && w < T; });
}

Tensor Transformer::head(const Tensor& x) {
  Tensor h = x;
  if (a_.encoder) {
    h = project(outer_.linear.at("head.dense"), h, "head.dense");
    h = activate(h, "head.act");
    h = norm(h, outer_.norm.at("head"), "head.norm");
  }
  const Category before = t_.category();
  t_.category(Category::logits);
  Tensor logits = project(outer_.linear.at("lm_head"), h, "logits");
  if (a_.logit_softcap) {
    logits = t_.scale(logits, "logits");
    logits = t_.unary(logits, Tape::Keep::result, "logits");
    logits = t_.scale(logits, "logits");
  }
  t_.category(before);
  return logits;
}

// ForCausalLMLoss: fp32 logits, labels padded by one and shifted, cross entropy over N rows. BERT's head: as the logits come, unshifted.
Tensor Transformer::loss_of(const Tensor& given, const Tensor& labels) {
  const Category before = t_.category();
  t_.category(Category::logits);
  const Tensor logits = a_.causal ? t_.to(given, Dtype::fp32, "logits") : given;
  Tensor targets = labels, padded;
  if (a_.causal) {
    padded = t_.empty("loss.targets", dims({B, T + 1}, true), Dtype::int64);
    targets = t_.empty("loss.targets", dims({B, T}, true), Dtype::int64);
  }
  const Tensor loss = t_.cross_entropy(t_.view(logits, {N, a_.vocab}), t_.view(targets, {N}), "loss.log_probs");
  t_.category(before);
  return loss;
}

Transformer::Outputs Transformer::forward(const Batch& batch) {
  const Dims d = batch.ids.dims();
  B = d.size[0];
  T = d.size[1];
  N = B * T;
  enter(-1, {});
  into(this, {}, {});
  into(&outer_, {}, {});
  const Tensor x = out_of(&outer_, body(batch));
  Outputs out;
  out.logits = head(x);
  out.loss = loss_of(out.logits, batch.labels);
  cache_.clear();
  out.loss = out_of(this, leave(-1, out.loss));
  return out;
}

std::int64_t Transformer::buffer_bytes() const {
  std::int64_t sum = 0;
  for (const Tensor& b : buffers_) sum += b.dims().numel() * size_of(b.dtype());
  return sum;
}

void Transformer::finish() {
  mask_.reset();
  positions_.reset();
  rotary_ = {Tensor{}, Tensor{}};
  if (input_.defined() && r_.recompute == Recompute::full) t_.zero_grad(input_);
  input_.reset();
}

}  // namespace dryfit::eager
