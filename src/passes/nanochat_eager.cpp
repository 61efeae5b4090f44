// See nanochat_eager.hpp. Names live as long as gpt.py's own do: what a call still holds cannot go. B device batch, T length, D width, H heads,
// h head size, V vocabulary.
#include "passes/nanochat_eager.hpp"

#include <array>
#include <cstring>
#include <map>
#include <string_view>

#include "graph/nanochat.hpp"
#include "passes/eager.hpp"
#include "passes/efficient_attention.hpp"
#include "workload/scripts.hpp"

namespace dryfit {

namespace {

using eager::Dims;
using eager::Tape;
using eager::Tensor;

class Step {
 public:
  Step(const Workload& workload, const Graph& graph, Attention attention, const Target& target)
      : m_(workload.model), run_(workload.run), graph_(graph), attention_(attention),
        t_(workload.run.device_batch_size, {.capability = target.capability(), .host_seeds = makes_seeds_on_host(target, workload.run.torch)}),
        B(run_.device_batch_size), T(run_.max_seq_len), D(m_.width), H(m_.heads), h(m_.head_dim) {}

  EagerStep run() {
    t_.segment("inputs", "inputs");
    declare_inputs();
    for (int micro = 1; micro <= 2; ++micro) {
      t_.segment("train_step", "forward", micro);
      Tensor loss = forward(run_.script != Script::chat_rl);
      loss = t_.scale(loss, "loss");  // over the accumulation steps; of chat_rl the objective's sign
      t_.segment("train_step", "backward", micro);
      t_.backward(loss);
    }
    t_.segment("validation", "forward");
    t_.grad_enabled(false);
    evaluated_ = true;  // nanochat evaluates in bf16
    forward(run_.script == Script::chat_sft && m_.version.sft == NanochatVersion::Sft::rows);  // which tells a loss, the others bits per byte
    t_.grad_enabled(true);
    EagerStep out;
    for (const Tensor& p : inputs_) {
      const Tensor g = p.requires_grad() ? t_.gradient(p) : Tensor();
      out.gradients.push_back(g.defined() ? t_.storage_of(g) : -1);
    }
    out.program = t_.take();
    return out;
  }

 private:
  const Node& node(NodeId v) const { return graph_.nodes[static_cast<std::size_t>(v)]; }

  void declare_inputs() {
    t_.category(Category::weights);
    for (const auto& input : graph_.inputs) {
      const Node& n = node(input.node);
      Dims d;
      for (std::uint8_t i = 0; i < n.shape.rank; ++i) d.size[d.rank++] = n.shape.dim[i];
      d.batched = n.shape.batched;
      d = eager::contiguous(d);
      t_.at(n.layer);
      Tensor x = input.parameter < 0 ? t_.empty(n.role, d, n.dtype) : t_.parameter(n.role, d, n.dtype, true);
      named_[{n.role, n.layer}] = x;
      inputs_.push_back(std::move(x));
    }
    t_.category(Category::activations);
    t_.at(-1);
  }
  Tensor input(const char* role, int layer = -1) const {
    const auto found = named_.find({role, layer});
    return found == named_.end() ? Tensor() : found->second;
  }

  // F.rms_norm without weight: torch's fused kernel from 2.9 on, its parts before.
  Tensor norm(const Tensor& x, const char* role) {
    if (!run_.torch.starts_with("2.8")) return t_.rms_norm(x, {}, role);
    const Tensor up = t_.to(x, Dtype::fp32, role);
    Tensor rstd;
    {
      Tensor mean;
      {
        const Tensor squares = t_.power(up, role);
        mean = t_.mean_last(squares, role);
      }
      rstd = t_.rsqrt(mean, role);
    }
    const Tensor scaled = t_.mul(up, rstd, role);
    return t_.to(scaled, x.dtype(), role);
  }

  struct Float8 { Tensor value, inverse; };
  Tensor scalar(Dtype d, const char* role) { return t_.empty(role, Dims{}, d); }

