// The memory that ATen's reduction kernel takes for itself: where many rows are summed into one (the gradient of a bias, of a norm's weight), blocks share the
// rows of a column, and what each has of them lies in a buffer until the last one adds it up.
// Source: aten/src/ATen/native/cuda/Reduce.cuh (setReduceConfig, global_memory_size; torch 2.4 to 2.11).
#pragma once

#include <cstdint>

namespace dryfit {

// A GPU as that kernel sees it. Of none nothing is taken, as under the oracle, which sees no kernel's own memory.
struct Multiprocessors {
  int count = 0;
  int threads = 2048;  // that each can hold
};

// Threads that a multiprocessor of a compute capability can hold (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
constexpr int threads_of_multiprocessor(int major, int minor) {
  if (major == 7 && minor == 5) return 1024;
  return (major == 8 && minor > 0) || major >= 12 ? 1536 : 2048;
}

// The most rows that one block sums, where there are 128 columns or more and their number is a multiple of 4.
constexpr std::int64_t kRowsOfOneBlock = 1020;

// Bytes, both 0 where one block has all rows of its columns.
struct ColumnSum {
  std::int64_t partials = 0;
  std::int64_t counters = 0;  // of blocks that are done, one for each group of columns
  friend bool operator==(const ColumnSum&, const ColumnSum&) = default;
};

// [rows, columns] of fp32 or 16-bit numbers, the columns side by side, summed in fp32 to [columns].
ColumnSum column_sum(std::int64_t rows, std::int64_t columns, Multiprocessors gpu);

}  // namespace dryfit
