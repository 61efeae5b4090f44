// See snapshot_replay.hpp. Order of entries: c10/cuda/CUDACachingAllocator.cpp records a segment before the allocation it serves.
#include "doctor/snapshot_replay.hpp"

#include <algorithm>
#include <map>

namespace dryfit {

namespace {

constexpr std::int64_t kSmallSegment = 2 << 20, kLargePage = 20 << 20, kSlack = 1 << 20;

// Segments and allocated stretches of a device, by address. Undoing a trace turns its end into its start.
class State {
 public:
  State(const Snapshot& snapshot, std::int64_t device) : rounding_(settings_of(snapshot), std::nullopt) {
    for (const SnapshotSegment& s : snapshot.segments) {
      if (s.device != device) continue;
      segments_[s.address] = {s.size.count, s.stream, s.small, s.expandable};
      for (std::size_t i = 0; i < s.blocks; ++i) {
        const SnapshotBlock& b = snapshot.blocks[s.first_block + i];
        if (b.state != BlockState::inactive) allocated_[b.address] = {b.size.count, b.requested.count, b.stack};
      }
    }
  }

  void undo(const TraceEntry& e, std::int64_t stream) {
    const std::int64_t size = e.bytes().count;
    switch (e.action) {
      case Action::segment_alloc: segments_.erase(e.address); break;
      case Action::segment_free: segments_[e.address] = {size, stream, size <= kSmallSegment, false}; break;
      case Action::segment_map: unmap(e.address, size); break;
      case Action::segment_unmap: map(e.address, size, stream); break;
      case Action::alloc: allocated_.erase(e.address); break;
      case Action::free_completed: restore(e.address, size); break;
      default: break;
    }
  }

  TraceStart start() const {
    TraceStart out;
    std::int64_t covered = INT64_MIN;  // traces that contradict themselves give overlaps: the first holds
    for (const auto& [address, segment] : segments_) {
      if (address < covered || segment.size <= 0) continue;
      SegmentView view{address, Bytes(segment.size), segment.stream, segment.small, segment.expandable, {}};
      std::int64_t at = address;
      const std::int64_t end = covered = address + segment.size;
      const auto gap = [&](std::int64_t until) {
        if (until > at) view.blocks.push_back({at, Bytes(until - at), Bytes(0), false, false, segment.stream, segment.small});
        at = std::max(at, until);
      };
      for (auto it = allocated_.lower_bound(address); it != allocated_.end() && it->first < end; ++it) {
        if (it->first < at || it->first + it->second.size > end) continue;
        gap(it->first);
        view.blocks.push_back({at, Bytes(it->second.size), Bytes(it->second.requested), true, false, segment.stream, segment.small});
        out.stacks.push_back(it->second.stack);
        out.allocated += Bytes(it->second.size);
        at += it->second.size;
      }
      gap(end);
      out.reserved += view.size;
      out.segments.push_back(std::move(view));
    }
    return out;
  }

 private:
  struct Stretch { std::int64_t size = 0, stream = 0; bool small = false, expandable = false; };
  struct Taken { std::int64_t size = 0, requested = 0; std::uint32_t stack = 0; };

  std::map<std::int64_t, Stretch>::iterator holding(std::int64_t address) {
    auto it = segments_.upper_bound(address);
    if (it == segments_.begin()) return segments_.end();
    --it;
    return address < it->first + it->second.size ? it : segments_.end();
  }

  // A freed block's size is its rounded request, and in the large pool of ordinary segments whatever up to 1 MiB was left behind it.
  void restore(std::int64_t address, std::int64_t requested) {
    const auto segment = holding(address);
    if (segment == segments_.end()) return;
    std::int64_t size = rounding_.round_size(Bytes(requested)).count;
    const auto next = allocated_.upper_bound(address);
    const std::int64_t room = std::min(segment->first + segment->second.size, next == allocated_.end() ? INT64_MAX : next->first) - address;
    if (!segment->second.small && !segment->second.expandable && room - size <= kSlack) size = room;
    if (size > room) return;
    allocated_[address] = {size, std::min(requested, size), 0};
  }