  // nanochat/fp8.py _to_fp8: names live as its own do.
  Float8 to_fp8(const Tensor& x, Dtype kind, const char* role) {
    const eager::NoGrad off(t_);
    const Dims d = eager::contiguous(x.dims());
    const auto of_widened = [&] {
      const Tensor wide = t_.to(x, Dtype::fp32, role);
      return t_.empty(role, d, Dtype::fp32);
    };
    Tensor amax;
    {
      const Tensor magnitudes = of_widened();
      amax = scalar(Dtype::fp32, role);
    }
    Tensor scale;
    {
      const Tensor quotient = scalar(Dtype::fp64, role);
      scale = scalar(Dtype::fp32, role);
    }
    const Tensor scaled = of_widened();
    const Tensor clamped = t_.empty(role, d, Dtype::fp32);
    Tensor value = t_.empty(role, d, kind);
    return {std::move(value), scalar(Dtype::fp32, role)};
  }

  // nanochat/fp8.py _Float8Matmul: backward multiplies what forward saved in the layouts that its products need, which are copies.
  Tensor float8_linear(const Tensor& x, const Tensor& weight, const char* role) {
    Dims whole = x.dims();
    const std::int64_t wide = whole.back(), out = weight.dims().size[0];
    const Tensor rows = t_.view(t_.to(x, run_.compute, role), {B * T, wide});
    const Float8 x8 = to_fp8(rows, Dtype::fp8_e4m3, role), w8 = to_fp8(weight, Dtype::fp8_e4m3, role);
    const auto of = [](std::int64_t first, std::int64_t second, bool batched) { return eager::dims({first, second}, batched); };
    Tensor y = t_.empty(role, of(B * T, out, true), run_.compute);
    y = t_.function(y, std::array{rows, weight}, std::array{x8.value, x8.inverse, w8.value, w8.inverse}, role, [=, this](const Tensor& g, std::vector<Tensor>&) {
      std::vector<Tensor> gradients(2);
      {
        const Float8 g8 = to_fp8(g, Dtype::fp8_e5m2, role);
        const Tensor weight_by_columns = t_.empty(role, of(out, wide, false), Dtype::fp8_e4m3);
        gradients[0] = t_.empty(role, of(B * T, wide, true), run_.compute);
        const Tensor gradient_by_rows = t_.empty(role, of(out, B * T, true), Dtype::fp8_e5m2), x_by_columns = t_.empty(role, of(B * T, wide, true), Dtype::fp8_e4m3);
        gradients[1] = t_.empty(role, of(out, wide, false), run_.compute);
      }
      return gradients;
    });
    whole.size[whole.rank - 1] = out;
    return t_.view(y, eager::contiguous(whole));
  }

  Tensor linear(const Tensor& x, const Tensor& weight, const char* role) {
    if (run_.fp8 && !evaluated_ && fp8_fits(weight.dims().size[0], weight.dims().size[1])) return float8_linear(x, weight, role);
    if (m_.version.autocast) return t_.linear(x, weight, role);
    const Category before = t_.category();
    t_.category(Category::weights);
    const Tensor w = t_.to(weight, x.dtype(), role);
    t_.category(before);
    return t_.linear(x, w, role);
  }

  Tensor embed(const Tensor& table, const char* role) {
    const Tensor rows = t_.embedding(table, input("idx"), role);
    return m_.version.autocast ? rows : t_.to(rows, run_.compute, role);
  }

  // Element `which` of a parameter: a view without dimensions.
  Tensor element(const Tensor& vector) { return t_.view(t_.slice(vector, 0, 1), Dims{}); }

  Tensor smear(const Tensor& x) {
    const Tensor later = t_.slice(x, 1, T - 1);
    const Tensor lambda = t_.to(input("smear_lambda"), x.dtype(), "smear");
    Tensor gate;
    {
      Tensor open;
      {
        const Tensor raw = linear(t_.slice(later, 2, 24), input("smear_gate.weight"), "smear_gate");
        open = t_.unary(raw, Tape::Keep::result, "smear");
      }
      gate = t_.mul(lambda, open, "smear");
    }
    Tensor mixed;
    {
      const Tensor earlier = t_.mul(gate, t_.slice(x, 1, T - 1), "smear");
      mixed = t_.add(later, earlier, "smear");
    }
    const Tensor parts[] = {t_.slice(x, 1, 1), mixed};
    return t_.cat(parts, 1, "x0");
  }

