// A transformer's attention, op by op: rotary positions, keys and values shared by heads, SDPA and eager scores, multi-head latent attention. See
// transformer.hpp. B batch, T length, N = B*T, H heads, K KV heads, h head size. Source: transformers 4.57, integrations/sdpa_attention.py,
// models/*/modeling_*.py.
#include <algorithm>
#include <array>
#include <utility>

#include "passes/liger.hpp"
#include "passes/transformer.hpp"

namespace dryfit::eager {

bool repeats_keys_itself(const Architecture& a, const Training& r) { return !r.is_transformers_5() && (a.family == Family::qwen2_moe || a.family == Family::olmoe); }

// x * cos + rotate_half(x) * sin, each temporary gone as soon as Python's expression lets it; of the part of a head that is turned.
Tensor Transformer::rotated_part(const Tensor& x, const Tensor& cos, const Tensor& sin, const char* role) {
  const std::int64_t h = x.dims().back(), R = cos.dims().back();
  const Tensor part = R == h ? x : t_.slice(x, -1, R);
  const Tensor straight = t_.mul(part, cos, role);
  const std::int64_t half = R / 2;
  const Tensor first = t_.slice(part, -1, half), second = t_.slice(part, -1, half);
  Tensor crossed = t_.cat(std::array{t_.scale(second, role), first}, -1, role);
  crossed = t_.mul(crossed, sin, role);
  return t_.add(straight, crossed, role);
}

// The part that is turned with what is left of the head; some code joins whatever is left.
Tensor Transformer::joined(const Tensor& part, const Tensor& x, const char* role) {
  const std::int64_t rest = x.dims().back() - part.dims().back();
  if (rest > 0) return t_.cat(std::array{part, t_.slice(x, -1, rest)}, -1, role);
  const bool joins = a_.family == Family::phi || a_.family == Family::phi3 || a_.family == Family::gpt_neox;
  return joins ? t_.cat(std::array{part}, -1, role) : part;
}

Tensor Transformer::rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, const char* role) { return joined(rotated_part(x, cos, sin, role), x, role); }

// gpt-oss: both halves turned by tables of half a head.
Tensor Transformer::rotate_halves(const Tensor& x, const Tensor& cos, const Tensor& sin, const char* role) {
  const std::int64_t half = x.dims().back() / 2;
  const std::vector<Tensor> parts = t_.split(x, -1, std::array{half, half});
  const auto turned = [&](const Tensor& a, const Tensor& b, bool minus) {
    const Tensor straight = t_.mul(a, cos, role), crossed = t_.mul(b, sin, role);
    return minus ? t_.sub(straight, crossed, role) : t_.add(straight, crossed, role);
  };
  const Tensor first = turned(parts[0], parts[1], true), second = turned(parts[1], parts[0], false);
  return t_.cat(std::array{first, second}, -1, role);
}

// LlamaRotaryEmbedding.forward: outer product, cat, cos and sin, cast to the stream's dtype (OLMo 1 and 2: not, and heads come back from fp32); no gradients.
std::pair<Tensor, Tensor> Transformer::rotary_tables(Dtype like) {
  const NoGrad inside(t_);
  const std::int64_t R = a_.rotary_dims;
  const char* role = "rotary";
  const std::int64_t rows = generates_ ? B : 1;  // generate() counts positions in every row
  Tensor inverse = t_.empty(role, dims({1, R / 2, 1}, false), Dtype::fp32), positions = t_.empty(role, dims({rows, 1, T}, generates_), Dtype::fp32);
  Tensor product = t_.empty(role, dims({rows, R / 2, T}, generates_), Dtype::fp32);
  t_.multiplied();
  if (a_.family == Family::deepseek_v2) {  // complex: pairs of numbers; one table of both
    const Tensor ones = t_.empty(role, dims({rows, T, R / 2}, generates_), Dtype::fp32), polar = t_.empty(role, dims({rows, T, R / 2, 2}, generates_), Dtype::fp32);
    return {t_.scale(polar, role), Tensor()};
  }
  const std::int64_t width = a_.family == Family::gpt_oss ? R / 2 : R;
  Tensor both;
  if (width == R) both = t_.empty(role, dims({rows, T, R}, generates_), Dtype::fp32);
  const auto table = [&](const char* name) {
    const Tensor raw = t_.empty(name, dims({rows, T, width}, generates_), Dtype::fp32);
    return t_.scale(raw, name);
  };
  Tensor cos = table("rotary.cos"), sin = table("rotary.sin");
  std::pair<Tensor, Tensor> out = fp32_rotary() ? std::pair{cos, sin} : std::pair{t_.to(cos, like, "rotary.cos"), t_.to(sin, like, "rotary.sin")};  // in this order: braces are gone through from the left
  for (Tensor* name : {&inverse, &positions, &product, &both, &cos, &sin}) name->reset();  // as Python's locals go
  return out;
}

