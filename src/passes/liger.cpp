// See liger.hpp. N tokens, D width, V vocabulary.
#include "passes/liger.hpp"

#include <algorithm>
#include <array>
#include <bit>

namespace dryfit::eager {

namespace {

using Gradients = std::vector<Tensor>;

std::int64_t next_power_of_two(std::int64_t n) { return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(n, 1)))); }

}  // namespace

Tensor liger_rms_norm(Tape& t, const Tensor& given, const Tensor& w, bool in_place, std::int64_t partial_sums, const char* role) {
  Tensor x, y, deviation;
  {
    const NoGrad inside(t);
    x = t.contiguous(given, role);
    const std::int64_t D = x.dims().back();
    y = t.empty(role, x.dims(), x.dtype());
    deviation = t.empty(role, dims({x.dims().numel() / D}, x.dims().batched), Dtype::fp32);
  }
  return t.function(y, std::array{given, w}, std::array{x, w, deviation}, role, [&t, in_place, partial_sums, role](const Tensor& g, std::vector<Tensor>& saved) {
    const Tensor dy = t.contiguous(g, role);
    const Dims d = dy.dims();
    const Tensor sums = t.empty(role, dims({partial_sums, d.back()}, false), Dtype::fp32, Category::workspace);  // of frozen weights too
    const Tensor dx = in_place ? t.view(dy, d) : t.empty(role, d, dy.dtype());
    const Category before = t.category();
    t.category(Category::gradients);
    Tensor dw = t.sum(sums, 0, role);
    t.category(before);
    if (saved[1].dtype() != Dtype::fp32) dw = t.empty(role, dw.dims(), saved[1].dtype(), Category::gradients);
    return Gradients{dx, dw};
  });
}

Tensor liger_gated(Tape& t, const Tensor& gate, const Tensor& up, const char* role) {
  Tensor a, b, c;
  {
    const NoGrad inside(t);
    a = t.contiguous(gate, role);
    b = t.contiguous(up, role);
    c = t.empty(role, a.dims(), a.dtype());
  }
  return t.function(c, std::array{gate, up}, std::array{a, b}, role, [&t, role](const Tensor& g, std::vector<Tensor>& saved) {
    const Tensor dc = t.contiguous(g, role);
    return Gradients{saved[0], saved[1]};
  });
}

std::pair<Tensor, Tensor> liger_rotate(Tape& t, const Tensor& q, const Tensor& k, const Tensor& cos, const Tensor& sin) {
  const auto turned = [&t](const Tensor& x, const char* role) {
    const NoGrad inside(t);
    return t.transpose(t.contiguous(t.transpose(x, 1, 2), role), 1, 2);
  };
  const Tensor q_rotated = turned(q, "attn.q_rot"), k_rotated = turned(k, "attn.k_rot");
  const auto out = t.function(std::array{q_rotated, k_rotated}, std::array{q, k}, std::array{cos, sin}, "attn.rot", [turned](std::span<const Tensor> g, std::vector<Tensor>&) {
    Tensor dq = turned(g[0], "attn.q_rot"), dk = turned(g[1], "attn.k_rot");
    return Gradients{std::move(dq), std::move(dk)};
  });
  return {out[0], out[1]};
}

Tensor liger_loss(Tape& t, const Tensor& hidden, const Tensor& weight, const Tensor& targets, bool fuses) {
  const std::int64_t N = hidden.dims().size[0], D = hidden.dims().back(), V = weight.dims().size[0];
  const Dtype type = hidden.dtype();
  Tensor loss, grad_input, grad_weight;
  {
    const NoGrad inside(t);
    const std::int64_t rows = std::min(next_power_of_two(ceil_div(N, ceil_div(V, D))), N);
    grad_input = t.empty("logits.grad", hidden.dims(), type);
    if (weight.requires_grad()) grad_weight = t.empty("lm_head", weight.dims(), weight.dtype(), Category::gradients);
    const Tensor losses = t.empty("loss.rows", targets.dims(), Dtype::fp32), counts = t.empty("loss.mask", targets.dims(), Dtype::bool8);
    const bool straight = type == weight.dtype() && (!t.autocast() || type == *t.autocast());  // products of what is given, into what is there
    Tensor storage;
    if (straight) storage = t.empty("logits", dims({rows, V}, false), type);
    for (std::int64_t begin = 0; begin < N; begin += rows) {
      const std::int64_t n = std::min(rows, N - begin);
      Tensor chunk = t.slice(hidden, 0, n, true);
      const Tensor logits = straight ? t.slice(storage, 0, n, true) : t.matmul(chunk, t.transpose(weight, 0, 1), "logits");  // autocast keeps no cast of a view
      if (straight) t.multiply(chunk, t.transpose(weight, 0, 1), "logits");
      t.tell_traffic("loss.kernel", 2.0 * static_cast<double>(n * V * size_of(logits.dtype())));  // logits become their gradient
      if (straight) t.multiply(logits, weight, "logits.grad");
      else t.matmul(logits, weight, "logits.grad");  // then copied into grad_input
      if (!grad_weight.defined()) continue;
      const bool half = logits.dtype() != Dtype::fp32;
      if (fuses && half && (grad_weight.dtype() == Dtype::fp32 || grad_weight.dtype() == logits.dtype())) {
        chunk = t.to(chunk, logits.dtype(), "logits.x");
        t.multiply(t.transpose(logits, 0, 1), chunk, "lm_head");
      } else {
        const Tensor product = t.matmul(t.transpose(logits, 0, 1), chunk, "lm_head");
        const Tensor widened = t.to(product, Dtype::fp32, "lm_head");
      }
    }
    storage.reset();
    loss = t.empty("loss", dims({}, false), Dtype::fp32);
  }
  return t.function(loss, std::array{hidden, weight}, std::array{grad_input, grad_weight}, "loss", [&t](const Tensor& g, std::vector<Tensor>& saved) {
    const Tensor one = t.empty("loss", g.dims(), Dtype::fp32), same = t.empty("loss", g.dims(), Dtype::bool8), all = t.empty("loss", g.dims(), Dtype::bool8);
    return Gradients{saved[0], saved.size() > 1 ? saved[1] : Tensor()};
  });
}

}  // namespace dryfit::eager
