// See written_loops.hpp.
#include "passes/written_loops.hpp"

#include <utility>

namespace dryfit {

namespace {

constexpr std::uint32_t kWhole = ~0U;  // a slice that is no reader's of a part

// The loops that an access of so many elements depends on: a row's value on those over rows.
Ranges loops_of_access(const Ranges& loops, std::int64_t elements) {
  Ranges outer{};
  std::int64_t passed = 1;
  for (std::size_t i = 0; i < loops.size() && loops[i] > 0; passed *= loops[i], ++i) {
    if (passed == elements) return outer;
    outer[i] = loops[i];
  }
  return loops;
}

}  // namespace

// What is written into is read as a whole, in no order (dependencies.py, StarDep).
std::uint32_t WrittenLoops::slice_of(NodeId v, const Read& r) const {
  if (node(v).fn == Fn::scatter_rows && r.node == node(v).in[0]) return kWhole;
  return r.natural && r.shift == 0 ? 0 : r.shift + 1;
}

// The loops that compute v, as they stand before any are merged (ir.py, ComputedBuffer.simplify_and_reorder).
Ranges WrittenLoops::ranges_of(NodeId v) const {
  const Node& n = node(v);
  Ranges ranges{};
  std::size_t count = 0;
  const auto add = [&](std::int64_t size) {
    if (size > 1) ranges[count++] = size;
  };
  const auto add_shape = [&](const Shape& s, bool flat) {
    const std::int64_t last = s.rank > 0 ? s.dim[s.rank - 1] : 1;
    if (flat) return add(s.numel() / last), add(last);
    for (std::uint8_t i = 0; i < s.rank; ++i) add(s.dim[i]);
  };
  if (n.fn == Fn::scatter_rows) {  // a row for each place
    add_shape(node(n.in[2]).shape, n.flat);
    add(n.shape.dim[n.shape.rank - 1]);
  } else if (n.kind == Kind::reduction || n.fn == Fn::amax_all) {
    const Node& of = node(n.fn == Fn::nll_loss ? n.in[1] : n.in[0]);
    add_shape(n.shape.numel() == 1 ? of.shape : n.shape, n.flat);
    if (n.shape.numel() > 1) add(of.shape.numel() / n.shape.numel());
  } else {
    add_shape(n.shape, n.flat || copied_[at(v)]);
  }
  if (goes_across(v)) std::swap(ranges[0], ranges[1]);
  return ranges;
}

// Whether its loops go along what it writes with rows and columns exchanged.
bool WrittenLoops::goes_across(NodeId v) const {
  return across(v) && std::ranges::any_of(reads_of(v), [](const Read& r) { return r.shift == kAcross; });
}

Loop WrittenLoops::loop_of(NodeId v) const {
  const Node& n = node(v);
  Loop l;
  l.writes = v;
  l.external = external(v) || eager_;
  l.closed = closes(v);
  l.reduction = n.kind == Kind::reduction || n.fn == Fn::amax_all;
  l.rows = n.fn == Fn::scatter_rows ? node(n.in[1]).shape.numel() : n.shape.numel();
  if (l.reduction) l.columns = node(n.fn == Fn::nll_loss ? n.in[1] : n.in[0]).shape.numel() / l.rows;
  l.write_bytes = l.elements = n.shape.numel();
  l.write_bytes *= size_of(n.dtype);
  l.reuse_key = key(v);
  l.readers = readers_[at(v)] + (output_[at(v)] ? 1 : 0);
  static_assert(kExchanged == kAcross + 1);
  const bool apart = in_.graph->loops_apart && !l.external;
  if (apart) l.ranges = ranges_of(v);
  l.across = n.fn == Fn::sum_columns;
  if (sums_in_parts(v)) l.parts = n.shape.dim[0];
  for (const Read& r : reads_of(v)) {
    const NodeId from = owner(r.node);
    const std::int64_t most = std::max(l.rows * l.columns, n.shape.numel());
    const std::int64_t elements = loaded(v, r, most);
    const std::uint32_t slice = slice_of(v, r);
    l.reads.push_back({from, slice, elements * size_of(node(from).dtype)});
    if (!apart || r.elements == 1) continue;
    LoopAccess& access = l.reads.back();
    access.over = goes_across(v) ? l.ranges : loops_of_access(l.ranges, r.elements);
    if (goes_across(v) && slice == 0) access.slice = kExchangedRows;
  }
  return l;
}

}  // namespace dryfit