  // Two halves of each head, mixed with cosines and sines.
  Tensor rotate(const Tensor& x, const char* role) {
    const Tensor x1 = t_.slice(x, 3, h / 2), x2 = t_.slice(x, 3, h / 2);
    const Tensor cos = t_.slice(input("cos"), 1, T), sin = t_.slice(input("sin"), 1, T);
    const auto mix = [&](const Tensor& c, const Tensor& s) {
      const Tensor first = t_.mul(x1, c, role);
      const Tensor second = t_.mul(x2, s, role);
      return t_.add(first, second, role);
    };
    const Tensor y1 = mix(cos, sin);
    Tensor y2;
    {
      const Tensor minus = t_.scale(sin, role);
      const Tensor first = t_.mul(x1, minus, role);
      const Tensor second = t_.mul(x2, cos, role);
      y2 = t_.add(first, second, role);
    }
    const Tensor halves[] = {y1, y2};
    return t_.cat(halves, 3, role);
  }

  // A window that is shorter than the row: what nanochat makes its boolean mask of lives until SDPA has returned; SDPA makes it an additive one, its rows padded to eight
  // (aten/src/ATen/native/transformers/attention.cpp, pad_bias). Only that one survives the call.
  struct Mask { Tensor row, column, causal, bias; };
  Mask mask() {
    const Dims square = eager::dims({T, T}, false);
    const Tensor row = t_.empty("attn.mask", eager::dims({T, 1}, false), Dtype::int64), column = t_.empty("attn.mask", eager::dims({1, T}, false), Dtype::int64);
    Tensor causal = t_.empty("attn.mask", square, Dtype::bool8);
    {
      Tensor near;
      {
        const Tensor distance = t_.empty("attn.mask", square, Dtype::int64);
        near = t_.empty("attn.mask", square, Dtype::bool8);
      }
      causal = t_.empty("attn.mask", square, Dtype::bool8);
    }
    Tensor bias = t_.empty("attn.mask", square, run_.compute);
    constexpr std::int64_t kAligned = 8;
    if (T % kAligned != 0) bias = t_.empty("attn.mask", eager::dims({T, round_up(T, kAligned)}, false), run_.compute);
    return {row, column, causal, bias};
  }

  Tensor attend(const Tensor& x, const Tensor& ve, int layer) {
    const auto heads = [&](const Tensor& y) { return t_.view(y, {B, T, H, h}); };
    Tensor q = heads(linear(x, input("attn.c_q.weight", layer), "attn.q"));
    Tensor k = heads(linear(x, input("attn.c_k.weight", layer), "attn.k"));
    Tensor v = heads(linear(x, input("attn.c_v.weight", layer), "attn.v"));
    Tensor gate;
    if (ve.defined()) {
      {
        Tensor open;
        {
          const Tensor raw = linear(t_.slice(x, 2, m_.version.ve_gate_channels), input("attn.ve_gate.weight", layer), "attn.ve_gate");
          open = t_.unary(raw, Tape::Keep::result, "attn.ve_gate");
        }
        gate = t_.scale(open, "attn.ve_gate");
      }
      const Tensor mixed = t_.mul(t_.view(gate, {B, T, H, 1}), heads(ve), "attn.v");
      v = t_.add(v, mixed, "attn.v");
    }
    replace(q, k, rotate(q, "attn.q_rot"), [&] { return rotate(k, "attn.k_rot"); });
    replace(q, k, norm(q, "attn.q_norm"), [&] { return norm(k, "attn.k_norm"); });
    if (m_.version.sharper_attention()) {
      q = t_.scale(q, "attn.q_norm");
      k = t_.scale(k, "attn.k_norm");
    }
    const bool masked = attention_ != Attention::fa3 && m_.windows[static_cast<std::size_t>(layer)] < T;
    Tensor y;
    {
      const Mask made = masked ? mask() : Mask();
      const Attention kind = masked ? with_mask(attention_) : attention_;
      y = t_.attention(kind, t_.transpose(q, 1, 2), t_.transpose(k, 1, 2), t_.transpose(v, 1, 2), made.bias, 0, "attn.out");
    }
    y = t_.view(t_.contiguous(t_.transpose(y, 1, 2), "attn.out"), {B, T, D});
    y = linear(y, input("attn.c_proj.weight", layer), "attn.c_proj");
    return y;
  }

  // q, k = new_q, make_k(): the old ones go when both new ones are there.
  template <typename F>
  static void replace(Tensor& q, Tensor& k, Tensor new_q, F make_k) {
    Tensor new_k = make_k();
    q = std::move(new_q);
    k = std::move(new_k);
  }

