// LitGPT's forward pass, op by op. See litgpt.hpp. B batch, T length, D width, H heads, K KV heads, h head size, F MLP width, r rank of the adapters.
#include "passes/litgpt.hpp"

#include <algorithm>
#include <array>

namespace dryfit::eager {

namespace {

constexpr std::int64_t kHeadChunk = 128;  // finetune/lora.py: lm_head_chunk_size

std::vector<std::int64_t> parts_of(std::int64_t whole, std::int64_t part) {
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(whole / part), part);
  if (whole % part != 0) lengths.push_back(whole % part);
  return lengths;
}

// What changed in LitGPT's code where memory shows it, by the date of the commit.
constexpr std::int32_t kHalfNormProduct = 20240223, kFullNormProduct = 20240723;  // RMSNorm's weight: #941, back in fp32 by #1545
constexpr std::int32_t kPadsInPlace = 20240506;                                   // LoRA's zeros: #770

}  // namespace

// RMSNorm: x as fp32 is what both products save; nn.LayerNorm otherwise.
Tensor Litgpt::norm(const Tensor& given, const Norm& w, const char* role) {
  if (a_.norm == NormKind::layer_norm) return t_.layer_norm(given, w.weight, w.bias, role);
  const Tensor x = t_.to(given, Dtype::fp32, role);
  const Tensor mean = t_.mean_last(t_.mul(x, x, role), role);
  Tensor normed = t_.mul(x, t_.rsqrt(t_.shift(mean, role), role), role);
  const bool half = r_.litgpt.date >= kHalfNormProduct && r_.litgpt.date < kFullNormProduct;
  if (half) normed = t_.to(normed, given.dtype(), role);
  const Tensor gain = a_.norm == NormKind::rms_norm_plus_one ? t_.shift(w.weight, role) : w.weight;
  const Tensor product = r_.litgpt.date < kFullNormProduct ? t_.mul(normed, gain, role) : t_.mul(normed, t_.to(gain, Dtype::fp32, role), role);
  return t_.to(product, given.dtype(), role);
}

// torch.nn.Linear, its 4-bit replacement, or LLaMA-Adapter v2's around either.
Tensor Litgpt::base(const Linear& l, const Tensor& x, const char* role) {
  // quantised from fp16 whatever the precision is; bitsandbytes 0.41 and 0.42 keep the input by name
  Tensor y = l.packed.defined() ? t_.linear_4bit(x, l.packed, l.shape, role, {true, r_.double_quantized, true}) : t_.linear(x, l.weight, role, l.bias);
  if (!l.scale.defined()) return y;
  y = t_.add(y, l.shift, role);
  return t_.mul(l.scale, y, role);
}

// LoRALinear: pretrained + (dropout(x) @ A^T @ B^T) * scaling.
Tensor Litgpt::project(const Linear& l, const Tensor& x, const char* role) {
  const Tensor pretrained = base(l, x, role);
  if (!l.a.defined()) return pretrained;
  Tensor low = t_.linear(t_.dropout(x, r_.dropout ? r_.lora->dropout : 0, "lora.dropout"), l.a, "lora.A");
  low = t_.linear(low, l.b, "lora.B");
  low = t_.scale(low, "lora.scaled");
  return t_.add(pretrained, low, role);
}

// zero_pad: a part without an adapter gets zeros. index_copy's node keeps the rows that were copied; the older code copies them first, and the zeros.
Tensor Litgpt::pad_with_zeros(const Tensor& after_b, std::int64_t width, std::int64_t all) {
  if (r_.litgpt.date >= kPadsInPlace) {
    if (!lora_index_.defined()) lora_index_ = t_.empty("lora.index", dims({width}, false), Dtype::int64);  // one per layer there
    const Tensor zeros = t_.empty("lora.zeros", dims({B, T, all}, true), after_b.dtype());
    return t_.index_add(zeros, lora_index_, after_b);
  }
  const Tensor zeros = t_.empty("lora.zeros", dims({B * T, all}, true), after_b.dtype());
  const Tensor index = t_.empty("lora.index", dims({width}, false), Dtype::int64);
  const Tensor rows = t_.reshape(t_.transpose(after_b, 0, 1), dims({B * T, width}, true), "lora.rows");
  return t_.transpose(t_.view(t_.index_copy(zeros, index, rows), {T, B, all}), 0, 1);
}

