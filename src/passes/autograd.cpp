// The derivative of each op, at the same grain as the forward graph. Rules: torch/_decomp and tools/autograd/derivatives.yaml.
#include "passes/autograd.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "workload/workload.hpp"

namespace dryfit {

namespace {

class Engine {
 public:
  Engine(Graph forward, bool compiled) : joint_{std::move(forward), 0, kNone, {}, {}}, g_(joint_.graph), b_(g_) {
    if (compiled) turn_operands();
    joint_.forward_count = static_cast<std::int32_t>(g_.nodes.size());
    grad_.assign(g_.nodes.size(), kNone);
    composite_.assign(g_.nodes.size(), {Composite::none, 0});
    mark_composites();
    mark_wanted();
  }

  JointGraph run() {
    b_.backward(true);
    if (g_.loss != kNone) joint_.tangent = tangent(g_.loss, "loss");
    for (NodeId output : g_.outputs) {  // what nothing above trains is given no gradient
      joint_.tangents.push_back(wanted_[index(output)] ? tangent(output, node(output).layer < 0 ? "logits.zero_gradient" : "cache.zero_gradient") : kNone);
    }
    for (NodeId id = joint_.forward_count - 1; id >= 0; --id) {
      if (grad_[index(id)] == kNone) continue;
      b_.at(node(id).layer);
      switch (composite_[index(id)].first) {
        case Composite::norm: norm(g_.norms[composite_[index(id)].second]); break;
        case Composite::layer_norm: layer_norm(g_.layer_norms[composite_[index(id)].second]); break;
        case Composite::split: split(g_.splits[composite_[index(id)].second]); break;
        case Composite::part: break;
        case Composite::loss: cross_entropy(); break;
        case Composite::attention: attention(g_.attentions[composite_[index(id)].second]); break;
        case Composite::float8: float8(g_.float8[composite_[index(id)].second]); break;
        case Composite::linear: linear(g_.linears[composite_[index(id)].second]); break;
        case Composite::routing: routing(g_.routings[composite_[index(id)].second]); break;
        case Composite::none: plain(id); break;
      }
    }
    for (const GraphInput& input : g_.inputs) joint_.gradients.push_back(input.parameter >= 0 ? grad_[index(input.node)] : kNone);
    return std::move(joint_);
  }

 private:
  enum class Composite : std::uint8_t { none, norm, layer_norm, split, part, loss, attention, float8, linear, routing };
  static std::size_t index(NodeId id) { return static_cast<std::size_t>(id); }
  Node node(NodeId id) const { return g_.nodes[index(id)]; }  // by value: the vector grows

  void mark_composites() {
    for (std::size_t i = 0; i < g_.norms.size(); ++i) composite_[index(g_.norms[i].out)] = {Composite::norm, i};
    for (std::size_t i = 0; i < g_.layer_norms.size(); ++i) composite_[index(g_.layer_norms[i].out)] = {Composite::layer_norm, i};
    for (std::size_t i = 0; i < g_.splits.size(); ++i) {
      for (NodeId part : g_.splits[i].parts) composite_[index(part)] = {part == g_.splits[i].parts[0] ? Composite::split : Composite::part, i};
    }
    for (std::size_t i = 0; i < g_.attentions.size(); ++i) composite_[index(g_.attentions[i].out)] = {Composite::attention, i};
    for (std::size_t i = 0; i < g_.float8.size(); ++i) composite_[index(g_.float8[i].out)] = {Composite::float8, i};
    for (std::size_t i = 0; i < g_.linears.size(); ++i) composite_[index(g_.linears[i].out)] = {Composite::linear, i};
    for (std::size_t i = 0; i < g_.routings.size(); ++i) composite_[index(g_.routings[i].out)] = {Composite::routing, i};
    if (g_.loss != kNone) composite_[index(g_.loss)] = {Composite::loss, 0};
  }

