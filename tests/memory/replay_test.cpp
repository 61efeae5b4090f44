// Real CUDA memory snapshots replayed: every address relation, segment size and final block must come out as recorded.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "memory/allocator.hpp"
#include "pickle_reader.hpp"

namespace dryfit {
namespace {

using test::Value;

struct Outcome { int allocations = 0, wrong_addresses = 0, segments = 0, wrong_segments = 0, blocks = 0, wrong_blocks = 0, unknown_frees = 0; };

// One device's trace from an empty allocator. Segment addresses come from the trace; block addresses are ours to get right.
Outcome replay(const Value& trace, const Value& snapshot, std::int64_t device, bool expandable) {
  Outcome out;
  AllocatorConfig config;
  config.expandable_segments = expandable;
  CachingAllocator allocator(config, std::nullopt);
  std::vector<std::pair<std::int64_t, std::int64_t>> expected_segments;  // address, size, in order
  std::map<std::int64_t, BlockId> live;
  std::size_t given = 0;
  for (const auto& e : trace.list) {
    const std::string action = e->string("action");
    if (action == "segment_alloc" || action == "segment_map") expected_segments.emplace_back(e->number("addr"), e->number("size"));
  }
  std::map<std::int64_t, bool> reservations;  // first address seen of each reservation, per (stream, size class)
  allocator.set_segment_addresses([&](Bytes size) {
    if (!expandable) return given < expected_segments.size() ? expected_segments[given++].first : std::int64_t{1};
    (void)size;
    // a new reservation: the next mapped address that continues no mapping we know
    return given < expected_segments.size() ? expected_segments[given].first : std::int64_t{1};
  });
  std::size_t seen = 0;
  for (const auto& e : trace.list) {
    const std::string action = e->string("action");
    const std::int64_t address = e->number("addr"), size = e->number("size"), stream = e->number("stream");
    if (action == "alloc") {
      const auto block = allocator.malloc(Bytes(size), stream);
      ++out.allocations;
      if (!block || allocator.address_of(*block) != address) ++out.wrong_addresses;
      if (block) live[address] = *block;
    } else if (action == "free_completed") {
      const auto it = live.find(address);
      if (it == live.end()) ++out.unknown_frees;
      else allocator.free(it->second), live.erase(it);
    }
    if (expandable) {
      for (; seen < allocator.segment_events().size(); ++seen) {
        if (allocator.segment_events()[seen].kind == SegmentEvent::Kind::map) ++given;
      }
    }
  }
  std::vector<std::pair<std::int64_t, std::int64_t>> mine;
  for (const SegmentEvent& e : allocator.segment_events()) {
    if (e.kind == SegmentEvent::Kind::alloc || e.kind == SegmentEvent::Kind::map) mine.emplace_back(e.address, e.size.count);
  }
  out.segments = static_cast<int>(expected_segments.size());
  for (std::size_t i = 0; i < std::max(mine.size(), expected_segments.size()); ++i) {
    if (i >= mine.size() || i >= expected_segments.size() || mine[i].second != expected_segments[i].second) ++out.wrong_segments;
  }
  std::map<std::int64_t, std::pair<std::int64_t, bool>> final_blocks;
  for (const SegmentView& s : allocator.segments()) {
    for (const BlockView& b : s.blocks) final_blocks[b.address] = {b.size.count, b.allocated};
  }
  for (const auto& s : snapshot.get("segments")->list) {
    if (s->number("device") != device) continue;
    std::int64_t address = s->number("address");
    for (const auto& b : s->get("blocks")->list) {
      const std::int64_t at = b->get("address") != nullptr ? b->number("address") : address;
      const auto it = final_blocks.find(at);
      ++out.blocks;
      if (it == final_blocks.end() || it->second.first != b->number("size") || it->second.second != (b->string("state") == "active_allocated")) ++out.wrong_blocks;
      address += b->number("size");
    }
  }
  return out;
}

TEST(Replay, realSnapshotsFromAnEmptyAllocator) {
  const std::filesystem::path folder = std::string(DRYFIT_SOURCE_DIR) + "/../shared/snapshots";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no ../shared/snapshots here";
  int files = 0, allocations = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    const test::Ref root = test::PickleReader(bytes).read();
    ASSERT_NE(root, nullptr) << entry.path();
    const Value* traces = root->get("device_traces");
    if (traces == nullptr) continue;
    const Value* settings = root->get("allocator_settings");
    const bool expandable = settings != nullptr && settings->number("expandable_segments") != 0;
    for (std::size_t device = 0; device < traces->list.size(); ++device) {
      const Value& trace = *traces->list[device];
      // only traces whose history starts at an empty allocator: every block freed was allocated in it, every final segment too
      std::int64_t made = 0, kept = 0;
      for (const auto& e : trace.list) {
        const std::string a = e->string("action");
        if (a == "segment_alloc" || a == "segment_map") made += e->number("size");
        if (a == "segment_free" || a == "segment_unmap") made -= e->number("size");
      }
      for (const auto& s : root->get("segments")->list) kept += s->number("device") == static_cast<std::int64_t>(device) ? s->number("total_size") : 0;
      bool out_of_memory = false;
      for (const auto& e : trace.list) out_of_memory = out_of_memory || e->string("action") == "oom" || e->string("action") == "segment_free" || e->string("action") == "segment_unmap";
      if (trace.list.empty() || made != kept || out_of_memory) continue;
      const Outcome o = replay(trace, *root, static_cast<std::int64_t>(device), expandable);
      if (o.unknown_frees > 0) continue;
      const std::string where = entry.path().filename().string() + " device " + std::to_string(device);
      EXPECT_EQ(o.wrong_addresses, 0) << where << " of " << o.allocations;
      EXPECT_EQ(o.wrong_segments, 0) << where << " of " << o.segments;
      EXPECT_EQ(o.wrong_blocks, 0) << where << " of " << o.blocks;
      ++files;
      allocations += o.allocations;
      std::printf("replayed %s: %d allocations, %d segments, %d blocks\n", where.c_str(), o.allocations, o.segments, o.blocks);
    }
  }
  EXPECT_GT(files, 0);
  EXPECT_GT(allocations, 1000);
}

}  // namespace
}  // namespace dryfit
