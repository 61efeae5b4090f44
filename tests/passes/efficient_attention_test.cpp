// The memory-efficient kernel: which of torch's runs, what it takes beside its results, and where its seeds lie. Sizes by hand from PyTorch's kernel_backward.h: a tile of dq is its
// fp32 sums and 16 bytes, dk and dv have a tile of 64 columns for each part of the keys.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "memory/timeline.hpp"
#include "passes/efficient_attention.hpp"
#include "passes/program.hpp"
#include "passes/training_program.hpp"

namespace dryfit {
namespace {

EfficientCall nanochat_d24(Dtype dtype = Dtype::bf16) { return {16, 12, 2048, 2048, 128, 128, dtype}; }

TEST(EfficientAttention, dataCentreGpusKeepKeysGradientsInRegisters) {
  for (int capability : {80, 90, 100}) {
    const EfficientBackward h128 = efficient_backward(nanochat_d24(), capability);
    EXPECT_EQ(h128.workspace, 16 * 12 * 16 * (16 + 128 * 128 * 4));  // tiles of 128 by 128
    EXPECT_EQ(h128.splits, 1);
    EXPECT_TRUE(h128.sums_rows);
  }
}

TEST(EfficientAttention, othersTakeTilesOf64AndPartsOfTheKeys) {
  EfficientCall c = nanochat_d24();
  for (int capability : {86, 89, 120}) EXPECT_EQ(efficient_backward(c, capability).workspace, 16 * 12 * (32 * 2 * (16 + 64 * 64 * 4) + 64 * (128 + 128) * 4));
  c.batch = 1;
  EXPECT_EQ(efficient_backward(c, 89).splits, 200 / 12);
  EXPECT_EQ(efficient_backward(c, 89).workspace, 12 * (32 * 2 * (16 + 64 * 64 * 4) + 16 * 64 * (128 + 128) * 4));
  c.queries = c.keys = 100;  // no more parts than columns of tiles
  EXPECT_EQ(efficient_backward(c, 89).splits, 2);
  c.head_dim = c.value_dim = 64;
  EXPECT_EQ(efficient_backward(c, 89).splits, 1);
  EXPECT_EQ(efficient_backward(c, 89).workspace, 12 * 2 * (16 + 64 * 64 * 4));
  c.head_dim = c.value_dim = 96;  // a kernel of 8.6's and 8.9's own, without dropout
  EXPECT_EQ(efficient_backward(c, 89).workspace, 12 * 1 * 2 * (16 + 128 * 64 * 4));
  c.dropout = true;
  EXPECT_EQ(efficient_backward(c, 89).splits, 2);
}

TEST(EfficientAttention, rowsAreSummedByTorchInFp32AndOnVoltasWideHeads) {
  EXPECT_FALSE(efficient_backward(nanochat_d24(Dtype::fp32), 90).sums_rows);
  EXPECT_EQ(efficient_backward(nanochat_d24(Dtype::fp32), 90).splits, 1);  // what it sums in is what it returns
  EfficientCall wide{1, 8, 512, 512, 256, 256, Dtype::fp16};
  EXPECT_FALSE(efficient_backward(wide, 70).sums_rows);
  EXPECT_TRUE(efficient_backward(wide, 75).sums_rows);
  EXPECT_EQ(efficient_sums(wide), 512 * 8 * 256 * 4);
  wide.head_dim = wide.value_dim = 128;
  EXPECT_TRUE(efficient_backward(wide, 70).sums_rows);
  EXPECT_EQ(efficient_sums(wide), 0);
}

Workload windows(const char* torch, const char* dtype = nullptr) {
  WorkloadFlags f;
  f.nanochat = "E7";
  f.depth = 4, f.device_batch_size = 2, f.max_seq_len = 512, f.vocab_size = 32768, f.total_batch_size = 1024, f.gpus = 1;
  f.window_pattern = "SSSL", f.attention = "flash", f.torch = torch;
  if (dtype != nullptr) f.dtype = dtype;
  return *make_nanochat_workload(f);
}

int count(const Program& p, const std::string& role, const char* phase = "train_step") {
  int found = 0;
  for (std::size_t s = 0; s < p.segments.size(); ++s) {
    if (std::string(p.segments[s].phase) != phase) continue;
    const std::size_t end = s + 1 < p.segments.size() ? static_cast<std::size_t>(p.segments[s + 1].first_event) : p.events.size();
    for (auto e = static_cast<std::size_t>(p.segments[s].first_event); e < end; ++e) found += p.events[e].kind == Event::Kind::alloc && p.tensors[static_cast<std::size_t>(p.events[e].tensor)].role == role ? 1 : 0;
  }
  return found;
}

TEST(EfficientAttention, seedsLieInTheHostsMemoryUntilTorch212) {
  EXPECT_TRUE(makes_seeds_on_host({}, "2.12.1"));
  EXPECT_FALSE(makes_seeds_on_host({}, "2.13.0"));
  constexpr Target kA100{8, 0, 312}, kH100{9, 0, 989};
  const auto seeds = [](const char* torch, const Target& target, const char* dtype = nullptr) { return count(build_program(windows(torch, dtype), target, false), "attn.seed"); };
  EXPECT_EQ(seeds("2.9.1", kA100), 1);   // FlashAttention's, of the one layer without a window
  EXPECT_EQ(seeds("2.13.0", kA100), 4);
  EXPECT_EQ(seeds("2.11.0", kH100), 4);  // cuDNN's
  EXPECT_EQ(seeds("2.9.1", kA100, "fp32"), 0);
  EXPECT_EQ(seeds("2.9.1", {.fake_tensors = true}), 4);
}

TEST(EfficientAttention, eachKindOfLayerTakesItsOwnScratch) {
  const Program bf16 = build_program(windows("2.9.1"), {8, 0, 312}, false), fp32 = build_program(windows("2.9.1", "fp32"), {8, 0, 312}, false);
  EXPECT_EQ(count(bf16, "attn.workspace"), 3);
  EXPECT_EQ(count(bf16, "attn.dq_accum"), 1);
  EXPECT_EQ(count(bf16, "attn.delta_product"), 0);
  EXPECT_EQ(count(fp32, "attn.workspace"), 4);
  EXPECT_EQ(count(fp32, "attn.delta_product"), 4);
  EXPECT_EQ(count(fp32, "attn.delta"), 8);
  EXPECT_EQ(count(build_program(windows("2.11.0"), {9, 0, 989}, false), "attn.dq_accum"), 4);  // cuDNN's block, masks or none
}

// A plan lays programs of two batches out as one only where the keys are split alike.
TEST(EfficientAttention, splitsKeepLayoutsApart) {
  Architecture a;
  a.family = Family::llama;
  a.layers = 2, a.width = 1024, a.heads = 8, a.kv_heads = 8, a.head_dim = 128, a.ffn = 2048, a.vocab = 1003, a.rotary_dims = 128;
  Training t;
  t.device_batch_size = 2, t.seq_len = 1024, t.weights = Dtype::bf16;
  constexpr Target k4090{8, 9, 165}, kA100{8, 0, 312};
  EXPECT_EQ(attention_splits(a, t, k4090, 2, 1024), 1);  // FlashAttention
  t.padded = true;
  EXPECT_EQ(attention_splits(a, t, k4090, 2, 1024), 200 / 16);
  EXPECT_EQ(attention_splits(a, t, kA100, 2, 1024), 1);
  EXPECT_NE(layout_of(a, 2, 1024, 1, 12), layout_of(a, 3, 1024, 1, 8));
  const auto program = build_program(a, t, k4090);
  ASSERT_TRUE(program.has_value());
  EXPECT_EQ(count(*program, "attn.seed", "train_step"), 0);
  EXPECT_GT(count(*program, "attn.workspace", "train_step"), 0);
}

}  // namespace
}  // namespace dryfit