  // What backward's products in fp8 need in another layout is of forward values alone: the partitioner may have it computed there.
  void turn_operands() {
    for (auto c = g_.float8.rbegin(); c != g_.float8.rend(); ++c) {
      b_.at(node(c->out).layer);
      for (const NodeId x : {c->w8.value, c->x8.value}) turned(x);
    }
  }

  // A copy with rows and columns exchanged; one for all who ask.
  NodeId turned(NodeId x) {
    const auto [it, fresh] = turned_.try_emplace(x);
    b_.flat(true);
    if (fresh) it->second = b_.pointwise(Fn::transpose, std::array{x}, node(x).shape, node(x).dtype, node(x).role);
    b_.flat(false);
    return it->second;
  }

  // The gradient that an output of the graph is given.
  NodeId tangent(NodeId output, const char* role) {
    const Node n = node(output);
    b_.at(n.layer);
    const NodeId t = b_.input(n.shape, n.dtype, role, -1);
    g_.inputs.pop_back();
    b_.at(-1);
    return grad_[index(output)] = t;
  }

  static bool is_integer(Dtype d) { return d == Dtype::int64 || d == Dtype::int32 || d == Dtype::uint8 || d == Dtype::bool8; }

  // A node wants a gradient when a parameter stands above it.
  void mark_wanted() {
    wanted_.assign(g_.nodes.size(), false);
    for (const GraphInput& input : g_.inputs) wanted_[index(input.node)] = input.parameter >= 0 && input.trains;
    for (std::size_t i = 0; i < g_.nodes.size(); ++i) {
      if (is_integer(g_.nodes[i].dtype)) continue;
      for (std::uint8_t k = 0; k < g_.nodes[i].inputs; ++k) wanted_[i] = wanted_[i] || wanted_[index(g_.nodes[i].in[k])];
    }
  }

  void accumulate(NodeId id, NodeId g) {
    if (!wanted_[index(id)]) return;
    NodeId& slot = grad_[index(id)];
    if (slot != kNone && is_weight_product(slot) && node(g).dtype == node(slot).dtype) {
      // Inductor adds within the product (fx_passes/post_grad.py, addmm), which then runs when the other is there
      const Node mm = node(slot);
      slot = b_.addmm(g, mm.in[0], mm.in[1], mm.shape, mm.dtype, mm.variant, mm.role);
      return;
    }
    slot = slot == kNone ? g : b_.binary(Fn::add, slot, g, node(id).dtype, node(id).role);
  }

  bool is_product(NodeId id) const { return node(id).kind == Kind::matmul; }
  bool is_weight_product(NodeId id) const { return node(id).fn == Fn::matmul && node(id).variant == 2 && node(id).inputs == 2; }

  // Inductor sums a whole tensor in two kernels: rows first, in fp32, where what it is made of was reduced by rows too (ir.py, num_splits).
  NodeId row_sums(NodeId g, const char* role) {
    const Shape s = node(g).shape;
    if (s.rank < 2 || s.dim[s.rank - 1] == 1) return g;
    return b_.reduce(Fn::sum_rows, g, rows_of(s), Dtype::fp32, role);
  }

  // The gradient of a broadcast operand: summed back to its shape.
  NodeId reduced(NodeId g, NodeId like, const char* role) {
    const Shape s = node(like).shape;
    if (s.numel() == node(g).shape.numel()) return b_.convert(g, node(like).dtype, role);
    if (s.numel() == 1) return b_.convert(b_.reduce(Fn::sum_all, row_sums(g, role), s, g_.sums_in_fp32 ? Dtype::fp32 : g_.compute, role), node(like).dtype, role);
    if (s.rank == 1) return column_sums(g, like, role);
    if (s.dim[0] < node(g).shape.dim[0]) return batch_sums(g, like, role);
    return b_.convert(b_.reduce(Fn::sum_rows, g, s, g_.sums_in_fp32 ? Dtype::fp32 : node(like).dtype, role), node(like).dtype, role);
  }

