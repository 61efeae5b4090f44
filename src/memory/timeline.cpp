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

}  // namespace

std::int64_t block_bytes(std::int64_t bytes) { return bytes <= 0 ? 0 : round_up(bytes, 512); }

Timeline run_timeline(const Program& program) {
  Timeline t;
  t.live.reserve(program.events.size());
  std::int64_t live = 0;
  std::size_t segment = 0, here = 0;
  std::vector<std::string_view> met;
  for (std::size_t i = 0; i < program.events.size(); ++i) {
    bool entered = i == 0;
    while (segment + 1 < program.segments.size() && program.segments[segment + 1].first_event <= static_cast<std::int32_t>(i)) ++segment, entered = true;
    const Segment& s = program.segments[segment];
    if (entered) {
      here = place_of(met, s.phase);
      if (here == t.phases.size()) t.phases.push_back({s.phase, static_cast<std::int32_t>(i), Bytes(0), s.provenance});
    }
    const Event& e = program.events[i];
    const std::int64_t bytes = block_bytes(program.tensors[static_cast<std::size_t>(e.tensor)].bytes);
    live += e.kind == Event::Kind::alloc ? bytes : -bytes;
    t.live.push_back(live);
    PhasePeak& phase = t.phases[here];
    if (Bytes(live) > phase.allocated) {
      phase.allocated = Bytes(live);
      phase.event = static_cast<std::int32_t>(i);
      phase.provenance = s.provenance;
    }
    if (Bytes(live) > t.peak) {
      t.peak = Bytes(live);
      t.peak_event = static_cast<std::int32_t>(i);
    }
  }
  for (++segment; segment < program.segments.size(); ++segment) {  // stretches at the end in which nothing happens
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

Result<bool> Playback::play(std::size_t event) {
  const Event& e = program_.events[event];
  BlockId& block = blocks_[static_cast<std::size_t>(e.tensor)];
  if (e.kind == Event::Kind::free) {
    const bool handed_over = event + 1 < program_.events.size() && program_.events[event + 1].from == e.tensor;
    if (!handed_over) allocator_.free(block);
    return false;
  }
  if (e.from >= 0) {
    block = blocks_[static_cast<std::size_t>(e.from)];
    return false;
  }
  const TensorInfo& t = program_.tensors[static_cast<std::size_t>(e.tensor)];
  const auto got = allocator_.malloc(Bytes(t.bytes), t.stream);
  if (!got) return std::unexpected(got.error());
  block = *got;
  return true;
}

ReservedResult simulate_reserved(const Program& program, const AllocatorConfig& config, std::optional<Bytes> capacity, std::string_view undisturbed) {
  ReservedResult result;
  CachingAllocator allocator(config, capacity);
  Playback playback(program, allocator);
  std::vector<std::string_view> met;
  std::size_t segment = 0, here = 0;
  for (std::size_t i = 0; i < program.events.size(); ++i) {
    bool entered = i == 0;
    while (segment + 1 < program.segments.size() && program.segments[segment + 1].first_event <= static_cast<std::int32_t>(i)) ++segment, entered = true;
    if (entered) {
      here = place_of(met, program.segments[segment].phase);
      result.by_phase.resize(met.size());
    }
    const auto asked = playback.play(i);
    if (!asked) {
      result.out_of_memory = true;
      break;
    }
    if (!*asked) continue;
    ReservedResult::Peak& now = result.by_phase[here];
    now.allocated = std::max(now.allocated, allocator.stats().allocated);
    now.reserved = std::max(now.reserved, allocator.stats().reserved);
    now.retries += allocator.stats().retries - result.peak.retries;
    result.peak.retries = allocator.stats().retries;
    if (now.retries > 0 && undisturbed == met[here]) break;
  }
  for (++segment; segment < program.segments.size(); ++segment) {
    if (place_of(met, program.segments[segment].phase) == result.by_phase.size()) result.by_phase.push_back({allocator.stats().allocated, allocator.stats().reserved});
  }
  result.peak = {allocator.stats().allocated_peak, allocator.stats().reserved_peak, allocator.stats().retries};
  return result;
}

}  // namespace dryfit
