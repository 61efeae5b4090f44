// Building graphs: shapes, node bookkeeping, names for people. Nothing about memory.
#include "graph/graph.hpp"

#include <algorithm>
#include <cstdlib>

#include "workload/workload.hpp"

namespace dryfit {

namespace {

// The divisor of n that lies nearest to `to`, the smaller of two.
std::int64_t nearest_divisor(std::int64_t n, std::int64_t to) {
  std::int64_t best = 1;
  for (std::int64_t d = 1; d * d <= n; ++d) {
    if (n % d != 0) continue;
    for (std::int64_t candidate : {d, n / d}) {
      const std::int64_t now = std::abs(candidate - to), before = std::abs(best - to);
      if (now < before || (now == before && candidate < best)) best = candidate;
    }
  }
  return best;
}

// How many parts an outer reduction of rows x columns is split into: ir.py, Reduction.num_splits; choices.py, reduction_split_factor.
std::int64_t outer_splits(std::int64_t rows, std::int64_t columns, std::int64_t multiprocessors) {
  constexpr std::int64_t kLeast = 32, kMost = 512, kThreads = 2048, kBlock = 256, kColumns = 128, kAtOnce = 4;
  if (rows <= kLeast || columns >= multiprocessors * 2 * 32) return 1;
  const std::int64_t elements = rows * columns, device = multiprocessors * kThreads;
  std::int64_t size = kLeast;
  if (elements >= kMost * device) {
    const std::int64_t even = nearest_divisor(rows, kMost);
    size = std::abs(even - kMost) < 50 ? even : kMost;
  } else if (elements >= kLeast * device) {
    const std::int64_t blocks = ceil_div(device / kBlock, ceil_div(columns, kColumns)), wanted = ceil_div(rows, kAtOnce * blocks), even = nearest_divisor(rows, wanted);
    size = std::abs(wanted - even) < 20 ? std::max(even, kLeast) : wanted;
  }
  return ceil_div(rows, kAtOnce * size);
}

}  // namespace

std::int64_t inner_splits(std::int64_t elements, std::int64_t multiprocessors) {
  constexpr std::int64_t kLeast = 32, kMost = 512, kThreads = 2048, kBlock = 256, kUnsplit = 8192;
  if (elements <= kUnsplit) return 1;
  const std::int64_t device = multiprocessors * kThreads;
  std::int64_t size = kLeast;
  if (elements >= kMost * device) {
    const std::int64_t even = nearest_divisor(elements, kMost);
    size = std::abs(even - kMost) < 50 ? even : kMost;
  } else if (elements > kLeast * device) {
    const std::int64_t wanted = ceil_div(elements, kBlock * (device / (2 * kBlock))), even = nearest_divisor(elements, wanted);
    size = std::abs(even - wanted) < 30 ? std::max(even, kLeast) : wanted;
  }
  return ceil_div(elements, size * kBlock);
}

Shape shape(std::span<const std::int64_t> dims, bool batched) {
  Shape s;
  for (std::int64_t d : dims) s.dim[s.rank++] = d;
  s.batched = batched;
  return s;
}

Shape rows_of(Shape s) {
  s.dim[s.rank - 1] = 1;
  return s;
}

constexpr std::int64_t kUnpadded = 1024, kAlignment = 128;  // inductor.config.padding_stride_threshold, in elements; padding_alignment_bytes

std::int64_t padding_of(const Shape& s, Dtype d) {
  std::int64_t stride = 1, elements = 1;  // the last row has no padding after it
  for (std::uint8_t i = s.rank; i-- > 0;) {
    if (i + 1 < s.rank && stride > kUnpadded) stride = round_up(stride, kAlignment / size_of(d));
    elements += (s.dim[i] - 1) * stride;
    stride *= s.dim[i];
  }
  return elements - s.numel();
}

Shape padded_texts(const Shape& s, Dtype d) {
  if (s.rank != 3 || s.dim[0] == 1) return s;
  const std::int64_t text = s.dim[1] * s.dim[2], even = round_up(text, kAlignment / size_of(d));
  return text <= kUnpadded || text == even ? s : shape({s.dim[0], 1, even}, s.batched);
}

std::string Graph::name_of(NodeId id) const {
  const Node& node = nodes[static_cast<std::size_t>(id)];
  std::string name = node.backward ? "grad " : "";
  if (node.layer >= 0) name += "h." + std::to_string(node.layer) + ".";
  return name + node.role;
}

NodeId GraphBuilder::push(Node node) {
  node.layer = layer_;
  node.backward = backward_;
  node.flat = flat_;
  graph_.nodes.push_back(node);
  return static_cast<NodeId>(graph_.nodes.size()) - 1;
}

NodeId GraphBuilder::input(Shape s, Dtype d, const char* role, std::int32_t parameter) {
  Node node;
  node.fn = Fn::input;
  node.kind = Kind::input;
  node.shape = s;
  node.dtype = d;
  node.role = role;
  const NodeId id = push(node);
  graph_.inputs.push_back({id, parameter});
  return id;
}

NodeId GraphBuilder::pointwise(Fn fn, std::span<const NodeId> in, Shape s, Dtype d, const char* role) {
  Node node;
  node.fn = fn;
  node.kind = Kind::pointwise;
  node.shape = s;
  node.dtype = d;
  node.role = role;
  for (NodeId id : in) node.in[node.inputs++] = id;
  return push(node);
}

NodeId GraphBuilder::unary(Fn fn, NodeId x, Dtype d, const char* role) {
  return pointwise(fn, std::array{x}, (*this)[x].shape, d, role);
}

NodeId GraphBuilder::convert(NodeId x, Dtype d, const char* role) {
  return (*this)[x].dtype == d ? x : unary(Fn::convert, x, d, role);
}

NodeId GraphBuilder::binary(Fn fn, NodeId a, NodeId b, Dtype d, const char* role) {
  const Shape& s = (*this)[a].shape.numel() >= (*this)[b].shape.numel() ? (*this)[a].shape : (*this)[b].shape;
  return pointwise(fn, std::array{a, b}, s, d, role);
}

NodeId GraphBuilder::with_number(Fn fn, NodeId x, int which, Dtype d, const char* role) {
  const NodeId id = unary(fn, x, d, role);
  graph_.nodes.back().variant = static_cast<std::int8_t>(which);
  return id;
}

NodeId GraphBuilder::reduce(Fn fn, NodeId x, Shape s, Dtype d, const char* role, NodeId second) {
  const NodeId id = second == kNone ? pointwise(fn, std::array{x}, s, d, role) : pointwise(fn, std::array{x, second}, s, d, role);
  graph_.nodes.back().kind = Kind::reduction;
  return id;
}

NodeId GraphBuilder::slice(NodeId x, Shape s, int part, const char* role) {
  const NodeId id = pointwise(Fn::slice, std::array{x}, s, (*this)[x].dtype, role);
  graph_.nodes.back().kind = Kind::view;
  graph_.nodes.back().variant = static_cast<std::int8_t>(part);
  return id;
}

NodeId GraphBuilder::cat(NodeId a, NodeId b, Shape s, const char* role) {
  const NodeId id = pointwise(Fn::cat, std::array{a, b}, s, (*this)[a].dtype, role);
  graph_.nodes.back().kind = Kind::cat;
  return id;
}

NodeId GraphBuilder::even_rows(NodeId x, Shape s, const char* role) {
  const NodeId id = pointwise(Fn::transpose, std::array{x}, s, (*this)[x].dtype, role);
  graph_.nodes.back().variant = kEvenRows;
  return id;
}

NodeId GraphBuilder::by_rows(NodeId x, const char* role) {
  const NodeId id = unary(Fn::transpose, x, (*this)[x].dtype, role);
  graph_.nodes.back().variant = kByHeads;
  return id;
}

NodeId GraphBuilder::matmul(NodeId a, NodeId b, Shape s, Dtype d, int variant, const char* role) {
  const NodeId id = pointwise(Fn::matmul, std::array{a, b}, s, d, role);
  graph_.nodes.back().kind = Kind::matmul;
  graph_.nodes.back().variant = static_cast<std::int8_t>(variant);
  return id;
}

NodeId GraphBuilder::addmm(NodeId added, NodeId a, NodeId b, Shape s, Dtype d, int variant, const char* role) {
  const NodeId id = matmul(a, b, s, d, variant, role);
  graph_.nodes.back().in[2] = added;
  graph_.nodes.back().inputs = 3;
  return id;
}

NodeId GraphBuilder::times(NodeId self, NodeId other, Dtype d, const char* role) { return binary(Fn::mul, other, self, d, role); }

NodeId GraphBuilder::over_rms(NodeId x, const char* role) {
  const Dtype f = Dtype::fp32;
  const NodeId up = convert(x, f, role);
  const NodeId variance = reduce(Fn::mean_rows, unary(Fn::power, up, f, role), rows_of((*this)[x].shape), f, role);
  return times(up, unary(Fn::rsqrt, variance, f, role), f, role);
}

NodeId GraphBuilder::layer_norm(NodeId x, NodeId weight, NodeId bias, Dtype d, const char* role) {
  const Dtype f = Dtype::fp32;
  const NodeId up = convert(x, f, role);
  const Shape row = rows_of((*this)[x].shape);
  const NodeId mean = reduce(Fn::mean_rows, up, row, f, role), spread = reduce(Fn::variance_rows, up, row, f, role);
  const NodeId rstd = unary(Fn::rsqrt, unary(Fn::scale, spread, f, role), f, role);
  const NodeId xhat = binary(Fn::mul, binary(Fn::sub, up, mean, f, role), rstd, f, role);
  return layer_norm_again({x, mean, rstd, xhat, kNone, kNone, kNone}, weight, bias, d, role);
}

NodeId GraphBuilder::layer_norm_again(LayerNorm first, NodeId weight, NodeId bias, Dtype d, const char* role) {
  const Dtype f = Dtype::fp32;
  const NodeId out = convert(binary(Fn::add, binary(Fn::mul, first.xhat, weight, f, role), bias, f, role), d, role);
  graph_.layer_norms.push_back({first.x, first.mean, first.rstd, first.xhat, out, weight, bias});
  return out;
}

std::array<NodeId, 3> GraphBuilder::split(NodeId x, Shape part, std::array<const char*, 3> roles) {
  std::array<NodeId, 3> parts{};
  for (int i = 0; i < 3; ++i) parts[static_cast<std::size_t>(i)] = slice(x, part, i, roles[static_cast<std::size_t>(i)]);
  graph_.splits.push_back({x, parts});
  return parts;
}

NodeId GraphBuilder::dropped(NodeId x, NodeId seeds, const char* role) {
  const Shape s = (*this)[x].shape;
  const Dtype d = (*this)[x].dtype;
  const NodeId random = pointwise(Fn::random, std::array{seeds}, s, Dtype::fp32, role);
  const NodeId kept = unary(Fn::compare, convert(random, d, role), Dtype::bool8, role);
  return unary(Fn::scale, binary(Fn::drop, kept, x, d, role), d, role);
}

AttentionCall GraphBuilder::attention(int variant, NodeId q, NodeId k, NodeId v, NodeId bias, Shape out, Shape stats, std::int64_t seeds, std::int64_t window, const char* stats_role) {
  AttentionCall call{kNone, q, k, v, kNone, kNone, bias, kNone, kNone, window};
  const std::array operands{q, k, v, bias};
  call.kernel = kernel(Fn::attention, std::span(operands).first(bias == kNone ? 3 : 4), "attn");
  graph_.nodes.back().variant = static_cast<std::int8_t>(variant);
  call.out = result(call.kernel, 0, out, graph_.compute, "attn.out");
  call.lse = result(call.kernel, 1, stats, Dtype::fp32, stats_role);
  if (seeds > 0) {
    call.seed = result(call.kernel, 2, shape({seeds}, false), Dtype::int64, "attn.seed");
    call.offset = result(call.kernel, 3, shape({1}, false), Dtype::int64, "attn.offset");
  }
  graph_.attentions.push_back(call);
  return call;
}

NodeId GraphBuilder::viewed(NodeId x, Shape s) {
  graph_.nodes[static_cast<std::size_t>(x)].shape = s;
  return x;
}

Float8 GraphBuilder::to_float8(NodeId x, Dtype d, const char* role) {
  const Dtype f = Dtype::fp32;
  flat(true);
  const NodeId up = convert(x, f, role);
  NodeId scale = reduce(Fn::amax_all, unary(Fn::abs, up, f, role), dryfit::shape({1}, false), f, role);
  // in fp64: clamped from below, one over it, times the dtype's maximum
  for (const Fn step : {Fn::convert, Fn::scale, Fn::reciprocal, Fn::scale, Fn::convert}) scale = unary(step, scale, f, role);
  const NodeId clamped = unary(Fn::scale, unary(Fn::scale, binary(Fn::mul, up, scale, f, role), f, role), f, role);
  const NodeId value = unary(Fn::scaled_cast, clamped, d, role), inverse = unary(Fn::reciprocal, scale, f, role);
  flat(false);
  return {value, inverse};
}

NodeId GraphBuilder::scaled_matmul(Float8 a, Float8 b, Shape s, Dtype d, int variant, const char* role) {
  const NodeId y = matmul(a.value, b.value, s, d, variant, role);
  Node& n = graph_.nodes[static_cast<std::size_t>(y)];
  n.in[2] = a.inverse;
  n.in[3] = b.inverse;
  n.inputs = 4;
  return y;
}

NodeId GraphBuilder::log_softmax(NodeId logits) {
  const Dtype f = Dtype::fp32;
  const Shape row = rows_of((*this)[logits].shape);
  flat(true);
  const NodeId shifted = binary(Fn::sub, logits, reduce(Fn::amax_rows, logits, row, f, "loss.amax"), f, "loss");
  const NodeId sum = reduce(Fn::sum_rows, unary(Fn::exp, shifted, f, "loss"), row, f, "loss.sum");
  const NodeId log_probs = binary(Fn::sub, shifted, unary(Fn::log, sum, f, "loss.logsum"), f, "loss");
  flat(false);
  return log_probs;
}

NodeId GraphBuilder::reduce_rows(Fn fn, NodeId x, Dtype d, const char* role) {
  const Shape s = (*this)[x].shape;
  const NodeId y = reduce(fn, x, rows_of(s), d, role);
  if (s.dim[s.rank - 1] < 8) graph_.nodes.back().kind = Kind::pointwise;
  return y;
}

Routing GraphBuilder::route(NodeId logits, std::int64_t k, bool shared_out, Dtype d) {
  const Dtype f = Dtype::fp32;
  const char* role = "router.probs";
  Routing r{logits, kNone, kNone, kNone, kNone, kNone, kNone};
  const NodeId wide = convert(logits, f, role);
  const NodeId shifted = binary(Fn::sub, wide, reduce_rows(Fn::amax_rows, wide, f, role), f, role);
  const NodeId raised = unary(Fn::exp, shifted, f, role);
  r.probs = binary(Fn::mul, raised, reduce_rows(Fn::sum_rows, raised, f, role), f, role);
  Shape best = (*this)[logits].shape;
  best.dim[best.rank - 1] = k;
  const NodeId largest = kernel(Fn::topk, std::array{r.probs}, "router.topk");
  r.shares = r.values = result(largest, 0, best, f, "router.weights");
  r.places = result(largest, 1, best, Dtype::int64, "router.selected");
  if (shared_out) {
    r.sum = reduce_rows(Fn::sum_rows, r.values, f, "router.sum");
    r.shares = binary(Fn::mul, r.values, r.sum, f, "router.weights");
  }
  r.out = convert(r.shares, d, "router.weights");
  graph_.routings.push_back(r);
  return r;
}

NodeId GraphBuilder::column_sums(NodeId x, Shape s, Dtype d, const char* role) {
  const std::int64_t columns = s.numel(), rows = (*this)[x].shape.numel() / columns, parts = outer_splits(rows, columns, graph_.multiprocessors);
  if (parts > 1) x = reduce(Fn::sum_columns, x, shape({parts, columns}, false), d == Dtype::int64 ? d : Dtype::fp32, role);
  return reduce(Fn::sum_columns, x, s, d, role);
}

NodeId GraphBuilder::kernel(Fn fn, std::span<const NodeId> in, const char* role) {
  const NodeId id = pointwise(fn, in, Shape{}, graph_.compute, role);
  graph_.nodes.back().kind = Kind::kernel;
  return id;
}

NodeId GraphBuilder::result(NodeId kernel, int which, Shape s, Dtype d, const char* role) {
  const NodeId id = pointwise(Fn::result, std::array{kernel}, s, d, role);
  graph_.nodes.back().kind = Kind::result;
  graph_.nodes.back().variant = static_cast<std::int8_t>(which);
  return id;
}

}  // namespace dryfit