// A convolution of width 1 in place of the product with B: one for all parts, or, where heads share keys, one a part and joined.
Tensor Litgpt::convolve(const Linear& l, const Tensor& channels) {
  const std::int64_t q = a_.heads * a_.head_dim, kv = a_.kv_heads * a_.head_dim;
  if (a_.heads == a_.kv_heads) return t_.convolution(channels, l.b, dims({B, l.b.dims().size[0], T}, true), "lora.B");
  std::vector<std::int64_t> widths;
  for (const auto& [module, width] : {std::pair{"q_proj", q}, std::pair{"k_proj", kv}, std::pair{"v_proj", kv}}) {
    if (adapts(module)) widths.push_back(width);
  }
  const std::vector<Tensor> in = t_.split(channels, 1, std::vector<std::int64_t>(widths.size(), r_.lora->rank)), weights = t_.split(l.b, 0, widths);
  std::vector<Tensor> parts;
  for (std::size_t i = 0; i < widths.size(); ++i) parts.push_back(t_.convolution(in[i], weights[i], dims({B, widths[i], T}, true), "lora.B"));
  return t_.cat(parts, 1, "lora.B");
}

// LoRAQKVLinear.forward.
Tensor Litgpt::project_qkv(const Linear& l, const Tensor& x) {
  const Tensor pretrained = base(l, x, "attn.qkv");
  if (!l.a.defined()) return pretrained;
  const Tensor after_a = t_.linear(t_.dropout(x, r_.dropout ? r_.lora->dropout : 0, "lora.dropout"), l.a, "lora.A");
  const std::int64_t width = l.b.dims().size[0], all = l.shape.size[0];
  Tensor after_b = t_.transpose(convolve(l, t_.transpose(after_a, -2, -1)), -2, -1);
  if (adapted_parts() < 3) after_b = pad_with_zeros(after_b, width, all);
  const Tensor lora = t_.scale(after_b, "lora.scaled");
  return t_.add(pretrained, lora, "attn.qkv");
}

// apply_rope: the tables are fp32, so the products are; the result goes back to x's dtype and is joined with what was not turned.
Tensor Litgpt::rotate(const Tensor& x, const char* role) {
  const std::int64_t R = a_.rotary_dims, rest = x.dims().back() - R;
  Tensor roped;
  {
    const Tensor part = t_.slice(x, -1, R);
    const Tensor first = t_.slice(part, -1, R / 2), second = t_.slice(part, -1, R / 2);
    const Tensor rotated = t_.cat(std::array{t_.scale(second, role), first}, -1, role);
    const Tensor straight = t_.mul(part, cos_, role);
    const Tensor crossed = t_.mul(rotated, sin_, role);
    roped = t_.to(t_.add(straight, crossed, role), x.dtype(), role);
  }
  if (rest == 0) return t_.cat(std::array{roped}, -1, role);
  return t_.cat(std::array{roped, t_.slice(x, -1, rest)}, -1, role);
}

// Gemma 2: soft-capped scores, so no SDPA; the mask is made in every layer.
Tensor Litgpt::scores(int layer, const Tensor& q, const Tensor& k, const Tensor& v) {
  const auto square = [&] { return t_.empty("attn.mask", dims({T, T}, false), q.dtype()); };
  Tensor s = t_.scale(t_.matmul(q, t_.transpose(k, 2, 3), "attn.scores"), "attn.scores");
  s = t_.unary(t_.scale(s, "attn.scores"), Tape::Keep::result, "attn.scores");
  s = t_.scale(s, "attn.scores");
  {
    const Tensor mask = square();
    if (!a_.windows.empty() && a_.windows[static_cast<std::size_t>(layer)] > 0) const Tensor window = square();
    s = t_.add(s, mask, "attn.scores");
  }
  s = t_.softmax(t_.to(s, Dtype::fp32, "attn.softmax"), "attn.softmax");
  s = t_.to(s, q.dtype(), "attn.probs");
  return t_.matmul(s, v, "attn.out");
}