// unsqueeze_dim=1: [1 or B, 1, T, R].
std::pair<Tensor, Tensor> Transformer::over_heads(const std::pair<Tensor, Tensor>& tables) {
  const Dims d = tables.first.dims(), four = dims({d.size[0], 1, d.size[1], d.size[2]}, d.batched);
  return {t_.view(tables.first, four), t_.view(tables.second, four)};
}

// [B, K, T, h] seen by all heads: [B, K, H / K, T, h].
Tensor Transformer::for_all_heads(const Tensor& x) {
  const Dims d = x.dims();
  const Tensor five = t_.view(x, {d.size[0], d.size[1], 1, d.size[2], d.size[3]});
  return t_.expand(five, dims({d.size[0], d.size[1], a_.heads / d.size[1], d.size[2], d.size[3]}, d.batched));
}

Tensor Transformer::repeat_kv(const Tensor& x, const char* role) {
  const Dims d = x.dims();
  if (d.size[1] == a_.heads) return x;
  return t_.reshape(for_all_heads(x), dims({d.size[0], a_.heads, d.size[2], d.size[3]}, d.batched), role);
}

// attention_interface: q, k, v [B, H or K, T, h] to [B, T, H, h].
Tensor Transformer::run_attention(std::int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v) {
  const double p = r_.dropout ? a_.attention_dropout : 0;
  if (!o_.eager_attention) {
    const bool masked = takes_mask(window_of(layer));  // instead of is_causal
    const Tensor key = masked ? repeat_kv(k, "attn.k_repeated") : k, value = masked ? repeat_kv(v, "attn.v_repeated") : v;
    const bool half = t_.autocast() || q.dtype() != Dtype::fp32;
    const Attention kind = masked && !(half && o_.attention == Attention::cudnn) ? Attention::efficient : half ? o_.attention : o_.wide_attention;
    if (kind == Attention::math) return t_.contiguous(t_.transpose(composite_attention(q, key, value, p), 1, 2), "attn.out");
    Tensor bias;  // booleans become zeros and minus infinity inside the call, in rows of a multiple of 8 (attention.cpp, pad_bias)
    if (masked) {
      const Dtype d = t_.autocast().value_or(q.dtype());
      const std::int64_t keys = k.dims().size[2];
      const auto rows_of = [&](std::int64_t columns) { return t_.empty("attn.mask", dims({B, 1, T, columns}, true), d); };
      const Tensor& given = mask_of(layer);
      bias = given.defined() && given.dtype() == d ? given : rows_of(keys);  // some have them already, in the model's dtype
      if (keys % 8 != 0) bias = rows_of(round_up(keys, 8));
    }
    if (is_flash(r_.attention) && fills_rows()) return attend_unfilled(kind, q, key, value, p);
    const auto whole = [&](const Tensor& x, const char* role) { return masked && repeats_keys_itself(a_, r_) ? t_.contiguous(x, role) : x; };  // beside a mask, by code of their own
    const Tensor whole_q = whole(q, "attn.q"), whole_k = whole(key, "attn.k"), whole_v = whole(value, "attn.v");
    const Tensor out = t_.attention(kind, whole_q, whole_k, whole_v, bias, p, "attn.out");
    return t_.contiguous(t_.transpose(out, 1, 2), "attn.out");
  }
  if (a_.sinks) return sink_attention(layer, q, k, v);
  if (a_.encoder) {  // BertSelfAttention: the scores keep their name until it returns
    Tensor scores = t_.scale(t_.matmul(q, t_.transpose(k, 2, 3), "attn.scores"), "attn.scores");
    if (mask_.defined()) scores = t_.add(scores, mask_, "attn.scores");
    Tensor probs = t_.softmax(scores, "attn.probs");
    probs = t_.dropout(probs, p, "attn.dropout");
    const Tensor mixed = t_.matmul(probs, v, "attn.out");
    if (a_.family != Family::distilbert) held_ = probs;
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
  if (mask_.defined()) weights = t_.add(weights, mask_of(layer), "attn.scores");
  weights = t_.to(t_.softmax(weights, "attn.softmax", Dtype::fp32), q.dtype(), "attn.probs");
  weights = t_.dropout(weights, p, "attn.dropout");
  Tensor out = t_.matmul(weights, value, "attn.out");
  out = t_.contiguous(t_.transpose(out, 1, 2), "attn.out");
  held_ = weights;
  return out;
}

// _flash_attention_forward of rows that are filled up: each layer finds out anew which tokens are no filling, FlashAttention gets those of all rows one after another, [1, H, N, h], and what
// it makes of them is put back between zeros. As many as there are at most: all.
Tensor Transformer::attend_unfilled(Attention kind, const Tensor& given_q, const Tensor& given_k, const Tensor& given_v, double dropout) {
  const auto half = [this](const Tensor& x, const char* role) { return t_.autocast() && x.dtype() == Dtype::fp32 ? t_.to(x, *t_.autocast(), role) : x; };
  const Tensor q = half(given_q, "attn.q"), k = half(given_k, "attn.k"), v = half(given_v, "attn.v");
  Tensor tokens, ends;
  {  // _get_unpad_data
    const Tensor lengths = t_.empty("attn.lengths", dims({B}, true), Dtype::int32);
    tokens = t_.empty("attn.tokens", dims({N}, true), Dtype::int64);
    t_.empty("attn.longest", dims({}, false), Dtype::int32);
    const Tensor sums = t_.empty("attn.ends", dims({B}, true), Dtype::int32);
    ends = t_.empty("attn.ends", dims({B + 1}, true), Dtype::int32);
  }
  const auto unfilled = [&](const Tensor& x, const char* role) {
    const std::int64_t heads = x.dims().size[1], h = x.dims().back();
    const Dims d = dims({N, heads, h}, true);
    const Tensor rows = t_.index(t_.reshape(t_.transpose(x, 1, 2), d, role), tokens, d, role);
    return t_.transpose(t_.view(rows, {1, N, heads, h}), 1, 2);
  };
  const Tensor key = unfilled(k, "attn.k_tokens"), value = unfilled(v, "attn.v_tokens"), query = unfilled(q, "attn.q_tokens");
  const Tensor out = t_.transpose(t_.attention(kind, query, key, value, {}, dropout, "attn.out_tokens", ends), 1, 2);
  const std::int64_t h = out.dims().back();
  const Dims d = dims({N, a_.heads, h}, true);
  const Tensor put = t_.index_put(t_.empty("attn.out", d, out.dtype()), tokens, t_.reshape(out, d, "attn.out"));
  return t_.view(put, {B, T, a_.heads, h});
}

const Tensor& Transformer::mask_of(std::int64_t layer) const { return a_.windows_by_layer && a_.windows[static_cast<std::size_t>(layer)] > 0 ? local_mask_ : mask_; }

// gpt-oss: one score more a row, its head's; the largest of a row taken off before the softmax, in the scores' dtype.
Tensor Transformer::sink_attention(std::int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v) {
  const Tensor key = repeat_kv(k, "attn.k_repeated"), value = repeat_kv(v, "attn.v_repeated");
  Tensor weights = t_.scale(t_.matmul(q, t_.transpose(key, 2, 3), "attn.scores"), "attn.scores");
  weights = t_.add(weights, mask_of(layer), "attn.scores");
  const Tensor& sinks = blocks_[static_cast<std::size_t>(layer)].linear.at("attn.sinks").weight;
  const Tensor each = t_.expand(t_.view(sinks, {1, a_.heads, 1, 1}), dims({B, a_.heads, T, 1}, true));
  const Dtype type = weights.dtype() == Dtype::fp32 || sinks.dtype() == Dtype::fp32 ? Dtype::fp32 : weights.dtype();  // cat's, under autocast too
  Tensor scores = t_.cat(std::array{weights, each}, -1, "attn.with_sinks", type);
  {
    Tensor largest;
    const Tensor most = best(scores, dims({B, a_.heads, T, 1}, true), largest);
    scores = t_.sub(scores, most, "attn.with_sinks");
  }
  const Tensor probs = t_.softmax(scores, "attn.probs", type);
  weights = t_.dropout(t_.slice(probs, -1, T), r_.dropout ? a_.attention_dropout : 0, "attn.dropout");
  Tensor out = t_.matmul(weights, value, "attn.out");
  out = t_.contiguous(t_.transpose(out, 1, 2), "attn.out");
  held_ = weights;
  return out;
}

Tensor Transformer::attention(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  if (a_.sinks) into(&b.attention, {b.linear.at("attn.sinks").weight}, {});
  else into(&b.attention, {}, {});
  return out_of(&b.attention, a_.latent ? attend_latent(layer, x) : attend(layer, x));
}

// A DynamicCache of this pass: Gemma 2 and 3 make none while they train.
bool Transformer::fills_cache() const {
  const bool gemma = a_.family == Family::gemma2 || a_.family == Family::gemma3;
  return o_.use_cache && r_.recompute == Recompute::none && !(gemma && t_.grad_enabled());
}

// From heads to the block's width again. The cache joins what comes to empty tensors of the first keys' dtype, values too.
Tensor Transformer::attended(std::int64_t layer, const Tensor& q, Tensor k, Tensor v) {
  if (generates_) {
    join_cache(layer, k, v);
  } else if (fills_cache()) {
    Tensor keys = t_.cat(std::array{k}, -2, "attn.k_cache"), values = t_.cat(std::array{v}, -2, "attn.v_cache", keys.dtype());  // both are there before either name changes
    k = std::move(keys);
    v = std::move(values);
    cache_.push_back(k);
    cache_.push_back(v);
  }
  if (repeats_keys_itself(a_, r_) && !(is_flash(r_.attention) && a_.family == Family::olmoe)) {
    k = repeat_kv(k, "attn.k_repeated");
    v = repeat_kv(v, "attn.v_repeated");
  }
  Tensor out = run_attention(layer, q, k, v);
  out = t_.contiguous(t_.reshape(out, dims({B, T, a_.heads * out.dims().back()}, true), "attn.out"), "attn.out");
  const Linear* const o = &blocks_[static_cast<std::size_t>(layer)].linear.at("attn.o");
  out = r_.adapter_kernels.o && all_adapted({o}) ? kernel_projections(std::array{o}, out, "attn.o")[0] : project(*o, out, "attn.o");
  return drops_in_branches() ? t_.dropout(out, r_.dropout ? a_.residual_dropout : 0, "attn.dropout") : out;
}

// OlmoAttention's clamp_, one after the other: in place, of which autograd keeps what there was.
std::array<Tensor, 3> Transformer::clip(std::array<Tensor, 3> of) {
  for (Tensor& x : of) {
    Tensor before;
    if (x.requires_grad() && t_.grad_enabled()) {
      const NoGrad inside(t_);
      before = t_.clone(x, "attn.unclipped");
    }
    x = t_.function(x, std::array{x}, std::array{before}, "attn.clipped", [this](const Tensor& g, std::vector<Tensor>&) {
      const Tensor above = t_.empty("attn.inside", like(g.dims()), Dtype::bool8), below = t_.empty("attn.inside", like(g.dims()), Dtype::bool8);
      return std::vector{t_.empty("attn.clipped", like(g.dims()), g.dtype())};
    });
  }
  return of;
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
    const std::array<const Linear*, 3> parts = {&b.linear.at("attn.q"), &b.linear.at("attn.k"), &b.linear.at("attn.v")};
    std::vector<Tensor> made;
    if (r_.adapter_kernels.qkv && all_adapted({parts[0], parts[1], parts[2]})) made = kernel_projections(parts, x, "attn.qkv");
    const auto whole = [&](const char* name, std::size_t which, const char* normed) {
      Tensor y = made.empty() ? project(*parts[which], x, name) : std::move(made[which]);
      return normed != nullptr && a_.qk_norm == QkNorm::full ? norm(y, b.norm.at(normed), normed, true) : y;
    };
    std::array<Tensor, 3> clipped;
    if (a_.clip_qkv) clipped = clip({whole("attn.q", 0, "attn.q_norm"), whole("attn.k", 1, "attn.k_norm"), whole("attn.v", 2, nullptr)});
    const auto heads = [&](const char* name, std::size_t which, std::int64_t n, const char* normed) {
      Tensor y = a_.clip_qkv ? std::move(clipped[which]) : whole(name, which, normed);
      y = t_.view(y, {B, T, n, h});
      if (normed != nullptr && a_.qk_norm == QkNorm::per_head && !norms_turned_heads()) y = norm(y, b.norm.at(normed), normed, true);
      return t_.transpose(y, 1, 2);
    };
    const bool normed = a_.qk_norm != QkNorm::none;
    q = heads("attn.q", 0, H, normed ? "attn.q_norm" : nullptr);
    k = heads("attn.k", 1, K, normed ? "attn.k_norm" : nullptr);
    v = heads("attn.v", 2, K, nullptr);
    if (norms_turned_heads()) {
      q = norm(q, b.norm.at("attn.q_norm"), "attn.q_norm", true);
      k = norm(k, b.norm.at("attn.k_norm"), "attn.k_norm", true);
    }
  }
  const bool local = has_local_rotary() && a_.windows[static_cast<std::size_t>(layer)] > 0;
  const auto& tables = local ? local_rotary_ : rotary_;
  if (a_.turns_heads(layer) && r_.liger.rotary) {
    std::tie(q, k) = liger_rotate(t_, q, k, tables.first, tables.second);
  } else if (a_.turns_heads(layer)) {
    const auto [cos, sin] = over_heads(tables);
    Tensor q_rotated, k_rotated;
    if (a_.family == Family::gpt_oss) {
      q_rotated = rotate_halves(q, cos, sin, "attn.q_rot");
      k_rotated = rotate_halves(k, cos, sin, "attn.k_rot");
    } else if (a_.family == Family::gpt_neox || a_.family == Family::phi) {  // both are turned before either is joined
      q_rotated = rotated_part(q, cos, sin, "attn.q_rot");
      k_rotated = rotated_part(k, cos, sin, "attn.k_rot");
      q_rotated = joined(q_rotated, q, "attn.q_rot");
      k_rotated = joined(k_rotated, k, "attn.k_rot");
    } else {
      q_rotated = rotate(q, cos, sin, "attn.q_rot");
      k_rotated = rotate(k, cos, sin, "attn.k_rot");
    }
    if (fp32_rotary()) {
      const Dtype q_type = q.dtype(), k_type = k.dtype();
      Tensor narrow_q = t_.to(q_rotated, q_type, "attn.q_rot"), narrow_k = t_.to(k_rotated, k_type, "attn.k_rot");
      q_rotated = std::move(narrow_q), k_rotated = std::move(narrow_k);
    }
    q = std::move(q_rotated);
    k = std::move(k_rotated);
  }
  return attended(layer, q, std::move(k), std::move(v));
}

