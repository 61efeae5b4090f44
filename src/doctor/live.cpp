// A running job's readings, its log and its command line to a diagnosis. See diagnosis.hpp.
#include <algorithm>

#include "doctor/diagnosis.hpp"
#include "doctor/words.hpp"

namespace dryfit {

namespace {

// What the log tells of speed, beside what the driver tells of this GPU.
Observation joined(Observation seen, const Observation& log, std::size_t ranks, const std::optional<Prediction>& prediction) {
  seen.allocated_peak = log.allocated_peak;
  seen.mfu = log.mfu, seen.tokens_per_second = log.tokens_per_second, seen.step_milliseconds = log.step_milliseconds, seen.stalled_share = log.stalled_share;
  if (!seen.total) seen.total = log.total;
  seen.ranks = static_cast<std::int64_t>(ranks);
  if (prediction) seen.predicted = prediction->process;
  return seen;
}

void judge(Diagnosis& d) {
  Live& live = *d.live;
  const Observation log = observation_of(d.run, d.known.machine);
  std::vector<Underuse> judged;
  for (Live::Gpu& g : live.gpus) {
    judged.push_back(diagnose_underuse(joined(g.reading.seen, log, live.gpus.size(), d.prediction), d.known.workload, d.known.machine));
    g.verdict = judged.back().verdict;
    if (g.reading.in_job && g.reading.seen.used) live.measured = std::max(live.measured.value_or(Bytes(0)), *g.reading.seen.used - g.reading.seen.others.value_or(Bytes(0)));
  }
  live.judged = worst_of(judged);
  d.underuse = std::move(judged[live.judged]);
  const std::int64_t same = std::ranges::count(live.gpus, d.underuse->verdict, &Live::Gpu::verdict);
  if (live.gpus.size() > 1 && same < static_cast<std::int64_t>(live.gpus.size())) {
    using V = Underuse::Verdict;
    const V v = d.underuse->verdict;
    const bool holds_up = v == V::throttled || v == V::waiting || v == V::other_tenants || v == V::pcie;
    d.underuse->summary = said("GPU ", live.gpus[live.judged].reading.index, ": ", d.underuse->summary, holds_up ? "; the other ranks wait for it in every collective" : "");
  }
  if (live.measured && d.prediction) live.unaccounted = *live.measured - d.prediction->process;
}

}  // namespace

Result<Diagnosis> diagnose_live(Live live, const Readings& readings, std::span<const std::size_t> used, LogFacts log, const Given& given) {
  Diagnosis d;
  d.encoding = log.encoding;
  d.bytes = log.bytes;
  d.lines = log.lines;
  d.run = log.last_run() == nullptr ? log.runs.back() : *log.last_run();
  d.known = known_run(d.run, nullptr, given);
  if (d.known.problem && given.flags.depth) return std::unexpected(*d.known.problem);
  const std::vector<Readings::Gpu> gpus = readings.gpus();
  live.gpus.clear();
  for (std::size_t i : used) {
    if (i < gpus.size() && !gpus[i].lost) live.gpus.push_back({gpus[i]});
  }
  live.seconds = readings.seconds();
  live.samples = readings.samples();
  d.live = std::move(live);
  d.notes = d.known.notes;
  if (!log.events.empty()) d.notes.push_back("the log holds a failure too: dryfit doctor on the file alone explains it");
  for (const Readings::Gpu& g : gpus) {
    if (g.lost) d.notes.push_back(said("GPU ", g.index, " does not answer: dmesg names an Xid"));
  }
  if (d.live->gpus.empty()) return d;
  d.finding = Diagnosis::Finding::healthy;
  predict_run(d);
  judge(d);
  if (d.underuse->verdict == Underuse::Verdict::idle || d.run.steps.seen > 2 || !d.live->pid) return d;
  d.notes.push_back("no step lines were seen: with --log FILE the doctor reads steps, MFU and stalls too");
  return d;
}

}  // namespace dryfit
