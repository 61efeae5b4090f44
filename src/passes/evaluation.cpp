// The eager forward pass op by op: each op allocates its result, and a tensor dies with the last Python name that holds it
// (nanochat/gpt.py and core_eval.py of the version). Checked against recordings: tests/golden/oracle/evaluation.tsv.
// N tokens, D width, H heads, V vocabulary. See evaluation.hpp.
#include "passes/evaluation.hpp"

#include <algorithm>

#include "base/embedded.hpp"
#include "base/text.hpp"

namespace dryfit {

namespace {

class Eager {
 public:
  Eager(const Workload& w, Attention attention, std::int64_t rows, std::int64_t length)
      : m_(w.model), run_(w.run), attention_(attention), rows_(rows), length_(length), n_(rows * length) {}

  EagerForward build() {
    const Tensor ids = make("core.input_ids", Dtype::int64, {rows_, length_});
    cast_weights();
    block();
    const Tensor logits = head();
    loss(logits);
    drop({logits, ids});
    for (Tensor t : casts_) drop({t});
    return std::move(out_);
  }

 private:
  using Tensor = std::int32_t;

  Tensor make(const char* role, Dtype d, Shape s, Category category = Category::activations, int layer = -1) {
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
  Tensor make(const char* role, Dtype d, std::initializer_list<std::int64_t> dims, Category category = Category::activations, int layer = -1) {
    return make(role, d, shape(dims, false), category, layer);
  }
  Tensor wide(const char* role, std::int64_t width) { return make(role, run_.compute, {rows_, length_, width}); }
  void drop(std::initializer_list<Tensor> gone) {
    for (Tensor t : gone) out_.events.push_back({Event::Kind::free, t, t});
  }

  // Autocast casts each Linear weight once and keeps the copies until its context ends, which is after the evaluation.
  void cast_weights() {
    if (!m_.version.autocast) return;
    for (const Parameter& p : m_.parameters) {
      if (p.dtype != Dtype::fp32 || p.shape.size() != 2) continue;
      casts_.push_back(make("core.weight_cast", run_.compute, {p.count()}, Category::weights, p.layer));
    }
  }

  // Later versions cast in Linear.forward: the copy lives while the product is computed.
  Tensor linear(const char* role, std::int64_t in, std::int64_t out) {
    const bool cast = !m_.version.autocast && run_.compute != Dtype::fp32;
    const Tensor w = cast ? make("core.weight_cast", run_.compute, {out, in}, Category::weights) : -1;
    const Tensor y = wide(role, out);
    if (cast) drop({w});
    return y;
  }

  Tensor norm(const char* role, std::int64_t width, std::int64_t statistics) {
    const Tensor y = wide(role, width);
    const Tensor rstd = make("core.rstd", Dtype::fp32, {n_ * statistics});
    drop({rstd});
    return y;
  }

  Tensor rotate(const char* role) {
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
  void block() {
    const std::int64_t D = m_.width;
    const Tensor x = wide("x", D);
    const Tensor n = norm("attn.norm", D, 1);
    const Tensor q = linear("attn.q", D, D), k = linear("attn.k", D, D), v = linear("attn.v", D, D);
    const Tensor q_rot = rotate("attn.q_rot"), k_rot = rotate("attn.k_rot");
    drop({q, k});
    const Tensor q_norm = norm("attn.q_norm", D, m_.heads), k_norm = norm("attn.k_norm", D, m_.heads);
    drop({q_rot, k_rot});
    const bool masked = attention_ != Attention::fa3 && std::ranges::any_of(m_.windows, [&](std::int64_t w) { return w < length_; });
    const Tensor mask = masked ? make("attn.mask", run_.compute, {length_, length_}) : -1;
    const Tensor out = wide("attn.out", D);
    const Tensor lse = make("attn.lse", Dtype::fp32, {n_ * m_.heads});
    drop({lse});
    if (masked) drop({mask});
    const Tensor y = linear("attn.c_proj", D, D);
    drop({out, q_norm, k_norm, v, n});
    const Tensor mid = wide("x_mid", D);
    drop({y, x});
    mlp(mid);
  }

  void mlp(Tensor mid) {
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
  Tensor head() {
    const std::int64_t D = m_.width, V = m_.vocab;
    std::vector<Tensor> held;
    if (m_.version.lambdas) held.push_back(wide("x0", D));
    if (m_.version.smear_backout) {
      held.push_back(wide("x_backout", D));
      held.push_back(make("smear", run_.compute, {rows_, length_ - 1, 1}));
    }
    if (m_.version.value_embeds) held.push_back(wide("attn.ve", D));  // `ve` of the last block
    held.push_back(norm("norm_out", D, 1));
    Tensor logits = linear_head(D);
    if (m_.version.float_before_softcap) {
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

  Tensor linear_head(std::int64_t in) {
    const bool cast = !m_.version.autocast && run_.compute != Dtype::fp32;
    const Tensor w = cast ? make("core.weight_cast", run_.compute, {m_.padded_vocab, in}, Category::weights) : -1;
    const Tensor y = make("logits", run_.compute, {rows_, length_, m_.padded_vocab}, Category::logits);
    if (cast) drop({w});
    return y;
  }

  // cross_entropy keeps the dtype it is given for log_softmax; autocast then wants nll_loss in fp32.
  void loss(Tensor logits) {
    const Tensor targets = make("core.targets", Dtype::int64, {rows_, length_});
    const Dtype d = out_.tensors[static_cast<std::size_t>(logits)].dtype;
    const Tensor log_probs = make("loss.log_softmax", d, {n_, m_.vocab}, Category::logits);
    const bool up = m_.version.autocast && d != Dtype::fp32;
    const Tensor copy = up ? make("loss.log_softmax_fp32", Dtype::fp32, {n_, m_.vocab}, Category::logits) : -1;
    const Tensor losses = make("loss", Dtype::fp32, {n_});
    if (up) drop({copy});
    drop({log_probs});
    const Tensor best = make("core.argmax", Dtype::int64, {rows_, length_});
    drop({best, losses, targets});
  }

  const Model& m_;
  const Run& run_;
  Attention attention_;
  std::int64_t rows_, length_, n_;
  std::vector<Tensor> casts_;
  EagerForward out_;
};

}  // namespace

CorePrompts core_prompts(const Run& run) {
  // rows stand in ascending numbers of GPUs, the small task first; other sizes take the next larger task
  const bool whole = run.core_metric_max_per_task < 1 || run.core_metric_max_per_task > 500;
  CorePrompts found{4, 2048, 2048, 2048};
  std::int64_t any_rank = 0;
  for (std::string_view line : split(embedded_core_prompts_csv, '\n')) {
    const auto fields = split(line, ',');
    if (fields.size() < 6 || !parse_int(fields[0], "")) continue;
    if ((*parse_int(fields[0], "") < 0) != whole) continue;
    const auto at = [&](std::size_t i) { return parse_int(fields[i], "").value_or(0); };
    any_rank = std::max(any_rank, at(5));
    if (at(1) <= run.world_size) found = {at(2), at(3), at(4), at(5)};
  }
  found.high = std::max(found.high, any_rank);
  return found;
}

bool evaluates_core(const Workload& workload) {
  if (workload.model.version.epoch == "E1") return true;  // -1 switches it off from 2025-10-20 on
  return workload.run.core_metric_every > 0;
}

EagerForward core_forward(const Workload& workload, Attention attention, std::int64_t rows, std::int64_t length) {
  return Eager(workload, attention, rows, length).build();
}

Bytes peak_of(const EagerForward& forward) {
  std::int64_t live = 0, peak = 0;
  for (const Event& e : forward.events) {
    const std::int64_t bytes = round_up(forward.tensors[static_cast<std::size_t>(e.tensor)].bytes, 512);
    live += e.kind == Event::Kind::alloc ? bytes : -bytes;
    peak = std::max(peak, live);
  }
  return Bytes(peak);
}

}  // namespace dryfit
