// What attention's backward kernels take beside their results, against their sources' arithmetic.
#include "passes/attention_scratch.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <string>

namespace dryfit {
namespace {

AttentionBackwardCall call_of(Attention kind, std::int64_t heads, std::int64_t key_heads, std::int64_t length, std::int64_t head_dim, std::int64_t batch = 4) {
  return {kind, {batch, heads, length, length, head_dim, head_dim, Dtype::bf16, false}, key_heads, true, 0, false, 90};
}

std::int64_t bytes_of(const ScratchTensor& t) {
  std::int64_t n = size_of(t.dtype);
  for (std::int64_t d : t.size) n *= d;
  return n;
}

std::map<std::string, std::int64_t> sizes(const AttentionBackwardCall& call) {
  std::map<std::string, std::int64_t> out;
  for (const ScratchTensor& t : backward_scratch(call).beside) out[t.role] = bytes_of(t);
  return out;
}

using Sizes = std::map<std::string, std::int64_t>;

TEST(AttentionScratch, FlashKeepsSumsAndDqInFp32) {
  EXPECT_EQ(sizes(call_of(Attention::flash, 12, 12, 1000, 80)), (Sizes{{"attn.softmax_d", 4 * 12 * 1024 * 4}, {"attn.dq_accum", 4 * 1024 * 12 * 96 * 4}}));
  EXPECT_EQ(sizes(call_of(Attention::flash, 12, 4, 1000, 80))["attn.dk_expanded"], 4 * 1000 * 12 * 80 * 2);
}

// round_up_headdim, kBlockM_sm90
TEST(AttentionScratch, FlashAttention3RoundsHeadsToItsKernels) {
  EXPECT_EQ(sizes(call_of(Attention::fa3, 12, 12, 2048, 128)), (Sizes{{"attn.softmax_d", 4 * 12 * 2048 * 4}, {"attn.lse_log2", 4 * 12 * 2048 * 4}, {"attn.dq_accum", 4 * 12 * 2048 * 128 * 4}, {"attn.dq_semaphore", 4 * 32 * 12 * 4}}));
  EXPECT_EQ(sizes(call_of(Attention::fa3, 12, 12, 2048, 64))["attn.dq_semaphore"], 4 * 16 * 12 * 4);   // tiles of 128 rows
  EXPECT_EQ(sizes(call_of(Attention::fa3, 12, 12, 2048, 160))["attn.dq_accum"], 4 * 12 * 2048 * 192 * 4);
  AttentionBackwardCall given = call_of(Attention::fa3, 12, 12, 2048, 128);
  given.sums_given = true;
  EXPECT_EQ(sizes(given).count("attn.softmax_d"), 0U);
}

TEST(AttentionScratch, SomeTakeNothing) {
  EXPECT_TRUE(backward_scratch(call_of(Attention::math, 12, 12, 2048, 128)).beside.empty());
}

RC_GTEST_PROP(AttentionScratch, GrowsWithTheBatchAndSharedHeadsCostNoLess, ()) {
  const auto kind = *rc::gen::element(Attention::flash, Attention::fa3, Attention::cudnn);
  const auto shared = *rc::gen::element<std::int64_t>(1, 2, 4), heads = shared * *rc::gen::inRange<std::int64_t>(1, 9), length = *rc::gen::inRange<std::int64_t>(1, 5000), head = *rc::gen::inRange<std::int64_t>(1, 33) * 8;
  const auto total = [&](std::int64_t key_heads, std::int64_t batch) {
    std::int64_t sum = 0;
    for (const ScratchTensor& t : backward_scratch(call_of(kind, heads, key_heads, length, head, batch)).beside) sum += bytes_of(t);
    return sum;
  };
  RC_ASSERT(total(heads, 6) == 6 * total(heads, 1));
  RC_ASSERT(total(heads / shared, 3) >= total(heads, 3));
}

}  // namespace
}  // namespace dryfit