  void unmap(std::int64_t address, std::int64_t size) {
    const auto it = holding(address);
    if (it == segments_.end()) return;
    const std::int64_t start = it->first;
    const Stretch whole = it->second;
    segments_.erase(it);
    if (address > start) segments_[start] = {address - start, whole.stream, whole.small, true};
    if (start + whole.size > address + size) segments_[address + size] = {start + whole.size - address - size, whole.stream, whole.small, true};
  }

  void map(std::int64_t address, std::int64_t size, std::int64_t stream) {
    if (size <= 0) return;
    const auto next = segments_.lower_bound(address);
    Stretch fresh{size, stream, size % kLargePage != 0, true};
    const auto joins = [&](const Stretch& s) { return s.expandable && s.stream == stream; };
    if (next != segments_.end() && next->first == address + size && joins(next->second)) {
      fresh.small = next->second.small;
      fresh.size += next->second.size;
      segments_.erase(next);
    }
    const auto after = segments_.lower_bound(address);
    if (after != segments_.begin()) {
      const auto before = std::prev(after);
      if (before->first + before->second.size == address && joins(before->second)) {
        before->second.size += fresh.size;
        return;
      }
    }
    segments_[address] = fresh;
  }

  CachingAllocator rounding_;
  std::map<std::int64_t, Stretch> segments_;
  std::map<std::int64_t, Taken> allocated_;
};

struct Signed { std::int64_t address, size; };  // a segment event: bytes that came, or went

std::int64_t signed_size(const SegmentEvent& e) { return e.kind == SegmentEvent::Kind::alloc || e.kind == SegmentEvent::Kind::map ? e.size.count : -e.size.count; }
std::int64_t signed_size(const TraceEntry& e) {
  if (e.action == Action::segment_alloc || e.action == Action::segment_map) return e.bytes().count;
  return e.action == Action::segment_free || e.action == Action::segment_unmap ? -e.bytes().count : 0;
}

// What the driver could give in all, at each failure of the trace.
std::vector<Bytes> capacities(const Snapshot& s, const Snapshot::Trace& t, Bytes reserved) {
  std::vector<Bytes> out;
  for (std::size_t i = 0; i < t.count; ++i) {
    const TraceEntry& e = s.entries[t.first + i];
    reserved += Bytes(signed_size(e));
    if (e.action == Action::oom) out.push_back(reserved + Bytes(e.address));
  }
  return out;
}

class Player {
 public:
  Player(const Snapshot& snapshot, const Snapshot::Trace& trace, const TraceStart& start) : s_(snapshot), t_(trace), allocator_(settings_of(snapshot), std::nullopt) {
    for (std::size_t i = 0; i < t_.count; ++i) {
      const TraceEntry& e = entry(i);
      if (signed_size(e) != 0) expected_.push_back({e.address, signed_size(e)});
    }
    capacities_ = capacities(s_, t_, start.reserved);
    if (!capacities_.empty()) allocator_.set_capacity(capacities_[0]), allocator_.set_device_total(std::max(gib(1), capacities_[0]));
    const std::vector<BlockId> ids = allocator_.restore(start.segments);
    std::size_t next = 0;
    for (const SegmentView& segment : start.segments) {
      for (const BlockView& b : segment.blocks) {
        if (b.allocated) live_[b.address] = ids[next++];
      }
    }
    // the next event of the trace that brings memory is the one at hand
    allocator_.set_segment_addresses([this](Bytes size) {
      std::size_t done = allocator_.segment_events().size();
      while (done < expected_.size() && expected_[done].size < 0) ++done;
      if (done < expected_.size()) return expected_[done].address;
      return beyond_ += round_up(size.count, 2 << 20), beyond_ - round_up(size.count, 2 << 20);
    });
  }

