// Which values of a graph Inductor gives memory (realizes) and which it inlines into their readers, and what each then reads.
// Source: torch/_inductor/{ir,graph,lowering}.py (2.9.1).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "passes/fuse.hpp"
#include "workload/workload.hpp"

namespace dryfit {

struct Read {
  NodeId node;
  bool natural;              // element by element in its own order, not shifted or gathered: a condition for writing in place
  std::uint32_t shift = 0;   // which slice of it: each is loaded for itself
  std::int64_t elements = 0; // of the loop, that each have one of their own
};

// What realization decides about one graph, as fusion goes on from it.
class Realization {
 public:
  Realization(const FuseInput& input, bool eager);

 protected:
  static constexpr std::uint32_t kAcross = 23;    // the shift of what is read with rows and columns exchanged
  static constexpr std::int32_t kMoments = 16;  // between two nodes: what the second needs in memory is stored operand by operand

  static std::size_t at(NodeId v) { return static_cast<std::size_t>(v); }
  const Node& node(NodeId v) const { return nodes_[at(v)]; }
  bool external(NodeId v) const { return node(v).kind == Kind::matmul || node(v).kind == Kind::kernel || node(v).kind == Kind::result; }
  // FlashAttention 3 writes its gradients into buffers that are made for it before; other kernels bring their results along.
  bool made_before(NodeId v) const {
    if (node(v).kind != Kind::result) return false;
    const Node& kernel = node(node(v).in[0]);
    return kernel.fn == Fn::attention_backward && static_cast<Attention>(kernel.variant) == Attention::fa3;
  }
  // A view that is computed here shares its source's storage.
  NodeId owner(NodeId v) const {
    while (node(v).kind == Kind::view && !available_[at(v)] && !realized_[at(v)]) v = node(v).in[0];
    return v;
  }
  bool moves_elements(NodeId v) const {
    return node(v).kind == Kind::cat || (node(v).kind == Kind::view && node(v).fn != Fn::laid_out) || (node(v).fn == Fn::transpose && (node(v).variant == kEvenRows || node(v).variant == kByHeads)) || node(v).fn == Fn::embedding || moves_along(node(v).fn) || node(v).fn == Fn::expand || node(v).fn == Fn::sum_groups || node(v).fn == Fn::sum_batch || node(v).fn == Fn::sum_columns || node(v).fn == Fn::join || node(v).fn == Fn::shift;
  }
  // What its readers read through it is read at another place.
  static bool moves_along(Fn fn) { return fn == Fn::slice || fn == Fn::pad || fn == Fn::rotate_half || fn == Fn::rotate_pairs; }
  // What a consumer cannot share a kernel with: it needs the finished value.
  bool closes(NodeId v) const { return node(v).fn == Fn::scatter_rows; }

  // Whether it is a copy of an fp8 operand with rows and columns exchanged; other transposing nodes are copies of slices.
  bool exchanges(NodeId v) const {
    const Node& n = node(v).fn == Fn::laid_out ? node(node(v).in[0]) : node(v);
    return n.fn == Fn::transpose && size_of(n.dtype) == 1;
  }
  bool across(NodeId v) const;

  // Whether `reader` finds `source` in memory. What only an opaque kernel needs is stored when that kernel is written down: who was written
  // down before has it inlined. A view that several products share of what is hardly worth it becomes a copy of theirs alone (graph.py, run_node:
  // realize_hint asks for more than one tensor read, require_stride_order does not).
  bool stored_for(NodeId source, NodeId reader) const {
    return available_[at(source)] || (realized_[at(source)] && stored_at_[at(source)] <= kMoments * position_[at(reader)] && (!copied_[at(source)] || external(reader)));
  }

  // Adds to the list that begins at `from`, once per node and slice.
  static void add_read(std::vector<Read>& reads, Read r, std::size_t from = 0) {
    for (std::size_t i = from; i < reads.size(); ++i) {
      if (reads[i].node != r.node || reads[i].shift != r.shift) continue;
      reads[i].natural = reads[i].natural && r.natural;
      return;
    }
    reads.push_back(r);
  }
  std::span<const Read> reads_of(NodeId v) const { return std::span(reads_).subspan(reads_begin_[at(v)], reads_end_[at(v)] - reads_begin_[at(v)]); }

  const FuseInput& in_;
  const std::vector<Node>& nodes_;
  bool eager_;
  std::vector<std::int32_t> position_, stored_at_;  // by node: where it is computed, -1: elsewhere; when it is stored, kMoments for each position
  std::vector<bool> available_, output_, realized_, given_, copied_;
  std::vector<std::int32_t> users_, products_;  // by node: who reads it, all products as one; how many products do

 private:
  struct Operations { std::int32_t own, constants; };
  enum class Store : std::uint8_t { never, at_once, for_external };
  Operations operations(const Node& n) const;
  std::uint32_t terms(const Node& n) const;
  bool too_much_to_repeat(NodeId v) const;
  std::int64_t constant(NodeId v) const;
  std::uint32_t shifted(NodeId reader, NodeId source, std::uint32_t shift) const;
  bool same_for_all_parts(const Read& r, NodeId whole, NodeId part) const;
  std::int32_t count_operations(NodeId v, std::int32_t limit) const;
  Store store(NodeId v, std::span<const Read> reads) const;
  bool reads_tensors(std::span<const Read> reads) const;
  void realize();

  std::vector<std::int32_t> operations_, first_external_, loads_;  // loads_: of as many elements as the node has, in its whole expression
  std::vector<bool> feeds_external_, returned_in_parts_, taken_as_is_;  // as_is: by FlashAttention 3, without a view; what is saved is then the value itself
  std::vector<Read> reads_;                       // every node's list after the other
  std::vector<std::size_t> reads_begin_, reads_end_;
};

}  // namespace dryfit
