// Real CUDA memory snapshots replayed: every address relation, segment size and final block must come out as recorded.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>

#include "memory/allocator.hpp"
#include "pickle_reader.hpp"

namespace dryfit {
namespace {

using test::Value;

struct Outcome { int allocations = 0, wrong_addresses = 0, segments = 0, wrong_segments = 0, blocks = 0, wrong_blocks = 0; };

// What was allocated where, by undoing the trace from the final state: segments by address, allocated stretches by address.
struct State {
  struct Segment { std::int64_t size = 0, stream = 0; bool small = false; std::map<std::int64_t, std::int64_t> allocated; };
  std::map<std::int64_t, Segment> segments;
  Segment* holding(std::int64_t address, std::int64_t* start) {
    auto it = segments.upper_bound(address);
    if (it == segments.begin()) return nullptr;
    --it;
    *start = it->first;
    return address < it->first + it->second.size ? &it->second : nullptr;
  }
};

State final_state(const Value& snapshot, std::int64_t device) {
  State state;
  for (const auto& s : snapshot.get("segments")->list) {
    if (s->number("device") != device) continue;
    State::Segment& segment = state.segments[s->number("address")];
    segment = {s->number("total_size"), s->number("stream"), s->string("segment_type") == "small", {}};
    std::int64_t address = s->number("address");
    for (const auto& b : s->get("blocks")->list) {
      if (b->string("state") != "inactive") segment.allocated[address] = b->number("size");
      address += b->number("size");
    }
  }
  return state;
}

// A freed block's size is its rounded request, and in the large pool whatever up to 1 MiB was left behind it.
void undo(const Value& trace, State& state) {
  const CachingAllocator rounding({}, std::nullopt);
  for (auto e = trace.list.rbegin(); e != trace.list.rend(); ++e) {
    const std::string action = (*e)->string("action");
    const std::int64_t address = (*e)->number("addr"), size = (*e)->number("size");
    std::int64_t start = 0;
    if (action == "segment_alloc") state.segments.erase(address);
    if (action == "segment_free") state.segments[address] = {size, (*e)->number("stream"), size <= (2 << 20), {}};
    if (action != "alloc" && action != "free_completed") continue;
    State::Segment* segment = state.holding(address, &start);
    if (segment == nullptr) continue;
    if (action == "alloc") {
      segment->allocated.erase(address);
      continue;
    }
    std::int64_t length = rounding.round_size(Bytes(size)).count;
    const auto next = segment->allocated.upper_bound(address);
    const std::int64_t end = next == segment->allocated.end() ? start + segment->size : next->first;
    if (!segment->small && end - address - length <= (1 << 20)) length = end - address;
    segment->allocated[address] = length;
  }
}

std::vector<SegmentView> views(const State& state) {
  std::vector<SegmentView> out;
  for (const auto& [start, segment] : state.segments) {
    SegmentView view{start, Bytes(segment.size), segment.stream, segment.small, false, {}};
    std::int64_t at = start;
    const auto gap = [&](std::int64_t until) {
      if (until > at) view.blocks.push_back({at, Bytes(until - at), Bytes(0), false, false, segment.stream, segment.small});
    };
    for (const auto& [address, size] : segment.allocated) {
      gap(address);
      view.blocks.push_back({address, Bytes(size), Bytes(size), true, false, segment.stream, segment.small});
      at = address + size;
    }
    gap(start + segment.size);
    out.push_back(std::move(view));
  }
  return out;
}

// One device's trace. Segment addresses come from the trace; block addresses and segment sizes are ours to get right.
Outcome replay(const Value& trace, const Value& snapshot, std::int64_t device, bool expandable) {
  Outcome out;
  std::vector<std::pair<std::int64_t, std::int64_t>> expected;  // address, signed size, in order
  std::optional<Bytes> capacity;
  std::int64_t mapped = 0;
  for (const auto& e : trace.list) {
    const std::string action = e->string("action");
    const std::int64_t size = e->number("size");
    if (action == "segment_alloc" || action == "segment_map") expected.emplace_back(e->number("addr"), size), mapped += size;
    if (action == "segment_free" || action == "segment_unmap") expected.emplace_back(e->number("addr"), -size), mapped -= size;
    if (action == "oom") capacity = Bytes(mapped + (e->get("device_free") != nullptr ? e->number("device_free") : e->number("addr")));
  }
  AllocatorConfig config;
  config.expandable_segments = expandable;
  CachingAllocator allocator(config, capacity);
  std::map<std::int64_t, BlockId> live;
  if (!expandable) {
    State state = final_state(snapshot, device);
    undo(trace, state);
    const auto start = views(state);
    const std::vector<BlockId> ids = allocator.restore(start);
    std::size_t i = 0;
    for (const SegmentView& s : start) {
      for (const BlockView& b : s.blocks) {
        if (b.allocated) live[b.address] = ids[i++];
      }
    }
  }
  allocator.set_segment_addresses([&](Bytes) {
    std::size_t done = allocator.segment_events().size();  // the next event of the trace is this one
    while (done < expected.size() && expected[done].second < 0) ++done;
    return done < expected.size() ? expected[done].first : std::int64_t{1};
  });
  for (const auto& e : trace.list) {
    const std::string action = e->string("action");
    const std::int64_t address = e->number("addr");
    if (action == "alloc") {
      const auto block = allocator.malloc(Bytes(e->number("size")), e->number("stream"));
      ++out.allocations;
      if (!block || allocator.address_of(*block) != address) ++out.wrong_addresses;
      if (block) live[address] = *block;
    } else if (action == "free_completed") {
      const auto it = live.find(address);
      if (it != live.end()) allocator.free(it->second), live.erase(it);
    } else if (action == "oom") {
      EXPECT_FALSE(allocator.malloc(Bytes(e->number("size")), e->number("stream")));
    }
  }
  out.segments = static_cast<int>(expected.size());
  const auto& mine = allocator.segment_events();
  for (std::size_t i = 0; i < std::max(mine.size(), expected.size()); ++i) {
    const auto signed_size = [](const SegmentEvent& e) { return e.kind == SegmentEvent::Kind::alloc || e.kind == SegmentEvent::Kind::map ? e.size.count : -e.size.count; };
    if (i >= mine.size() || i >= expected.size() || signed_size(mine[i]) != expected[i].second) ++out.wrong_segments;
  }
  std::map<std::int64_t, std::pair<std::int64_t, bool>> final_blocks;
  for (const SegmentView& s : allocator.segments()) {
    for (const BlockView& b : s.blocks) final_blocks[b.address] = {b.size.count, b.allocated};
  }
  for (const auto& s : snapshot.get("segments")->list) {
    if (s->number("device") != device) continue;
    std::int64_t address = s->number("address");
    for (const auto& b : s->get("blocks")->list) {
      const auto it = final_blocks.find(address);
      ++out.blocks;
      if (it == final_blocks.end() || it->second.first != b->number("size") || it->second.second != (b->string("state") != "inactive")) ++out.wrong_blocks;
      address += b->number("size");
    }
  }
  return out;
}

TEST(Replay, realSnapshots) {
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
      if (trace.list.empty()) continue;
      const Outcome o = replay(trace, *root, static_cast<std::int64_t>(device), expandable);
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