  Replay play(std::span<const std::size_t> stops, const ReplayHook& at) {
    out_.slack.resize(t_.count);
    for (std::size_t i = 0; i <= t_.count; ++i) {
      for (; !stops.empty() && stops.front() == i; stops = stops.subspan(1)) at(i, allocator_);
      if (i < t_.count) step(i);
    }
    out_.segment_events = static_cast<std::int64_t>(expected_.size());
    out_.equal_segment_events -= std::max<std::int64_t>(0, static_cast<std::int64_t>(allocator_.segment_events().size()) - out_.segment_events);
    out_.peak_allocated = allocator_.stats().allocated_peak;
    out_.peak_reserved = allocator_.stats().reserved_peak;
    compare_blocks();
    return std::move(out_);
  }

 private:
  const TraceEntry& entry(std::size_t i) const { return s_.entries[t_.first + i]; }
  void differ(std::size_t i) {
    if (!out_.first_difference) out_.first_difference = i;
  }

  void step(std::size_t i) {
    const TraceEntry& e = entry(i);
    switch (e.action) {
      case Action::alloc: allocate(i, e); break;
      case Action::free_completed: {
        const auto it = live_.find(e.address);
        if (it != live_.end()) allocator_.free(it->second), live_.erase(it);
        break;
      }
      case Action::segment_free:
      case Action::segment_unmap:
        // empty_cache(), or the flush before a second attempt: what it gives back comes in the allocator's own order
        if (allocator_.segment_events().size() <= seen_) allocator_.empty_cache();
        ++seen_;
        compare_segments(i);
        break;
      case Action::segment_alloc:
      case Action::segment_map: ++seen_; break;
      case Action::oom: {
        ++out_.ooms;
        const bool fails = !allocator_.malloc(e.bytes(), s_.streams[e.stream]).has_value();
        out_.equal_ooms += fails ? 1 : 0;
        if (!fails) differ(i);
        compare_segments(i);
        const auto next = static_cast<std::size_t>(out_.ooms);
        allocator_.set_capacity(next < capacities_.size() ? std::optional(capacities_[next]) : std::nullopt);
        break;
      }
      default: break;
    }
  }

  void allocate(std::size_t i, const TraceEntry& e) {
    if (e.size == 0) return;
    ++out_.allocations;
    const auto block = allocator_.malloc(e.bytes(), s_.streams[e.stream]);
    const bool equal = block && allocator_.address_of(*block) == e.address;
    if (equal) {
      ++out_.equal_allocations;
      out_.slack[i] = static_cast<std::uint32_t>(std::min<std::int64_t>(UINT32_MAX, (allocator_.size_of(*block) - allocator_.round_size(e.bytes())).count));
    } else {
      differ(i);
    }
    if (block) {
      const auto [it, fresh] = live_.try_emplace(e.address, *block);
      if (!fresh) allocator_.free(it->second), it->second = *block;
    }
    compare_segments(i);
  }

  // Segments that came or went up to here.
  void compare_segments(std::size_t i) {
    const auto& mine = allocator_.segment_events();
    for (; compared_ < mine.size() && compared_ < expected_.size(); ++compared_) {
      const bool equal = signed_size(mine[compared_]) == expected_[compared_].size && (expected_[compared_].size > 0 || mine[compared_].address == expected_[compared_].address);
      out_.equal_segment_events += equal ? 1 : 0;
      if (!equal) differ(i);
    }
    if (mine.size() > expected_.size()) differ(i);
  }

