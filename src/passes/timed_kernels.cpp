// See timed_kernels.hpp.
#include "passes/timed_kernels.hpp"

#include <algorithm>
#include <bit>

namespace dryfit {

std::int64_t TimedKernels::extent(NodeId v) const {
  std::int64_t most = node(v).shape.numel();
  for (const Read& r : reads_of(v)) {
    if (node(r.node).fn != Fn::input) most = std::max(most, node(r.node).shape.numel());
  }
  return most;
}

// Along memory run sums whose reads are plain indices; Inductor finds out for itself where there are few of them (ir.py, num_splits), in which columns then are across.
TimedKernels::Direction TimedKernels::direction_of(const Kernel& kernel) const {
  const std::int64_t few = std::int64_t{64} * in_.graph->multiprocessors;
  bool along = true, across = true;
  for (NodeId v : kernel.members) {
    if (node(v).kind != Kind::reduction) {
      along = along && !exchanges(v);
      continue;
    }
    const bool columns = node(v).fn == Fn::sum_columns || node(v).fn == Fn::sum_batch || node(v).fn == Fn::sum_groups;
    const bool plain = std::ranges::all_of(reads_of(v), [](const Read& r) { return r.elements == 1 || (r.natural && r.shift == 0); });
    const bool its = plain || (!columns && node(v).shape.numel() < few);
    along = along && its;
    across = across && !its && node(v).shape.numel() < few;
  }
  return along ? Direction::along : across ? Direction::across : Direction::mixed;
}

// Blocks of one element, and of 8 where there are so many rows and they are short; loops of two block sizes unless they are tiny.
bool TimedKernels::has_choices(const Kernel& kernel) const {
  constexpr std::uint64_t kShortRow = 256, kBlock = 8;
  std::int64_t elements = 0;
  for (NodeId v : kernel.members) elements = std::max(elements, node(v).fn == Fn::scatter_rows ? node(node(v).in[1]).shape.numel() : extent(v));
  if (!kernel.reduces) return elements > kTinyLoop;
  const auto sum = std::ranges::find_if(kernel.members, [&](NodeId v) { return node(v).kind == Kind::reduction; });
  const std::int64_t rows = node(*sum).shape.numel(), columns = elements / rows;
  const Direction direction = direction_of(kernel);
  if (direction == Direction::across) return false;
  const bool one_pass = columns <= longest_in_registers(direction);
  if (!one_pass) return direction == Direction::mixed;
  return static_cast<std::uint64_t>(rows) >= kBlock && std::bit_ceil(static_cast<std::uint64_t>(columns)) < kShortRow;
}

bool TimedKernels::timed_first(const Kernel& kernel) {
  return !kernel.external && !kernel.mixed && !kernel.members.empty() && has_choices(kernel) && timed_.insert(code_of(kernel)).second;
}

// What its code is made of: equal for kernels of equal code.
std::vector<std::int64_t> TimedKernels::code_of(const Kernel& kernel) const {
  std::vector<std::int64_t> code;
  std::vector<NodeId> loaded;
  for (NodeId v : kernel.members) {
    write_expression(v, loaded, code);
    code.push_back(std::ranges::find(kernel.writes, v) != kernel.writes.end());
    code.push_back(std::ranges::find(kernel.in_place, v) != kernel.in_place.end());
  }
  return code;
}

// A value and what is computed on the way to it, down to what is loaded: buffers in the order in which the code comes to them.
void TimedKernels::write_expression(NodeId v, std::vector<NodeId>& loaded, std::vector<std::int64_t>& code) const {
  constexpr std::size_t kLongest = 4096;  // no kernel is that long; what is deeper is told by its size
  const Node& n = node(v);
  code.insert(code.end(), {static_cast<std::int64_t>(n.fn), static_cast<std::int64_t>(n.kind), n.variant, static_cast<std::int64_t>(n.dtype), n.shape.numel()});
  const bool one_loop = std::ranges::all_of(reads_of(v), [](const Read& r) { return r.natural && r.shift == 0; });  // whatever its dimensions
  for (std::size_t d = 0; !one_loop && d < static_cast<std::size_t>(n.shape.rank); ++d) code.push_back(n.shape.dim[d]);
  for (std::uint8_t k = 0; k < n.inputs; ++k) {
    const NodeId from = n.in[k];
    const NodeId whole = owner(from);
    if (!stored_for(whole, v) && !available_[at(from)] && code.size() < kLongest) {
      write_expression(from, loaded, code);
      continue;
    }
    const auto found = std::ranges::find(loaded, whole);
    code.insert(code.end(), {-1, found - loaded.begin(), node(whole).shape.numel(), static_cast<std::int64_t>(node(whole).dtype)});
    if (found == loaded.end()) loaded.push_back(whole);
    for (const Read& r : reads_of(v)) {
      if (owner(r.node) == whole) code.insert(code.end(), {-2, r.natural, r.shift});
    }
  }
}

}  // namespace dryfit
