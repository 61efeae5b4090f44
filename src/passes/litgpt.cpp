// LitGPT's model, op by op. See litgpt.hpp. B batch, T length, D width, H heads, K KV heads, h head size, F MLP width, r rank of the adapters.
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

}  // namespace

Litgpt::Litgpt(Tape& tape, const Architecture& architecture, const Training& training, ForwardOptions options)
    : t_(tape), a_(architecture), r_(training), o_(options) {
  load();
}

Tensor Litgpt::make(const char* role, std::initializer_list<std::int64_t> sizes, bool trains) {
  Tensor t = t_.parameter(role, dims(sizes, false), r_.weights, trains);
  weights_.push_back({t, role, layer_, trains});
  return t;
}

// lora_query and lora_value by default; here by peft's names, "mlp" standing for all of it.
bool Litgpt::adapts(std::string_view module) const {
  if (!r_.lora) return false;
  const std::vector<std::string>& wanted = r_.lora->targets;
  if (wanted.empty()) return module == "q_proj" || module == "v_proj";
  return std::ranges::find(wanted, module) != wanted.end();
}

Litgpt::Linear Litgpt::linear(const char* role, std::int64_t in, std::int64_t out, bool bias, bool adapted) {
  Linear l;
  l.weight = make(role, {out, in}, !r_.lora);
  if (bias) l.bias = make(role, {out}, !r_.lora);
  if (!adapted) return l;
  l.a = make("lora.A", {r_.lora->rank, in}, true);
  l.b = make("lora.B", {out, r_.lora->rank}, true);
  return l;
}

// LoRAQKVLinear: A of all adapted parts together [parts*r, D], B of each below the other [sum of their widths, r].
Litgpt::Linear Litgpt::fused_qkv() {
  const std::int64_t D = a_.width, h = a_.head_dim, q = a_.heads * h, kv = a_.kv_heads * h;
  Linear l = linear("attn.qkv", D, q + 2 * kv, a_.qkv_bias, false);
  if (adapted_parts() == 0) return l;
  l.a = make("lora.A", {adapted_parts() * r_.lora->rank, D}, true);
  l.b = make("lora.B", {(adapts("q_proj") ? q : 0) + (adapts("k_proj") ? kv : 0) + (adapts("v_proj") ? kv : 0), r_.lora->rank}, true);
  return l;
}

Litgpt::Norm Litgpt::norm_weights(const char* role) {
  Norm n;
  n.weight = make(role, {a_.width}, !r_.lora);
  if (a_.norm == NormKind::layer_norm) n.bias = make(role, {a_.width}, !r_.lora);
  return n;
}

void Litgpt::load() {
  const Category before = t_.category();
  t_.category(Category::weights);
  const std::int64_t D = a_.width, F = a_.ffn, V = a_.vocab, h = a_.head_dim;
  head_ = linear("lm_head", D, V, a_.head_bias, adapts("lm_head"));
  table_ = make("wte", {V, D}, !r_.lora);
  for (layer_ = 0; layer_ < a_.layers; ++layer_) {
    t_.at(layer_);
    Block b;
    b.norm1 = norm_weights("norm1");
    b.qkv = fused_qkv();
    b.proj = linear("attn.o", a_.heads * h, D, a_.out_bias, adapts("o_proj"));
    if (!a_.shared_parallel_norm) b.norm2 = norm_weights("norm2");
    if (a_.gated_mlp) b.gate = linear("mlp.gate", D, F, a_.mlp_bias, adapts("mlp"));
    b.fc = linear("mlp.up", D, F, a_.mlp_bias, adapts("mlp"));
    b.down = linear("mlp.down", F, D, a_.mlp_bias, adapts("mlp"));
    blocks_.push_back(std::move(b));
  }
  t_.at(-1);
  layer_ = -1;
  final_ = norm_weights("norm");
  cos_ = t_.empty("rotary.cos", dims({r_.seq_len, a_.rotary_dims}, false), Dtype::fp32);
  sin_ = t_.empty("rotary.sin", dims({r_.seq_len, a_.rotary_dims}, false), Dtype::fp32);
  t_.category(before);
}

// RMSNorm: x as fp32 is what both products save; nn.LayerNorm otherwise. (Until 2024-02-23 the weight's product was in fp32 too.)
Tensor Litgpt::norm(const Tensor& given, const Norm& w, const char* role) {
  if (a_.norm == NormKind::layer_norm) return t_.layer_norm(given, w.weight, w.bias, role);
  const Tensor x = t_.to(given, Dtype::fp32, role);
  const Tensor mean = t_.mean_last(t_.mul(x, x, role), role);
  Tensor normed = t_.mul(x, t_.rsqrt(t_.shift(mean, role), role), role);
  normed = t_.to(normed, given.dtype(), role);
  return t_.mul(normed, w.weight, role);
}

// LoRALinear: pretrained + (dropout(x) @ A^T @ B^T) * scaling.
Tensor Litgpt::project(const Linear& l, const Tensor& x, const char* role) {
  const Tensor pretrained = t_.linear(x, l.weight, role, l.bias);
  if (!l.a.defined()) return pretrained;
  Tensor low = t_.linear(t_.dropout(x, r_.dropout ? r_.lora->dropout : 0, "lora.dropout"), l.a, "lora.A");
  low = t_.linear(low, l.b, "lora.B");
  low = t_.scale(low, "lora.scaled");
  return t_.add(pretrained, low, role);
}

