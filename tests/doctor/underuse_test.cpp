// When a GPU idles: the verdict, the batch that fills it, and gains only where the observation holds them.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>

#include "doctor/diagnosis.hpp"
#include "logs.hpp"
#include "plan/launch.hpp"
#include "plan/plan.hpp"

namespace dryfit {
namespace {

using V = Underuse::Verdict;

Machine h100() { return *machine_from_flags({"h100", 1, std::nullopt, std::nullopt}); }
Workload d12(std::int64_t batch) {
  WorkloadFlags f;
  f.depth = 12;
  f.device_batch_size = batch;
  return *make_nanochat_workload(f);
}

TEST(Underuse, EachVerdict) {
  const auto judged = [](auto fill) {
    Observation o;
    o.total = gib(80);
    fill(o);
    return diagnose_underuse(o, std::nullopt, std::nullopt).verdict;
  };
  EXPECT_EQ(judged([](Observation& o) { o.used = gib(20), o.mfu = 0.25; }), V::room_in_memory);
  EXPECT_EQ(judged([](Observation& o) { o.used = gib(74), o.mfu = 0.45; }), V::busy);
  EXPECT_EQ(judged([](Observation& o) { o.used = gib(20), o.mfu = 0.45; }), V::busy);
  EXPECT_EQ(judged([](Observation& o) { o.used = gib(74), o.utilization = 0.4; }), V::waiting);
  EXPECT_EQ(judged([](Observation& o) { o.used = gib(74), o.stalled_share = 0.3; }), V::waiting);
  EXPECT_EQ(judged([](Observation& o) { o.used = gib(74), o.mfu = 0.08, o.utilization = 0.99; }), V::slow_kernels);
  EXPECT_EQ(judged([](Observation& o) { o.used = gib(74), o.utilization = 0.99, o.clock_mhz = 1000, o.max_clock_mhz = 1980, o.power_watts = 699, o.power_limit_watts = 700; }), V::throttled);
  EXPECT_EQ(diagnose_underuse({}, std::nullopt, std::nullopt).verdict, V::unknown);
}

constexpr std::uint64_t bits(std::initializer_list<Throttle> reasons) {
  std::uint64_t out = 0;
  for (Throttle t : reasons) out |= static_cast<std::uint64_t>(t);
  return out;
}

// A card that computes all the time at full power: nothing is wrong with it.
Observation at_work() {
  Observation o;
  o.total = gib(80), o.used = gib(74);
  o.utilization = 0.98, o.power_watts = 690, o.power_limit_watts = 700, o.clock_mhz = 1755, o.max_clock_mhz = 1980;
  o.throttle = bits({Throttle::power_cap});
  o.pcie_generation = 5, o.pcie_generation_max = 5, o.pcie_width = 16, o.pcie_width_max = 16;
  return o;
}

TEST(Underuse, WhatTheDriverTells) {
  const auto judged = [](auto change) {
    Observation o = at_work();
    change(o);
    return diagnose_underuse(o, std::nullopt, std::nullopt);
  };
  EXPECT_EQ(judged([](Observation&) {}).verdict, V::busy);  // a power cap at 89 % of the clock is how a loaded card runs
  EXPECT_EQ(judged([](Observation& o) { o.utilization = 0.0; }).verdict, V::idle);
  EXPECT_EQ(judged([](Observation& o) { o.utilization = 0.3; }).verdict, V::waiting);
  EXPECT_EQ(judged([](Observation& o) { o.power_watts = 250; }).verdict, V::slow_kernels);  // ranks that spin, small kernels
  const Underuse hot = judged([](Observation& o) { o.throttle = bits({Throttle::thermal}); });
  EXPECT_EQ(hot.verdict, V::throttled);
  EXPECT_NE(hot.next[0].change.find("cool"), std::string::npos);
  ASSERT_TRUE(hot.gain_at_most);
  EXPECT_NEAR(*hot.gain_at_most, 1980.0 / 1755 - 1, 1e-9);
  EXPECT_NE(judged([](Observation& o) { o.clock_mhz = 1000, o.throttle = bits({Throttle::application_clocks}); }).next[0].command.find("--reset-gpu-clocks"), std::string::npos);
  EXPECT_NE(judged([](Observation& o) { o.throttle = bits({Throttle::power_brake}); }).next[0].change.find("power supply"), std::string::npos);
  EXPECT_NE(judged([](Observation& o) { o.clock_mhz = 1200; }).next[0].change.find("power limit"), std::string::npos);
  EXPECT_EQ(judged([](Observation& o) { o.clock_mhz = 300, o.utilization = 0.3; }).verdict, V::waiting);  // a card that waits clocks down
}

TEST(Underuse, ASlowLinkMattersWhereRanksTalk) {
  Observation o = at_work();
  o.pcie_width = 4;
  EXPECT_EQ(diagnose_underuse(o, std::nullopt, std::nullopt).verdict, V::busy);
  EXPECT_NE(diagnose_underuse(o, std::nullopt, std::nullopt).next[0].expected.find("one GPU"), std::string::npos);
  o.ranks = 2;
  const Underuse u = diagnose_underuse(o, std::nullopt, std::nullopt);
  EXPECT_EQ(u.verdict, V::pcie);
  EXPECT_TRUE(std::ranges::any_of(u.why, [](const std::string& w) { return w.find("generation 5 x4 of generation 5 x16, 25 %") != std::string::npos; }));
  o.mfu = 0.45;
  EXPECT_EQ(diagnose_underuse(o, std::nullopt, std::nullopt).verdict, V::busy);  // it does no harm
  o.mfu.reset(), o.pcie_width = 16, o.pcie_generation = 1;
  EXPECT_EQ(diagnose_underuse(o, std::nullopt, std::nullopt).verdict, V::pcie);
  o.utilization = 0.3;
  EXPECT_EQ(diagnose_underuse(o, std::nullopt, std::nullopt).verdict, V::waiting);  // an idle link saves power
}

TEST(Underuse, OthersOnTheCard) {
  Observation o = at_work();
  o.others = gib(20), o.other_processes = 2;
  const Underuse u = diagnose_underuse(o, std::nullopt, std::nullopt);
  EXPECT_EQ(u.verdict, V::other_tenants);
  EXPECT_NE(u.summary.find("20.00 GiB"), std::string::npos);
  o.others = mib(400), o.other_processes = 1;  // a desktop
  EXPECT_EQ(diagnose_underuse(o, std::nullopt, std::nullopt).verdict, V::busy);
  o.used = gib(40), o.others = gib(30);  // the machine's usable memory is without them, so what they hold is no use of it
  Machine m = h100();
  m.used_by_others = gib(30);
  const Underuse shared = diagnose_underuse(o, d12(4), m);
  ASSERT_TRUE(shared.headroom);
  EXPECT_EQ(shared.headroom->count, (m.usable() - gib(10)).count);
}

TEST(Underuse, WhoTheGpuWaitsFor) {
  Observation o = at_work();
  o.utilization = 0.5, o.host_cores = 1.0, o.host_pid = 4101;
  Underuse u = diagnose_underuse(o, std::nullopt, std::nullopt);
  EXPECT_NE(u.next[0].change.find("busy itself"), std::string::npos);
  EXPECT_EQ(u.next[0].command, "py-spy top --pid 4101");
  ASSERT_TRUE(u.gain_at_most);
  EXPECT_NEAR(*u.gain_at_most, 1, 1e-9);
  EXPECT_FALSE(u.gain);
  o.host_cores = 0.1;
  u = diagnose_underuse(o, std::nullopt, std::nullopt);
  EXPECT_NE(u.next[0].change.find("idle too"), std::string::npos);
}

// The first release puts tokens into the batch one by one: 2.3 microseconds each.
TEST(Underuse, NanochatsDataLoaderIsNamedWhereItIsAGoodPartOfAStep) {
  Observation o = at_work();
  o.utilization = 0.5, o.host_cores = 1.0, o.host_pid = 4101, o.step_milliseconds = 120;
  WorkloadFlags f;
  f.depth = 8, f.device_batch_size = 32, f.total_batch_size = 65536;
  const auto first = [&](const char* version) {
    f.nanochat = version;
    return diagnose_underuse(o, *make_nanochat_workload(f), std::nullopt);
  };
  EXPECT_NE(first("E1").next[0].change.find("2025-10-21"), std::string::npos);
  EXPECT_NE(first("E7").next[0].change.find("busy itself"), std::string::npos);  // 22 ms of 120
  o.step_milliseconds = 60;
  EXPECT_NE(first("E7").next[0].change.find("faster cores"), std::string::npos);
  EXPECT_TRUE(std::ranges::any_of(first("E7").why, [](const std::string& why) { return why.find("data loader takes about 22 ms") != std::string::npos; }));
}

TEST(Underuse, WhatIsStillToComeIsNoRoom) {
  Observation o = at_work();
  o.used = gib(4), o.predicted = gib(70);
  EXPECT_EQ(diagnose_underuse(o, std::nullopt, h100()).verdict, V::busy);
  o.predicted.reset();
  EXPECT_EQ(diagnose_underuse(o, std::nullopt, h100()).verdict, V::room_in_memory);
}

TEST(Underuse, AModelTooSmallForItsCard) {
  WorkloadFlags f;
  f.depth = 4;
  f.device_batch_size = 8;
  f.total_batch_size = 8 * 2048;
  Observation o = at_work();
  o.used = gib(3);
  const Underuse u = diagnose_underuse(o, *make_nanochat_workload(f), h100());
  EXPECT_EQ(u.verdict, V::small_model);
  EXPECT_TRUE(std::ranges::any_of(u.next, [](const Advice& a) { return a.command.starts_with("dryfit plan"); }));
}

TEST(Underuse, OneSlowCardGoesFirst) {
  std::vector<Underuse> all(8);
  for (Underuse& u : all) u.verdict = V::room_in_memory;
  EXPECT_EQ(worst_of(all), 0U);
  all[5].verdict = V::throttled, all[5].gain_at_most = 0.2;
  all[6].verdict = V::throttled, all[6].gain_at_most = 0.4;
  EXPECT_EQ(worst_of(all), 6U);
}

TEST(Underuse, TheBatchThatFillsTheCard) {
  Observation o;
  o.used = gib(12);
  o.mfu = 0.2;
  const Underuse u = diagnose_underuse(o, d12(4), h100());
  EXPECT_EQ(u.verdict, V::room_in_memory);
  ASSERT_TRUE(u.largest_device_batch);
  EXPECT_GT(*u.largest_device_batch, 4);
  EXPECT_EQ(u.largest_device_batch, *largest_device_batch(d12(4), h100()));
  ASSERT_FALSE(u.next.empty());
  const auto pasted = parse_pasted_command(*shell_split(u.next[0].command));
  ASSERT_TRUE(pasted);
  EXPECT_EQ(pasted->flags.device_batch_size, u.largest_device_batch);
  EXPECT_EQ(pasted->flags.total_batch_size, d12(4).run.total_batch_size);  // training stays identical
  EXPECT_FALSE(u.gain);                                                    // the observation does not hold it,
  EXPECT_NE(u.next[0].expected.find("% tokens/s as modelled"), std::string::npos);  // the model of speed does
  EXPECT_NE(u.next[0].expected.find("400 %"), std::string::npos);          // at most 1 / 0.2
}

TEST(Underuse, StallsAreCounted) {
  std::string text = test::head({});
  for (int i = 0; i < 200; ++i) text += test::step(i, 2000, i % 4 == 3 ? 3000 : 1000);
  LogScanner scanner;
  scanner.feed(text);
  const auto d = diagnose(scanner.finish(), {});
  ASSERT_TRUE(d && d->underuse);
  EXPECT_EQ(d->underuse->verdict, V::waiting);
  ASSERT_TRUE(d->underuse->gain);
  EXPECT_NEAR(*d->underuse->gain, 0.5, 0.04);  // 6 s for 4 steps instead of 4: half as much again
}

TEST(Underuse, AHealthyLog) {
  test::NanochatLog l;
  l.batch = 4, l.depth = 12, l.heads = 6, l.width = 768, l.ranks = 1, l.total = 524288, l.parameters = "286,261,730";
  std::string text = test::head(l);
  for (int i = 0; i < 40; ++i) text += test::step(i, 2000, 1000, 22.0);
  LogScanner scanner;
  scanner.feed(text + "Peak memory usage: 9500.00MiB\n");
  const auto d = diagnose(scanner.finish(), {});
  ASSERT_TRUE(d && d->underuse && d->prediction);
  EXPECT_EQ(d->finding, Diagnosis::Finding::healthy);
  EXPECT_EQ(d->underuse->verdict, V::room_in_memory);
  EXPECT_EQ(d->prediction->unaccounted->count, mib(9500).count - d->prediction->allocated.count);
  EXPECT_NEAR(*d->underuse->seen.mfu, 0.22, 1e-9);
}

TEST(Underuse, AnyObservationIsJudged) {
  EXPECT_TRUE(rc::check([] {
    const auto maybe = [](double most) { return *rc::gen::arbitrary<bool>() ? std::optional(*rc::gen::inRange(-10, 1010) / 1000.0 * most) : std::nullopt; };
    Observation o;
    if (*rc::gen::arbitrary<bool>()) o.used = gib(*rc::gen::inRange(0, 200));
    if (*rc::gen::arbitrary<bool>()) o.total = gib(*rc::gen::inRange(0, 200));
    o.utilization = maybe(1), o.power_watts = maybe(700), o.power_limit_watts = maybe(700), o.clock_mhz = maybe(2000), o.max_clock_mhz = maybe(2000), o.mfu = maybe(1), o.stalled_share = maybe(0.99);
    const auto small = [](int most) { return *rc::gen::arbitrary<bool>() ? std::optional(*rc::gen::inRange(-1, most)) : std::nullopt; };
    o.pcie_generation = small(9), o.pcie_generation_max = small(9), o.pcie_width = small(33), o.pcie_width_max = small(33), o.other_processes = *rc::gen::inRange(0, 3), o.ranks = *rc::gen::inRange(1, 9);
    if (*rc::gen::arbitrary<bool>()) o.throttle = *rc::gen::arbitrary<std::uint64_t>();
    if (*rc::gen::arbitrary<bool>()) o.others = gib(*rc::gen::inRange(0, 200));
    o.host_cores = maybe(8);
    const Underuse u = diagnose_underuse(o, std::nullopt, std::nullopt);
    RC_ASSERT(!u.summary.empty());
    RC_ASSERT(!u.gain_at_most || (*u.gain_at_most >= 0 && std::isfinite(*u.gain_at_most)));
  }));
}

}  // namespace
}  // namespace dryfit