// q, k, v [B, H, T, h] to [B, T, H, h]; with LLaMA-Adapter also over the prompt's rows, by a head's factor.
Tensor Litgpt::attend(const Block& b, int layer, const Tensor& q, const Tensor& k, const Tensor& v) {
  const Tensor y = t_.transpose(a_.attention_softcap ? scores(layer, q, k, v) : t_.attention(o_.attention, q, k, v, {}, 0, "attn.out"), 1, 2);
  if (!b.gate_factor.defined()) return y;
  const std::int64_t rows = r_.litgpt.prompt_length, K = a_.kv_heads, h = a_.head_dim;
  const Tensor cached = t_.slice(b.prompt_qkv, -1, K * h);
  Tensor ak = t_.transpose(t_.view(cached, {1, rows, K, h}), 1, 2), av = ak;
  if (K != a_.heads) ak = t_.empty("adapter.k", dims({1, a_.heads, rows, h}, false), q.dtype()), av = t_.empty("adapter.v", ak.dims(), q.dtype());
  const Tensor allowed = t_.empty("adapter.allowed", dims({T, rows}, false), Dtype::bool8);
  Tensor gated;
  {
    const Tensor bias = t_.empty("adapter.mask", dims({T, rows}, false), q.dtype());
    const Tensor padded = t_.empty("adapter.mask", dims({T, round_up(rows, 16)}, false), q.dtype());  // SDPA pads the last dimension for its kernel
    const Attention kind = B == 1 ? Attention::efficient : Attention::math;  // fused kernels want equal batches
    gated = t_.transpose(t_.attention(kind, q, ak, av, padded, 0, "adapter.out"), 1, 2);
  }
  gated = t_.mul(b.gate_factor, gated, "adapter.gated");
  return t_.add(y, gated, "attn.out");
}

Tensor Litgpt::attention(const Block& b, int layer, const Tensor& x) {
  const std::int64_t H = a_.heads, K = a_.kv_heads, h = a_.head_dim, group = H / K;
  Tensor qkv = project_qkv(b.qkv, x);
  qkv = t_.view(qkv, {B, T, K, group + 2, h});
  qkv = t_.transpose(t_.transpose(qkv, 1, 2), 2, 3);  // [B, K, group + 2, T, h]
  std::vector<Tensor> parts = t_.split(qkv, 2, std::array<std::int64_t, 3>{group, 1, 1});
  Tensor q = std::move(parts[0]), k = std::move(parts[1]), v = std::move(parts[2]);
  parts.clear();
  if (K != H) {
    k = t_.expand(k, dims({B, K, group, T, h}, true));
    v = t_.expand(v, dims({B, K, group, T, h}, true));
  }
  q = t_.reshape(q, dims({B, H, T, h}, true), "attn.q");
  k = t_.reshape(k, dims({B, H, T, h}, true), "attn.k");
  v = t_.reshape(v, dims({B, H, T, h}, true), "attn.v");
  q = rotate(q, "attn.q_rot");
  k = rotate(k, "attn.k_rot");
  Tensor y = t_.reshape(attend(b, layer, q, k, v), dims({B, T, H * h}, true), "attn.out");
  return project(b.proj, y, "attn.o");
}

Tensor Litgpt::mlp(const Block& b, const Tensor& x) {
  if (!a_.gated_mlp) {
    Tensor h = project(b.fc, x, "mlp.up");
    h = t_.unary(h, Tape::Keep::input, "mlp.act");
    return project(b.down, h, "mlp.down");
  }
  Tensor product;
  {
    const Tensor gate = project(b.gate, x, "mlp.gate"), up = project(b.fc, x, "mlp.up");
    product = t_.mul(t_.unary(gate, Tape::Keep::input, "mlp.act"), up, "mlp.product");
  }
  return project(b.down, product, "mlp.down");
}

