// Seconds of samples to an observation, and a running job to a diagnosis.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>

#include "doctor/diagnosis.hpp"
#include "doctor/readings.hpp"
#include "logs.hpp"

namespace dryfit {
namespace {

GpuSample card(int index, Bytes used, double utilization) {
  GpuSample g;
  g.index = index, g.name = "NVIDIA H100 80GB HBM3", g.uuid = "GPU-" + std::to_string(index);
  g.total = mib(81559), g.reserved = mib(479), g.used = used, g.utilization = utilization;
  g.sm_clock_mhz = 1755, g.sm_clock_max_mhz = 1980;
  return g;
}
ProcessSample process(std::int64_t pid, double cpu) {
  ProcessSample p;
  p.pid = pid, p.name = "python3", p.cpu = cpu;
  return p;
}
MachineSample at(double seconds, std::vector<GpuSample> gpus, std::vector<ProcessSample> processes = {}) { return {seconds, std::move(gpus), std::move(processes), {}}; }

TEST(Readings, MeansAreWeightedByTime) {
  Readings r;
  r.add(at(0, {card(0, gib(1), 0.0)}));
  r.add(at(1, {card(0, gib(3), 1.0)}));
  r.add(at(4, {card(0, gib(2), 0.5)}));
  const auto seen = r.gpus()[0].seen;
  EXPECT_NEAR(*seen.utilization, (1.0 * 1 + 0.5 * 3) / 4, 1e-12);
  EXPECT_EQ(*seen.used, gib(3));
  EXPECT_EQ(r.seconds(), 4);
  EXPECT_EQ(r.samples(), 3);
}

TEST(Readings, OneSampleIsItsReadings) {
  Readings r;
  r.add(at(7, {card(0, gib(1), 0.4)}, {process(5, 0.7)}));
  EXPECT_NEAR(*r.gpus()[0].seen.utilization, 0.4, 1e-12);
  EXPECT_EQ(r.seconds(), 0);
}

TEST(Readings, ReasonsThatStandRarelyAreLeftOut) {
  Readings r;
  for (int i = 0; i <= 100; ++i) {
    GpuSample g = card(0, gib(1), 1);
    g.throttle = (i % 2 == 0 ? static_cast<std::uint64_t>(Throttle::power_cap) : 0) | (i == 50 ? static_cast<std::uint64_t>(Throttle::thermal) : 0);
    r.add(at(i, {g}));
  }
  EXPECT_EQ(*r.gpus()[0].seen.throttle, static_cast<std::uint64_t>(Throttle::power_cap));
}

TEST(Readings, WhoseMemoryItIs) {
  Readings r;
  GpuSample a = card(0, gib(30), 1), b = card(1, gib(9), 1);
  a.processes = {{10, gib(20)}, {99, gib(9)}, {98, std::nullopt}};
  b.processes = {{97, gib(9)}};
  r.add(at(0, {a, b}, {process(9, 0.1), process(10, 1.2)}));
  const auto gpus = r.gpus();
  EXPECT_TRUE(gpus[0].in_job);
  EXPECT_EQ(*gpus[0].seen.others, gib(9));
  EXPECT_EQ(gpus[0].seen.other_processes, 2);
  EXPECT_EQ(gpus[0].seen.host_pid, 10);
  EXPECT_FALSE(gpus[1].in_job);
  EXPECT_FALSE(gpus[1].seen.others);  // no process of the job is there, so "others" means nothing
}

TEST(Readings, AnIdleLinkIsNotASlowOne) {
  Readings r;
  for (int generation : {1, 4, 1}) {
    GpuSample g = card(0, gib(1), 1);
    g.pcie_generation = generation, g.pcie_generation_max = 4, g.pcie_width = 16, g.pcie_width_max = 16;
    r.add(at(static_cast<double>(r.samples()), {g}));
  }
  EXPECT_EQ(r.gpus()[0].seen.pcie_generation, 4);
}

TEST(Readings, AnySamplesAreTaken) {
  EXPECT_TRUE(rc::check([] {
    Readings r;
    const int n = *rc::gen::inRange(0, 12);
    for (int i = 0; i < n; ++i) {
      std::vector<GpuSample> gpus;
      for (int k = *rc::gen::inRange(0, 4); k > 0; --k) {
        GpuSample g = card(k, Bytes(*rc::gen::arbitrary<std::int64_t>()), *rc::gen::inRange(0, 2000) / 1000.0);
        g.lost = *rc::gen::inRange(0, 5) == 0;
        if (*rc::gen::arbitrary<bool>()) g.processes = {{*rc::gen::inRange<std::int64_t>(1, 4), Bytes(*rc::gen::arbitrary<std::int64_t>())}};
        gpus.push_back(std::move(g));
      }
      r.add(at(*rc::gen::inRange(-50, 50) / 10.0, std::move(gpus), {process(*rc::gen::inRange(1, 4), *rc::gen::inRange(0, 90) / 10.0)}));
    }
    for (const Readings::Gpu& g : r.gpus()) {
      RC_ASSERT(!g.seen.utilization || (*g.seen.utilization >= 0 && *g.seen.utilization <= 2));
      RC_ASSERT(!diagnose_underuse(g.seen, std::nullopt, std::nullopt).summary.empty());
    }
  }));
}

// Eight ranks, of which one is hot.
Readings eight(bool hot) {
  Readings r;
  for (int t = 0; t < 4; ++t) {
    std::vector<GpuSample> gpus;
    std::vector<ProcessSample> ranks;
    for (int i = 0; i < 8; ++i) {
      gpus.push_back(card(i, gib(61), 0.99));
      gpus.back().processes = {{100 + i, gib(60)}};
      if (hot && i == 3) gpus.back().throttle = static_cast<std::uint64_t>(Throttle::hardware_thermal), gpus.back().sm_clock_mhz = 1200;
      ranks.push_back(process(100 + i, 1));
    }
    r.add(at(t, std::move(gpus), std::move(ranks)));
  }
  return r;
}
const std::vector<std::size_t> kAll = {0, 1, 2, 3, 4, 5, 6, 7};

Given d24(std::int64_t batch) {
  Given given;
  given.running.emplace();
  given.running->depth = 24;
  given.running->device_batch_size = batch;
  given.running_source = "the command line of process 100";
  given.here = *machine_from_flags({"h100", 8, std::nullopt, std::nullopt});
  return given;
}

TEST(DoctorLive, OneSlowRankIsNamed) {
  const auto d = diagnose_live({}, eight(true), kAll, LogScanner().finish(), d24(16));
  ASSERT_TRUE(d && d->underuse && d->live);
  EXPECT_EQ(d->underuse->verdict, Underuse::Verdict::throttled);
  EXPECT_EQ(d->live->judged, 3U);
  EXPECT_TRUE(d->underuse->summary.starts_with("GPU 3: "));
  EXPECT_EQ(d->known.workload->run.world_size, 8);
  ASSERT_TRUE(d->live->measured && d->live->unaccounted && d->prediction);
  EXPECT_EQ(d->live->measured->count, d->prediction->process.count + d->live->unaccounted->count);
}

TEST(DoctorLive, TheLogAddsWhatTheDriverCannotTell) {
  std::string text = test::head({});
  for (int i = 0; i < 200; ++i) text += test::step(i, 2000, i % 4 == 3 ? 3000 : 1000);
  LogScanner scanner;
  scanner.feed(text);
  const auto d = diagnose_live({}, eight(false), kAll, scanner.finish(), d24(16));
  ASSERT_TRUE(d && d->underuse);
  EXPECT_EQ(d->underuse->verdict, Underuse::Verdict::waiting);
  EXPECT_NEAR(*d->underuse->gain, 0.5, 0.04);
}

TEST(DoctorLive, NothingTrains) {
  Readings r;
  r.add(at(0, {card(0, mib(3), 0)}));
  const auto d = diagnose_live({}, r, {}, LogScanner().finish(), {});
  ASSERT_TRUE(d);
  EXPECT_EQ(d->finding, Diagnosis::Finding::nothing);
  EXPECT_FALSE(d->underuse);
}

TEST(DoctorLive, FlagsThatMakeNoRunAreAnError) {
  Given given = d24(16);
  given.flags.depth = 24;
  given.flags.device_batch_size = 3;
  EXPECT_FALSE(diagnose_live({}, eight(false), kAll, LogScanner().finish(), given));
  given = d24(3);  // of the process itself: said, not refused
  const auto d = diagnose_live({}, eight(false), kAll, LogScanner().finish(), given);
  ASSERT_TRUE(d);
  EXPECT_FALSE(d->known.workload);
  EXPECT_FALSE(d->notes.empty());
}

}  // namespace
}  // namespace dryfit
