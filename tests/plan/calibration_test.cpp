// What a machine's own runs teach: constants outside the allocator, and nothing that the engine derives.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "plan/plan.hpp"

namespace dryfit {
namespace {

Workload workload(std::int64_t gpus) {
  WorkloadFlags f;
  f.depth = 12;
  f.device_batch_size = 8;
  f.gpus = gpus;
  return *make_nanochat_workload(f);
}
Machine h100(std::int64_t gpus) { return *machine_from_flags({"h100", gpus, std::nullopt, std::nullopt}); }

// A run whose process held `outside` beyond the pool, the engine being off by `error` on both of its numbers.
CalibrationRow row(const Report& r, Bytes outside, Bytes error, bool printed, std::string id) {
  CalibrationRow out;
  out.id = std::move(id);
  out.gpu = r.machine.gpu.name;
  out.world_size = r.workload.run.world_size;
  out.configuration = configuration_of(r.workload);
  out.allocated_derived = r.allocated.bytes;
  out.reserved_derived = r.reserved.bytes;
  out.process_peak = r.reserved.bytes + error + outside;
  if (printed) out.allocated_peak = r.allocated.bytes + error;
  return out;
}

TEST(Calibration, learnsWhatLiesOutsideAndNothingElse) {
  const Report before = *estimate(workload(1), h100(1));
  Calibration c;
  merge(c, row(before, mib(700), mib(-90), true, "a"));
  merge(c, row(before, mib(704), mib(35), true, "b"));
  EstimateOptions options;
  options.calibration = &c;
  const Report after = *estimate(workload(1), h100(1), options);
  EXPECT_EQ(after.context, mib(702));
  EXPECT_EQ(after.process.bytes, before.reserved.bytes + mib(702));
  EXPECT_EQ(after.process.provenance, Provenance::calibrated);
  EXPECT_EQ(before.process.provenance, Provenance::modelled);
  EXPECT_EQ(after.allocated.bytes, before.allocated.bytes);
  EXPECT_EQ(after.allocated.provenance, before.allocated.provenance);
  EXPECT_EQ(after.reserved.bytes, before.reserved.bytes);
  EXPECT_EQ(after.headroom, after.machine.usable() - after.process.bytes);
  EXPECT_FALSE(after.machine.notes.empty());
}

TEST(Calibration, printedPeaksBeatDerivedOnes) {
  const Report r = *estimate(workload(1), h100(1));
  Calibration c;
  merge(c, row(r, mib(500), mib(300), false, "a"));
  EXPECT_EQ(learned_outside(c, h100(1).gpu, 1)->middle, mib(800));  // the engine's error cannot be told from the context
  merge(c, row(r, mib(500), mib(300), true, "b"));
  EXPECT_EQ(learned_outside(c, h100(1).gpu, 1)->middle, mib(500));
}

TEST(Calibration, contextOfOneGpuCarriesOverNcclDoesNot) {
  Calibration c;
  merge(c, row(*estimate(workload(1), h100(1)), mib(900), Bytes(0), true, "a"));
  const OutsideEstimate eight = outside_estimate(&c, h100(8).gpu, 8, "");
  EXPECT_EQ(eight.memory.middle, mib(900) + nccl_memory(8).middle);
  EXPECT_EQ(eight.provenance, Provenance::modelled);
  EXPECT_NE(eight.note.find("NCCL on 8 GPUs is not"), std::string::npos);
  merge(c, row(*estimate(workload(8), h100(8)), mib(2000), Bytes(0), true, "b"));
  EXPECT_EQ(outside_estimate(&c, h100(8).gpu, 8, "").memory.middle, mib(2000));
  EXPECT_EQ(outside_estimate(&c, h100(8).gpu, 8, "").provenance, Provenance::calibrated);
  const GpuKind other = machine_from_flags({"4090", 1, std::nullopt, std::nullopt})->gpu;
  EXPECT_EQ(outside_estimate(&c, other, 1, "").provenance, Provenance::modelled);
}

TEST(Calibration, readingARunAgainReplacesItsRow) {
  const Report r = *estimate(workload(1), h100(1));
  Calibration c;
  EXPECT_TRUE(merge(c, row(r, mib(500), Bytes(0), true, "a")));
  EXPECT_FALSE(merge(c, row(r, mib(600), Bytes(0), true, "a")));
  ASSERT_EQ(c.rows.size(), 1U);
  EXPECT_EQ(learned_outside(c, h100(1).gpu, 1)->middle, mib(600));
  EXPECT_EQ(learned_outside(c, h100(1).gpu, 1)->rows, 1);
  CalibrationRow log = row(r, Bytes(0), Bytes(0), true, "a");  // the log of the same run knows no process, and takes none away
  log.process_peak.reset();
  log.tokens_per_second = 7;
  EXPECT_FALSE(merge(c, log));
  EXPECT_EQ(learned_outside(c, h100(1).gpu, 1)->middle, mib(600));
  EXPECT_EQ(c.rows[0].tokens_per_second, 7);
}

TEST(Calibration, impossibleRowsTeachNothing) {
  const Report r = *estimate(workload(1), h100(1));
  Calibration c;
  merge(c, row(r, mib(-1), Bytes(0), true, "a"));
  merge(c, row(r, gib(9), Bytes(0), true, "b"));
  EXPECT_FALSE(learned_outside(c, h100(1).gpu, 1));
}

// A snapshot's row: the pool at its largest; with `outside` when a request failed, what the card held beside it.
CalibrationRow seen(const Report& r, Bytes error, std::optional<Bytes> outside, std::string id) {
  CalibrationRow out = row(r, Bytes(0), error, true, std::move(id));
  out.process_peak.reset();
  out.reserved_peak = r.reserved.bytes + error;
  if (outside) out.process_peak = *out.reserved_peak + *outside;
  return out;
}

TEST(Calibration, aFailedRequestInASnapshotTellsWhatLiesOutside) {
  const Report r = *estimate(workload(1), h100(1));
  Calibration c;
  merge(c, seen(r, mib(-4000), mib(650), "a"));
  EXPECT_EQ(learned_outside(c, h100(1).gpu, 1)->middle, mib(650));
  CalibrationRow bare = seen(r, Bytes(0), mib(670), "b");  // of a run that dryfit cannot derive
  bare.allocated_peak = bare.allocated_derived = bare.reserved_derived = std::nullopt;
  bare.configuration = "a run that was not told";
  merge(c, bare);
  EXPECT_EQ(learned_outside(c, h100(1).gpu, 1)->middle, mib(660));
  EXPECT_EQ(learned_outside(c, h100(1).gpu, 1)->rows, 2);
}

TEST(Calibration, aSnapshotOfTheSameRunMeasuresItsPool) {
  const Report r = *estimate(workload(1), h100(1));
  Calibration c;
  merge(c, row(r, mib(500), mib(300), true, "recording"));
  c.rows[0].process_peak = *c.rows[0].process_peak + mib(40);  // fragmentation that the simulation does not have
  EXPECT_EQ(learned_outside(c, h100(1).gpu, 1)->middle, mib(540));
  CalibrationRow snapshot = seen(r, mib(300), std::nullopt, "snapshot");
  snapshot.reserved_peak = *snapshot.reserved_peak + mib(40);
  merge(c, snapshot);
  EXPECT_EQ(learned_outside(c, h100(1).gpu, 1)->middle, mib(500));
  EXPECT_EQ(learned_outside(c, h100(1).gpu, 1)->rows, 1);  // the snapshot by itself measured no process
  c.rows[1].allocated_peak = *c.rows[1].allocated_peak - mib(2);  // it ended before the peak: its pool may have grown since
  EXPECT_EQ(learned_outside(c, h100(1).gpu, 1)->middle, mib(540));
  c.rows[1].allocated_peak = *c.rows[1].allocated_peak + mib(2);
  c.rows[1].configuration += " other";
  EXPECT_EQ(learned_outside(c, h100(1).gpu, 1)->middle, mib(540));
}

TEST(Calibration, driverReserveOfANamedCard) {
  Machine m = h100(1);
  Calibration c;
  CalibrationRow r;
  r.id = "a";
  r.gpu = m.gpu.name;
  r.driver_reserve = mib(640);
  merge(c, r);
  apply_driver_reserve(c, m);
  EXPECT_EQ(m.driver_reserve, mib(640));
  Machine probed = h100(1);
  probed.source = MachineSource::nvml;
  probed.driver_reserve = mib(1);
  apply_driver_reserve(c, probed);
  EXPECT_EQ(probed.driver_reserve, mib(1));
}

TEST(Calibration, speedByConfiguration) {
  Calibration c;
  CalibrationRow r;
  r.gpu = "G";
  r.configuration = configuration_of(workload(1));
  for (const double rate : {100.0, 102.0, 98.0}) {
    r.id = std::to_string(rate);
    r.tokens_per_second = rate;
    merge(c, r);
  }
  const auto speed = learned_speed(c, "G", r.configuration);
  ASSERT_TRUE(speed);
  EXPECT_DOUBLE_EQ(speed->tokens_per_second, 100);
  EXPECT_NEAR(*speed->high, 100 + 4.303 * 2 * std::sqrt(4.0 / 3), 1e-9);  // t(2) s sqrt(1 + 1/n)
  EXPECT_FALSE(learned_speed(c, "G", configuration_of(workload(8))));
}

RC_GTEST_PROP(Calibration, intervalsHoldTheirMiddle, ()) {
  const Report r = *estimate(workload(1), h100(1));
  Calibration c;
  for (const int m : *rc::gen::container<std::vector<int>>(rc::gen::inRange(0, 4000))) merge(c, row(r, mib(m), Bytes(0), true, std::to_string(c.rows.size())));
  const auto learned = learned_outside(c, h100(1).gpu, 1);
  RC_ASSERT(learned.has_value() == !c.rows.empty());
  if (learned) RC_ASSERT(learned->low >= Bytes(0) && learned->low <= learned->middle && learned->middle < learned->high && learned->rows <= 20);
}

}  // namespace
}  // namespace dryfit
