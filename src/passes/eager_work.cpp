// What each op of the eager engine computes and moves, by its rule, forward and backward: kernels of aten/src/ATen/native/cuda (torch 2.9), one or a few an
// op, bytes once each. No seconds (speed/step_time.hpp). Every rule has its case: a new one does not compile without.
#include <algorithm>
#include <array>
#include <numeric>

#include "passes/eager.hpp"

#pragma GCC diagnostic error "-Wswitch"

namespace dryfit::eager {

namespace {

// Elements that are there: what was expanded is read once.
double elements(const Dims& d) {
  double n = 1;
  for (std::uint8_t i = 0; i < d.rank; ++i) n *= d.stride[i] == 0 ? 1.0 : static_cast<double>(d.size[i]);
  return n;
}

void add_bytes(Work& w, double bytes, bool batched) { (batched ? w.batched_bytes : w.fixed_bytes) += bytes; }

}  // namespace

double Tape::Operand::bytes() const { return storage < 0 ? 0 : elements(dims) * static_cast<double>(size_of(dtype)); }

void Tape::tell_work_to(std::vector<Work>* list) {
  if (told_ != nullptr) settle_made();
  told_ = list;
  made_.clear();
  calls_ = 0;
  asked_.open = false;
}

void Tape::tell(Work w) {
  if (told_ == nullptr) return;
  w.calls += std::exchange(calls_, 0);
  told_->push_back(w);
  made_.clear();
}

void Tape::tell_traffic(const char* role, double bytes, std::int64_t launches) {
  Work w;
  w.kind = category_ == Category::optimizer ? WorkKind::optimizer : WorkKind::elementwise;
  w.role = role;
  w.fixed_bytes = bytes;
  w.launches = launches;
  w.backward = ready_ != nullptr;
  tell(w);
}

void Tape::send(const char* role, double bytes, Work::Beside beside) {
  if (bytes <= 0) return;
  settle_made();
  Work w;
  w.kind = WorkKind::communication;
  w.role = role;
  w.fixed_bytes = bytes;
  w.beside = beside;
  tell(w);
}

double Tape::take_made() {
  double sum = 0;
  for (const std::int32_t s : made_) sum += static_cast<double>(p_.tensors[static_cast<std::size_t>(s)].bytes);
  made_.clear();
  return sum;
}

// Buffers of collectives and workspaces are given room and nothing else.
void Tape::settle_made(std::int32_t beside) {
  if (told_ == nullptr) return;
  for (const std::int32_t s : made_) {
    const TensorInfo& t = p_.tensors[static_cast<std::size_t>(s)];
    if (s == beside || t.category == Category::communication || t.category == Category::workspace) continue;
    Work w;
    w.kind = t.category == Category::optimizer ? WorkKind::optimizer : WorkKind::elementwise;
    w.role = t.role;
    w.backward = ready_ != nullptr;
    add_bytes(w, 2.0 * static_cast<double>(t.bytes - t.fixed), t.batched);
    w.fixed_bytes += 2.0 * static_cast<double>(t.fixed);
    w.calls = std::exchange(calls_, 0);
    told_->push_back(w);
  }
  made_.clear();
}

void Tape::ask(Rule rule, std::span<const Tensor> inputs) {
  if (told_ == nullptr) return;
  asked_.rule = rule;
  asked_.open = true;
  asked_.in.clear();
  for (const Tensor& t : inputs) asked_.in.push_back(t.defined() ? described(t) : Operand{});
}

// (m x k) times (k x n), or as many of these as the first dimension of three says; a convolution is the product of its windows and its weight.
void Tape::tell_product(const Operand& a, const Operand& b, const char* role) {
  Work w;
  w.kind = WorkKind::matmul;
  w.role = role;
  w.backward = ready_ != nullptr;
  w.operands = a.dtype;
  const bool stacked = a.dims.rank == 3;
  const std::size_t first = stacked ? 1 : 0;
  w.count = stacked ? a.dims.size[0] : 1;
  w.m = a.dims.size[first], w.k = a.dims.size[first + 1], w.n = b.dims.size[first + 1];
  const bool inner = !stacked && a.dims.batched && b.dims.batched;
  w.count_batched = stacked && a.dims.batched;
  w.k_batched = inner;
  w.m_batched = !stacked && a.dims.batched && !inner;
  add_bytes(w, a.bytes(), a.dims.batched);
  add_bytes(w, b.bytes(), b.dims.batched);
  add_bytes(w, static_cast<double>(w.count * w.m * w.n * size_of(a.dtype)), (a.dims.batched || b.dims.batched) && !inner);
  tell(w);
}

void Tape::tell_attention(Attention kind, bool masked, std::span<const Operand> in, const char* role, bool gradient) {
  if (told_ == nullptr) return;
  asked_.open = false;
  const Dims& q = in[0].dims;
  Work w;
  w.kind = WorkKind::attention;
  w.role = role;
  w.backward = gradient;  // a block that runs again in the backward pass goes forward
  w.operands = in[0].dtype;
  w.attention = kind;
  w.causal = causal_;
  w.masked = masked || !causal_;
  const std::int64_t packed = std::max<std::int64_t>(sequences_, 1);
  w.heads = q.size[0] * q.size[1] * packed, w.length = q.size[2] / packed, w.head_dim = q.size[3], w.window = w.length;
  double bytes = in[0].bytes();  // the output
  for (const Operand& o : in) bytes += o.bytes();
  if (w.backward) {  // gradients beside their tensors; row sums of dO * O; dq gathered in fp32 before it is cast
    bytes = 2 * bytes + (kind == Attention::math ? 0 : static_cast<double>(q.numel()) * 14);
    w.launches = kind == Attention::math ? 1 : 3;
  }
  w.batched_bytes = bytes;
  tell(w);
}

// When an op's result is there. Inputs as they were given; what was made since is the op's own.
void Tape::tell_forward(const Tensor& out) {
  asked_.open = false;
  if (told_ == nullptr) return;
  const std::vector<Operand>& in = asked_.in;
  const Operand result = described(out);
  const char* role = node_role(out);
  Work w;
  w.role = role;
  w.backward = ready_ != nullptr;
  const auto streams = [&](std::int64_t launches = 1) {
    for (const Operand& o : in) add_bytes(w, o.bytes(), o.dims.batched);
    add_bytes(w, result.bytes(), result.dims.batched);
    w.launches = launches;
    settle_made(result.storage);
    tell(w);
  };
  switch (asked_.rule) {
    case Rule::pass:
      if (in.size() == 1 && in[0].storage == result.storage) ++calls_;  // expand, detach
      else streams();
      return;
    case Rule::negate_second:
    case Rule::product:
    case Rule::power:
    case Rule::rsqrt:
    case Rule::cat:
    case Rule::pad: return streams();
    case Rule::view:
    case Rule::transpose:
    case Rule::slice:
    case Rule::split: ++calls_; return;
    case Rule::scale:  // a mask of dropout is there beside the result
      add_bytes(w, std::max(0.0, take_made() - result.bytes()), result.dims.batched);
      return streams();
    case Rule::mean:
    case Rule::sum:
      w.reduces = true;
      return streams();
    case Rule::layer_norm:
    case Rule::rms_norm:
      w.reduces = true;
      add_bytes(w, std::max(0.0, take_made() - result.bytes()), result.dims.batched);
      return streams();
    case Rule::matmul: {
      const Operand& a = in[0];
      const Operand& b = in[1];
      const bool stacked = a.dims.rank == 3 && b.dims.rank == 3 && a.dims.size[0] == b.dims.size[0] && a.dims.size[2] == b.dims.size[1];
      settle_made(result.storage);
      if (a.dims.rank == 2 || stacked) return tell_product(a, b, role);
      Operand windows = a, weight = b;  // a convolution
      const std::int64_t channels = b.dims.size[0];
      windows.dims = dims({result.dims.numel() / channels, b.dims.numel() / channels}, a.dims.batched);
      weight.dims = dims({b.dims.numel() / channels, channels}, false);
      return tell_product(windows, weight, role);
    }
    case Rule::grouped: settle_made(result.storage); return tell_grouped(in[0], in[1].dims, role, false);
    case Rule::embedding:
    case Rule::gather:  // rows of the table, one for each of the result
      add_bytes(w, 2 * result.bytes(), result.dims.batched);
      settle_made(result.storage);
      return tell(w);
    case Rule::index_add:  // in place, or a copy of all first
      add_bytes(w, 2 * in[1].bytes() + (in[0].storage == result.storage ? in[1].bytes() : 2 * result.bytes()), result.dims.batched);
      settle_made(result.storage);
      return tell(w);
    case Rule::nll:  // one of each row
      add_bytes(w, 32.0 * static_cast<double>(in[0].dims.numel() / in[0].dims.back()), in[0].dims.batched);
      w.reduces = true;
      return tell(w);
    case Rule::quantized: {  // the product; dequantising was told
      const Operand rows{dims({in[0].dims.numel() / in[0].dims.back(), in[0].dims.back()}, in[0].dims.batched), in[0].storage, in[0].dtype};
      const Operand weight{dims({in[0].dims.back(), result.dims.back()}, false), result.storage, in[0].dtype};
      return tell_product(rows, weight, role);
    }
    case Rule::attention:   // told with its kind
    case Rule::accumulate:
    case Rule::checkpoint:  // these run ops of their own
    case Rule::hook:
    case Rule::function: return;
  }
}

// When a node has run backward: g its gradient, `out` one gradient per input, as they are before they are cast and summed to the inputs' shapes.
void Tape::tell_backward(std::int32_t n, const Operand& g, const std::vector<Tensor>& out) {
  const Node& at = node(n);
  double saved_bytes = 0, out_bytes = 0;
  bool batched = g.dims.batched;
  for (const Saved& s : at.saved) saved_bytes += Operand{s.dims, s.storage, s.dtype}.bytes();
  for (const Tensor& t : out) {
    if (t.defined()) out_bytes += described(t).bytes(), batched = batched || t.dims().batched;
  }
  Work w;
  w.role = at.role;
  w.backward = true;
  const auto streams = [&](double bytes, std::int64_t launches = 1) {
    add_bytes(w, bytes, batched);
    w.launches = launches;
    tell(w);
  };
  switch (at.rule) {
    case Rule::pass:       // sums and casts tell themselves
    case Rule::view:
    case Rule::transpose:
    case Rule::cat:
    case Rule::sum: ++calls_; return;
    case Rule::negate_second:
      if (out[1].defined()) streams(2 * g.bytes());
      return;
    case Rule::slice: return streams(out_bytes + 2 * g.bytes(), 2);  // zeros, and the part copied into them
    case Rule::split:
    case Rule::pad: return streams(2 * out_bytes);
    case Rule::scale: return streams(g.bytes() + saved_bytes + out_bytes);
    case Rule::product:
      for (std::size_t i = 0; i < out.size(); ++i) {
        if (!out[i].defined()) continue;
        Work one = w;
        add_bytes(one, 2 * g.bytes() + described(out[i]).bytes(), batched);
        tell(one);
      }
      return;
    case Rule::power:
    case Rule::rsqrt: return streams(7 * out_bytes, 3);
    case Rule::mean: return streams(g.bytes() + out_bytes);
    case Rule::matmul: {
      const Operand a{input(n, 0).dims, g.storage, g.dtype}, b{input(n, 1).dims, g.storage, g.dtype};
      made_.clear();
      const bool stacked = a.dims.rank == 3 && b.dims.rank == 3 && a.dims.size[0] == b.dims.size[0];
      const auto turned = [](Operand o) {
        o.dims = swapped(o.dims, -1, -2);
        return o;
      };
      if (a.dims.rank == 2 || stacked) {
        if (out[1].defined()) tell_product(turned(a), g, at.role);
        if (out[0].defined()) tell_product(g, turned(b), at.role);
        return;
      }
      const std::int64_t channels = b.dims.size[0], rows = g.dims.numel() / channels, width = b.dims.numel() / channels;
      const Operand gradient{dims({rows, channels}, g.dims.batched), g.storage, g.dtype};
      if (out[1].defined()) tell_product(turned(gradient), {dims({rows, width}, g.dims.batched), g.storage, g.dtype}, at.role);
      if (out[0].defined()) tell_product(gradient, {dims({channels, width}, false), g.storage, g.dtype}, at.role);
      return;
    }
    case Rule::grouped:
      made_.clear();
      if (out[1].defined()) tell_grouped({input(n, 0).dims, g.storage, g.dtype}, input(n, 1).dims, at.role, true);
      if (out[0].defined()) tell_grouped(g, swapped(input(n, 1).dims, 1, 2), at.role, false);
      return;
    case Rule::embedding:  // zeros, ids sorted, sums of segments, and these written to their rows
      add_bytes(w, 2 * g.bytes() + std::max(0.0, 2 * (take_made() - out_bytes)), batched);
      w.fixed_bytes += out_bytes;
      w.launches = at.inputs.empty() || g.dims.numel() == 0 ? 1 : 12;
      return tell(w);
    case Rule::gather: return streams(out_bytes + 2 * g.bytes(), 2);
    case Rule::index_add:
      if (out.size() > 1 && out[1].defined()) streams(2 * described(out[1]).bytes());
      return;
    case Rule::layer_norm:
    case Rule::rms_norm: {
      w.reduces = true;
      const double rows = out[0].defined() ? described(out[0]).bytes() : g.bytes();
      Work weights = w;
      bool trains = false;
      for (std::size_t i = 1; i < out.size(); ++i) trains = trains || out[i].defined();
      if (out[0].defined()) streams(2 * rows + g.bytes());
      if (!trains) return;
      add_bytes(weights, rows + g.bytes(), batched);  // another pass over gradient and input
      weights.launches = 2;
      return tell(weights);
    }
    case Rule::attention: {
      const auto operand_of = [&](std::size_t i) { return Operand{input(n, i).dims, g.storage, input(n, i).dtype}; };
      return tell_attention(static_cast<Attention>(at.detail / 4), (at.detail & 1) != 0, std::array{operand_of(0), operand_of(1), operand_of(2)}, at.role, true);
    }
    case Rule::nll: return streams(out_bytes, 2);  // zeros, and one of each row
    case Rule::quantized: {
      const Dims& d = input(n, 0).dims;
      const Operand gradient{dims({g.dims.numel() / g.dims.back(), g.dims.back()}, g.dims.batched), g.storage, g.dtype};
      return tell_product(gradient, {dims({g.dims.back(), d.back()}, false), g.storage, g.dtype}, at.role);
    }
    case Rule::checkpoint:  // ops of their own ran
    case Rule::hook:
    case Rule::function:
    case Rule::accumulate: return;
  }
}

}  // namespace dryfit::eager
