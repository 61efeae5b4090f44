// Which kernels Inductor has several configurations for, and which of a graph's are one and the same kernel.
// Source: torch/_inductor/runtime/triton_heuristics.py (pointwise, persistent_reduction, reduction), codegen/simd_kernel_features.py (2.9.1, 2.11.0).
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "passes/written_loops.hpp"

namespace dryfit {

struct FusedKernel {
  std::vector<NodeId> members;   // the stored values it computes, in the order of the generated code
  std::vector<NodeId> writes;    // those of them that get memory
  std::vector<Read> reads;       // storages that exist before the kernel runs
  std::int32_t step = 0;         // its index among Inductor's scheduler nodes, where every result of a kernel counts as one more
  bool external = false;
  bool reduces = false;
  std::int64_t workspace = 0;    // elements, in fp32
  NodeId holds = kNone;          // who stands for it
  std::vector<NodeId> sums{};    // made whole
  bool mixed = false;            // in both orders: sums in parts stand in one workspace, and are added up before anything else runs
  bool gone = false;             // added up by such a kernel
  std::vector<NodeId> in_place{};  // of what it writes, what is written onto something that it reads
};

class TimedKernels : protected WrittenLoops {
 protected:
  using Kernel = FusedKernel;
  TimedKernels(const FuseInput& input, bool eager) : WrittenLoops(input, eager) {}

  // What the loop that stores a value runs over: its own elements, or those it reduces.
  std::int64_t extent(NodeId v) const;
  // The longest row that a kernel goes over once.
  std::int64_t longest_in_registers(const Kernel& kernel) const { return longest_in_registers(direction_of(kernel)); }
  // Whether configurations of it are timed: there are several, and no kernel before it has the same code.
  bool timed_first(const Kernel& kernel);

 private:
  enum class Direction : std::uint8_t { along, across, mixed };  // of memory, that sums run in (ReductionHint: INNER, OUTER, DEFAULT)
  static std::int64_t longest_in_registers(Direction direction) { return direction == Direction::along ? 1024 : 64; }
  Direction direction_of(const Kernel& kernel) const;
  bool has_choices(const Kernel& kernel) const;
  std::vector<std::int64_t> code_of(const Kernel& kernel) const;
  void write_expression(NodeId v, std::vector<NodeId>& loaded, std::vector<std::int64_t>& code) const;

  std::set<std::vector<std::int64_t>> timed_;  // code of those that were
};

}  // namespace dryfit
