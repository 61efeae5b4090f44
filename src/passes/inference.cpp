// See inference.hpp.
#include "passes/inference.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace dryfit {

using Tensor = Inference::Tensor;

void mark_batched(EagerForward& forward, std::size_t first) {
  for (std::size_t i = first; i < forward.tensors.size(); ++i) {
    TensorInfo& t = forward.tensors[i];
    t.batched = t.category != Category::weights && std::strcmp(t.role, "attn.mask") != 0;
  }
}

Inference::Inference(const Workload& workload, Attention attention) : m_(workload.model), run_(workload.run), attention_(attention) {}

void Inference::enter_autocast() {
  if (!m_.version.autocast) return;
  for (const Parameter& p : m_.parameters) {
    if (p.dtype != Dtype::fp32 || p.shape.size() != 2) continue;
    casts_.push_back(make("core.weight_cast", run_.compute, shape({p.count()}, false), Category::weights, p.layer));
  }
}

void Inference::leave_autocast() {
  for (Tensor t : casts_) drop({t});
  casts_.clear();
}

Tensor Inference::forward(std::int64_t rows, std::int64_t length, std::int64_t cached) {
  rows_ = rows, length_ = length, cached_ = cached, n_ = rows * length;
  block();
  return head();
}

Tensor Inference::make(const char* role, Dtype d, Shape s, Category category, int layer) {
  TensorInfo t;
  t.role = role;
  t.layer = static_cast<std::int16_t>(layer);
  t.dtype = d;
  t.category = category;
  t.shape = s;
  t.bytes = s.numel() * size_of(d);
  out_.tensors.push_back(t);
  const auto index = static_cast<Tensor>(out_.tensors.size()) - 1;
  out_.events.push_back({Event::Kind::alloc, index, index});
  return index;
}

Tensor Inference::make(const char* role, Dtype d, std::initializer_list<std::int64_t> dims, Category category) {
  return make(role, d, shape(dims, false), category, -1);
}

Tensor Inference::wide(const char* role, std::int64_t width) { return make(role, run_.compute, {rows_, length_, width}); }

void Inference::drop(std::initializer_list<Tensor> gone) {
  for (Tensor t : gone) out_.events.push_back({Event::Kind::free, t, t});
}

// Later versions cast in Linear.forward: the copy lives while the product is computed.
Tensor Inference::linear(const char* role, std::int64_t in, std::int64_t out) {
  const bool cast = !m_.version.autocast && run_.compute != Dtype::fp32;
  const Tensor w = cast ? make("core.weight_cast", run_.compute, {out, in}, Category::weights) : -1;
  const Tensor y = wide(role, out);
  if (cast) drop({w});
  return y;
}

Tensor Inference::norm(const char* role, std::int64_t width, std::int64_t statistics) {
  const Tensor y = wide(role, width);
  const Tensor rstd = make("core.rstd", Dtype::fp32, {n_ * statistics});
  drop({rstd});
  return y;
}

Tensor Inference::rotate(const char* role) {
  const std::int64_t half = m_.width / 2;
  Tensor parts[2];
  for (Tensor& part : parts) {
    const Tensor a = wide(role, half), b = wide(role, half);
    part = wide(role, half);
    drop({a, b});
  }
  const Tensor out = wide(role, m_.width);
  drop({parts[0], parts[1]});
  return out;
}

// One block stands for all: each starts and ends with the same tensors alive.
void Inference::block() {
  const std::int64_t D = m_.width;
  const Tensor x = wide("x", D);
  const Tensor n = norm("attn.norm", D, 1);
  const Tensor y = attend(n);
  const Tensor mid = wide("x_mid", D);
  drop({y, x});
  mlp(mid);
}

