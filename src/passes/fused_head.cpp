// See fused_head.hpp. B device batch, T length, n positions whose next token counts, B (T - 1) or fewer, D width, V vocabulary.
#include "passes/fused_head.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace dryfit::eager {

namespace {

constexpr std::int64_t kTokens = 4096, kColumns = 32768;  // of a tile: TOKEN_CHUNK_SIZE, _CHUNKED_LOGPROB_CHUNK_SIZE

// Calls at(tokens, columns) for each tile's sizes; what Python names from one tile to the next stays until the end.
template <typename RowsOf, typename At>
void each_tile(std::int64_t n, std::int64_t vocab, RowsOf rows_of, At at) {
  for (std::int64_t row = 0; row < n; row += kTokens) {
    rows_of(std::min(kTokens, n - row));
    for (std::int64_t column = 0; column < vocab; column += kColumns) at(std::min(kColumns, vocab - column));
  }
}

struct Head {
  Tape& t;
  std::int64_t n, width, vocab;
  Dtype computes;
  bool trains_weight, trains_bias;
  FusedAsked asked;
  struct PerToken { Tensor log_probs, log_z, entropy, mean_logits, top; };

  Tensor sums(const char* role) const { return t.empty(role, dims({n}, true), Dtype::fp32); }
  Tensor tile() const { return t.empty("logits", dims({std::min(n, kTokens), kColumns}, false), computes); }
  Tensor narrowed(const Tensor& x, std::int64_t rows, const char* role) const { return t.to(t.slice(x, 0, rows, true), computes, role); }

  // The statistics of every row in one pass over its logits, then what is asked of them.
  PerToken forward(const Tensor& hidden, const Tensor& weight, const Tensor& bias) const {
    const Tensor most = sums("loss.max"), sum = sums("loss.sum"), weighted = sums("loss.entropy"), squares = sums("loss.entropy"), total = sums("loss.entropy"), before = sums("loss.max"), picked = sums("loss.target");
    const Tensor room = tile();
    Tensor rows;
    each_tile(n, vocab, [&](std::int64_t count) { rows = narrowed(hidden, count, "logits.x"); }, [&](std::int64_t columns) {
      Tensor part = narrowed(weight, columns, "lm_head");
      t.multiply(rows, t.transpose(part, 0, 1), "logits");
      part.reset();
      if (bias.defined()) narrowed(bias, columns, "lm_head");
      t.tell_traffic("loss.kernel", static_cast<double>(rows.dims().size[0] * columns * size_of(computes)));
    });
    PerToken out;
    const auto of_two = [&](const char* role) {
      const Tensor first = sums(role);
      return sums(role);
    };
    out.log_z = of_two("loss.logsum");
    out.log_probs = sums("loss.log_probs");
    if (asked.entropy) out.entropy = of_two("loss.entropy");
    if (asked.mean_logits) out.mean_logits = sums("loss.mean_logits");
    if (!asked.top) return out;
    const auto truth = [&] { return t.empty("loss.top", dims({n}, true), Dtype::bool8); };
    const Tensor highest = truth(), unequalled = truth();
    out.top = truth();
    return out;
  }

