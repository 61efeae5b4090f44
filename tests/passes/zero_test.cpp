// DeepSpeed's ZeRO against numbers worked out by hand from its documents and source, for whole models and other numbers of ranks than are recorded
// (those: transformers_test.cpp).
#include <gtest/gtest.h>

#include <map>

#include "liveness.hpp"
#include "passes/training_program.hpp"
#include "passes/zero_partition.hpp"

namespace dryfit {
namespace {

Architecture small_llama() {
  Architecture a;
  a.family = Family::llama;
  a.layers = 3, a.width = 256, a.heads = 4, a.kv_heads = 2, a.head_dim = 64, a.ffn = 688, a.vocab = 1003, a.rotary_dims = 64;
  return a;
}

Training run_under(Sharding sharding, std::int64_t gpus) {
  Training t;
  t.device_batch_size = 2, t.seq_len = 96;
  t.mixed = MixedPrecision::bf16;
  t.sharding = sharding;
  t.world_size = gpus;
  t.zero.reduce_bucket_size = 300000;
  return t;
}

Program built(const Training& t) {
  Result<Program> p = build_program(small_llama(), t, {9, 0, 0});
  if (!p) throw std::runtime_error(p.error().message);
  return std::move(*p);
}

std::map<std::string, std::int64_t> bytes_by_role(const Program& p) {
  std::map<std::string, std::int64_t> out;
  for (const TensorInfo& t : p.tensors) out[t.role] += t.bytes;
  return out;
}

// Matrices (decayed) and vectors (not), each padded to 2 W elements.
std::int64_t padded_elements(std::int64_t gpus) {
  std::int64_t matrices = 0, vectors = 0;
  for (const Parameter& w : parameters_of(small_llama())) (w.shape.size() > 1 ? matrices : vectors) += w.count();
  const auto padded = [&](std::int64_t n) { return (n + 2 * gpus - 1) / (2 * gpus) * (2 * gpus); };
  return padded(matrices) + padded(vectors);
}

// ZeRO's paper: 2 bytes a parameter on each GPU, 4 of a master and 8 of two moments divided by W.
TEST(Zero, stagesOneAndTwoHoldWeightsWholeAndStatesInParts) {
  for (const Sharding stage : {Sharding::zero1, Sharding::zero2}) {
    for (const std::int64_t gpus : {1, 2, 3, 8, 1000}) {
      const Training t = run_under(stage, gpus);
      const auto bytes = bytes_by_role(built(t));
      const std::int64_t n = padded_elements(gpus);
      EXPECT_EQ(bytes.at("zero.bit16_group_flat"), 2 * n);
      EXPECT_EQ(bytes.at("zero.fp32_partition"), 4 * n / gpus);
      const StaticBytes fixed = static_bytes(small_llama(), t);
      EXPECT_EQ(fixed.weights.count, 2 * n);
      EXPECT_EQ(fixed.optimizer.count, 12 * n / gpus + 2 * 4);  // fused AdamW's step counters
    }
  }
}

// Without ZeRO 2 bytes a parameter, 4 of a copy and 8 of two moments, whatever the number of GPUs.
TEST(Zero, withoutItStatesAreWhole) {
  std::int64_t n = 0, tensors = 0;
  for (const Parameter& w : parameters_of(small_llama())) n += w.count(), ++tensors;
  for (const std::int64_t gpus : {1, 8}) {
    const Training t = run_under(Sharding::zero0, gpus);
    EXPECT_EQ(bytes_by_role(built(t)).at("deepspeed.fp32_weights"), 4 * n);
    const StaticBytes fixed = static_bytes(small_llama(), t);
    EXPECT_EQ(fixed.weights.count, 2 * n);
    EXPECT_EQ(fixed.gradients.count, 2 * n);
    EXPECT_EQ(fixed.optimizer.count, 12 * n + 4 * tensors);
  }
}

// Every weight is cut by itself: ceil(n / W) elements of each.
TEST(Zero, stageThreeCutsEveryTensor) {
  for (const std::int64_t gpus : {1, 2, 3, 8, 1000}) {
    const Training t = run_under(Sharding::zero3, gpus);
    std::int64_t n = 0;
    for (const Parameter& w : parameters_of(small_llama())) n += (w.count() + gpus - 1) / gpus;
    const auto bytes = bytes_by_role(built(t));
    EXPECT_EQ(bytes.at("zero.lp_param_buffer"), 2 * n);
    EXPECT_EQ(bytes.at("zero.grad_partitions"), 2 * n);
    EXPECT_EQ(bytes.at("zero.fp32_partition"), 4 * n);
    EXPECT_EQ(bytes.at("zero.ipg_buffer"), 2 * 300000);
    const StaticBytes fixed = static_bytes(small_llama(), t);
    EXPECT_EQ(fixed.weights.count, 2 * n);
    EXPECT_EQ(fixed.gradients.count, 2 * n);
    EXPECT_EQ(fixed.optimizer.count, 12 * n + 2 * 4);
  }
}

// On the host nothing of the states is left, and only what passes through; with parameters there too no partition is.
TEST(Zero, offloadingLeavesNoStatesOnTheGpu) {
  for (const Sharding stage : {Sharding::zero1, Sharding::zero2, Sharding::zero3}) {
    Training t = run_under(stage, 4);
    t.offload_optimizer = true;
    EXPECT_EQ(static_bytes(small_llama(), t).optimizer.count, 0);
    for (const TensorInfo& tensor : built(t).tensors) EXPECT_TRUE(std::string(tensor.role).find("adamw") == std::string::npos) << tensor.name();
  }
  Training t = run_under(Sharding::zero3, 4);
  t.offload_optimizer = t.offload_parameters = true;
  EXPECT_EQ(static_bytes(small_llama(), t).weights.count, 0);
}

// Three parameters of 5, 3 and 4 elements, two ranks of 6: the second crosses the boundary. Round robin puts every second one first.
TEST(Zero, partitionsCutParametersWhereTheyFall) {
  eager::Tape tape(1);
  std::vector<eager::Trained> p;
  for (std::int64_t n : {5, 3, 4}) p.push_back({tape.parameter("w", eager::dims({n}, false), Dtype::bf16, true), "w", -1});
  const std::vector<std::size_t> all = {0, 1, 2};
  const eager::FlatGroup g = eager::flat_group(p, all, 2, false);
  EXPECT_EQ(g.elements, 12);
  EXPECT_EQ(g.partition, 6);
  EXPECT_EQ(g.spans[0].lengths, (std::vector<std::int64_t>{5}));
  EXPECT_EQ(g.spans[1].lengths, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(g.spans[1].length_at(1), 2);
  EXPECT_EQ(g.spans[2].first, 1);
  EXPECT_EQ(g.spans[2].length_at(0), 0);
  EXPECT_EQ(eager::heaviest_rank(std::vector{g}, 2), 0);  // 5 + 3 whole, against 3 + 4
  const eager::FlatGroup dealt = eager::flat_group(p, all, 2, true);
  EXPECT_EQ(dealt.spans[1].parameter, 2U);
  EXPECT_EQ(dealt.spans[1].lengths, (std::vector<std::int64_t>{1, 3}));
}

// Nothing is freed twice, and all that is left after the last step is what lasts.
TEST(Zero, everyTensorDiesOnceAfterItsBirth) {
  for (const Sharding stage : {Sharding::zero0, Sharding::zero1, Sharding::zero2, Sharding::zero3}) {
    for (const bool checkpoint : {false, true}) {
      for (const bool reentrant : {false, true}) {
        Training t = run_under(stage, 4);
        t.recompute = checkpoint ? Recompute::full : Recompute::none;
        t.reentrant = reentrant;
        t.grad_accum_steps = 4;
        t.zero.max_reuse_distance = 0;
        const Program p = built(t);
        const std::vector<bool> alive = alive_at_end(p);
        for (std::size_t i = 0; i < alive.size(); ++i) {
          const Category c = p.tensors[i].category;
          const std::string role = p.tensors[i].role;
          EXPECT_TRUE(!alive[i] || c == Category::weights || c == Category::optimizer || c == Category::workspace || p.tensors[i].bytes <= 8 || (stage == Sharding::zero0 && c == Category::gradients) || (stage == Sharding::zero3 && (role == "zero.ipg_buffer" || role == "zero.grad_partitions"))) << p.tensors[i].name();
        }
      }
    }
  }
}

// The search needs it: the same events at every batch.
TEST(Zero, eventsAreTheSameAtEveryBatch) {
  for (const Sharding stage : {Sharding::zero0, Sharding::zero1, Sharding::zero2, Sharding::zero3}) {
    Training t = run_under(stage, 4);
    const Program one = built(t);
    t.device_batch_size *= 3;
    const Program three = built(t);
    ASSERT_EQ(one.events.size(), three.events.size());
    ASSERT_EQ(one.tensors.size(), three.tensors.size());
    for (std::size_t i = 0; i < one.tensors.size(); ++i) EXPECT_EQ(three.tensors[i].bytes, one.tensors[i].bytes * (one.tensors[i].batched ? 3 : 1)) << one.tensors[i].name();
  }
}

}  // namespace
}  // namespace dryfit
