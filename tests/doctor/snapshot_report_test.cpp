// What a snapshot's account says: peaks and who holds them, pools, growth, failures, the prediction beside it. Made snapshots, and real ones
// where they are at hand.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>

#include "doctor/pickle.hpp"
#include "doctor/probe_snapshot_json.hpp"
#include "made_snapshots.hpp"
#include "report/snapshot.hpp"

namespace dryfit {
namespace {

Snapshot read(std::string_view bytes) {
  SnapshotStore store;
  PickleReader reader(store);
  EXPECT_TRUE(reader.feed(bytes));
  EXPECT_TRUE(reader.finish());
  auto s = store.finish();
  EXPECT_TRUE(s) << (s ? "" : s.error().message);
  return s ? std::move(*s) : Snapshot();
}

SnapshotReport account(std::string_view bytes, const Given& given = {}) {
  auto r = report_snapshot(read(bytes), given);
  EXPECT_TRUE(r) << (r ? "" : r.error().message);
  return r ? std::move(*r) : SnapshotReport();
}

Bytes sum(const ByOwner& by) { return std::accumulate(by.begin(), by.end(), Bytes(0)); }
Bytes of(const DeviceReport& d, Category c) { return d.at_peak[static_cast<std::size_t>(c)]; }

TEST(SnapshotReport, peakAndOwnersOfATrainingRun) {
  test::SnapshotMaker m = test::training(4, 3, 0);
  const Bytes peak = m.stats().allocated_peak, reserved = m.stats().reserved_peak;
  const SnapshotReport r = account(test::pickled(m.finish()));
  ASSERT_EQ(r.devices.size(), 1u);
  const DeviceReport& d = r.devices[0];
  EXPECT_TRUE(d.begins_empty);
  EXPECT_EQ(d.peak.allocated, peak);
  EXPECT_EQ(d.end.allocated, m.stats().allocated);
  EXPECT_EQ(d.end.reserved, m.stats().reserved);
  EXPECT_EQ(d.replayed->peak_reserved, reserved);
  EXPECT_TRUE(d.replayed->equal());
  EXPECT_EQ(sum(d.at_peak), d.peak.allocated);
  EXPECT_EQ(of(d, Category::weights), Bytes(3 * ((16 << 20) + 3072)));
  EXPECT_EQ(of(d, Category::optimizer), mib(3 * 32));
  EXPECT_EQ(of(d, Category::logits), mib(48));
  EXPECT_GE(of(d, Category::gradients), mib(16));
  EXPECT_EQ(d.at_peak[kUnknownOwner], Bytes(0));
  EXPECT_EQ(d.steps.count, 4);
  EXPECT_TRUE(d.suspects.empty());
  Bytes shown;
  for (const SiteBytes& s : d.sites) shown += s.bytes;
  EXPECT_EQ(shown, d.peak.allocated);
  EXPECT_EQ(d.sites[0].site, "run/train.py:88 main");
}

TEST(SnapshotReport, findsTheLineThatKeepsTensors) {
  for (const bool marks : {true, false}) {
    const SnapshotReport r = account(test::pickled(test::training(6, 3, 2 << 20, {}, marks).finish()));
    const DeviceReport& d = r.devices[0];
    EXPECT_EQ(d.steps.count, 6);
    ASSERT_EQ(d.suspects.size(), 1u);
    EXPECT_EQ(d.suspects[0].kind, LeakSuspect::Kind::grows);
    EXPECT_EQ(d.suspects[0].site, "run/train.py:61 log_step");
    EXPECT_EQ(d.suspects[0].per_step, mib(2));
    EXPECT_EQ(d.suspects[0].live, mib(12));
    EXPECT_EQ(d.suspects[0].count, 6);
    EXPECT_TRUE(std::ranges::any_of(d.fixes, [](const Fix& f) { return f.needs_code_change && f.saving == mib(12); }));
  }
}

TEST(SnapshotReport, explainsAFailureInAPoolCutToPieces) {
  const SnapshotReport r = account(test::pickled(test::fragmented().finish()));
  const DeviceReport& d = r.devices[0];
  ASSERT_EQ(d.ooms.size(), 1u);
  const SnapshotOom& o = d.ooms[0];
  EXPECT_EQ(o.requested, mib(60));
  EXPECT_EQ(o.device_free, mib(10));
  EXPECT_EQ(o.allocated, mib(240));
  EXPECT_EQ(o.reserved, mib(480));
  EXPECT_EQ(o.largest_free, mib(20));
  EXPECT_EQ(o.pool_free, mib(240));
  EXPECT_EQ(o.cause.cause, Cause::fragmentation);
  EXPECT_EQ(o.cause.confidence, Confidence::certain);
  ASSERT_TRUE(d.expandable);
  EXPECT_EQ(d.expandable->ooms, 0);
  ASSERT_FALSE(d.fixes.empty());
  EXPECT_NE(d.fixes[0].change.find("expandable_segments"), std::string::npos);
  ASSERT_EQ(d.pools.size(), 1u);
  EXPECT_EQ(d.pools[0].inactive_split, mib(240));
  EXPECT_EQ(d.pools[0].largest_free, mib(20));
  EXPECT_EQ(d.map.size(), 12u);
  EXPECT_EQ(d.map[0].free, mib(20));
}

TEST(SnapshotReport, aFailureThatNoSettingCures) {
  test::SnapshotMaker m({}, mib(100));
  const int site = m.stack({{"/home/u/a.py", 3, "f"}});
  m.alloc(60 << 20, site);
  m.alloc(60 << 20, site);
  const SnapshotReport r = account(test::pickled(m.finish()));
  ASSERT_EQ(r.devices[0].ooms.size(), 1u);
  EXPECT_EQ(r.devices[0].ooms[0].cause.cause, Cause::too_big);
  EXPECT_EQ(r.devices[0].expandable->ooms, 1);
  EXPECT_TRUE(r.devices[0].fixes.empty());
}

TEST(SnapshotReport, withoutATraceTheEndIsAccountedFor) {
  test::SnapshotMaker m = test::training(1, 2, 0);
  m.forget();
  const SnapshotReport r = account(test::pickled(m.finish()));
  const DeviceReport& d = r.devices[0];
  EXPECT_FALSE(d.traced);
  EXPECT_FALSE(d.replayed);
  EXPECT_EQ(d.peak.allocated, m.stats().allocated);
  EXPECT_EQ(of(d, Category::weights) + of(d, Category::optimizer), m.stats().allocated);
  EXPECT_FALSE(r.notes.empty());
}

TEST(SnapshotReport, stepsByARequestThatReturns) {
  test::SnapshotMaker m;  // no frames anywhere
  for (int step = 0; step < 5; ++step) {
    const BlockId big = m.alloc(64 << 20, 0);
    std::vector<BlockId> small;
    for (int i = 0; i < 30; ++i) small.push_back(m.alloc(2048, 0));
    for (const BlockId b : small) m.free(b);
    m.free(big);
    m.alloc(4096, 0);  // stays
  }
  const SnapshotReport r = account(test::pickled(m.finish()));
  const DeviceReport& d = r.devices[0];
  EXPECT_FALSE(d.has_frames);
  EXPECT_EQ(d.steps.count, 5);
  EXPECT_NE(d.steps.source.find("returns evenly"), std::string::npos);
  ASSERT_EQ(d.suspects.size(), 1u);
  EXPECT_EQ(d.suspects[0].per_step, Bytes(4096));
}

TEST(SnapshotReport, thePredictionBesideIt) {
  Given given;
  given.flags.depth = 4;
  given.flags.device_batch_size = 1;
  const SnapshotReport without = account(test::pickled(test::training(2, 2, 0).finish()), given);
  EXPECT_FALSE(without.comparison);
  EXPECT_TRUE(std::ranges::any_of(without.notes, [](const std::string& n) { return n.find("--gpu") != std::string::npos; }));
  given.machine.gpu = "RTX 4090";
  const SnapshotReport r = account(test::pickled(test::training(2, 2, 0).finish()), given);
  ASSERT_TRUE(r.comparison);
  const SnapshotComparison& c = *r.comparison;
  EXPECT_EQ(c.seen_allocated, r.devices[0].peak.allocated);
  EXPECT_GT(c.predicted_allocated, mib(100));
  EXPECT_EQ(c.matched + c.only_seen, c.seen_allocated);
  Bytes live;
  for (const Bytes b : r.devices[0].live_at_peak) live += b;
  EXPECT_EQ(live, c.seen_allocated);
  given.flags.device_batch_size = 3;
  EXPECT_FALSE(report_snapshot(read(test::pickled(test::training(1, 1, 0).finish())), given));
}

TEST(SnapshotReport, screensChartAndJson) {
  const SnapshotReport r = account(test::pickled(test::training(3, 2, 1 << 20).finish()));
  const std::string svg = snapshot_svg(r, "<a>&b.pickle");
  EXPECT_NE(svg.find("&lt;a&gt;&amp;b.pickle"), std::string::npos);
  EXPECT_NE(svg.find(">optimizer<"), std::string::npos);
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  Style coloured;
  coloured.colour = true;
  EXPECT_NE(snapshot_text(r, "a", coloured).find("\x1b[35m█"), std::string::npos);
  Style quiet;
  quiet.quiet = true;
  EXPECT_LT(snapshot_text(r, "a", quiet).size(), snapshot_text(r, "a", {}).size());
}

// Whatever is asked for and let go: the account's sums hold, and it is the same from pickle and JSON.
RC_GTEST_PROP(SnapshotReport, sumsHold, ()) {
  AllocatorConfig config;
  config.expandable_segments = *rc::gen::arbitrary<bool>();
  test::SnapshotMaker m(config);
  std::vector<int> stacks{0};
  for (int i = 0; i < 3; ++i) stacks.push_back(m.stack({{"/site-packages/torch/x.py", i, i == 1 ? "backward" : "forward"}, {"/u/" + std::to_string(i) + ".py", i, "f"}}));
  std::vector<BlockId> live;
  const int count = *rc::gen::inRange(0, 80), forget_at = *rc::gen::inRange(0, 80);
  for (int i = 0; i < count; ++i) {
    if (i == forget_at) m.forget();
    if (live.empty() || *rc::gen::inRange(0, 3) > 0) {
      live.push_back(m.alloc(*rc::gen::inRange(1, 40 << 20), stacks[static_cast<std::size_t>(*rc::gen::inRange(0, 4))]));
    } else {
      const auto at = static_cast<std::size_t>(*rc::gen::inRange<int>(0, static_cast<int>(live.size())));
      m.free(live[at]);
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(at));
      if (*rc::gen::inRange(0, 10) == 0) m.empty_cache();
    }
  }
  const test::MadeSnapshot& made = m.finish();
  const SnapshotReport r = account(test::pickled(made));
  if (r.devices.empty()) return;
  const DeviceReport& d = r.devices[0];
  RC_ASSERT(d.end.allocated == m.stats().allocated);
  RC_ASSERT(d.end.reserved == m.stats().reserved);
  RC_ASSERT(sum(d.at_peak) == d.peak.allocated);
  RC_ASSERT(d.peak.allocated >= d.end.allocated);
  if (forget_at >= count) RC_ASSERT(d.peak.allocated == m.stats().allocated_peak);
  Bytes pieces, free;
  for (const SegmentMap& s : d.map) {
    for (const SegmentMap::Piece& p : s.pieces) pieces += p.size;
    free += s.free;
  }
  RC_ASSERT(pieces == d.end.reserved);
  RC_ASSERT(free == d.end.reserved - d.end.allocated);
  SnapshotStore store;
  SnapshotJson reader(store);
  reader.feed(test::as_json(made));
  RC_ASSERT(reader.finish().has_value());
  auto json = store.finish();
  RC_ASSERT(json.has_value());
  auto other = report_snapshot(*json, {});
  RC_ASSERT(other.has_value());
  RC_ASSERT(snapshot_json(*other, "x") == snapshot_json(r, "x"));
}

TEST(SnapshotReport, realSnapshots) {
  const std::filesystem::path folder = std::string(DRYFIT_SOURCE_DIR) + "/../shared/snapshots";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no ../shared/snapshots here";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    const Snapshot s = read(bytes);
    const auto r = report_snapshot(s, {});
    ASSERT_TRUE(r);
    for (const DeviceReport& d : r->devices) {
      EXPECT_EQ(sum(d.at_peak), d.peak.allocated) << entry.path();
      Bytes allocated;
      for (const SnapshotSegment& g : s.segments) allocated += g.device == d.device ? g.allocated : Bytes(0);
      EXPECT_EQ(d.end.allocated, allocated) << entry.path() << ": what PyTorch itself counted";
      EXPECT_TRUE(!d.traced || d.replayed->equal()) << entry.path();
      for (const SnapshotOom& o : d.ooms) EXPECT_EQ(o.cause.cause, Cause::too_big) << entry.path();
    }
  }
}

}  // namespace
}  // namespace dryfit