  // The gradient of one factor of n. Equal sums are one (torch/_functorch/compile_utils.py, fx_graph_cse): two numbers that multiply the same tensor
  // before the results are added have one gradient.
  NodeId factor(NodeId g, NodeId other, NodeId like, const Node& n) {
    const auto of = [&] { return reduced(b_.binary(Fn::mul, g, other, product_dtype(like, n), n.role), like, n.role); };
    if (node(like).shape.numel() != 1 || n.shape.numel() == 1) return of();
    const auto [it, fresh] = sums_.try_emplace({g, other});
    if (fresh) it->second = of();
    return it->second;
  }

  NodeId column_sums(NodeId g, NodeId like, const char* role) { return b_.column_sums(g, node(like).shape, node(like).dtype, role); }

  // Biases that were added to terms of one sum have one gradient. Where it is cast for each, its sums are one (likewise: but for what lies in the memory of an output).
  NodeId bias_sums(NodeId g, NodeId bias, const char* role) {
    if (node(g).dtype == node(bias).dtype) return column_sums(g, bias, role);
    const auto [it, fresh] = bias_sums_.try_emplace(g);
    if (fresh) return it->second = column_sums(g, bias, role);
    return b_.unary(Fn::convert, it->second, node(bias).dtype, role);
  }

  void plain(NodeId id) {
    const Node n = node(id);
    const NodeId g = grad_[index(id)];
    const NodeId a = n.in[0];
    switch (n.fn) {
      case Fn::convert: accumulate(a, b_.convert(g, node(a).dtype, n.role)); break;
      case Fn::add:
        for (const NodeId operand : {a, n.in[1]}) {
          if (wanted_[index(operand)]) accumulate(operand, reduced(g, operand, n.role));
        }
        break;
      case Fn::sub:
        accumulate(a, g);
        if (wanted_[index(n.in[1])]) accumulate(n.in[1], b_.unary(Fn::scale, g, n.dtype, n.role));
        break;
      case Fn::mul:
        if (wanted_[index(a)]) accumulate(a, factor(g, n.in[1], a, n));
        if (wanted_[index(n.in[1])]) accumulate(n.in[1], factor(g, a, n.in[1], n));
        break;
      case Fn::scale: accumulate(a, b_.convert(b_.with_number(Fn::scale, g, n.variant, n.dtype, n.role), node(a).dtype, n.role)); break;
      case Fn::offset: accumulate(a, g); break;
      case Fn::power: accumulate(a, b_.binary(Fn::mul, g, b_.unary(Fn::scale, a, n.dtype, n.role), n.dtype, n.role)); break;
      case Fn::cube: accumulate(a, b_.binary(Fn::mul, g, b_.unary(Fn::scale, b_.unary(Fn::power, a, n.dtype, n.role), n.dtype, n.role), n.dtype, n.role)); break;
      case Fn::mean_rows: accumulate(a, b_.pointwise(Fn::scale, std::array{g}, node(a).shape, n.dtype, n.role)); break;
      case Fn::rsqrt:  // -0.5 g rsqrt^3
        accumulate(a, b_.binary(Fn::mul, b_.unary(Fn::scale, g, n.dtype, n.role), b_.unary(Fn::power, id, n.dtype, n.role), n.dtype, n.role));
        break;
      case Fn::gelu: accumulate(a, b_.binary(Fn::gelu_grad, g, a, n.dtype, n.role)); break;
      case Fn::silu: accumulate(a, b_.binary(Fn::silu_grad, g, a, n.dtype, n.role)); break;
      case Fn::drop: accumulate(n.in[1], b_.binary(Fn::mul, g, b_.convert(a, n.dtype, n.role), n.dtype, n.role)); break;
      case Fn::rotate_half: accumulate(a, b_.with_number(Fn::rotate_half, g, node(a).fn == Fn::slice ? kOfPart : 0, n.dtype, n.role)); break;
      case Fn::rotate_pairs: accumulate(a, b_.pointwise(Fn::rotate_pairs, std::array{g, n.in[1]}, node(a).shape, n.dtype, n.role)); break;
      case Fn::expand: accumulate(a, group_sums(g, node(a).shape, n)); break;
      case Fn::square: accumulate(a, b_.binary(Fn::mul, g, a, n.dtype, n.role)); break;
      case Fn::relu: accumulate(a, b_.binary(Fn::relu_grad, id, g, n.dtype, n.role)); break;  // where(relu <= 0, 0, g)
      case Fn::sigmoid: accumulate(a, b_.binary(Fn::sigmoid_grad, g, id, n.dtype, n.role)); break;
      case Fn::tanh: accumulate(a, b_.binary(Fn::tanh_grad, g, id, n.dtype, n.role)); break;
      case Fn::transpose: accumulate(a, n.variant == kEvenRows || n.variant == kByHeads ? b_.convert(g, node(a).dtype, n.role) : b_.pointwise(Fn::transpose, std::array{g}, node(a).shape, n.dtype, n.role)); break;
      case Fn::slice: accumulate(a, node(a).shape.numel() == n.shape.numel() ? g : padded(g, n)); break;
      case Fn::cat:
        for (int part = 0; part < 2; ++part) {
          const NodeId source = n.in[static_cast<std::size_t>(part)];
          if (wanted_[index(source)]) accumulate(source, b_.slice(g, node(source).shape, part, n.role));
        }
        break;
      case Fn::result:
        if (node(a).fn == Fn::turn) accumulate(node(a).in[0], b_.result(b_.kernel(Fn::turn, std::array{g, node(a).in[1]}, n.role), 0, n.shape, n.dtype, n.role));
        break;
      case Fn::embedding: embedding(n, g); break;
      case Fn::matmul: matmul(n, g); break;
      default: break;  // reductions and inner nodes of composites carry no gradient of their own
    }
  }

