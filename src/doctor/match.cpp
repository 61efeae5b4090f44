// See match.hpp. The allocator prints what it would ask of CUDA: the request rounded to a segment.
#include "doctor/match.hpp"

#include <algorithm>
#include <cstring>

#include "memory/timeline.hpp"

namespace dryfit {

namespace {

// A traceback says "loss" for what the program calls forward.
bool part_agrees(Part part, std::string_view predicted) {
  switch (part) {
    case Part::forward:
    case Part::loss: return predicted == "forward";
    case Part::backward: return predicted == "backward";
    case Part::optimizer: return predicted == "optimizer";
    case Part::load:
    case Part::resume: return predicted == "weights";
    default: return true;
  }
}

bool phase_agrees(Phase phase, std::string_view predicted) {
  switch (phase) {
    case Phase::startup: return predicted == "load";
    case Phase::first_step: return predicted == "first_step";
    case Phase::second_step:
    case Phase::train_step: return predicted == "train_step";
    case Phase::evaluation: return predicted == "validation";
    default: return true;
  }
}

bool same_tensor(const TensorMatch& a, const TensorMatch& b) {
  return std::strcmp(a.tensor.role, b.tensor.role) == 0 && a.tensor.dtype == b.tensor.dtype && a.tensor.shape == b.tensor.shape && a.phase == b.phase && a.part == b.part;
}

}  // namespace

bool is_segment_size(Amount requested, const AllocatorConfig& config) { return requested.may_be(mib(2)) || requested.may_be(config.large_segment_size); }

std::vector<TensorMatch> match_request(const Program& program, const RequestQuery& query, std::size_t most) {
  std::vector<TensorMatch> found;
  if (!query.as_requested && is_segment_size(query.requested, query.config)) return found;
  const CachingAllocator rounding(query.config, std::nullopt);
  std::vector<bool> fits(program.tensors.size());
  for (std::size_t i = 0; i < fits.size(); ++i) {
    const Bytes bytes(program.tensors[i].bytes);
    fits[i] = bytes > Bytes(0) && query.requested.may_be(query.as_requested ? bytes : rounding.alloc_size(rounding.round_size(bytes)));
  }
  const auto distance = [&](const TensorMatch& m) { return query.allocated ? std::llabs((m.before - query.allocated->bytes).count) : 0; };
  std::int64_t live = 0, highest = 0;
  // a run that had needed more before would have died there
  const std::int64_t most_before = query.allocated ? (query.allocated->bytes + query.requested.bytes).count / 100 * 102 : Bytes::kMax;
  for (std::size_t i = 0; i < program.events.size(); ++i) {
    const Event& e = program.events[i];
    const auto index = static_cast<std::size_t>(e.tensor);
    const std::int64_t bytes = block_bytes(program.tensors[index].bytes);
    if (e.kind == Event::Kind::alloc && fits[index]) {
      const Segment& s = program.segment_of(static_cast<std::int32_t>(i));
      TensorMatch match{program.tensors[index], s.phase, s.part, program.tensors[static_cast<std::size_t>(e.op)].name(), s.micro_step, Bytes(live), highest <= most_before};
      const auto known = std::ranges::find_if(found, [&](const TensorMatch& m) { return same_tensor(m, match); });
      if (known == found.end()) found.push_back(std::move(match));
      else if (std::pair(!match.reachable, distance(match)) < std::pair(!known->reachable, distance(*known))) *known = std::move(match);
    }
    live += e.kind == Event::Kind::alloc ? bytes : -bytes;
    highest = std::max(highest, live);
  }
  std::ranges::stable_sort(found, {}, [&](const TensorMatch& m) {
    return std::tuple(!part_agrees(query.part, m.part), !m.reachable, !phase_agrees(query.phase, m.phase), distance(m));
  });
  if (found.size() > most) found.resize(most);
  return found;
}

std::optional<TensorMatch> predicted_failure(const Program& program, const AllocatorConfig& config, Bytes capacity) {
  if (capacity <= Bytes(0)) return std::nullopt;
  CachingAllocator allocator(config, capacity);
  Playback playback(program, allocator);
  for (std::size_t i = 0; i < program.events.size(); ++i) {
    const Event& e = program.events[i];
    const Bytes before = allocator.stats().allocated;
    if (playback.play(i) != Playback::Played::out_of_memory) continue;
    const Segment& s = program.segment_of(static_cast<std::int32_t>(i));
    return TensorMatch{program.tensors[static_cast<std::size_t>(e.tensor)], s.phase, s.part, program.tensors[static_cast<std::size_t>(e.op)].name(), s.micro_step, before};
  }
  return std::nullopt;
}

}  // namespace dryfit
