// When a GPU idles: the verdict, the batch that fills it, and gains only where the observation holds them.
#include <gtest/gtest.h>
#include <rapidcheck.h>

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
  rc::check([] {
    const auto maybe = [](double most) { return *rc::gen::arbitrary<bool>() ? std::optional(*rc::gen::inRange(-10, 1010) / 1000.0 * most) : std::nullopt; };
    Observation o;
    if (*rc::gen::arbitrary<bool>()) o.used = gib(*rc::gen::inRange(0, 200));
    if (*rc::gen::arbitrary<bool>()) o.total = gib(*rc::gen::inRange(0, 200));
    o.utilization = maybe(1), o.power_watts = maybe(700), o.power_limit_watts = maybe(700), o.clock_mhz = maybe(2000), o.max_clock_mhz = maybe(2000), o.mfu = maybe(1), o.stalled_share = maybe(0.99);
    RC_ASSERT(!diagnose_underuse(o, std::nullopt, std::nullopt).summary.empty());
  });
}

}  // namespace
}  // namespace dryfit