  void compare_blocks() {
    std::map<std::int64_t, std::pair<Bytes, bool>> mine;
    for (const SegmentView& segment : allocator_.segments()) {
      for (const BlockView& b : segment.blocks) mine[b.address] = {b.size, b.allocated};
    }
    for (const SnapshotSegment& segment : s_.segments) {
      if (segment.device != t_.device) continue;
      for (std::size_t i = 0; i < segment.blocks; ++i) {
        const SnapshotBlock& b = s_.blocks[segment.first_block + i];
        const auto it = mine.find(b.address);
        ++out_.blocks;
        out_.equal_blocks += it != mine.end() && it->second == std::pair(b.size, b.state != BlockState::inactive) ? 1 : 0;
      }
    }
    if (out_.equal_blocks != out_.blocks) differ(t_.count);
  }

  const Snapshot& s_;
  const Snapshot::Trace& t_;
  CachingAllocator allocator_;
  std::vector<Signed> expected_;
  std::vector<Bytes> capacities_;
  std::map<std::int64_t, BlockId> live_;
  std::size_t seen_ = 0, compared_ = 0;
  std::int64_t beyond_ = std::int64_t{1} << 61;  // addresses after the trace's own
  Replay out_;
};

}  // namespace

AllocatorConfig settings_of(const Snapshot& snapshot) {
  if (snapshot.settings) return *snapshot.settings;
  AllocatorConfig config;
  config.expandable_segments = std::ranges::any_of(snapshot.segments, &SnapshotSegment::expandable);
  return config;
}

TraceStart final_state(const Snapshot& snapshot, std::int64_t device) { return State(snapshot, device).start(); }

TraceStart trace_start(const Snapshot& snapshot, const Snapshot::Trace& trace) {
  State state(snapshot, trace.device);
  for (std::size_t i = trace.count; i-- > 0;) {
    const TraceEntry& e = snapshot.entries[trace.first + i];
    state.undo(e, e.stream < snapshot.streams.size() ? snapshot.streams[e.stream] : 0);
  }
  return state.start();
}

Replay replay(const Snapshot& snapshot, const Snapshot::Trace& trace, const TraceStart& start, std::span<const std::size_t> stops, const ReplayHook& at) {
  return Player(snapshot, trace, start).play(stops, at);
}

Counterfactual replay_with(const Snapshot& snapshot, const Snapshot::Trace& trace, const TraceStart& start, const AllocatorConfig& config) {
  CachingAllocator allocator(config, std::nullopt);
  const std::vector<Bytes> limits = capacities(snapshot, trace, start.reserved);
  if (!limits.empty()) allocator.set_device_total(std::max(gib(1), limits[0]));
  std::map<std::int64_t, BlockId> live;
  for (const SegmentView& segment : start.segments) {
    for (const BlockView& b : segment.blocks) {
      if (!b.allocated) continue;
      if (const auto block = allocator.malloc(b.requested, segment.stream)) live[b.address] = *block;
    }
  }
  Counterfactual out;
  for (std::size_t i = 0, failures = 0; i < trace.count; ++i) {
    const TraceEntry& e = snapshot.entries[trace.first + i];
    if (e.action == Action::alloc) {
      const auto block = allocator.malloc(e.bytes(), snapshot.streams[e.stream]);
      if (!block || *block == 0) continue;
      const auto [it, fresh] = live.try_emplace(e.address, *block);
      if (!fresh) allocator.free(it->second), it->second = *block;
    } else if (e.action == Action::free_completed) {
      const auto it = live.find(e.address);
      if (it != live.end()) allocator.free(it->second), live.erase(it);
    } else if (e.action == Action::oom) {
      out.peak_reserved = std::max(out.peak_reserved, allocator.stats().reserved_peak);  // without what only the failed request would take
      allocator.set_capacity(limits[failures++]);
      const auto block = allocator.malloc(e.bytes(), snapshot.streams[e.stream]);
      if (!block) ++out.ooms;
      else allocator.free(*block);
      allocator.set_capacity(std::nullopt);
    }
  }
  out.peak_reserved = std::max(out.peak_reserved, allocator.stats().reserved_peak);
  return out;
}

}  // namespace dryfit
