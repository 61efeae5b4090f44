// Sums over events, the envelope of lines, and the allocator run. See timeline.hpp.
#include "memory/timeline.hpp"

#include <algorithm>
#include <string_view>

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
    if (!handed_over) allocator_.free(block);
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

ReservedResult simulate_reserved(const Program& program, const AllocatorConfig& config, std::optional<Bytes> capacity, std::string_view undisturbed) {
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
  std::size_t segment = go_through(program, enter, [&](std::size_t i) {
    const Playback::Played played = playback.play(i);
    if (played == Playback::Played::without_asking) return true;
    if (played == Playback::Played::out_of_memory) {
      result.out_of_memory = true;
      return false;
    }
    now->allocated = std::max(now->allocated, stats.allocated);
    now->reserved = std::max(now->reserved, stats.reserved);
    now->retries += stats.retries - result.peak.retries;
    result.peak.retries = stats.retries;
    return now->retries == 0 || !ends_with_a_flush;
  });
  for (; segment < program.segments.size(); ++segment) {
    if (place_of(met, program.segments[segment].phase) == result.by_phase.size()) result.by_phase.push_back({stats.allocated, stats.reserved});
  }
  result.peak = {stats.allocated_peak, stats.reserved_peak, stats.retries};
  return result;
}

}  // namespace dryfit