  std::vector<Tensor> backward(const Tensor& hidden, const Tensor& weight, const Tensor& bias) const {
    const Category before = t.category();
    const auto zeros = [&](const Tensor& like, bool trains) { return trains ? t.empty("lm_head", contiguous(like.dims()), Dtype::fp32, Category::gradients) : Tensor(); };
    const Tensor of_hidden = t.empty("logits.grad", hidden.dims(), Dtype::fp32), of_weight = zeros(weight, trains_weight), of_bias = zeros(bias, trains_bias);
    const Tensor room = tile();
    Tensor rows, part;
    each_tile(n, vocab, [&](std::int64_t count) { rows = narrowed(hidden, count, "logits.x"); }, [&](std::int64_t columns) {
      part = narrowed(weight, columns, "lm_head");
      const Tensor logits = t.slice(t.slice(room, 0, rows.dims().size[0], true), 1, columns, true);
      t.multiply(rows, t.transpose(part, 0, 1), "logits");
      t.tell_traffic("loss.kernel", 2.0 * static_cast<double>(rows.dims().size[0] * columns * size_of(computes)));
      t.multiply(logits, part, "logits.grad");
      if (of_weight.defined()) t.multiply(t.transpose(logits, 0, 1), rows, "lm_head");
    });
    Tensor dx = t.to(of_hidden, hidden.dtype(), "logits.grad");
    t.category(Category::gradients);
    const auto cast = [&](const Tensor& sum, const Tensor& like) { return sum.defined() ? t.to(sum, like.dtype(), "lm_head") : Tensor(); };
    Tensor dw = cast(of_weight, weight);
    Tensor db = cast(of_bias, bias);
    t.category(before);
    return {std::move(dx), std::move(dw), std::move(db)};
  }
};

// masked_scatter into zeros, which is not in place; backward picks what the mask says.
Tensor scattered(Tape& t, const Tensor& x, const Tensor& mask) {
  if (!x.defined()) return {};
  const auto all = [&](const char* role) { return t.empty(role, mask.dims(), x.dtype()); };
  Tensor out;
  {
    const NoGrad inside(t);
    const Tensor zeros = all("loss.spread");
    out = all("loss.spread");
  }
  if (x.dtype() == Dtype::bool8) return out;
  return t.function(out, std::array{x}, std::array{mask}, "loss", [&t, d = x.dims()](const Tensor&, std::vector<Tensor>&) { return std::vector<Tensor>{t.empty("loss.log_probs", d, Dtype::fp32)}; });
}

Tensor total(Tape& t, const Tensor& x) { return t.sum(t.view(x, {x.dims().numel()}), 0, "loss"); }

// Over how many labels count.
Tensor per_label(Tape& t, const Tensor& sum) {
  const auto one = [&t] { return t.empty("loss.count", dims({}, false), Dtype::int64); };
  Tensor count = one();
  count = one();  // clamped
  return t.masked(sum, count, "loss");
}

}  // namespace

FusedOutput fused_head(Tape& t, const Tensor& hidden, const Tensor& weight, const Tensor& bias, FusedAsked asked) {
  const std::int64_t B = hidden.dims().size[0], T = hidden.dims().size[1], D = hidden.dims().back(), V = weight.dims().size[0];
  const Head head{t, B * (asked.last > 0 ? asked.last : T - 1), D, V, t.autocast().value_or(hidden.dtype()), weight.requires_grad(), bias.defined() && bias.requires_grad(), asked};
  const Dims rows = dims({head.n, D}, true), one = dims({head.n}, true), shifted = dims({B, T - 1}, true);
  const Tensor mask = t.empty("loss.mask", shifted, Dtype::bool8);
  const Tensor seen = t.slice(hidden, 1, T - 1);
  const auto places = [&] { return t.empty("loss.places", dims({head.n, 2}, true), Dtype::int64); };
  Tensor counted = t.gather(seen, places(), rows, "logits.x");
  Tensor targets;
  Head::PerToken made;
  {
    const NoGrad inside(t);
    {
      const Tensor index = places();
      targets = t.empty("loss.targets", one, Dtype::int64);
    }
    const auto cast = t.autocast();
    t.suspend_autocast();
    made = head.forward(counted, weight, bias);
    t.resume_autocast(cast);
  }
  std::vector<Tensor> inputs{counted, weight};
  if (bias.defined()) inputs.push_back(bias);
  std::vector<Tensor> kept = inputs;
  kept.insert(kept.end(), {targets, made.log_z, made.entropy});
  Tensor log_probs = t.function(made.log_probs, inputs, kept, "loss", [head, biased = bias.defined()](const Tensor&, std::vector<Tensor>& saved) {
    return head.backward(saved[0], saved[1], biased ? saved[2] : Tensor());
  });
  inputs.clear(), kept.clear(), counted.reset(), targets.reset(), made.log_probs.reset(), made.log_z.reset();
  FusedOutput out;
  out.mask = mask;
  out.log_probs = scattered(t, log_probs, mask);
  out.entropy = scattered(t, made.entropy, mask);
  out.mean_logits = scattered(t, made.mean_logits, mask);
  out.top = scattered(t, made.top, mask);
  made = {}, log_probs.reset();
  out.loss = per_label(t, t.scale(total(t, out.log_probs), "loss"));
  return out;
}

Tensor fused_head_loss(Tape& t, const FusedOutput& made) {
  const Tensor negated = t.scale(made.log_probs, "loss.log_probs");
  return per_label(t, total(t, negated));
}

}  // namespace dryfit::eager
