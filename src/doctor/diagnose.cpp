// Puts a diagnosis together: which failure to explain, when in the run it came, what the engine predicts for that run, why, what to do.
#include <algorithm>

#include "doctor/diagnosis.hpp"
#include "doctor/words.hpp"
#include "passes/program.hpp"
#include "plan/plan.hpp"

namespace dryfit {

namespace {

// How much a message tells; consequences of a failure elsewhere come late.
int rank_of(const Oom& oom) {
  switch (oom.wording) {
    case Wording::allocator: return oom.requested ? 0 : 5;
    case Wording::malloc_async:
    case Wording::mps:
    case Wording::exabyte: return 0;
    case Wording::xla:
    case Wording::tensorflow:
    case Wording::shared_memory:
    case Wording::host_allocator:
    case Wording::pinned: return 1;
    case Wording::host_killed: return oom.detail == "killed" ? 4 : 2;
    case Wording::nccl:
    case Wording::cublas:
    case Wording::cudnn:
    case Wording::runtime: return 3;
    case Wording::allocator_warning: return 6;
  }
  return 6;
}

// In the last run that failed: the message that tells most, of the latest step, of the lowest rank. Not the order of lines decides, so
// that ranks may interleave as they like.
const OomEvent* choose(const LogFacts& facts) {
  const OomEvent* best = nullptr;
  const auto key = [](const OomEvent& e) { return std::tuple(-e.run, rank_of(e.oom), -e.steps_done, e.rank.value_or(1 << 20), e.oom.device.value_or(1 << 20), e.stream); };
  const bool any_fatal = std::ranges::any_of(facts.events, [](const OomEvent& e) { return e.oom.wording != Wording::allocator_warning; });
  for (const OomEvent& e : facts.events) {
    if (any_fatal && e.oom.wording == Wording::allocator_warning) continue;
    if (best == nullptr || key(e) < key(*best)) best = &e;
  }
  return best;
}

struct Moment { Phase phase = Phase::unknown; Part part = Part::unknown; std::string source; };

Moment moment_of(const OomEvent& event, const RunLog& run) {
  Moment m;
  FramePlace training, elsewhere;
  for (const Frame& f : event.frames) {
    const FramePlace place = place_of(f);
    FramePlace& best = place.phase == Phase::unknown ? training : elsewhere;
    if (place.rank > best.rank) best = place;
  }
  if (elsewhere.rank > training.rank) {
    m = {elsewhere.phase, elsewhere.part, "traceback"};
  } else if (training.rank > 0) {
    m = {Phase::unknown, training.part, "traceback"};
  }
  if (m.phase != Phase::unknown) return m;
  const bool trains = m.part != Part::unknown || event.steps_done > 0 || event.validated;
  if (trains && (run.nanochat || run.steps.seen > 0 || event.steps_done > 0)) {
    m.phase = event.steps_done == 0 ? Phase::first_step : event.steps_done == 1 ? Phase::second_step : Phase::train_step;
    if (m.source.empty()) m.source = "log";
  } else if (run.nanochat && event.steps_done == 0) {
    m = {Phase::startup, Part::unknown, "log"};
  }
  return m;
}

void name_tensor(Diagnosis& d, Failure& f, const Program& program, const Report& report) {
  if (!f.event.oom.requested || f.event.oom.wording == Wording::shared_memory || f.event.oom.backend == Backend::host) return;
  RequestQuery query{*f.event.oom.requested, f.event.oom.allocated, f.part, f.phase, report.allocator, f.event.oom.wording != Wording::allocator};
  f.matches = match_request(program, query);
  if (f.matches.empty()) return;
  const TensorMatch& m = f.matches.front();
  if (!m.reachable) {
    d.notes.push_back("tensors of this size come later in the predicted run than this card would have let it: the run may differ from the one laid out here");
    return;
  }
  d.prediction->at_request = m.before;
  if (f.event.oom.allocated) d.prediction->unaccounted = f.event.oom.allocated->bytes - m.before;
  if (f.phase_source == "traceback" && f.part != Part::unknown) return;
  const auto close = d.prediction->unaccounted && std::llabs(d.prediction->unaccounted->count) * 20 < f.event.oom.allocated->bytes.count;
  if (!close && f.phase != Phase::unknown) return;
  static constexpr std::pair<std::string_view, Part> kParts[] = {{"forward", Part::forward}, {"backward", Part::backward}, {"optimizer", Part::optimizer}, {"weights", Part::load}};
  for (const auto& [name, part] : kParts) {
    if (m.part == name && f.part == Part::unknown) f.part = part;
  }
  if (f.phase == Phase::unknown) f.phase = m.phase == "load" ? Phase::startup : m.phase == "first_step" ? Phase::first_step : m.phase == "validation" ? Phase::evaluation : Phase::train_step;
  f.phase_source = "prediction";
}

std::string what_of(const OomEvent& e) {
  const Oom& o = e.oom;
  std::string out;
  switch (o.wording) {
    case Wording::allocator:
    case Wording::malloc_async:
    case Wording::mps: out = "out of memory"; break;
    case Wording::allocator_warning: out = "a failed first attempt (a warning)"; break;
    case Wording::nccl:
    case Wording::cublas:
    case Wording::cudnn: out = o.detail + " without memory"; break;
    case Wording::host_killed: out = "killed"; break;
    case Wording::host_allocator:
    case Wording::pinned: out = "host memory"; break;
    case Wording::shared_memory: out = "Triton shared memory"; break;
    case Wording::exabyte: out = "an impossible size"; break;
    case Wording::runtime: out = "a driver call without memory"; break;
    case Wording::xla:
    case Wording::tensorflow: out = "out of memory"; break;
  }
  if (o.requested && o.wording != Wording::shared_memory) out += said(", ", o.requested->bytes, " asked for");
  return out;
}

void group_others(const LogFacts& facts, Failure& f) {
  const OomEvent& chosen = f.event;
  for (const OomEvent& e : facts.events) {
    if (e.line == chosen.line && e.column == chosen.column) continue;
    const std::string what = what_of(e) + (e.run != chosen.run ? ", in an earlier run" : "");
    auto group = std::ranges::find(f.others, what, &FailureGroup::what);
    if (group == f.others.end()) group = f.others.insert(f.others.end(), {what, 0, e.line, {}});
    group->count += e.repeats;
    if (e.rank && group->ranks.size() < 64) group->ranks.push_back(*e.rank);
  }
  for (FailureGroup& g : f.others) {
    std::ranges::sort(g.ranks);
    g.ranks.erase(std::unique(g.ranks.begin(), g.ranks.end()), g.ranks.end());
  }
}

void predict(Diagnosis& d, std::optional<Report>& report, std::optional<Program>& program) {
  if (!d.known.workload || !d.known.machine) return;
  EstimateOptions options;
  options.allocator = d.known.allocator;
  options.alternatives = d.failure.has_value();
  auto laid_out = program_for(*d.known.workload, target_of(*d.known.machine), d.known.workload->run.grad_accum_steps > 1);
  if (!laid_out) {
    d.notes.push_back(laid_out.error().message);
    return;
  }
  program = std::move(*laid_out);
  auto result = estimate_program(*d.known.workload, *d.known.machine, options, *program);
  if (!result) {
    d.notes.push_back(result.error().message);
    return;
  }
  report = std::move(*result);
  d.prediction = Prediction{report->allocated.bytes, report->process.bytes, d.known.machine->usable(), report->verdict, report->peak_phase, report->peak_event, {}, {}, {}, {}};
  if (!d.failure) return;
  d.prediction->dies_at = predicted_failure(*program, report->allocator, d.known.machine->usable() - report->context);
  if (!d.prediction->dies_at) return;
  const CachingAllocator rounding(report->allocator, std::nullopt);
  d.prediction->dies_asking = rounding.alloc_size(rounding.round_size(Bytes(d.prediction->dies_at->tensor.bytes)));
}

// What the engine knows against what the message says.
void weigh(const Prediction& p, Failure& f) {
  CauseFinding& c = f.cause;
  const bool memory = c.cause == Cause::too_big || c.cause == Cause::leak || c.cause == Cause::optimizer_state;
  if (memory && p.unaccounted && f.event.oom.allocated && p.unaccounted->count * 20 > f.event.oom.allocated->bytes.count) {
    c.evidence.push_back(said("the prediction has ", *p.at_request, " allocated at this moment, the message ", f.event.oom.allocated->bytes, ": ", *p.unaccounted, " are not accounted for"));
  }
  if (p.dies_at && p.dies_asking && f.event.oom.requested && f.event.oom.requested->may_be(*p.dies_asking) && f.event.oom.wording == Wording::allocator) {
    c.evidence.push_back("the predicted run dies at the same request on this card: " + p.dies_at->tensor.name() + ", " + p.dies_at->part + " of " + p.dies_at->phase);
  }
  if (c.cause == Cause::too_big && p.verdict == Verdict::fits) {
    c.confidence = Confidence::possible;
    c.evidence.push_back(said("yet dryfit predicts ", p.process, " for this run, which fits: something it does not lay out (a changed model, other code) takes the difference"));
  }
}

void explain(Diagnosis& d, LogFacts& facts, const OomEvent& event, const Given& given) {
  Failure& f = d.failure.emplace();
  f.event = event;
  d.known = known_run(d.run, &event, given);
  f.holders = holders_of(event.oom);
  if (d.known.machine) {
    for (const Holder& h : f.holders) {
      if (h.name.starts_with("process ")) d.known.machine->used_by_others += h.bytes.value_or(Bytes(0));
    }
    if (d.known.machine->usable() < mib(64)) d.known.machine->used_by_others = Bytes(0);
  }
  const Moment m = moment_of(event, d.run);
  f.phase = m.phase;
  f.part = m.part;
  f.phase_source = m.source;
  for (auto frame = event.frames.rbegin(); frame != event.frames.rend() && !f.asked; ++frame) f.asked = read_asked_tensor(frame->code);
  std::optional<Report> report;
  std::optional<Program> program;
  predict(d, report, program);
  if (report) name_tensor(d, f, *program, *report);
  f.cause = find_cause({event, d.run, f.phase, f.part, d.prediction, d.known.machine, d.known.workload ? d.known.workload->run.world_size : 1});
  if (d.prediction) weigh(*d.prediction, f);
  f.fixes = find_fixes(f, d.run, d.known, report);
  const bool card = f.cause.cause != Cause::host_memory && f.cause.cause != Cause::kernel_limit && f.cause.cause != Cause::size_bug;
  if (card) f.ladder = find_ladder(d.run, d.known, report);
  group_others(facts, f);
  if (d.run.steps_done() > event.steps_done + 1) d.notes.push_back(said("the run went on after it: ", d.run.steps_done() - event.steps_done, " more steps"));
  if (facts.runs.back().id > event.run && facts.runs.back().steps.seen > 0) d.notes.push_back(said("a later run in this file (line ", facts.runs.back().line, ") shows no failure"));
  if (facts.events_beyond > 0) d.notes.push_back(said(facts.events_beyond, " more failures in this file are not listed"));
}

}  // namespace

void predict_run(Diagnosis& d) {
  std::optional<Report> report;
  std::optional<Program> program;
  predict(d, report, program);
}

Result<Diagnosis> diagnose(LogFacts facts, const Given& given) {
  Diagnosis d;
  d.encoding = facts.encoding;
  d.bytes = facts.bytes;
  d.lines = facts.lines;
  if (const OomEvent* event = choose(facts)) {
    const OomEvent chosen = *event;
    d.finding = Diagnosis::Finding::failure;
    d.run = facts.run(chosen.run);
    explain(d, facts, chosen, given);
  } else {
    const RunLog* telling = facts.last_run();
    d.run = telling == nullptr ? facts.runs.back() : *telling;
    const bool odd = facts.odd_bytes * 10 > std::min<std::int64_t>(facts.bytes, 1 << 20);
    if (telling == nullptr && odd) return fail("not_text", "this is not text", "give a training log, a pasted traceback, or a memory snapshot (.pickle); unpack archives first");
    d.known = known_run(d.run, nullptr, given);
    if (d.run.steps.seen > 0 || d.run.peak || !d.run.memory.empty()) {
      d.finding = Diagnosis::Finding::healthy;
      predict_run(d);
      if (d.prediction && d.run.peak) d.prediction->unaccounted = *d.run.peak - d.prediction->allocated;
      d.underuse = diagnose_underuse(observation_of(d.run, d.known.machine), nanochat_of(d.known), d.known.machine);
    }
  }
  if (d.known.problem && given.flags.depth) return std::unexpected(*d.known.problem);
  if (d.known.workload && !d.known.machine) d.notes.push_back("this text does not name the card: --gpu NAME lets dryfit compare the run with it");
  d.notes.insert(d.notes.end(), d.known.notes.begin(), d.known.notes.end());
  return d;
}

}  // namespace dryfit
