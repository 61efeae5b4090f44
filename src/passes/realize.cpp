// See realize.hpp.
#include "passes/realize.hpp"

#include <algorithm>

#include "passes/autograd.hpp"
#include "workload/workload.hpp"

namespace dryfit {

namespace {

constexpr std::size_t kReadsThreshold = 4;    // inductor.config.realize_reads_threshold: with several users
constexpr std::size_t kMostReads = 8;         // inductor.config.realize_acc_reads_threshold: with any number
constexpr std::int32_t kMostOperations = 30;  // inductor.config.realize_opcount_threshold
constexpr std::int32_t kTooDeep = 100;        // graph.py, run_node: whatever it reads
constexpr std::uint32_t kTurned = 19;         // a half of a head put in the other's place
constexpr std::int64_t kOfSinglePads = -1000; // the numbers of all pads of one element
constexpr std::uint32_t kSecondPart = 20;     // of what is put together from two: indices of each part begin elsewhere
constexpr std::uint32_t kFirstPart = 32;      // of a sum that is written out: its first term, the others follow

}  // namespace

Realization::Realization(const FuseInput& input, bool eager) : in_(input), nodes_(input.graph->nodes), eager_(eager) {
  position_.assign(nodes_.size(), -1);
  available_.assign(nodes_.size(), false);
  output_.assign(nodes_.size(), false);
  users_.assign(nodes_.size(), 0);
  feeds_external_.assign(nodes_.size(), false);
  taken_as_is_.assign(nodes_.size(), false);
  products_.assign(nodes_.size(), 0);
  copied_.assign(nodes_.size(), false);
  first_external_.assign(nodes_.size(), -1);
  stored_at_.assign(nodes_.size(), 0);
  for (std::size_t i = 0; i < in_.compute.size(); ++i) position_[at(in_.compute[i])] = static_cast<std::int32_t>(i);
  given_.assign(nodes_.size(), false);
  realized_.assign(nodes_.size(), false);
  for (NodeId v : in_.borrowed) available_[at(v)] = true;
  for (NodeId v : in_.given) available_[at(v)] = given_[at(v)] = true;
  for (NodeId v : in_.outputs) output_[at(owner(v))] = true;
  returned_in_parts_.assign(nodes_.size(), false);
  for (NodeId v : in_.compute) {
    const Node& n = node(v);
    for (std::uint8_t k = 0; k < n.inputs; ++k) {
      users_[at(n.in[k])] += n.kind == Kind::matmul && products_[at(n.in[k])] > 0 ? 0 : 1;  // products share one view
      if (!external(v) && !(n.fn == Fn::transpose && n.variant == kEvenRows)) continue;
      products_[at(n.in[k])] += n.kind == Kind::matmul ? 1 : 0;
      const NodeId operand = node(n.in[k]).fn == Fn::laid_out ? n.in[k] : owner(n.in[k]);
      feeds_external_[at(operand)] = true;
      if (n.fn == Fn::attention && static_cast<Attention>(n.variant) == Attention::fa3) taken_as_is_[at(n.in[k])] = true;
      std::int32_t& first = first_external_[at(operand)];
      if (first < 0) first = kMoments * position_[at(v)] - kMoments + 1 + k;
    }
  }
  for (NodeId v : in_.views) {  // as soon as it is written down, but for its other parts
    const NodeId whole = owner(v);
    const auto made = in_.compute.begin() + position_[at(whole)] + 1, taken = in_.compute.begin() + position_[at(v)];
    returned_in_parts_[at(whole)] = position_[at(whole)] >= 0 && made <= taken && std::all_of(made, taken, [&](NodeId u) { return node(u).kind == Kind::view && owner(u) == whole; });
  }
  realize();
}

// Operations of a node's own in the expression that Inductor inlines (lowering.py), without the loads of what it reads.
Realization::Operations Realization::operations(const Node& n) const {
  switch (n.fn) {
    case Fn::scale: case Fn::offset: return {1, 1};
    case Fn::rsqrt: return {2, 1};         // of x + epsilon
    case Fn::nll_grad: return {14, 0};
    case Fn::relu_grad: return {2, 2};     // where(x <= 0, 0, g)
    case Fn::sigmoid_grad: case Fn::tanh_grad: return {n.dtype == Dtype::fp32 ? 3 : 6, 1};  // in fp32, between casts
    case Fn::pad:                          // index, bound, comparison, masked load, choice; and the zero. One element: no load; index and zero for all such
      return node(n.in[0]).shape.numel() == 1 ? Operations{3, 2} : Operations{5, 1};
    case Fn::cat: return {10, 3};          // two masked loads of which one is chosen
    case Fn::join: return {9, 2};          // three masked loads, two comparisons and which of them it is
    case Fn::sum_batch: return {static_cast<std::int32_t>(std::min<std::int64_t>(node(n.in[0]).shape.dim[0], 8)) - 1, 0};
    case Fn::cube: return {2, 0};          // x * x * x
    case Fn::gelu: return {n.dtype == Dtype::fp32 ? 5 : 7, 3};         // x / 2 (1 + erf(x / sqrt 2)), in fp32, between casts
    case Fn::gelu_grad: return {n.dtype == Dtype::fp32 ? 11 : 14, 5};  // g ((1 + erf(x / sqrt 2)) / 2 + x exp(-x^2 / 2) / sqrt(2 pi))
    case Fn::silu: return {2, 0};          // in fp32, between two casts
    case Fn::silu_grad: return {6, 2};     // g s (1 + x (1 - s))
    case Fn::rotate_half:                  // two masked loads of which one is chosen, and a sign; of a part two are put into zeros, which are those of the pad around it
      return n.variant == kOfPart ? Operations{9, 0} : Operations{11, 3};
    case Fn::random: return {2, 0};        // where it stands, and of a seed
    case Fn::drop: return {2, 0};          // a cast of the mask
    case Fn::rotate_pairs: return {26, 2}; // two masked bodies of nine (loads, casts, products and their sum), and which of them it is
    case Fn::mask: return {6, 2};
    case Fn::sum_groups: return {static_cast<std::int32_t>(std::min<std::int64_t>(node(n.in[0]).shape.numel() / n.shape.numel(), 8)) - 1, 0};
    case Fn::expand: case Fn::shift: case Fn::laid_out: return {0, 0};
    case Fn::fill: return {0, 1};
    case Fn::slice: return {0, 0};
    case Fn::sum_rows: case Fn::amax_rows: return {std::max(1, static_cast<std::int32_t>(terms(n)) - 1), 0};
    default: return {1, 0};
  }
}

// Which number a node has for a constant: below 0 one that several use, 1 of tanh's derivative among them.
std::int64_t Realization::constant(NodeId v) const {
  const Node& n = node(v);
  if (n.fn == Fn::tanh_grad) return -kNumberOne;
  if (n.fn == Fn::pad && node(n.in[0]).shape.numel() == 1) return kOfSinglePads;
  return (n.fn == Fn::scale || n.fn == Fn::offset) && n.variant > 0 ? -n.variant : v;
}

// How a reader of `reader` that stands at `shift` indexes `source`: slices and pads move along; what is broadcast does not.
std::uint32_t Realization::shifted(NodeId reader, NodeId source, std::uint32_t shift) const {
  const Node& n = node(reader);
  if (n.fn == Fn::slice) return shift * 31 + static_cast<std::uint32_t>(n.variant) + 1;
  if (n.fn == Fn::pad) return shift * 31 + (n.variant == 1 ? 18 : 17);  // back to where the first part was, or the second
  if (n.fn == Fn::rotate_half) return shift * 31 + kTurned;
  if (n.fn == Fn::random) return static_cast<std::uint32_t>(reader) + 1;  // a seed of its own
  return node(source).shape.numel() < n.shape.numel() ? 0 : shift;
}

// Whether a read stays within one element along the dimension in which two shapes differ: then slices and pads do not change how many it loads.
bool Realization::same_for_all_parts(const Read& r, NodeId whole, NodeId part) const {
  const Shape &a = node(whole).shape, &b = node(part).shape, &read = node(r.node).shape;
  if (r.elements == 1) return true;
  if (a.rank != b.rank || a.rank != read.rank) return false;
  const auto differs = static_cast<std::size_t>(std::ranges::mismatch(a.dim, b.dim).in1 - a.dim.begin());
  return differs < read.rank && read.dim[differs] == 1;
}

// How many terms of each row are written out, one expression for each; 1: it is no such sum or maximum.
std::uint32_t Realization::terms(const Node& n) const {
  if (n.kind != Kind::pointwise || (n.fn != Fn::sum_rows && n.fn != Fn::amax_rows)) return 1;
  return static_cast<std::uint32_t>(node(n.in[0]).shape.numel() / n.shape.numel());
}

// ir.py, should_realize_on_reuse: of what is read many times as often as it has elements (lowering.py, expand, which every broadcast goes through).
bool Realization::too_much_to_repeat(NodeId v) const {
  if (node(v).kind != Kind::pointwise || node(v).fn == Fn::fill) return false;
  const auto reads = std::span(reads_).subspan(reads_begin_[at(v)], reads_end_[at(v)] - reads_begin_[at(v)]);
  // of a half that is put in the other's place two are loaded, one for each
  const auto loads = reads.size() + static_cast<std::size_t>(std::ranges::count_if(reads, [](const Read& r) { return r.shift % 31 == kTurned; }));
  return loads > kReadsThreshold || (operations_[at(v)] > kMostOperations && count_operations(v, kMostOperations) > kMostOperations);
}

// Operations of the whole expression, equal ones once (ops_handler.py, OpCounterCSE). Only asked where a count without merging is too high.
std::int32_t Realization::count_operations(NodeId v, std::int32_t limit) const {
  std::vector<std::pair<NodeId, std::uint32_t>> seen{{v, 0}};
  std::vector<std::int64_t> constants;  // a number that several use, or a node with its own
  std::vector<std::pair<NodeId, std::uint32_t>> loads;
  std::int32_t count = 0;
  for (std::size_t i = 0; i < seen.size() && count <= limit; ++i) {
    const auto [u, shift] = seen[i];
    const Operations mine = operations(node(u));
    count += mine.own;
    const std::int64_t number = constant(u);
    if (mine.constants > 0 && std::ranges::find(constants, number) == constants.end()) {
      count += mine.constants;
      constants.push_back(number);
    }
    for (std::uint8_t k = 0; k < node(u).inputs; ++k) {
      const std::uint32_t parts = terms(node(u));
      for (std::uint32_t part = 0; part < parts; ++part) {
        const std::uint32_t from = parts == 1 ? shifted(u, node(u).in[k], shift) : kFirstPart + part;
        const std::pair<NodeId, std::uint32_t> next{node(u).in[k], from};
        auto& list = stored_for(next.first, u) ? loads : seen;
        if (std::ranges::find(list, next) == list.end()) list.push_back(next);
      }
    }
  }
  return count + static_cast<std::int32_t>(loads.size());
}

// More than one, single elements apart (ops_handler.py, nontrivial_read_count).
bool Realization::reads_tensors(std::span<const Read> reads) const {
  return std::ranges::count_if(reads, [](const Read& r) { return r.elements > 1; }) > 1;
}

// Whether v gets memory, or may only be inlined; and whether that is decided as soon as it is written down.
Realization::Store Realization::store(NodeId v, std::span<const Read> reads) const {
  const Node& n = node(v);
  // ir.py, ExternKernel.require_strides (lowering.py, constrain_to_fx_strides): what is in memory is taken as it is, what is not is copied for each reader
  if (n.fn == Fn::laid_out) return eager_ || stored_for(n.in[0], v) ? Store::never : Store::for_external;
  if (n.kind == Kind::view) return Store::never;
  if (n.fn == Fn::fill && n.shape.numel() <= 1) return Store::never;
  // lowering.py, cat: where a part is computed on the fly, so is the whole for readers that are (pointwise_cat); else parts are written where they belong
  const bool put_together = n.kind == Kind::cat && (output_[at(v)] || std::ranges::all_of(std::span(n.in).first(n.inputs), [&](NodeId part) { return stored_for(part, v); }));
  if (eager_ || external(v) || n.kind == Kind::reduction || put_together || n.fn == Fn::scatter_rows || n.fn == Fn::fill || n.fn == Fn::random) return Store::at_once;
  const bool used_again = users_[at(v)] > 1;
  if (used_again && reads.size() > kReadsThreshold) return Store::at_once;
  const bool tensors = reads_tensors(reads);  // what does not is inlined for longer
  if (tensors && reads.size() > kMostReads) return Store::at_once;
  const std::int32_t limit = tensors || used_again ? kMostOperations : kTooDeep;
  if (operations_[at(v)] > limit && count_operations(v, limit) > limit) return Store::at_once;
  const bool cast_weight = !n.shape.batched && node(n.in[0]).kind == Kind::input;  // saved in another layout: stored with its own view
  if (output_[at(v)] && (!feeds_external_[at(v)] || cast_weight || taken_as_is_[at(v)] || n.shape.numel() == 1)) return Store::at_once;  // others through a view, where it is taken
  if (returned_in_parts_[at(v)]) return Store::at_once;  // when the first of them is written down (graph.py, run_node: outputs are correctly aliased)
  return feeds_external_[at(v)] ? Store::for_external : Store::never;
}

// Whether a stored copy with rows and columns exchanged runs along what it writes, not along what it reads: the order that more of its accesses have, and
// where they are equal the one of its own shape (scheduler.py, pick_loop_order). That of a product's second operand is the shape before the exchange.
bool Realization::across(NodeId v) const {
  return exchanges(v) && loads_[at(v)] < 2 && !(node(v).fn == Fn::laid_out && node(v).variant == 1);
}

// For every node: the stored values it reads, through what is computed on the fly.
void Realization::realize() {
  reads_.reserve(nodes_.size() * 4);
  reads_begin_.assign(nodes_.size(), 0);
  reads_end_.assign(nodes_.size(), 0);
  operations_.assign(nodes_.size(), 0);
  loads_.assign(nodes_.size(), 0);
  for (NodeId v : in_.compute) {
    const Node& n = node(v);
    const std::size_t from = reads_.size();
    const bool straight = !moves_elements(v);
    operations_[at(v)] = operations(n).own + operations(n).constants;
    for (std::uint8_t k = 0; k < n.inputs; ++k) {
      NodeId source = n.in[k];
      if (external(v) && stored_for(owner(source), v)) source = owner(source);  // a view of what is stored for it
      const bool broadcast = (straight && n.kind == Kind::pointwise && n.fn != Fn::scatter_rows) || n.fn == Fn::expand;
      if (!eager_ && broadcast && !stored_for(source, v) && node(source).shape.numel() < n.shape.numel() && too_much_to_repeat(source)) {
        realized_[at(source)] = true;
        stored_at_[at(source)] = kMoments * position_[at(v)] - 1;
      }
      const bool stored = stored_for(source, v);
      if (node(source).shape.numel() >= n.shape.numel()) loads_[at(v)] = std::min(loads_[at(v)] + (stored ? 1 : loads_[at(source)]), kTooDeep);
      const std::uint32_t parts = terms(n);
      const std::int64_t size = node(source).shape.numel();
      // what moves elements into another shape loads as many as that has
      const auto resized = [&](std::int64_t elements) { return size > 1 && (moves_along(n.fn) || n.kind == Kind::cat) ? elements * n.shape.numel() / size : elements; };
      operations_[at(v)] += (stored ? 1 : operations_[at(source)]) * static_cast<std::int32_t>(parts);
      const auto in_part = [&](std::uint8_t part, std::uint32_t shift) { return n.kind == Kind::cat ? shift * 31 + kSecondPart + part : shift; };
      if (stored && parts == 1) {
        add_read(reads_, {source, straight, in_part(k, shifted(v, source, 0)), resized(size)}, from);
        continue;
      }
      for (std::uint32_t part = 0; parts > 1 && part < parts; ++part) {
        if (stored) add_read(reads_, {source, false, kFirstPart + part, size / parts}, from);
        for (std::size_t i = reads_begin_[at(source)]; !stored && i < reads_end_[at(source)]; ++i) {
          const Read r = reads_[i];
          const bool straight_there = r.shift == 0 && node(r.node).shape.numel() >= node(source).shape.numel();
          add_read(reads_, {r.node, false, straight_there ? kFirstPart + part : r.shift, straight_there ? r.elements / parts : r.elements}, from);
        }
      }
      if (parts > 1) continue;
      for (std::size_t i = reads_begin_[at(source)]; i < reads_end_[at(source)]; ++i) {
        const Read r = reads_[i];
        const bool along = moves_along(n.fn) && node(r.node).shape.numel() >= node(source).shape.numel();
        // a row's value is the same for every slice of the row; what a pad puts back where its slice was stands at its own place (dependencies.py, MemoryDep)
        const bool back = n.fn == Fn::pad && node(r.node).shape == n.shape && r.shift == static_cast<std::uint32_t>(n.variant) + 1;
        const bool kept = straight || (moves_along(n.fn) && !along) || back;
        const bool same = same_for_all_parts(r, source, v);
        const std::uint32_t shift = along ? shifted(v, source, r.shift) : r.shift;
        add_read(reads_, {r.node, (r.natural && kept) || back, same ? shift : in_part(k, shift), same ? r.elements : resized(r.elements)}, from);
      }
    }
    reads_begin_[at(v)] = from;
    reads_end_[at(v)] = reads_.size();
    const std::span<const Read> reads = std::span(reads_).subspan(from);
    const Store how = store(v, reads);
    copied_[at(v)] = how == Store::for_external && products_[at(v)] + (output_[at(v)] ? 1 : 0) > 1 && !reads_tensors(reads);
    realized_[at(v)] = how != Store::never;
    for (std::size_t i = from; realized_[at(v)] && across(v) && i < reads_.size(); ++i) {
      if (node(reads_[i].node).shape.numel() >= n.shape.numel()) reads_[i] = {reads_[i].node, false, kAcross, reads_[i].elements};
    }
    stored_at_[at(v)] = how == Store::for_external ? first_external_[at(v)] : kMoments * position_[at(v)];
  }
}

}  // namespace dryfit
