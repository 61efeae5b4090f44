// The model of speed: what it counts, what bounds it, how it moves.
#include "speed/step_time.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "graph/nanochat.hpp"
#include "speed/nanochat_rules.hpp"

namespace dryfit {
namespace {

Workload make(const std::string& version, std::int64_t depth, std::int64_t batch, std::int64_t gpus = 1, bool fp8 = false, std::int64_t length = 512) {
  WorkloadFlags f;
  f.nanochat = version;
  f.depth = depth;
  f.device_batch_size = batch;
  f.gpus = gpus;
  f.fp8 = fp8;
  f.max_seq_len = length;
  f.total_batch_size = batch * length * gpus * 2;
  return *make_nanochat_workload(f);
}

StepWork work_of(const Workload& w, Attention attention) { return step_work(w, compile_step(nanochat_forward(w, attention), w.run.compile)); }
GpuRates rates(const char* name) { return *rates_of(*find_gpu(name)); }
StepTime time_of(const Workload& w, const StepWork& work, const GpuRates& r) { return time_step(work, r, w.run.world_size, w.run.grad_accum_steps, w.run.compute, w.run.compile); }

// Products of the compiled step: 6 FLOP per parameter of a Linear and token, as nanochat counts them; attention: the causal half.
TEST(StepWork, CountsTheArithmeticOfTheModel) {
  for (const char* version : {"E1", "E5b"}) {
    const Workload w = make(version, 4, 2);
    const StepWork work = work_of(w, Attention::fa3);
    double products = 0, attention = 0;
    for (const Work& k : work.micro_step) (k.length > 0 ? attention : products) += k.flops();
    const double tokens = static_cast<double>(w.run.device_batch_size * w.run.max_seq_len);
    const Model& m = w.model;
    EXPECT_EQ(products, 6 * static_cast<double>(m.param_count(ParamGroup::transformer_matrices) + m.param_count(ParamGroup::lm_head)) * tokens) << version;
    double scores = 0;
    for (std::int64_t window : m.windows) {
      for (std::int64_t t = 0; t < w.run.max_seq_len; ++t) scores += static_cast<double>(std::min(t + 1, window));
    }
    EXPECT_EQ(attention, scores * 14 * static_cast<double>(w.run.device_batch_size * m.width)) << version;
  }
}

TEST(StepWork, AnotherBatchIsTheSameAsBuildingIt) {
  const StepWork grown = at_batch(work_of(make("E7", 4, 4), Attention::flash), 16), built = work_of(make("E7", 4, 16), Attention::flash);
  ASSERT_EQ(grown.micro_step.size(), built.micro_step.size());
  for (std::size_t i = 0; i < built.micro_step.size(); ++i) {
    const Work &a = grown.micro_step[i], &b = built.micro_step[i];
    EXPECT_STREQ(a.role, b.role);
    EXPECT_NEAR(a.flops(), b.flops(), 1e-9 * b.flops());
    EXPECT_NEAR(a.bytes(), b.bytes(), 1e-6 * b.bytes()) << a.role;
  }
}

TEST(StepTime, TheSumOfItsPartsAndNeverBelowTheRoofline) {
  EXPECT_TRUE(rc::check([] {
    const char* gpu = *rc::gen::element("RTX 4090", "h100 80gb", "a100-sxm4-80gb", "rtx 3060 12gb", "b200", "rtx 5090", "Tesla T4", "h20");
    const auto depth = *rc::gen::inRange<std::int64_t>(1, 7), batch = *rc::gen::inRange<std::int64_t>(1, 9);
    const auto world = *rc::gen::element<std::int64_t>(1, 2, 8);
    const bool fp8 = *rc::gen::arbitrary<bool>();
    const Workload w = make("E7", depth, batch, world, fp8, 256);
    const GpuRates r = rates(gpu);
    const StepTime t = time_of(w, work_of(w, *rc::gen::element(Attention::fa3, Attention::flash, Attention::efficient, Attention::math)), r);
    double sum = t.waiting;
    for (double part : t.by_kind) {
      RC_ASSERT(part >= 0);
      sum += part;
    }
    RC_ASSERT(std::abs(sum - t.seconds) <= 1e-9 * t.seconds);
    RC_ASSERT(t.seconds >= t.roofline);
    RC_ASSERT(t.roofline > 0);
    RC_ASSERT((world == 1) == (t.by_kind[static_cast<std::size_t>(WorkKind::communication)] == 0));
  }));
}

// Tiles and waves come in whole numbers: a larger batch may lose a little to them, never much.
// What fits beside a micro-step on the GPU costs nothing; what does not, the rest of it in each micro-step.
TEST(StepTime, TheGpuWaitsForASlowDataLoader) {
  const Workload w = make("E7", 4, 8, 1, false, 2048);
  const StepWork work = work_of(w, Attention::fa3);
  const GpuRates r = rates("h100");
  const auto timed = [&](double loader) { return time_step(work, r, 1, 2, w.run.compute, true, loader); };
  const StepTime alone = timed(0), hidden = timed(1e-4), slow = timed(0.2), slower = timed(0.3);
  EXPECT_EQ(hidden.seconds, alone.seconds);
  EXPECT_EQ(hidden.loading, 0);
  EXPECT_GT(slow.seconds, 0.4);
  EXPECT_LT(slow.seconds, 0.4 + alone.seconds);
  EXPECT_NEAR(slower.seconds - slow.seconds, 0.2, 1e-9);
  double sum = slow.waiting + slow.loading;
  for (double t : slow.by_kind) sum += t;
  EXPECT_NEAR(sum, slow.seconds, 1e-12);
}

TEST(StepTime, LargerBatchesAreNotSlower) {
  for (const char* gpu : {"RTX 4090", "h100 80gb", "rtx 3060 12gb"}) {
    const Workload one = make("E7", 6, 1);
    const StepWork work = work_of(one, Attention::flash);
    double last = 0;
    for (std::int64_t batch = 1; batch <= 64; batch *= 2) {
      Workload w = one;
      w.run.device_batch_size = batch;
      w.run.grad_accum_steps = 64 / batch;
      const double speed = 1 / time_of(w, at_batch(work, batch), rates(gpu)).seconds;
      EXPECT_GE(speed, last * 0.97) << gpu << " " << batch;
      last = speed;
    }
  }
}

TEST(StepTime, FollowsWhatBoundsAKernel) {
  const GpuRates r = rates("a100-sxm4-80gb");
  Work copy;
  copy.fixed_bytes = r.bandwidth;  // a second's worth
  EXPECT_NEAR(kernel_seconds(copy, r), 1, 1e-3);
  Work product;
  product.kind = WorkKind::matmul;
  product.m = product.n = product.k = 13824;  // whole waves of 128 x 256 tiles on 108 SMs
  EXPECT_NEAR(kernel_seconds(product, r), product.flops() / r.bf16_gemm, 0.02 * product.flops() / r.bf16_gemm);
  product.n = 128;  // one column of tiles: most SMs idle, unless k is split
  EXPECT_GT(kernel_seconds(product, r), 1.05 * product.flops() / r.bf16_gemm);
}

// The published figures that the attention rates rest on come out again: arXiv 2407.08608, figures 5 and 6, head size 128.
TEST(StepTime, AttentionReproducesItsSources) {
  const GpuRates h100 = rates("h100 80gb");
  EXPECT_NEAR(attention_rate(h100, Attention::fa3, false, Dtype::bf16) / 648e12, 1, 0.02);
  EXPECT_NEAR(attention_rate(h100, Attention::fa3, true, Dtype::bf16) / 561e12, 1, 0.02);
  EXPECT_NEAR(attention_rate(h100, Attention::flash, false, Dtype::bf16) / 370e12, 1, 0.02);
  EXPECT_NEAR(attention_rate(rates("a100-sxm4-80gb"), Attention::flash, false, Dtype::bf16) / (0.72 * 312e12), 1, 0.02);
  Work w;  // causal, 16k tokens in 2k sequences: 521 TFLOP/s forward
  w.kind = WorkKind::attention;
  w.attention = Attention::fa3;
  w.length = w.window = 2048, w.head_dim = 128, w.heads = 8 * 16;
  EXPECT_NEAR(w.flops() / kernel_seconds(w, h100) / 521e12, 1, 0.12);
}

TEST(Rates, EveryRowBelongsToACard) {
  for (const GpuKind& gpu : gpu_catalogue()) {
    const auto r = rates_of(gpu);
    if (!r) continue;
    EXPECT_GT(r->bandwidth, 0) << gpu.name;
    EXPECT_GT(r->sms, 0) << gpu.name;
    EXPECT_GT(r->clock, 3e8) << gpu.name;
    EXPECT_LT(r->clock, 4e9) << gpu.name;
    EXPECT_GE(r->fp8_gemm, 0) << gpu.name;
  }
  EXPECT_TRUE(rates("h100 80gb").gemm_measured);
  EXPECT_FALSE(rates_of(*find_gpu("mi300x")).has_value());
}

}  // namespace
}  // namespace dryfit