// With a cache, keys and values of the new tokens are written into it and attention reads views of it.
Tensor Inference::attend(Tensor normed) {
  const std::int64_t D = m_.width, seen = length_ + std::max<std::int64_t>(cached_, 0);
  const Tensor q = linear("attn.q", D, D), k = linear("attn.k", D, D), v = linear("attn.v", D, D);
  const Tensor q_rot = rotate("attn.q_rot"), k_rot = rotate("attn.k_rot");
  drop({q, k});
  const Tensor q_norm = norm("attn.q_norm", D, m_.heads), k_norm = norm("attn.k_norm", D, m_.heads);
  drop({q_rot, k_rot});
  const bool masked = attention_ != Attention::fa3 && length_ > 1 && std::ranges::any_of(m_.windows, [&](std::int64_t w) { return w < seen; });
  const Tensor mask = masked ? make("attn.mask", run_.compute, {length_, seen}) : -1;
  const Tensor out = wide("attn.out", D);
  const Tensor lse = make("attn.lse", Dtype::fp32, {n_ * m_.heads});
  drop({lse});
  if (masked) drop({mask});
  const Tensor y = linear("attn.c_proj", D, D);
  drop({out, q_norm, k_norm, v, normed});
  return y;
}

void Inference::mlp(Tensor mid) {
  const std::int64_t D = m_.width;
  const Tensor n = norm("mlp.norm", D, 1);
  const Tensor fc = linear("mlp.c_fc", D, 4 * D);
  const Tensor relu = wide("mlp.relu", 4 * D);
  Tensor square;
  if (m_.version.autocast) {  // autocast computes powers in fp32
    const Tensor up = make("mlp.relu_fp32", Dtype::fp32, {rows_, length_, 4 * D});
    square = make("mlp.square", Dtype::fp32, {rows_, length_, 4 * D});
    drop({up});
  } else {
    square = wide("mlp.square", 4 * D);
  }
  drop({relu, fc});
  const Tensor down = m_.version.autocast ? wide("mlp.square_cast", 4 * D) : -1;
  const Tensor y = linear("mlp.c_proj", 4 * D, D);
  if (down >= 0) drop({down});
  drop({square, n});
  const Tensor x = wide("x_out", D);
  drop({y, mid, x});
}

// Logits and soft-cap. Alive beside them: the normed stream and the names forward() still holds.
Tensor Inference::head() {
  const std::int64_t D = m_.width, V = m_.vocab;
  std::vector<Tensor> held;
  if (m_.version.lambdas) held.push_back(wide("x0", D));
  if (m_.version.smear_backout) {
    held.push_back(wide("x_backout", D));
    if (length_ > 1) held.push_back(make("smear", run_.compute, {rows_, length_ - 1, 1}));
  }
  if (m_.version.value_embeds) held.push_back(wide("attn.ve", D));  // `ve` of the last block
  held.push_back(norm("norm_out", D, 1));
  Tensor logits = linear_head(D);
  if (m_.version.float_before_softcap && run_.compute != Dtype::fp32) {
    const Tensor up = make("logits", Dtype::fp32, {rows_, length_, V}, Category::logits);
    drop({logits});
    logits = up;
  }
  const Dtype capped = m_.version.float_before_softcap ? Dtype::fp32 : run_.compute;
  const auto cap = [&](const char* role) { return make(role, capped, {rows_, length_, V}, Category::logits); };
  const Tensor scaled = cap("logits.scaled");
  const Tensor tanh = cap("logits.tanh");
  drop({scaled});
  const Tensor out = cap("logits.capped");
  drop({tanh, logits});
  for (Tensor t : held) drop({t});
  return out;
}

Tensor Inference::linear_head(std::int64_t in) {
  const bool cast = !m_.version.autocast && run_.compute != Dtype::fp32;
  const Tensor w = cast ? make("core.weight_cast", run_.compute, {m_.padded_vocab, in}, Category::weights) : -1;
  const Tensor y = make("logits", run_.compute, {rows_, length_, m_.padded_vocab}, Category::logits);
  if (cast) drop({w});
  return y;
}

}  // namespace dryfit
