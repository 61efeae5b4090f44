// Sums over events, the envelope of lines, and the allocator run. See timeline.hpp.
#include "memory/timeline.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

namespace dryfit {

namespace {

// A phase may be met again: it keeps the place it got first.
std::size_t place_of(std::vector<std::string_view>& met, std::string_view phase) {
  const auto found = std::ranges::find(met, phase);
  if (found != met.end()) return static_cast<std::size_t>(found - met.begin());
  met.push_back(phase);
  return met.size() - 1;
}

// Calls enter(segment) once for each stretch in which something happens, then event(i) for its events, until that is false. Returns the number of the next stretch.
template <typename Enter, typename OfEvent>
std::size_t go_through(const Program& program, Enter enter, OfEvent event) {
  const std::size_t count = program.events.size();
  std::size_t segment = count == 0 ? 1 : 0;
  for (std::size_t i = 0; i < count; ++segment) {
    while (segment + 1 < program.segments.size() && program.segments[segment + 1].first_event <= static_cast<std::int32_t>(i)) ++segment;
    enter(program.segments[segment]);
    const std::size_t end = segment + 1 < program.segments.size() ? std::min(count, static_cast<std::size_t>(program.segments[segment + 1].first_event)) : count;
    for (; i < end; ++i) {
      if (!event(i)) return segment + 1;
    }
  }
  return segment;
}

}  // namespace

std::int64_t block_bytes(std::int64_t bytes) { return bytes <= 0 ? 0 : round_up(bytes, 512); }

Timeline run_timeline(const Program& program) {
  Timeline t;
  t.live.reserve(program.events.size());
  std::int64_t live = 0;
  std::vector<std::string_view> met;
  PhasePeak* phase = nullptr;
  Provenance provenance{};
  const auto enter = [&](const Segment& s) {
    const std::size_t here = place_of(met, s.phase);
    if (here == t.phases.size()) t.phases.push_back({s.phase, static_cast<std::int32_t>(t.live.size()), Bytes(0), s.provenance});
    phase = &t.phases[here];
    provenance = s.provenance;
  };
  std::size_t segment = go_through(program, enter, [&](std::size_t i) {
    const Event& e = program.events[i];
    const std::int64_t bytes = block_bytes(program.tensors[static_cast<std::size_t>(e.tensor)].bytes);
    live += e.kind == Event::Kind::alloc ? bytes : -bytes;
    t.live.push_back(live);
    if (Bytes(live) <= phase->allocated) return true;
    phase->allocated = Bytes(live);
    phase->event = static_cast<std::int32_t>(i);
    phase->provenance = provenance;
    if (Bytes(live) > t.peak) {
      t.peak = Bytes(live);
      t.peak_event = static_cast<std::int32_t>(i);
    }
    return true;
  });
  for (; segment < program.segments.size(); ++segment) {  // stretches at the end in which nothing happens
    const Segment& s = program.segments[segment];
    if (place_of(met, s.phase) == t.phases.size()) t.phases.push_back({s.phase, kNothing, Bytes(live), s.provenance});
  }
  return t;
}

std::vector<std::int32_t> live_tensors(const Program& program, std::int32_t event) {
  std::vector<bool> alive(program.tensors.size(), false);
  for (std::int32_t i = 0; i <= event; ++i) {
    const Event& e = program.events[static_cast<std::size_t>(i)];
    alive[static_cast<std::size_t>(e.tensor)] = e.kind == Event::Kind::alloc;
  }
  std::vector<std::int32_t> out;
  for (std::size_t i = 0; i < alive.size(); ++i) {
    if (alive[i]) out.push_back(static_cast<std::int32_t>(i));
  }
  std::ranges::stable_sort(out, std::greater<>{}, [&](std::int32_t i) { return program.tensors[static_cast<std::size_t>(i)].bytes; });
  return out;
}

Bytes Envelope::at(std::int64_t device_batch) const {
  std::int64_t best = 0;
  for (const Line& line : lines) best = std::max(best, line.fixed + line.per_sequence * device_batch);
  return Bytes(best);
}

Envelope make_envelope(const Program& program) {
  std::vector<Envelope::Line> points;
  std::int64_t fixed = 0, per_sequence = 0;
  Envelope::Line before{0, 0}, best{0, 0};
  bool rising = false;
  const auto keep = [&](const Envelope::Line& line) {  // unless the best so far is above it everywhere
    const std::int64_t at_one = line.fixed + line.per_sequence, best_at_one = best.fixed + best.per_sequence;
    if (line.per_sequence <= best.per_sequence && at_one <= best_at_one) return;
    points.push_back(line);
    if (at_one >= best_at_one && line.per_sequence >= best.per_sequence) best = line;
  };
  for (const Event& e : program.events) {
    const TensorInfo& t = program.tensors[static_cast<std::size_t>(e.tensor)];
    const std::int64_t sign = e.kind == Event::Kind::alloc ? 1 : -1;
    if (t.batched) per_sequence += sign * ((t.bytes - t.fixed) / program.device_batch), fixed += sign * t.fixed;
    else fixed += sign * block_bytes(t.bytes);
    // only a moment before something dies can be a peak
    if (sign > 0) rising = true;
    else if (rising) keep(before), rising = false;
    before = {fixed, per_sequence};
  }
  if (rising) keep(before);
  // upper hull: by slope, each line must win somewhere above the last
  std::ranges::sort(points, [](const auto& a, const auto& b) { return std::pair(a.per_sequence, a.fixed) < std::pair(b.per_sequence, b.fixed); });
  Envelope envelope;
  for (const Envelope::Line& line : points) {
    while (!envelope.lines.empty()) {
      const Envelope::Line& last = envelope.lines.back();
      const bool same = last.per_sequence == line.per_sequence;
      const bool beaten_at_one = last.fixed + last.per_sequence <= line.fixed + line.per_sequence;
      bool hidden = same || beaten_at_one;
      if (!hidden && envelope.lines.size() > 1) {
        const Envelope::Line& earlier = envelope.lines[envelope.lines.size() - 2];
        // last never wins if `line` overtakes `earlier` no later than `last` does
        hidden = static_cast<double>(earlier.fixed - line.fixed) * static_cast<double>(last.per_sequence - earlier.per_sequence) <=
                 static_cast<double>(earlier.fixed - last.fixed) * static_cast<double>(line.per_sequence - earlier.per_sequence);
      }
      if (!hidden) break;
      envelope.lines.pop_back();
    }
    envelope.lines.push_back(line);
  }
  return envelope;
}

Playback::Played Playback::play(std::size_t event) {
  const Event& e = program_.events[event];
  BlockId& block = blocks_[static_cast<std::size_t>(e.tensor)];
  if (e.kind == Event::Kind::free) {
    const bool handed_over = event + 1 < program_.events.size() && program_.events[event + 1].from == e.tensor;
    if (!handed_over) allocator_.free(std::exchange(block, 0));
    return Played::without_asking;
  }
  if (e.from >= 0) {
    block = blocks_[static_cast<std::size_t>(e.from)];
    return Played::without_asking;
  }
  const TensorInfo& t = program_.tensors[static_cast<std::size_t>(e.tensor)];
  const auto got = allocator_.take(Bytes(t.bytes), t.stream);
  if (!got) return Played::out_of_memory;
  block = *got;
  return Played::asked;
}

namespace {

// A steady stretch once more and again. What takes over a block is that block, and small tensors come and go in the small pool as they did before: only their sum is kept.
class SteadyRounds {
 public:
  SteadyRounds(const Program& program, Playback& playback, CachingAllocator& allocator) : steady_(*program.steady), playback_(playback), allocator_(allocator) {
    std::vector<std::int32_t> slots(program.tensors.size(), -1);  // of each tensor, the last
    std::vector<Handed> found;                                   // alive when the stretch begins
    std::int64_t small = 0;
    const auto add = [&](std::int32_t slot, const TensorInfo* made) { ops_.push_back({slot, made != nullptr ? made->stream : std::int8_t{0}, made != nullptr ? made->bytes : 0, small}); };
    const auto passed = [&](std::int64_t by) {
      small += by;
      std::int64_t& most = ops_.empty() ? first_small_ : ops_.back().small;
      most = std::max(most, small);
    };
    for (auto i = static_cast<std::size_t>(steady_.first_event); i < static_cast<std::size_t>(steady_.last_event); ++i) {
      const Event& e = program.events[i];
      const TensorInfo& t = program.tensors[static_cast<std::size_t>(e.tensor)];
      std::int32_t& slot = slots[static_cast<std::size_t>(e.tensor)];
      const std::int64_t rounded = allocator.round_size(Bytes(t.bytes)).count;
      const bool is_small = rounded <= kSmallSize;
      if (e.from >= 0) {
        slot = slots[static_cast<std::size_t>(e.from)];
      } else if (e.kind == Event::Kind::alloc) {
        if (is_small) passed(rounded);
        else add(slot = made_++, &t);
      } else {
        if (slot < 0 && !is_small) found.push_back({slot = made_++, -1, e.tensor});
        const bool handed_over = i + 1 < program.events.size() && program.events[i + 1].from == e.tensor;
        if (handed_over) continue;
        if (is_small) passed(-rounded);
        else add(slot, nullptr);
      }
    }
    for (Handed h : found) {
      const auto other = std::ranges::find(steady_.handed, h.left, [](const auto& pair) { return pair[0]; });
      if (other != steady_.handed.end()) h.left = (*other)[1];  // else it is made again under its own name
      h.from = slots[static_cast<std::size_t>(h.left)];
      handed_.push_back(h);
    }
    blocks_.resize(static_cast<std::size_t>(made_), 0);
  }

