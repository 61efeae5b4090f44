// The bound by which ways to train are compared, against numbers worked out by hand.
#include "speed/least_time.hpp"

#include <gtest/gtest.h>

#include "speed/step_time.hpp"
#include "workload/probe_presets.hpp"
#include "workload/transformers.hpp"

namespace dryfit {
namespace {

Workload make(Sharding sharding, std::int64_t gpus, Recompute recompute = Recompute::none, std::int64_t batch = 4, std::int64_t steps = 1) {
  TransformersFlags f;
  f.gpus = gpus, f.recompute = recompute, f.device_batch_size = batch, f.grad_accum_steps = steps, f.max_seq_len = 2048, f.mixed = MixedPrecision::bf16;
  if (gpus > 1) f.sharding = sharding;
  return *make_transformers_workload(find_preset("llama-3.1-8b")->preset->model, f);
}
GpuRates rates(const char* gpu) { return *rates_of(*find_gpu(gpu)); }
double least(const Workload& w, const GpuRates& r, std::int64_t kernels = 1) { return *least_seconds_per_token(w, r, kernels); }

TEST(LeastTime, isArithmeticOnOneGpu) {
  const GpuRates r = rates("h100");
  // 7.50 B parameters in products (8.03 B without the embedding), scores of 32 layers, heads of 128 x 32, half of 2048 tokens each
  const double products = 8030261248.0 - 128256.0 * 4096, scores = 2.0 * 2048 * 32 * 128 * 32;
  EXPECT_NEAR(least(make(Sharding::none, 1), r) * r.bf16_gemm / (3 * (2 * products + scores)), 1, 1e-9);
  EXPECT_NEAR(least(make(Sharding::none, 1, Recompute::full), r) / least(make(Sharding::none, 1), r), 4.0 / 3, 1e-9);
}

TEST(LeastTime, isLaunchesWhereKernelsAreSmall) {
  EXPECT_NEAR(least(make(Sharding::none, 1, Recompute::none, 1), rates("h100"), 1'000'000), 1e6 * kEagerLaunch / 2048, 1e-9);
}

TEST(LeastTime, countsMessagesThatNothingHides) {
  const GpuRates slow = rates("rtx 4090");
  const double ring = 3.0 / 4 / slow.link, weights = 8030261248.0 * 2;
  // one sequence a micro-step: gathering 16 GB twice and reducing it once over PCIe takes longer than its arithmetic
  EXPECT_NEAR(least(make(Sharding::fsdp2, 4, Recompute::none, 1), slow) * 2048 / (3 * weights * ring), 1, 1e-9);
  EXPECT_NEAR(least(make(Sharding::zero2, 4, Recompute::none, 1), slow) * 2048 - least(make(Sharding::none, 1, Recompute::none, 1), slow) * 2048, 2 * weights * ring, 1e-6);
  // the reduction is once a step under FSDP, each micro-step under ZeRO-3
  EXPECT_NEAR(least(make(Sharding::fsdp2, 4, Recompute::none, 1, 4), slow) * 4 * 2048 / ((4 * 2 + 1) * weights * ring), 1, 1e-9);
  EXPECT_NEAR(least(make(Sharding::zero3, 4, Recompute::none, 1, 4), slow) * 4 * 2048 / (4 * 3 * weights * ring), 1, 1e-9);
  EXPECT_LT(least(make(Sharding::fsdp2, 4, Recompute::full, 8), slow), least(make(Sharding::fsdp2, 4, Recompute::none, 1), slow));
}

TEST(LeastTime, isNotKnownBeyondTheLinks) { EXPECT_FALSE(least_seconds_per_token(make(Sharding::fsdp2, 64), rates("h100"), 1)); }

}  // namespace
}  // namespace dryfit
