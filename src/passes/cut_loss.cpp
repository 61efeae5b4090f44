// See cut_loss.hpp. B device batch, T length, n = B (T - 1) positions with a next token, D width, V vocabulary.
#include "passes/cut_loss.hpp"

#include <array>

namespace dryfit::eager {

namespace {

constexpr std::int64_t kRowsOfLock = 128, kColumnsOfLock = 64;

// _build_flat_valids: where a next token counts, as places in all B T.
Tensor counted_places(Tape& t, std::int64_t n, const Dims& shifted) {
  Tensor places;
  {
    const Tensor found = [&] {
      const Tensor counts = t.empty("loss.mask", shifted, Dtype::bool8);
      return t.empty("loss.places", dims({n, 2}, true), Dtype::int64);
    }();
    places = t.to(found, Dtype::int32, "loss.places");
  }
  return t.empty("loss.places", dims({n}, true), Dtype::int64);  // their sum is wide again
}

}  // namespace

Tensor cut_loss(Tape& t, const Tensor& given, const Tensor& weight, const Tensor& bias, const Tensor& labels) {
  const std::int64_t B = given.dims().size[0], T = given.dims().size[1], D = given.dims().back(), V = weight.dims().size[0], n = B * (T - 1);
  const Tensor hidden = t.view(t.to(given, weight.dtype(), "logits.x"), {B * T, D});
  const auto locks = [&t, D](const char* role, std::int64_t rows, bool batched) { return t.empty(role, dims({ceil_div(rows, kRowsOfLock), ceil_div(D, kColumnsOfLock)}, batched), Dtype::int32); };
  const auto logits = [&t](const Tensor& x, const Tensor& w) { t.multiply(x, t.transpose(w, 0, 1), "logits"); };  // within a kernel
  const Tensor places = counted_places(t, n, dims({B, T - 1}, true));
  const bool trains = given.requires_grad() || weight.requires_grad();
  Tensor loss, log_z, average;
  {
    const NoGrad inside(t);
    log_z = t.empty("loss.logsum", dims({n}, true), Dtype::fp32);
    {
      const Tensor lock = t.empty("loss.locks", dims({ceil_div(n, kRowsOfLock)}, true), Dtype::int32);
      if (trains) average = t.empty("loss.average", dims({V}, false), Dtype::fp32);
      logits(hidden, weight);
    }
    const Tensor rows = t.empty("loss.rows", dims({n}, true), Dtype::fp32);
    loss = t.empty("loss", dims({}, false), Dtype::fp32);
  }
  std::vector<Tensor> inputs{hidden, weight}, kept{hidden, weight};
  if (bias.defined()) inputs.push_back(bias), kept.push_back(bias);
  kept.insert(kept.end(), {log_z, labels, places});
  if (average.defined()) kept.push_back(average);
  const bool trains_weight = weight.requires_grad(), trains_bias = bias.defined() && bias.requires_grad();
  const std::array named = {labels, places};  // by CCEParams, an attribute of the node
  return t.function(loss, inputs, kept, "loss", [=, &t](const Tensor&, std::vector<Tensor>& saved) {
    static_cast<void>(named);
    const Tensor &x = saved[0], &w = saved[1];
    Tensor order;
    {
      const Tensor sorted = t.empty("loss.average", dims({V}, false), Dtype::fp32), index = t.empty("loss.order", dims({V}, false), Dtype::int64);
      order = t.to(index, Dtype::int32, "loss.order");
    }
    const Tensor dx = t.empty("logits.grad", x.dims(), x.dtype());
    const Category before = t.category();
    t.category(Category::gradients);
    Tensor dw, db;
    if (trains_weight) dw = t.empty("lm_head", w.dims(), w.dtype());
    if (trains_bias) db = t.empty("lm_head", dims({V}, false), Dtype::fp32);
    t.category(before);
    const Tensor row_locks = locks("loss.locks", n, true);
    Tensor word_locks;
    if (trains_weight) word_locks = locks("loss.locks", V, false);
    logits(x, w), logits(x, w);  // made once more, then their gradient with the weight
    if (trains_weight) logits(x, w);
    if (trains_bias) db = t.to(db, saved[2].dtype(), "lm_head");
    return std::vector<Tensor>{dx, dw, db};
  });
}

}  // namespace dryfit::eager