// SDPA's math backend, causal, where no fused kernel takes keys shared by heads (aten/src/ATen/native/transformers/attention.cpp,
// _scaled_dot_product_attention_math): 16-bit inputs are computed in fp32, every score is there at once.
Tensor Transformer::composite_attention(const Tensor& given_q, const Tensor& given_k, const Tensor& given_v, double p) {
  const auto outer = t_.autocast();
  const auto cast = [&](const Tensor& x) { return outer ? t_.to(x, *outer, "attn.cast") : x; };
  Tensor v = cast(given_v), k = cast(given_k), q = cast(given_q);
  const Dtype type = q.dtype();
  t_.suspend_autocast();
  q = t_.to(q, Dtype::fp32, "attn.q_wide"), k = t_.to(k, Dtype::fp32, "attn.k_wide"), v = t_.to(v, Dtype::fp32, "attn.v_wide");
  const Tensor scaled = t_.scale(q, "attn.q_scaled");
  const bool causal = T > 1;  // queries of generate() that see every key
  const Tensor mask = !causal ? Tensor() : [&] {
    const Tensor ones = t_.empty("attn.mask", dims({T, T}, false), Dtype::bool8), lower = t_.empty("attn.mask", dims({T, T}, false), Dtype::bool8);
    return t_.empty("attn.mask", dims({T, T}, false), Dtype::fp32);
  }();
  const auto interleaved = [&](const Tensor& x, const char* role) {  // repeat_interleave: a copy, where repeat_kv may be a view
    const Dims d = x.dims();
    return d.size[1] == a_.heads ? x : t_.view(t_.contiguous(for_all_heads(x), role), {d.size[0], a_.heads, d.size[2], d.size[3]});
  };
  const Tensor keys = interleaved(k, "attn.k_repeated"), values = interleaved(v, "attn.v_repeated");
  Tensor scores = t_.matmul(scaled, t_.scale(t_.transpose(keys, 2, 3), "attn.k_scaled"), "attn.scores");
  if (causal) scores = t_.added_in_place(scores, mask, "attn.scores");
  scores = t_.softmax(scores, "attn.probs");
  scores = t_.dropout(scores, p, "attn.dropout");
  const Tensor out = t_.matmul(scores, values, "attn.out");
  t_.resume_autocast(outer);
  return t_.to(out, type, "attn.out");
}