// LoRAQKVLinear.forward: a grouped convolution of width 1 for B; where a part has no adapter its zeros are made and the rest copied in
// by index_copy, whose node keeps the rows that were copied.
Tensor Litgpt::project_qkv(const Linear& l, const Tensor& x) {
  const Tensor pretrained = t_.linear(x, l.weight, "attn.qkv", l.bias);
  if (!l.a.defined()) return pretrained;
  const Tensor after_a = t_.linear(t_.dropout(x, r_.dropout ? r_.lora->dropout : 0, "lora.dropout"), l.a, "lora.A");
  const std::int64_t width = l.b.dims().size[0], all = l.weight.dims().size[0];
  const Tensor after_b = t_.transpose(t_.convolution(t_.transpose(after_a, -2, -1), l.b, dims({B, width, T}, true), "lora.B"), -2, -1);
  const auto zero_pad = [&] {
    if (adapted_parts() == 3) return after_b;
    const Tensor zeros = t_.empty("lora.zeros", dims({B * T, all}, true), after_b.dtype());
    const Tensor index = t_.empty("lora.index", dims({width}, false), Dtype::int64);
    const Tensor rows = t_.reshape(t_.transpose(after_b, 0, 1), dims({B * T, width}, true), "lora.rows");
    return t_.transpose(t_.view(t_.index_copy(zeros, index, rows), {T, B, all}), 0, 1);
  };
  const Tensor lora = t_.scale(zero_pad(), "lora.scaled");
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

Tensor Litgpt::attention(const Block& b, const Tensor& x) {
  const std::int64_t H = a_.heads, K = a_.kv_heads, h = a_.head_dim, group = H / K;
  Tensor qkv = project_qkv(b.qkv, x);
  qkv = t_.view(qkv, {B, T, K, group + 2, h});
  qkv = t_.transpose(t_.transpose(qkv, 1, 2), 2, 3);  // [B, K, group + 2, T, h]
  std::vector<Tensor> parts = t_.split(qkv, 2, std::array<std::int64_t, 3>{group, 1, 1});
  Tensor q = std::move(parts[0]), k = std::move(parts[1]), v = std::move(parts[2]);
  parts.clear();
  if (K != 1) {
    k = t_.expand(k, dims({B, K, group, T, h}, true));
    v = t_.expand(v, dims({B, K, group, T, h}, true));
  }
  const std::int64_t heads = K == 1 ? 1 : H;
  q = t_.reshape(q, dims({B, H, T, h}, true), "attn.q");
  k = t_.reshape(k, dims({B, heads, T, h}, true), "attn.k");
  v = t_.reshape(v, dims({B, heads, T, h}, true), "attn.v");
  q = rotate(q, "attn.q_rot");
  k = rotate(k, "attn.k_rot");
  Tensor y = t_.transpose(t_.attention(o_.attention, q, k, v, {}, 0, "attn.out"), 1, 2);
  y = t_.reshape(y, dims({B, T, H * h}, true), "attn.out");
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
  const Tensor h = attention(b, n1);
  if (a_.parallel_residual) {
    const Tensor n2 = a_.shared_parallel_norm ? n1 : norm(x, b.norm2, "mlp.norm");
    x = t_.add(t_.add(mlp(b, n2), h, "x_mid"), x, "x");
  } else {
    x = t_.add(h, x, "x_mid");
    x = t_.add(mlp(b, norm(x, b.norm2, "mlp.norm")), x, "x");
  }
  t_.at(-1);
  return x;
}

// Under the adapters' script the head in chunks of tokens, else at once; Lightning's "bf16-true" gives what the model returns in fp32.
std::vector<Tensor> Litgpt::head(const Tensor& x) {
  std::vector<Tensor> chunks;
  if (r_.lora) {
    for (const Tensor& part : t_.split(x, 1, parts_of(T, kHeadChunk))) chunks.push_back(project(head_, part, "logits"));
  } else {
    chunks.push_back(project(head_, x, "logits"));
  }
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
  if (logits.size() == 1 && r_.loss_chunk > 0) rows = t_.split(flattened(logits[0]), 0, parts_of(B * T, r_.loss_chunk));
  else for (const Tensor& chunk : logits) rows.push_back(flattened(chunk));
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
  Tensor x = t_.embedding(table_, batch.ids, "wte");
  for (std::int64_t layer = 0; layer < a_.layers; ++layer) x = block(static_cast<int>(layer), x);
  x = norm(x, final_, "norm");
  const Category before = t_.category();
  t_.category(Category::logits);
  Transformer::Outputs out;
  out.chunks = head(x);
  x.reset();
  if (r_.lora && T > 1) out.chunks.back() = t_.slice(out.chunks.back(), 1, out.chunks.back().dims().size[1] - 1);
  out.loss = loss_of(out.chunks, batch.labels);
  t_.category(before);
  return out;
}

}  // namespace dryfit::eager
