// The loops that compute what Inductor stores, as fusion looks at them: what they run over, what they read and in which order.
// Source: torch/_inductor/{ir,dependencies}.py (2.9.1; 2.11.0 where loops are left apart).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "passes/buffer_names.hpp"
#include "passes/loops.hpp"

namespace dryfit {

class WrittenLoops : protected BufferNames {
 protected:
  WrittenLoops(const FuseInput& input, bool eager) : BufferNames(input, eager) {}

  // Elements of r that the loop of v loads, itself of `most`.
  std::int64_t loaded(NodeId v, const Read& r, std::int64_t most) const {
    return external(v) || r.natural || node(v).fn == Fn::embedding ? node(owner(r.node)).shape.numel() : std::min(most, r.elements);
  }
  // Which part of r that is, as LoopAccess tells them apart.
  std::uint32_t slice_of(NodeId v, const Read& r) const;
  // Buffers of one key can take each other's memory.
  std::int64_t key(NodeId v) const { return node(v).bytes() * 16 + static_cast<std::int64_t>(node(v).dtype); }
  Loop loop_of(NodeId v) const;
  // Whether it sums columns of parts of the rows (graph.hpp, column_sums).
  bool sums_in_parts(NodeId v) const { return node(v).fn == Fn::sum_columns && node(v).shape.rank == 2 && !node(v).shape.batched; }

  std::vector<std::int32_t> readers_;  // by value: how many stored ones read it

 private:
  Ranges ranges_of(NodeId v) const;
  bool goes_across(NodeId v) const;
};

}  // namespace dryfit