  // The gradient of a slice: zeros elsewhere.
  NodeId padded(NodeId g, const Node& slice) {
    Shape whole = node(slice.in[0]).shape;
    if (slice.shape.rank > whole.rank) {  // of what is seen by heads
      const std::int64_t rows = slice.shape.numel() / slice.shape.dim[slice.shape.rank - 1], elements = whole.numel();
      whole = slice.shape;
      whole.dim[whole.rank - 1] = elements / rows;
    }
    const NodeId id = b_.pointwise(Fn::pad, std::array{g}, whole, slice.dtype, slice.role);
    g_.nodes.back().variant = slice.variant;
    return id;
  }

  // Sums of fewer than eight are written out (inductor.config.unroll_reductions_threshold): no loop of their own.
  NodeId group_sums(NodeId g, Shape s, const Node& n) {
    const NodeId sum = b_.pointwise(Fn::sum_groups, std::array{g}, s, n.dtype, n.role);
    if (n.shape.numel() / s.numel() >= 8) g_.nodes.back().kind = Kind::reduction;
    return sum;
  }

  // Over the texts of a batch: likewise.
  NodeId batch_sums(NodeId g, NodeId like, const char* role) {
    const NodeId sum = b_.pointwise(Fn::sum_batch, std::array{g}, node(like).shape, node(like).dtype, role);
    if (node(g).shape.dim[0] >= 8) g_.nodes.back().kind = Kind::reduction;
    return sum;
  }

  // The first part comes last: all have theirs.
  void split(const Split& c) {
    std::array<NodeId, 3> of{};
    for (std::size_t i = 0; i < 3; ++i) of[i] = grad_[index(c.parts[i])];
    accumulate(c.whole, b_.pointwise(Fn::join, of, node(c.whole).shape, node(c.whole).dtype, node(c.whole).role));
  }

