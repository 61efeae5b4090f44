// Which loop nests become one kernel: Inductor's greedy fusion (torch/_inductor/scheduler.py, choices.py and codegen/simd.py). Pairs that share
// memory are tried in the order of what they save, in rounds; nothing is known here of models, storage or lifetimes.
//
// Up to torch 2.9 loops over neighbouring dimensions are merged at once (2.9.1; config.loop_ordering_after_fusion is off). From 2.10 on (2.11.0) they stay as the
// code has them until kernels are chosen: what one loop reads over texts and rows and another over rows alone is not the same memory in the same order. When
// nothing fuses any more, one last round takes those for the same, and turns loops over two dimensions around where that makes them the same. And reductions over rows and
// over columns of one large tensor become one kernel (MixOrderReduction), which other loops join on either side.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace dryfit {

// The dimensions that loops run over, outermost first and those of one element left out; zeros after them. None: not told apart.
using Ranges = std::array<std::int64_t, 5>;

// What a slice may be called, beside others of the caller's.
constexpr std::uint32_t kExchanged = 24;      // the whole, with rows and columns exchanged
constexpr std::uint32_t kExchangedRows = 25;  // a value of each row, in loops that go over rows innermost

// One access of a buffer. Equal (buffer, slice, over) are the same memory in the same order.
struct LoopAccess {
  std::int32_t buffer;
  std::uint32_t slice;           // 0: the whole of it in its own order
  std::int64_t bytes;            // what is accessed
  Ranges over{};                 // the loops it depends on, and those around them
};

// A value that gets computed: a loop over `rows` elements, each of which a reduction makes of `columns`.
struct Loop {
  std::int32_t writes;           // the buffer
  std::int64_t rows = 1, columns = 1;
  bool external = false;         // a library call: never fused
  bool reduction = false;
  bool closed = false;           // nobody who needs its result can join its kernel
  std::int64_t write_bytes = 0;
  std::int32_t readers = 0;      // loops that read it, and one more where it is returned
  std::int64_t reuse_key = 0;    // buffers of one key can take each other's memory
  std::int64_t elements = 0;
  std::vector<LoopAccess> reads;
  Ranges ranges{};               // of rows, then of columns; none: merged
  bool turned = false;           // over columns, then rows: not as it came
  bool across = false;           // sums up the columns of rows that lie in memory one after the other
  std::int64_t parts = 1;        // such sums of a tensor, which somebody else adds up: rows holds those of all parts
};

// For loops in the order in which Inductor writes them down: the kernels, by their first loop, each with its loops in the order of its code.
// apart: by the rules of torch 2.10 and newer.
std::vector<std::vector<std::int32_t>> fuse_loops(std::vector<Loop> loops, std::int32_t buffers, bool apart = false);

}  // namespace dryfit
