// Speed in the report: where it is known, where it is not, what a calibration and a price list change, which offers stand.
#include "plan/speed_estimate.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "plan/plan.hpp"

namespace dryfit {
namespace {

Report report(const char* gpu, std::int64_t gpus, std::int64_t depth, const EstimateOptions& options = {}) {
  WorkloadFlags f;
  f.depth = depth;
  f.gpus = gpus;
  f.device_batch_size = 4;
  return *estimate(*make_nanochat_workload(f), *machine_from_flags({gpu, gpus, std::nullopt, std::nullopt}), options);
}

TEST(SpeedEstimate, FitsTogether) {
  const Report r = report("h100 80gb", 8, 12);
  ASSERT_TRUE(r.speed);
  const SpeedEstimate& s = *r.speed;
  EXPECT_NEAR(s.tokens_per_second * s.step_seconds, static_cast<double>(r.workload.run.total_batch_size), 1);
  EXPECT_LT(s.low, s.tokens_per_second);
  EXPECT_GT(s.high, s.tokens_per_second);
  EXPECT_EQ(s.provenance, Provenance::modelled);
  EXPECT_NEAR(*s.mfu, flops_per_token(r.workload) * s.tokens_per_second / (8 * 989e12), 1e-12);
  EXPECT_LT(*s.mfu, 1);
  EXPECT_NEAR(*s.horizon_seconds(), static_cast<double>(s.horizon->iterations) * s.step_seconds, 1e-6);
  ASSERT_TRUE(s.price);
  EXPECT_NEAR(*s.horizon_usd(8), *s.horizon_seconds() / 3600 * 8 * s.price->usd_per_gpu_hour, 1e-9);
}

TEST(SpeedEstimate, ClaimsNothingOfOtherScriptsThatItDoesNotTime) {
  WorkloadFlags f;
  f.depth = 4;
  f.script = "chat_sft";
  const Machine m = *machine_from_flags({"h100 80gb", 1, std::nullopt, std::nullopt});
  const Report sft = *estimate(*make_nanochat_workload(f), m);
  ASSERT_TRUE(sft.speed);
  EXPECT_FALSE(sft.speed->horizon);  // it ends with its data
  f.script = "chat_rl";
  EXPECT_FALSE(estimate(*make_nanochat_workload(f), m)->speed);  // rollouts are not timed
}

TEST(SpeedEstimate, IsEmptyWhereNothingIsKnown) {
  EXPECT_FALSE(report("mi300x", 1, 4).speed);
  EXPECT_FALSE(report("h100 80gb", 16, 4).speed);  // more than one node
  WorkloadFlags f;
  f.depth = 4;
  f.device_batch_size = 1;
  EXPECT_FALSE(estimate(*make_nanochat_workload(f), *machine_from_flags({std::nullopt, 1, gib(24), std::nullopt}))->speed);
}

TEST(SpeedEstimate, WhatRunsHereTaughtStands) {
  const Report before = report("RTX 4090", 1, 8);
  Calibration learned;
  for (const char* id : {"a", "b"}) {
    CalibrationRow row;
    row.id = id;
    row.gpu = before.machine.gpu.name;
    row.configuration = configuration_of(before.workload);
    row.tokens_per_second = id[0] == 'a' ? 100000 : 102000;
    learned.rows.push_back(row);
  }
  EstimateOptions options;
  options.calibration = &learned;
  const Report after = report("RTX 4090", 1, 8, options);
  EXPECT_EQ(after.speed->provenance, Provenance::calibrated);
  EXPECT_DOUBLE_EQ(after.speed->tokens_per_second, 101000);
  EXPECT_LT(after.speed->low, 101000);
  EXPECT_DOUBLE_EQ(after.speed->parts.seconds, before.speed->parts.seconds);
}

TEST(SpeedEstimate, EveryFlagLeverHasItsStepTime) {
  EstimateOptions options;
  options.alternatives = true;
  const Report r = report("RTX 4090", 1, 12, options);
  for (const Alternative& a : r.alternatives) {
    ASSERT_TRUE(a.step_time_ratio) << a.note;
    EXPECT_GT(*a.step_time_ratio, 0.05) << a.note;
    if (a.change.front().first == "--device-batch-size" && a.change.front().second == "2") EXPECT_GT(*a.step_time_ratio, 1);
    if (a.change.front().first == "--depth") EXPECT_LT(*a.step_time_ratio, 1);
  }
}

TEST(Offers, AreSortedByTimeAndMarkedWhereNothingBeatsThem) {
  const auto prices = *read_prices("gpu,gpus,usd_per_gpu_hour\nRTX 4090,1,0.40\nRTX 4090,1,0.50\nh100 80gb hbm3,8,2\nRTX 3060 12GB,1,0.30\nabacus,1,0.01\nmi300x,1,1\n", "t");
  WorkloadFlags f;
  f.depth = 12;
  const auto found = offers(f, prices);
  ASSERT_TRUE(found) << found.error().message;
  ASSERT_EQ(found->size(), 4U);  // what is unknown or has no speed is left out
  double seconds = 0, cheapest = INFINITY;
  for (const Offer& o : *found) {
    EXPECT_GE(*o.report.speed->horizon_seconds(), seconds);
    seconds = *o.report.speed->horizon_seconds();
    const double usd = *o.report.speed->horizon_usd(o.price.gpus);
    EXPECT_EQ(o.best, usd < cheapest);
    cheapest = std::min(cheapest, usd);
  }
  EXPECT_EQ(found->front().price.gpus, 8);
  f.depth = 0;
  EXPECT_FALSE(offers(f, prices));
}

TEST(Plan, WithADepthTakesAFastestBatchThatFits) {
  WorkloadFlags f;
  f.depth = 12;
  const Machine m = *machine_from_flags({"RTX 4090", 1, std::nullopt, std::nullopt});
  const PlanResult result = *plan(f, m);
  const auto largest = *largest_device_batch(result.plans.front().workload, m);
  const Report& best = result.plans.front();
  const StepWork work = build_program(best.workload, target_of(m), true).work;
  for (std::int64_t b : legal_device_batches(best.workload)) {
    if (b > *largest) continue;
    const auto speed = estimate_speed(*with_device_batch(best.workload, b), m, at_batch(work, b));
    EXPECT_GE(speed->parts.seconds, best.speed->parts.seconds * 0.99) << b;
  }
}

}  // namespace
}  // namespace dryfit