Tensor Litgpt::block(int layer, const Tensor& given) {
  t_.at(layer);
  const Block& b = blocks_[static_cast<std::size_t>(layer)];
  Tensor x = given;
  const Tensor n1 = norm(x, b.norm1, "attn.norm");
  Tensor h = attention(b, layer, n1);
  const auto after = [&](Tensor y, const Norm& w, const char* role) { return w.weight.defined() ? norm(y, w, role) : y; };
  h = after(h, b.after_attention, "attn.norm_after");
  if (a_.parallel_residual) {
    const Tensor n2 = a_.shared_parallel_norm ? n1 : norm(x, b.norm2, "mlp.norm");
    x = t_.add(t_.add(mlp(b, n2), h, "x_mid"), x, "x");
  } else {
    x = t_.add(h, x, "x_mid");
    x = t_.add(after(mlp(b, norm(x, b.norm2, "mlp.norm")), b.after_mlp, "mlp.norm_after"), x, "x");
  }
  t_.at(-1);
  return x;
}

// A block under FSDP's wrapper and, inside that, the newer form of a checkpoint.
Tensor Litgpt::unit(int layer, const Tensor& x) {
  const Tensor given = enter(layer, x);
  if (r_.recompute == Recompute::none) return leave(layer, block(layer, given));
  return leave(layer, t_.checkpoint([this, layer](const Tensor& in) { return block(layer, in); }, given, false));
}

// Under the adapters' scripts the head in chunks of tokens, else at once; Lightning's "bf16-true" gives what the model returns in fp32.
std::vector<Tensor> Litgpt::head(const Tensor& x) {
  std::vector<Tensor> chunks;
  if (chunked_head()) {
    for (const Tensor& part : t_.split(x, 1, parts_of(T, kHeadChunk))) chunks.push_back(project(head_, part, "logits"));
  } else {
    Tensor logits = project(head_, x, "logits");
    if (a_.logit_softcap) {
      logits = t_.unary(t_.scale(logits, "logits"), Tape::Keep::result, "logits");
      logits = t_.scale(logits, "logits");
    }
    chunks.push_back(std::move(logits));
  }
  chunks.back() = leave(-1, chunks.back());  // whose gradient comes first
  std::vector<Tensor> full;
  for (const Tensor& c : chunks) full.push_back(t_.to(c, Dtype::fp32, "logits"));
  return full;
}

// chunked_cross_entropy: each chunk by itself, one mean of all (here of scalars, there of one loss a token).
Tensor Litgpt::loss_of(const std::vector<Tensor>& logits, const Tensor& labels) {
  const auto flattened = [&](const Tensor& chunk) {
    return t_.reshape(chunk, dims({chunk.dims().size[0] * chunk.dims().size[1], a_.vocab}, true), "logits");
  };
  std::vector<Tensor> rows;
  if (!chunked_head() && r_.loss_chunk > 0) {
    const Tensor flat = flattened(logits[0]);
    rows = t_.split(flat, 0, parts_of(flat.dims().size[0], r_.loss_chunk));
  } else {
    for (const Tensor& chunk : logits) rows.push_back(flattened(chunk));
  }
  Tensor sum;
  for (const Tensor& flat : rows) {
    const Tensor loss = t_.cross_entropy(flat, labels, "loss.log_probs");
    sum = sum.defined() ? t_.add(sum, loss, "loss") : loss;
  }
  return t_.scale(sum, "loss");
}

Transformer::Outputs Litgpt::forward(const Transformer::Batch& batch) {
  const Dims d = batch.ids.dims();
  B = d.size[0];
  T = d.size[1];
  enter(-1, {});
  Tensor x = t_.embedding(table_, batch.ids, "wte");
  if (a_.embedding_scale) x = t_.scale(x, "wte");
  for (std::int64_t layer = 0; layer < a_.layers; ++layer) x = unit(static_cast<int>(layer), x);
  x = norm(x, final_, "norm");
  const Category before = t_.category();
  t_.category(Category::logits);
  Transformer::Outputs out;
  out.chunks = head(x);
  x.reset();
  const auto without_last = [&](const Tensor& logits) { return T > 1 ? t_.slice(logits, 1, logits.dims().size[1] - 1) : logits; };
  if (chunked_head()) out.chunks.back() = without_last(out.chunks.back());
  // full.py names the logits of all positions and hands on those that have a target
  if (r_.litgpt.script == LitgptScript::full) out.loss = loss_of({without_last(out.chunks[0])}, batch.labels);
  else out.loss = loss_of(out.chunks, batch.labels);
  t_.category(before);
  return out;
}

}  // namespace dryfit::eager