// apply_rotary_pos_emb_interleave: pairs that lie together come to lie in halves first.
Tensor Transformer::from_pairs(const Tensor& x, const char* role) {
  const Dims d = x.dims();
  const Tensor pairs = t_.view(x, {d.size[0], d.size[1], d.size[2], d.size[3] / 2, 2});
  return t_.reshape(t_.transpose(pairs, 4, 3), d, role);
}

// DeepSeek-V2: heads as complex numbers, in fp32.
Tensor Transformer::rotate_complex(const Tensor& x, const char* role) {
  const Dims d = x.dims(), table = rotary_.first.dims();
  Tensor turned;
  {
    const Tensor wide = t_.view(t_.to(x, Dtype::fp32, role), {d.size[0], d.size[1], d.size[2], d.size[3] / 2, 2});
    turned = t_.mul(wide, t_.view(rotary_.first, {1, 1, table.size[1], table.size[2], 2}), role);
  }
  return t_.to(t_.view(turned, d), x.dtype(), role);
}

// DeepseekV3Attention: queries, and keys with values, through narrow layers; one rotated key for all heads. h: of queries and keys.
Tensor Transformer::attend_latent(std::int64_t layer, const Tensor& x) {
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  const LatentAttention& m = *a_.latent;
  const std::int64_t H = a_.heads, h = m.nope_head_dim + m.rope_head_dim;
  const auto cut = [&](const Tensor& whole, std::int64_t first, std::int64_t second) { return t_.split(whole, -1, std::array{first, second}); };
  Tensor q;
  if (m.q_lora_rank == 0) {
    q = project(b.linear.at("attn.q"), x, "attn.q");
  } else {
    q = project(b.linear.at("attn.q_a"), x, "attn.q_a");
    q = norm(q, b.norm.at("attn.q_a_norm"), "attn.q_a_norm");
    q = project(b.linear.at("attn.q_b"), q, "attn.q");
  }
  q = t_.transpose(t_.view(q, {B, T, H, h}), 1, 2);
  const std::vector<Tensor> q_parts = cut(q, m.nope_head_dim, m.rope_head_dim);
  const Tensor compressed = project(b.linear.at("attn.kv_a"), x, "attn.kv_a");
  const std::vector<Tensor> narrow = cut(compressed, m.kv_lora_rank, m.rope_head_dim);
  Tensor wide = norm(narrow[0], b.norm.at("attn.kv_a_norm"), "attn.kv_a_norm");
  wide = project(b.linear.at("attn.kv_b"), wide, "attn.kv");
  wide = t_.transpose(t_.view(wide, {B, T, H, m.nope_head_dim + m.value_head_dim}), 1, 2);
  const std::vector<Tensor> kv = cut(wide, m.nope_head_dim, m.value_head_dim);
  Tensor k_rotated = t_.view(narrow[1], {B, 1, T, m.rope_head_dim}), q_rotated = q_parts[1];
  if (a_.family == Family::deepseek_v2) {
    q_rotated = rotate_complex(q_rotated, "attn.q_rot");
    k_rotated = rotate_complex(k_rotated, "attn.k_rot");
  } else {
    const auto [cos, sin] = over_heads(rotary_);
    Tensor q_halves = from_pairs(q_rotated, "attn.q_rot"), k_halves = from_pairs(k_rotated, "attn.k_rot");
    q_rotated = rotate(q_halves, cos, sin, "attn.q_rot");
    k_rotated = rotate(k_halves, cos, sin, "attn.k_rot");
  }
  k_rotated = t_.expand(k_rotated, dims({B, H, T, m.rope_head_dim}, true));
  const Tensor queries = t_.cat(std::array{q_parts[0], q_rotated}, -1, "attn.q_joined");
  Tensor keys = t_.cat(std::array{kv[0], k_rotated}, -1, "attn.k_joined");
  return attended(layer, queries, std::move(keys), kv[1]);
}

}  // namespace dryfit::eager
