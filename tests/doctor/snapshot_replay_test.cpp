// Traces played again: real CUDA memory snapshots must come out as recorded, every address, segment and block; so must made ones that
// begin in the middle of a run.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "doctor/pickle.hpp"
#include "doctor/snapshot_replay.hpp"
#include "made_snapshots.hpp"

namespace dryfit {
namespace {

Result<Snapshot> read(std::string_view bytes) {
  SnapshotStore store;
  PickleReader reader(store);
  if (const auto fed = reader.feed(bytes); !fed) return std::unexpected(fed.error());
  if (const auto done = reader.finish(); !done) return std::unexpected(done.error());
  return store.finish();
}

Replay played(const Snapshot& s) { return replay(s, s.traces[0], trace_start(s, s.traces[0])); }

void expect_equal(const Replay& r, const std::string& where) {
  EXPECT_EQ(r.equal_allocations, r.allocations) << where;
  EXPECT_EQ(r.equal_segment_events, r.segment_events) << where;
  EXPECT_EQ(r.equal_blocks, r.blocks) << where;
  EXPECT_EQ(r.equal_ooms, r.ooms) << where;
  EXPECT_FALSE(r.first_difference) << where << " entry " << *r.first_difference;
}

TEST(Replay, realSnapshots) {
  const std::filesystem::path folder = std::string(DRYFIT_SOURCE_DIR) + "/../shared/snapshots";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no ../shared/snapshots here";
  int traces = 0;
  std::int64_t allocations = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    const auto s = read(bytes);
    ASSERT_TRUE(s) << entry.path() << ": " << s.error().message;
    for (const Snapshot::Trace& trace : s->traces) {
      const Replay r = replay(*s, trace, trace_start(*s, trace));
      const std::string where = entry.path().filename().string() + " device " + std::to_string(trace.device);
      expect_equal(r, where);
      ++traces;
      allocations += r.allocations;
      std::printf("replayed %s: %lld allocations, %lld segment events, %lld blocks\n", where.c_str(), static_cast<long long>(r.allocations), static_cast<long long>(r.segment_events), static_cast<long long>(r.blocks));
    }
  }
  EXPECT_EQ(traces, 10);
  EXPECT_GT(allocations, 20000);
}

TEST(Replay, beginsInTheMiddle) {
  for (const bool expandable : {false, true}) {
    AllocatorConfig config;
    config.expandable_segments = expandable;
    test::SnapshotMaker m = test::training(2, 3, 0, config);
    m.forget();
    const int site = m.stack({{"a.py", 1, "f"}});
    const BlockId large = m.alloc(200 << 20, site), small = m.alloc(1000, site);
    m.free(large);
    m.empty_cache();
    m.alloc(30 << 20, site);
    m.free(small);
    m.alloc((3 << 20) + 512, site);
    const auto s = read(test::pickled(m.finish()));
    ASSERT_TRUE(s) << s.error().message;
    EXPECT_FALSE(trace_start(*s, s->traces[0]).empty());
    expect_equal(played(*s), expandable ? "expandable" : "ordinary");
  }
}

TEST(Replay, saysWhereItDiffers) {
  test::SnapshotMaker m = test::training(1, 2, 0);
  test::MadeSnapshot made = m.finish();
  std::size_t third = 0;
  for (third = 0; made.entries[third].action != "alloc"; ++third) {}
  made.entries[third].address += 4096;  // an allocator that works otherwise
  const auto s = read(test::pickled(made));
  ASSERT_TRUE(s);
  const Replay r = played(*s);
  EXPECT_FALSE(r.equal());
  ASSERT_TRUE(r.first_difference);
  EXPECT_EQ(*r.first_difference, third);
}

TEST(Replay, otherSettingsWouldHaveLetTheRequestThrough) {
  const auto s = read(test::pickled(test::fragmented().finish()));
  ASSERT_TRUE(s);
  const TraceStart start = trace_start(*s, s->traces[0]);
  EXPECT_TRUE(start.empty());
  const Replay r = replay(*s, s->traces[0], start);
  expect_equal(r, "fragmented");
  EXPECT_EQ(r.ooms, 1);
  AllocatorConfig config;
  config.expandable_segments = true;
  EXPECT_EQ(replay_with(*s, s->traces[0], start, {}).ooms, 1);
  EXPECT_EQ(replay_with(*s, s->traces[0], start, config).ooms, 0);
}

}  // namespace
}  // namespace dryfit