  // Products first, of the weight before the input's where there is no bias (mm), after it where there is one (addmm); then the casts.
  void linear(const CastLinear& c) {
    const Node n = node(c.product);
    const NodeId g = grad_[index(c.out)];
    NodeId dx = kNone, dw = kNone;
    const auto of_weight = [&] { if (wanted_[index(c.w)]) dw = b_.matmul(g, n.in[0], node(c.w).shape, n.dtype, 2, n.role); };
    if (c.bias == kNone) of_weight();
    if (wanted_[index(c.x)]) dx = b_.matmul(g, n.in[1], node(n.in[0]).shape, n.dtype, 1, n.role);
    if (c.bias != kNone) of_weight();
    if (dx != kNone) accumulate(c.x, b_.convert(dx, node(c.x).dtype, n.role));
    if (c.bias != kNone && wanted_[index(c.bias)]) accumulate(c.bias, bias_sums(g, c.bias, n.role));
    if (dw != kNone) accumulate(c.w, b_.convert(dw, node(c.w).dtype, n.role));
  }

  // Of the shares to the largest, of those to all of their row, of probabilities to logits (derivatives.yaml: div, topk, _softmax).
  void routing(const Routing& c) {
    const char* role = node(c.out).role;
    const Dtype f = Dtype::fp32;
    NodeId g = b_.convert(grad_[index(c.out)], f, role);
    if (c.sum != kNone) {
      const NodeId shares = c.out == c.shares ? b_.binary(Fn::mul, c.values, c.sum, f, role) : c.shares;  // what is returned has no other user
      const NodeId again = b_.binary(Fn::mul, shares, c.sum, f, role);
      const NodeId turned = b_.binary(Fn::mul, b_.unary(Fn::scale, g, f, role), again, f, role);
      const NodeId direct = b_.binary(Fn::mul, g, c.sum, f, role);
      g = b_.binary(Fn::add, direct, b_.reduce_rows(Fn::sum_rows, turned, f, role), f, role);
    }
    const NodeId zeros = b_.pointwise(Fn::fill, {}, node(c.probs).shape, f, role);
    const NodeId all = b_.pointwise(Fn::scatter_rows, std::array{zeros, g, c.places}, node(c.probs).shape, f, role);
    const NodeId product = b_.binary(Fn::mul, all, c.probs, f, role);
    const NodeId sum = b_.reduce_rows(Fn::sum_rows, product, f, role);
    const NodeId d = b_.pointwise(Fn::add, std::array{b_.unary(Fn::scale, c.probs, f, role), sum, product}, node(c.probs).shape, f, role);
    accumulate(c.logits, b_.convert(d, node(c.logits).dtype, role));
  }

  // A product that will be summed to a scalar parameter is formed in fp32, as the parameter is.
  Dtype product_dtype(NodeId operand, const Node& n) const { return node(operand).shape.numel() == n.shape.numel() ? n.dtype : node(operand).dtype; }

  // Dense gradient of a table: fp32 zeros, the tokens' gradients added at their rows, then the table's dtype.
  void embedding(const Node& n, NodeId g) {
    const NodeId table = n.in[0];
    const NodeId zeros = b_.pointwise(Fn::fill, {}, node(table).shape, Dtype::fp32, n.role);
    const NodeId sum = b_.pointwise(Fn::scatter_rows, std::array{zeros, g, n.in[1]}, node(table).shape, Dtype::fp32, n.role);
    accumulate(table, b_.convert(sum, node(table).dtype, n.role));
  }

  // y = x w^T: the weight's gradient first, then the input's, as torch's mm does.
  void matmul(const Node& n, NodeId given) {
    const Shape s = node(given).shape;
    const bool even = is_product(given) || node(given).kind == Kind::input || padded_texts(s, n.dtype) == s;
    const NodeId x = n.in[0], w = n.in[1], g = even ? given : b_.even_rows(given, s, n.role);
    if (wanted_[index(w)]) accumulate(w, b_.matmul(g, x, node(w).shape, n.dtype, 2, n.role));
    if (wanted_[index(x)]) accumulate(x, b_.matmul(g, w, node(x).shape, n.dtype, 1, n.role));
  }

