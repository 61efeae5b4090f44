// See snapshot_trace.hpp.
#include "doctor/snapshot_trace.hpp"

#include <algorithm>

namespace dryfit {

namespace {

enum class Group { none, forward, backward, optimizer };
Group group_of(Part part) {
  switch (part) {
    case Part::forward:
    case Part::loss: return Group::forward;
    case Part::backward: return Group::backward;
    case Part::optimizer: return Group::optimizer;
    default: return Group::none;
  }
}

// What may well have been there before a trace begins: its stack still tells what it is.
bool lasting(std::size_t owner) { return owner <= static_cast<std::size_t>(Category::optimizer); }

}  // namespace

std::string_view owner_name(std::size_t owner) {
  if (owner < static_cast<std::size_t>(kCategories)) return name_of(static_cast<Category>(owner));
  return owner == kBeforeTrace ? "before_trace" : "unknown";
}

std::size_t owner_of_place(const StackPlace& place) {
  const auto is = [](Category c) { return static_cast<std::size_t>(c); };
  if (place.workspace) return is(Category::workspace);
  switch (place.part) {
    case Part::load: return is(Category::weights);
    case Part::forward: return is(Category::activations);
    case Part::loss: return is(Category::logits);
    case Part::backward: return place.accumulates ? is(Category::gradients) : is(Category::activations);
    case Part::optimizer: return is(Category::optimizer);
    case Part::data: return is(Category::workspace);
    case Part::collective: return is(Category::communication);
    default: return kUnknownOwner;
  }
}

TraceView::TraceView(const Snapshot& snapshot, const Snapshot::Trace& trace, const TraceStart& start, const StackPlaces& places, std::vector<std::uint32_t> slack)
    : s_(snapshot), t_(trace), start_(start), places_(places), rounding_(settings_of(snapshot), std::nullopt), slack_(std::move(slack)) {
  for (std::size_t i = 0; i < t_.count; ++i) {
    has_frames_ = has_frames_ || entry(i).stack != 0;
    if (first_time_ == 0) first_time_ = entry(i).time_us;
  }
  in_optimizer_.resize(t_.count);
  std::int64_t began = 0;
  for (const Annotation& a : s_.annotations) {  // they come in pairs, by time
    if (a.device != t_.device || !s_.text(a.name).starts_with("Optimizer.step#")) continue;
    if (a.start) {
      began = a.time_us;
      continue;
    }
    const auto at = [&](std::int64_t time) {
      std::size_t low = 0, high = t_.count;
      while (low < high) {
        const std::size_t middle = low + (high - low) / 2;
        if (entry(middle).time_us < time) low = middle + 1;
        else high = middle;
      }
      return low;
    };
    if (began > 0) {
      for (std::size_t i = at(began), end = at(a.time_us + 1); i < end; ++i) in_optimizer_[i] = true;
    }
    began = 0;
  }
  find_epochs();
  find_lifetimes();
}

// The engine's own thread runs no Python: where the program's frames were recorded, an allocation without any was asked for there.
Part TraceView::part(std::size_t i) const {
  if (in_optimizer_[i]) return Part::optimizer;
  const TraceEntry& e = entry(i);
  if (e.stack == 0) return has_frames_ ? Part::backward : Part::unknown;
  return places_.of(e.stack).part;
}

std::string TraceView::site(std::uint32_t stack) const {
  if (stack == 0 && has_frames_) return "(no frames: backward, in autograd's thread)";
  return site_text(s_, places_.of(stack));
}

void TraceView::find_epochs() {
  epoch_.resize(t_.count);
  std::uint32_t epoch = 0;
  Group group = Group::none;
  for (std::size_t i = 0; i < t_.count; ++i) {
    const Group now = entry(i).action == Action::alloc ? group_of(part(i)) : Group::none;
    if (now != Group::none && now != group) {
      if (group != Group::none) ++epoch;
      group = now;
    }
    epoch_[i] = epoch;
  }
}

std::vector<std::size_t> TraceView::part_ends(Part part_wanted) const {
  std::vector<std::size_t> out;
  Group group = Group::none;
  std::size_t last = 0;
  for (std::size_t i = 0; i < t_.count; ++i) {
    const Group now = entry(i).action == Action::alloc ? group_of(part(i)) : Group::none;
    if (now == Group::none) continue;
    if (group == group_of(part_wanted) && now != group) out.push_back(last);
    group = now;
    last = i;
  }
  if (group == group_of(part_wanted)) out.push_back(t_.count - 1);
  return out;
}

void TraceView::find_lifetimes() {
  freed_at_.assign(t_.count, kNever);
  owner_.assign(t_.count, static_cast<std::uint8_t>(kUnknownOwner));
  std::map<std::int64_t, std::uint32_t> open;
  for (std::size_t i = 0; i < t_.count; ++i) {
    const TraceEntry& e = entry(i);
    if (e.action == Action::alloc) {
      open[e.address] = static_cast<std::uint32_t>(i);
    } else if (e.action == Action::free_requested || e.action == Action::free_completed) {
      const auto it = open.find(e.address);
      if (it == open.end()) continue;
      freed_at_[it->second] = static_cast<std::uint32_t>(i);
      open.erase(it);
    }
  }
  for (std::size_t i = 0; i < t_.count; ++i) {
    if (entry(i).action == Action::alloc) owner_[i] = owner_of(i);
  }
}

// A gradient of a parameter outlives the backward pass that made it; what is freed within it was on the way to one.
std::uint8_t TraceView::owner_of(std::size_t i) const {
  const StackPlace& place = places_.of(entry(i).stack);
  const Part now = part(i);
  if (now == Part::backward && !place.workspace) {
    const bool survives = freed_at_[i] == kNever || epoch_[freed_at_[i]] != epoch_[i];
    return static_cast<std::uint8_t>(place.accumulates || survives ? Category::gradients : Category::activations);
  }
  StackPlace seen = place;
  seen.part = now;
  return static_cast<std::uint8_t>(owner_of_place(seen));
}

TraceView::State TraceView::first_state() const {
  State state;
  std::size_t next = 0;
  for (const SegmentView& segment : start_.segments) {
    state.reserved += segment.size.count;
    for (const BlockView& b : segment.blocks) {
      if (!b.allocated) continue;
      const std::uint32_t stack = start_.stacks[next++];
      const std::uint8_t owner = static_cast<std::uint8_t>(lasting(owner_of_place(places_.of(stack))) ? owner_of_place(places_.of(stack)) : kBeforeTrace);
      state.live[b.address] = {b.size.count, LiveBlock::kStart, stack, owner, false};
      state.allocated += b.size.count;
      state.by_owner[owner] += b.size;
    }
  }
  return state;
}

void TraceView::advance(State& state, std::size_t i, LiveBlock& gone) const {
  const TraceEntry& e = entry(i);
  const auto drop = [&](std::map<std::int64_t, LiveBlock>::iterator it) {
    gone = it->second;
    (gone.pending ? state.pending : state.allocated) -= gone.bytes;
    if (!gone.pending) state.by_owner[gone.owner] -= Bytes(gone.bytes);
    state.live.erase(it);
  };
  const auto found = state.live.find(e.address);
  switch (e.action) {
    case Action::alloc: {
      if (found != state.live.end()) drop(found);  // its free was not recorded
      const LiveBlock fresh{bytes(i), static_cast<std::uint32_t>(i), e.stack, owner_[i], false};
      state.live[e.address] = fresh;
      state.allocated += fresh.bytes;
      state.by_owner[fresh.owner] += Bytes(fresh.bytes);
      break;
    }
    case Action::free_requested:
      if (found == state.live.end() || found->second.pending) break;
      found->second.pending = true;
      state.allocated -= found->second.bytes;
      state.pending += found->second.bytes;
      state.by_owner[found->second.owner] -= Bytes(found->second.bytes);
      break;
    case Action::free_completed:
      if (found != state.live.end()) drop(found);
      break;
    case Action::segment_alloc:
    case Action::segment_map: state.reserved += e.bytes().count; break;
    case Action::segment_free:
    case Action::segment_unmap: state.reserved -= e.bytes().count; break;
    default: break;
  }
}

}  // namespace dryfit
