// Which loop nests become one kernel: Inductor's greedy fusion (torch/_inductor/scheduler.py and codegen/simd.py, 2.9.1). Pairs that share
// memory are tried in the order of what they save, in rounds; nothing is known here of models, storage or lifetimes.
#pragma once

#include <cstdint>
#include <vector>

namespace dryfit {

// One access of a buffer. Equal (buffer, slice) are the same memory in the same order.
struct LoopAccess {
  std::int32_t buffer;
  std::uint32_t slice;           // 0: the whole of it in its own order
  std::int64_t bytes;            // what is accessed
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
};

// For loops in the order in which Inductor writes them down: the kernels, by their first loop, each with its loops in the order of its code.
std::vector<std::vector<std::int32_t>> fuse_loops(const std::vector<Loop>& loops, std::int32_t buffers);

}  // namespace dryfit
