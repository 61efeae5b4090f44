// One device's trace with what is derived for each entry: bytes of the block, part of the step, owner. Walked forward as often as an
// analysis needs. Part of snapshot_report.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "doctor/snapshot_report.hpp"

namespace dryfit {

// One allocated block while the trace is walked.
struct LiveBlock {
  std::int64_t bytes = 0;
  std::uint32_t entry = 0;         // that made it; kStart: it was there before
  std::uint32_t stack = 0;
  std::uint8_t owner = kUnknownOwner;
  bool pending = false;            // freed, and still used by another stream
  static constexpr std::uint32_t kStart = UINT32_MAX;
};

class TraceView {
 public:
  static constexpr std::uint32_t kNever = UINT32_MAX;

  // slack: of Replay, one for each entry, or empty.
  TraceView(const Snapshot& snapshot, const Snapshot::Trace& trace, const TraceStart& start, const StackPlaces& places, std::vector<std::uint32_t> slack);

  const Snapshot& snapshot() const { return s_; }
  const TraceStart& start() const { return start_; }
  const StackPlaces& places() const { return places_; }
  std::size_t count() const { return t_.count; }
  const TraceEntry& entry(std::size_t i) const { return s_.entries[t_.first + i]; }
  std::int64_t elapsed(std::size_t i) const { return entry(i).time_us > first_time_ && first_time_ > 0 ? entry(i).time_us - first_time_ : 0; }
  bool has_frames() const { return has_frames_; }
  Part part(std::size_t i) const;                              // of an alloc entry
  std::int64_t bytes(std::size_t i) const { return rounding_.round_size(entry(i).bytes()).count + (slack_.empty() ? 0 : static_cast<std::int64_t>(slack_[i])); }  // of an alloc entry's block
  std::uint32_t freed_at(std::size_t i) const { return freed_at_[i]; }  // of an alloc entry: when its free was asked for
  std::string site(std::uint32_t stack) const;
  std::uint32_t site_number(std::uint32_t stack) const { return places_.of(stack).named ? places_.of(stack).site + 1 : 0; }  // 0: no frames
  std::vector<std::size_t> part_ends(Part part) const;         // last entry of each stretch of a part: where another one begins

  // State while walking: right after entry `at`.
  struct State {
    std::map<std::int64_t, LiveBlock> live;                    // by address, with the pending ones
    std::int64_t allocated = 0, pending = 0, reserved = 0;
    ByOwner by_owner{};
  };
  // visit(i, state) after each entry; false ends the walk. What was freed last: `gone`, bytes 0 when nothing was.
  template <class Visit>
  void walk(Visit&& visit) const {
    State state = first_state();
    for (std::size_t i = 0; i < t_.count; ++i) {
      LiveBlock gone;
      advance(state, i, gone);
      if (!visit(i, static_cast<const State&>(state), static_cast<const LiveBlock&>(gone))) return;
    }
  }
  State first_state() const;

 private:
  void advance(State& state, std::size_t i, LiveBlock& gone) const;
  void find_lifetimes();
  void find_epochs();
  std::uint8_t owner_of(std::size_t i) const;

  const Snapshot& s_;
  const Snapshot::Trace& t_;
  const TraceStart& start_;
  const StackPlaces& places_;
  CachingAllocator rounding_;
  std::vector<std::uint32_t> slack_, freed_at_, epoch_;        // epoch: stretches of forward, backward, optimizer, counted
  std::vector<std::uint8_t> owner_;
  std::vector<bool> in_optimizer_;                             // by the profiler's marks
  std::int64_t first_time_ = 0;
  bool has_frames_ = false;
};

// Steps of the trace, by the optimizer's marks or frames, by backward passes, or by a large request that returns evenly.
StepInfo find_steps(const TraceView& view);
std::vector<LeakSuspect> find_suspects(const TraceView& view, const StepInfo& steps, std::size_t most = 8);

// Owner by the stack alone, for blocks whose life is not in the trace.
std::size_t owner_of_place(const StackPlace& place);
std::vector<SegmentMap> map_of(const Snapshot& snapshot, std::int64_t device, const StackPlaces& places, const std::map<std::int64_t, LiveBlock>& live);

}  // namespace dryfit
