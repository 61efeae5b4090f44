// What the eager engine takes beside the results of its ops, against figures that a GPU printed (data/measured/operators.csv) and what ATen's source says.
#include <gtest/gtest.h>

#include <array>

#include "base/bytes.hpp"
#include "memory/timeline.hpp"
#include "passes/column_sum.hpp"
#include "passes/eager.hpp"

namespace dryfit {
namespace {

constexpr Multiprocessors kA100{108, 2048};

// Liger's RMSNorm of 0.2.1 sums 2048 rows; what its rows show beyond their tensors.
TEST(ColumnSum, takesWhatAnA100Printed) {
  struct Case { std::int64_t columns, mib; };
  for (const Case& c : {Case{1024, 16}, Case{2048, 32}, Case{4096, 64}, Case{8192, 108}, Case{16384, 112}, Case{32768, 112}}) EXPECT_EQ(column_sum(2048, c.columns, kA100).partials, mib(c.mib).count) << c.columns;
  EXPECT_EQ(column_sum(2048, 1024, kA100).counters, 32);  // 8 groups of 128 columns
}

TEST(ColumnSum, takesNothingOfFewRows) {
  EXPECT_EQ(column_sum(kRowsOfOneBlock, 4096, kA100), ColumnSum());
  EXPECT_GT(column_sum(kRowsOfOneBlock + 1, 4096, kA100).partials, 0);
  EXPECT_EQ(column_sum(108, 8192, kA100), ColumnSum());  // Liger's LayerNorm: a row of each multiprocessor
  EXPECT_EQ(column_sum(1 << 20, 4096, {}), ColumnSum());
}

TEST(ColumnSum, neverShrinksWithRows) {
  for (const Multiprocessors gpu : {kA100, Multiprocessors{132, 2048}, Multiprocessors{128, 1536}, Multiprocessors{40, 1024}}) {
    for (const std::int64_t columns : {1, 7, 64, 130, 768, 4096, 18944}) {
      std::int64_t before = 0;
      for (std::int64_t rows = 1; rows < (1 << 20); rows += 1 + rows / 3) {
        const std::int64_t now = column_sum(rows, columns, gpu).partials;
        EXPECT_GE(now, before) << rows << " x " << columns << " on " << gpu.count;
        before = now;
      }
    }
  }
}

// Two products read x; the gradients of x come back through views where x has three dimensions, and a view's storage has two owners (input_buffer.cpp
// can_accumulate_inplace; torch 2.9.1 prints aten::add there and aten::add_ in two dimensions).
std::size_t gradients_of_two_products(eager::Dims d) {
  eager::Tape t(1);
  const eager::Tensor x = t.parameter("x", d, Dtype::fp32, true);
  std::array<eager::Tensor, 2> w;
  for (eager::Tensor& one : w) one = t.parameter("w", eager::dims({8, 4}, false), Dtype::fp32, true);
  const eager::Tensor a = t.linear(x, w[0], "a");
  const eager::Tensor b = t.linear(x, w[1], "b");
  const eager::Tensor y = t.mul(a, b, "y");
  const eager::Tensor dy = t.empty("dy", y.dims(), Dtype::fp32);
  t.backward(y, dy);
  std::size_t made = 0;
  for (const TensorInfo& info : t.take().tensors) made += info.bytes == d.numel() * 4 ? 1 : 0;
  return made - 1;  // not x itself
}

TEST(Eager, addsOntoNoView) {
  EXPECT_EQ(gradients_of_two_products(eager::dims({6, 4}, false)), 2U);
  EXPECT_EQ(gradients_of_two_products(eager::dims({2, 3, 4}, false)), 3U);
}

// y.backward(dy) with dy narrower than y: the list of gradients holds the widened one to the end.
TEST(Eager, holdsTheGradientItIsGiven) {
  eager::Tape t(1);
  const eager::Tensor x = t.parameter("x", eager::dims({256, 4}, false), Dtype::fp32, true);
  const eager::Tensor y = t.scale(t.scale(t.scale(x, "y"), "y"), "y");
  const eager::Tensor dy = t.empty("dy", y.dims(), Dtype::bf16);
  t.segment("backward", "");
  t.backward(y, dy);
  const Program p = t.take();
  // x 4 KiB, the last y 4, dy 2, dy widened 4, two gradients of the chain 4 each
  EXPECT_EQ(run_timeline(p).phases.back().allocated.count, (4 + 4 + 2 + 4 + 4 + 4) * 1024);
}

}  // namespace
}  // namespace dryfit
