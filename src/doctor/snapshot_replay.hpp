// A trace played through the simulated allocator: from the state it began with, undone from the end; whether every address and segment
// comes out as recorded; and what other allocator settings would have needed.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "doctor/snapshot.hpp"
#include "memory/allocator.hpp"

namespace dryfit {

// What was there when the trace began. Blocks tile their segments; stacks: one for each allocated block in their order, 0 where no longer known.
struct TraceStart {
  std::vector<SegmentView> segments;
  std::vector<std::uint32_t> stacks;
  Bytes allocated, reserved;
  bool empty() const { return segments.empty(); }
};
TraceStart trace_start(const Snapshot& snapshot, const Snapshot::Trace& trace);
// A trace of nothing on this device: what lies there at the end.
TraceStart final_state(const Snapshot& snapshot, std::int64_t device);

// The allocator's settings: as recorded, else as the segments show.
AllocatorConfig settings_of(const Snapshot& snapshot);

struct Replay {
  std::int64_t allocations = 0, equal_allocations = 0, segment_events = 0, equal_segment_events = 0, blocks = 0, equal_blocks = 0, ooms = 0, equal_ooms = 0;
  std::optional<std::size_t> first_difference;  // entry of the trace, from 0
  Bytes peak_allocated, peak_reserved;          // simulated
  std::vector<std::uint32_t> slack;             // of each alloc entry: handed out beyond the rounded request, where the address is equal
  bool equal() const { return allocations == equal_allocations && segment_events == equal_segment_events && blocks == equal_blocks && ooms == equal_ooms; }
};
// at: called with the allocator as it stands before each of these entries (ascending; trace.count: after the last).
using ReplayHook = std::function<void(std::size_t entry, const CachingAllocator& allocator)>;
Replay replay(const Snapshot& snapshot, const Snapshot::Trace& trace, const TraceStart& start, std::span<const std::size_t> stops = {}, const ReplayHook& at = {});

// The same requests with other settings, from an allocator that first took what was there at the start.
struct Counterfactual {
  Bytes peak_reserved;
  std::int64_t ooms = 0;                        // requests that still fail, where the trace has failures
};
Counterfactual replay_with(const Snapshot& snapshot, const Snapshot::Trace& trace, const TraceStart& start, const AllocatorConfig& config);

}  // namespace dryfit