  // Where what was left lies: rounds that find it in the same places go the same way.
  std::uint64_t places() const {
    std::uint64_t hash = 0;
    for (const Handed& h : handed_) hash = (hash ^ static_cast<std::uint64_t>(allocator_.address_of(playback_.block_of(h.left)))) * 0x9E3779B97F4A7C15ULL;
    return hash;
  }

  // after(small): called after each op, with the most that small tensors add to what is allocated until the next; false ends it. False: it ended so, or memory ran out (out_of_memory()).
  template <typename After>
  bool play(After after) {
    for (const Handed& h : handed_) blocks_[static_cast<std::size_t>(h.to)] = playback_.block_of(h.left);
    if (!after(Bytes(first_small_))) return false;
    for (const Op& op : ops_) {
      BlockId& block = blocks_[static_cast<std::size_t>(op.slot)];
      if (op.bytes == 0) {
        allocator_.free(block);
      } else {
        const auto got = allocator_.take(Bytes(op.bytes), op.stream);
        if (!got) return out_of_memory_ = true, false;
        block = *got;
      }
      if (!after(Bytes(op.small))) return false;
    }
    for (const Handed& h : handed_) playback_.block_of(h.left) = blocks_[static_cast<std::size_t>(h.from)];
    return true;
  }
  bool out_of_memory() const { return out_of_memory_; }