  // d x = (g - xhat/D * sum(g * xhat)) * rstd, fp32 inside.
  void norm(const RmsNorm& c) {
    const char* role = node(c.out).role;
    const Dtype f = Dtype::fp32;
    const NodeId whole = b_.convert(grad_[index(c.out)], f, role);
    const NodeId g = c.weight == kNone ? whole : b_.binary(Fn::mul, whole, c.weight, f, role);
    const NodeId xhat = mutated_ ? b_.binary(Fn::mul, b_.convert(c.x, f, role), c.rstd, f, role) : c.xhat;
    const NodeId sum = b_.reduce(Fn::sum_rows, b_.binary(Fn::mul, xhat, g, f, role), node(c.rstd).shape, f, role);
    const NodeId mean_part = b_.binary(Fn::mul, b_.unary(Fn::scale, xhat, f, role), sum, f, role);
    const NodeId d = b_.binary(Fn::mul, b_.binary(Fn::sub, g, mean_part, f, role), c.rstd, f, role);
    const NodeId dw = c.weight != kNone && wanted_[index(c.weight)] ? column_sums(b_.binary(Fn::mul, whole, xhat, f, role), c.weight, role) : kNone;
    accumulate(c.x, b_.convert(d, node(c.x).dtype, role));
    if (dw != kNone) accumulate(c.weight, dw);
  }

  // native_layer_norm_backward (torch/_decomp/decompositions.py), in fp32.
  void layer_norm(const LayerNorm& c) {
    const char* role = node(c.out).role;
    const Dtype f = Dtype::fp32;
    const Shape row = node(c.rstd).shape;
    const NodeId whole = b_.convert(grad_[index(c.out)], f, role);
    const NodeId g = b_.binary(Fn::mul, whole, b_.convert(c.weight, f, role), f, role);
    const NodeId scaled = b_.unary(Fn::scale, g, f, role);
    const NodeId sum = b_.reduce(Fn::sum_rows, g, row, f, role);
    const NodeId along = b_.reduce(Fn::sum_rows, b_.binary(Fn::mul, g, c.xhat, f, role), row, f, role);
    const NodeId turned = b_.binary(Fn::mul, c.xhat, along, f, role);
    const NodeId rest = b_.binary(Fn::sub, b_.binary(Fn::sub, scaled, sum, f, role), turned, f, role);
    const NodeId d = b_.binary(Fn::mul, b_.unary(Fn::scale, c.rstd, f, role), rest, f, role);
    NodeId dw = kNone, db = kNone;
    if (wanted_[index(c.weight)]) {
      dw = column_sums(b_.binary(Fn::mul, whole, c.xhat, f, role), c.weight, role);
      db = column_sums(whole, c.bias, role);
    }
    accumulate(c.x, b_.convert(d, node(c.x).dtype, role));
    if (dw == kNone) return;
    accumulate(c.weight, dw);
    accumulate(c.bias, db);
  }

  void cross_entropy() {
    const CrossEntropy& c = g_.cross_entropy;
    const Dtype f = Dtype::fp32;
    const Shape s = node(c.log_probs).shape;
    b_.flat(true);
    const NodeId picked = c.valid == kNone ? b_.pointwise(Fn::nll_grad, std::array{joint_.tangent, c.targets}, s, f, "loss")
                                           : b_.pointwise(Fn::nll_grad, std::array{joint_.tangent, c.targets, c.valid, c.count}, s, f, "loss");
    const NodeId sum = b_.reduce(Fn::sum_rows, picked, rows_of(s), f, "loss");
    const NodeId probs = b_.unary(Fn::exp, c.log_probs, f, "loss");
    const NodeId d = b_.binary(Fn::sub, picked, b_.binary(Fn::mul, probs, sum, f, "loss"), f, "loss");
    b_.flat(false);
    accumulate(c.logits, d);
  }

