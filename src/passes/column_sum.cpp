// See column_sum.hpp.
#include "passes/column_sum.hpp"

#include <algorithm>
#include <bit>

#include "base/bytes.hpp"

namespace dryfit {

namespace {

constexpr std::int64_t kWarp = 32, kMostThreads = 512, kMostLoaded = 4;       // of a block; columns that a thread loads at once
constexpr std::int64_t kLeastOfThread = 16, kMostOfThread = 256, kSum = 4;    // rows of a thread; bytes of a sum

std::int64_t power_of_two_below(std::int64_t n, std::int64_t most) { return n < most ? static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(n))) : most; }

}  // namespace

ColumnSum column_sum(std::int64_t rows, std::int64_t columns, Multiprocessors gpu) {
  if (gpu.count == 0 || rows <= 1 || columns <= 0) return {};
  std::int64_t loaded = kMostLoaded;
  while (columns % loaded != 0) loaded /= 2;
  const std::int64_t most = kMostThreads / loaded, across = power_of_two_below(columns / loaded, most), down = power_of_two_below(rows, most);
  const std::int64_t height = std::min(down, most / std::min(across, kWarp)), width = std::min(across, most / height);
  if (rows < std::min(height * kLeastOfThread, kMostOfThread)) return {};  // a warp has all rows of its columns
  const std::int64_t each = ceil_div(rows, height), groups = ceil_div(columns / loaded, width), blocks = gpu.count * (gpu.threads / (width * height));
  if (each < kMostOfThread || groups > blocks) return {};
  const std::int64_t sharing = std::max(std::min(ceil_div(blocks, groups), ceil_div(each, kLeastOfThread)), ceil_div(each, kMostOfThread));
  if (sharing <= 1) return {};
  return {kSum * columns * sharing * width * loaded, 4 * groups};
}

}  // namespace dryfit