 private:
  struct Op { std::int32_t slot; std::int8_t stream; std::int64_t bytes, small; };  // bytes: 0 of a free
  struct Handed { std::int32_t to, from, left; };  // the slot in which the stretch finds it, the one in which it leaves it, the tensor that is left

  const Steady& steady_;
  Playback& playback_;
  CachingAllocator& allocator_;
  std::vector<Op> ops_;
  std::vector<Handed> handed_;
  std::vector<BlockId> blocks_;  // by slot
  std::int32_t made_ = 0;
  std::int64_t first_small_ = 0;
  bool out_of_memory_ = false;
};

}  // namespace

ReservedResult simulate_reserved(const Program& program, const AllocatorConfig& config, std::optional<Bytes> capacity, std::string_view undisturbed, std::int64_t steps) {
  ReservedResult result;
  CachingAllocator allocator(config, capacity);
  const AllocatorStats& stats = allocator.stats();
  Playback playback(program, allocator);
  std::vector<std::string_view> met;
  ReservedResult::Peak* now = nullptr;
  bool ends_with_a_flush = false;
  const auto enter = [&](const Segment& s) {
    const std::size_t here = place_of(met, s.phase);
    result.by_phase.resize(met.size());
    now = &result.by_phase[here];
    ends_with_a_flush = undisturbed == s.phase;
  };
  const auto look = [&](Bytes small) {
    now->allocated = std::max(now->allocated, stats.allocated + small);
    now->reserved = std::max(now->reserved, stats.reserved);
    now->retries += stats.retries - result.peak.retries;
    result.peak.retries = stats.retries;
    return now->retries == 0 || !ends_with_a_flush;
  };
  const auto play = [&](std::size_t i) {
    const Playback::Played played = playback.play(i);
    if (played == Playback::Played::without_asking) return true;
    if (played == Playback::Played::asked) return look(Bytes(0));
    result.out_of_memory = true;
    return false;
  };
  constexpr std::int64_t kMostRounds = 1000;
  const Steady* steady = program.steady && !program.steady->handed.empty() ? &*program.steady : nullptr;
  const std::int64_t rounds = steady == nullptr ? 0 : std::min(kMostRounds, steady->between > 0 ? std::min(steps, steady->between) : steps) / steady->steps;
  std::optional<SteadyRounds> steady_rounds;
  if (rounds > 0) steady_rounds.emplace(program, playback, allocator);
  const auto again = [&](std::int64_t count) {
    std::vector<std::uint64_t> places;
    for (; count > 0; --count) {
      const std::uint64_t here = steady_rounds->places();
      if (std::ranges::find(places, here) != places.end()) break;
      places.push_back(here);
      if (steady_rounds->play(look)) continue;
      result.out_of_memory = steady_rounds->out_of_memory();
      return false;
    }
    return true;
  };
  bool through = true;
  std::size_t segment = go_through(program, enter, [&](std::size_t i) {
    through = play(i) && (rounds == 0 || static_cast<std::int32_t>(i) + 1 != steady->last_event || again(rounds));
    return through;
  });
  for (; segment < program.segments.size(); ++segment) {
    if (place_of(met, program.segments[segment].phase) == result.by_phase.size()) result.by_phase.push_back({stats.allocated, stats.reserved});
  }
  if (through && rounds > 0 && steady->between > 0 && steps > steady->between) {
    enter(program.segment_of(steady->first_event));
    for (std::int32_t i = steady->first_event; through && i < steady->last_event; ++i) through = play(static_cast<std::size_t>(i));
    if (through) again(rounds - 1);
  }
  result.peak.allocated = stats.allocated_peak;
  for (const ReservedResult::Peak& phase : result.by_phase) result.peak.allocated = std::max(result.peak.allocated, phase.allocated);
  result.peak.reserved = stats.reserved_peak;
  result.peak.retries = stats.retries;
  return result;
}

}  // namespace dryfit