  void attention(const AttentionCall& c) {
    const NodeId g = grad_[index(c.out)];
    std::vector<NodeId> in{g, c.q, c.k, c.v, c.out, c.lse};
    NodeId bias = c.bias;
    if (g_.checkpoints && bias != kNone && !mask_copied_ && static_cast<Attention>(node(c.kernel).variant) == Attention::efficient) {
      // only the attention computed again needs the mask in memory, under no constraint: the first backward kernel gets a copy for every head, and that
      // leaves it as a view that the others take (lowering.py, sdpa_constraint; ir.py, ExternKernel.require_strides)
      mask_copied_ = true;
      const Shape q = node(c.q).shape;
      bias = b_.pointwise(Fn::expand, std::array{bias}, shape({q.dim[0], q.dim[2], q.dim[1], q.dim[1]}, q.batched), node(bias).dtype, "attn.mask");
    }
    for (NodeId extra : {c.seed, c.offset, bias}) {
      if (extra != kNone) in.push_back(extra);
    }
    const NodeId call = b_.kernel(Fn::attention_backward, in, "attn");
    g_.nodes[index(call)].variant = node(c.kernel).variant;
    mutated_ = mutated_ || static_cast<Attention>(node(c.kernel).variant) == Attention::fa3;
    const NodeId from[3] = {c.q, c.k, c.v};
    const char* roles[3] = {"attn.dq", "attn.dk", "attn.dv"};
    for (int i = 0; i < 3; ++i) accumulate(from[i], b_.result(call, i, node(from[i]).shape, node(from[i]).dtype, roles[i]));
    if (static_cast<Attention>(node(c.kernel).variant) != Attention::fa3) return;
    Shape sums = node(c.lse).shape;  // of dout * out, in tiles of rows: its backward op returns them (flash_attn_interface.py)
    const std::int64_t tile = node(c.q).shape.dim[3] > 64 ? 64 : 128;
    sums.dim[2] = (sums.dim[2] + tile - 1) / tile * tile;
    b_.result(call, 3, sums, Dtype::fp32, "attn.dsoftmax_sum");
  }

  // nanochat/fp8.py backward: the gradient in e5m2; the weight and the input again in the layouts the two products need (copies).
  void float8(const Float8Linear& c) {
    const char* role = node(c.out).role;
    const NodeId g = grad_[index(c.out)];
    const Float8 g8 = b_.to_float8(g, Dtype::fp8_e5m2, role);
    const Float8 w_col{turned(c.w8.value), c.w8.inverse};
    const NodeId dx = b_.scaled_matmul(g8, w_col, node(c.x).shape, node(c.out).dtype, 1, role);
    b_.flat(true);
    const NodeId g_row = b_.pointwise(Fn::transpose, std::array{g8.value}, node(g8.value).shape, Dtype::fp8_e5m2, role);
    b_.flat(false);
    const Float8 x_col{turned(c.x8.value), c.x8.inverse};
    const NodeId dw = b_.scaled_matmul({g_row, g8.inverse}, x_col, node(c.w).shape, node(c.out).dtype, 2, role);
    accumulate(c.x, dx);
    accumulate(c.w, b_.convert(dw, node(c.w).dtype, role));
  }

  bool mask_copied_ = false;
  // Past a FlashAttention 3 backward, whose argument `out` makes it a mutation (pattern_matcher.py, is_mutation_op), nothing is the same as before it to
  // the joint graph's de-duplication (compile_utils.py, fx_graph_cse).
  bool mutated_ = false;
  std::map<NodeId, NodeId> turned_;
  std::map<std::pair<NodeId, NodeId>, NodeId> sums_;  // of the product of two
  std::map<NodeId, NodeId> bias_sums_;
  JointGraph joint_;
  Graph& g_;
  GraphBuilder b_;
  std::vector<NodeId> grad_;
  std::vector<std::pair<Composite, std::size_t>> composite_;
  std::vector<bool> wanted_;
};

}  // namespace

JointGraph differentiate(Graph forward, bool compiled) { return Engine(std::move(forward), compiled).run(); }

}  // namespace dryfit