  Tensor feed_forward(const Tensor& x, int layer) {
    Tensor y = linear(x, input("mlp.c_fc.weight", layer), "mlp.c_fc");
    {
      const Tensor positive = t_.unary(y, Tape::Keep::result, "mlp.relu");
      y = t_.power(positive, "mlp.square");
    }
    y = linear(y, input("mlp.c_proj.weight", layer), "mlp.c_proj");
    return y;
  }

  Tensor block(Tensor x, const Tensor& ve, int layer) {
    {
      const Tensor branch = attend(norm(x, "attn.norm"), ve, layer);
      x = t_.add(x, branch, "x_mid");
    }
    const Tensor branch = feed_forward(norm(x, "mlp.norm"), layer);
    return t_.add(x, branch, "x_out");
  }

  Tensor forward(bool mean) {
    if (m_.version.autocast) t_.enter_autocast(run_.compute);
    std::vector<Tensor> names;
    Tensor x = trunk(names);
    Tensor loss = cross_entropy(std::move(x), mean);
    if (m_.version.autocast) t_.leave_autocast();
    return loss;
  }

  // names: what forward still names when the logits are made
  Tensor trunk(std::vector<Tensor>& names) {
    Tensor x = embed(input("wte.weight"), "wte");
    x = norm(x, "norm_embed");
    if (m_.version.smear_backout) x = smear(x);
    Tensor x0;
    if (m_.version.lambdas) x0 = x;
    Tensor kept, ve;
    for (int layer = 0; layer < static_cast<int>(m_.depth); ++layer) {
      t_.at(layer);
      if (m_.version.lambdas) {
        const Tensor residual = t_.mul(element(input("resid_lambdas")), x, "resid");
        const Tensor first = t_.mul(element(input("x0_lambdas")), x0, "x0");
        x = t_.add(residual, first, "x_in");
      }
      const Tensor table = input("value_embed.weight", layer);
      ve = table.defined() ? embed(table, "attn.ve") : Tensor();
      x = block(x, ve, layer);
      if (m_.version.smear_backout && layer == m_.depth / 2) kept = x;
    }
    t_.at(-1);
    if (kept.defined()) {
      const Tensor share = t_.to(input("backout_lambda"), x.dtype(), "backout");
      const Tensor back = t_.mul(share, kept, "backout");
      x = t_.sub(x, back, "x_out");
    }
    x = norm(x, "norm_out");
    names = {x0, ve, kept};
    return x;
  }

  // mean: one number; otherwise one per token.
  Tensor cross_entropy(const Tensor& x, bool mean) {
    const Category before = t_.category();
    t_.category(Category::logits);
    Tensor logits = linear(x, input("lm_head.weight"), "logits");
    if (m_.padded_vocab != m_.vocab) logits = t_.slice(logits, 2, m_.vocab);
    if (m_.version.float_before_softcap) logits = t_.to(logits, Dtype::fp32, "logits");
    {
      Tensor capped;
      {
        const Tensor small = t_.scale(logits, "logits.scaled");
        capped = t_.unary(small, Tape::Keep::result, "logits.tanh");
      }
      logits = t_.scale(capped, "logits.capped");
    }
    logits = t_.to(logits, Dtype::fp32, "logits");
    Tensor loss = t_.cross_entropy(t_.view(logits, {B * T, m_.vocab}), t_.view(input("targets"), {B * T}), "loss", mean);
    t_.category(before);
    return loss;
  }

  struct Named {
    const char* role;
    int layer;
    bool operator<(const Named& o) const {
      const int order = std::strcmp(role, o.role);
      return order != 0 ? order < 0 : layer < o.layer;
    }
  };

  const Model& m_;
  const Run& run_;
  const Graph& graph_;
  Attention attention_;
  bool evaluated_ = false;
  Tape t_;
  std::int64_t B, T, D, H, h;
  std::vector<Tensor> inputs_;
  std::map<Named, Tensor> named_;
};

}  // namespace

std::span<const Event> EagerStep::events(Part part) const {
  const auto begin = static_cast<std::size_t>(program.segments[part].first_event);
  const std::size_t end = part + 1U < program.segments.size() ? static_cast<std::size_t>(program.segments[part + 1U].first_event) : program.events.size();
  return std::span(program.events).subspan(begin, end - begin);
}

EagerStep nanochat_eager_step(const Workload& workload, const Graph& inputs, Attention attention, const Target& target) { return Step(workload, inputs, attention, target).run(); }

}  // namespace dryfit
