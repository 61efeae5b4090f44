// The predicted run beside a snapshot: peaks, categories, and tensors that have the same size in both. See snapshot_report.hpp.
#include <algorithm>
#include <map>

#include "doctor/snapshot_report.hpp"
#include "memory/timeline.hpp"
#include "plan/plan.hpp"

namespace dryfit {

std::optional<SnapshotComparison> compare_prediction(const DeviceReport& device, const KnownRun& known, std::vector<std::string>& notes) {
  if (!known.workload) return std::nullopt;
  if (!known.machine) {
    notes.push_back("a snapshot does not name the card: --gpu NAME lets dryfit lay out the run beside it");
    return std::nullopt;
  }
  EstimateOptions options;
  options.allocator = known.allocator;
  const auto laid_out = program_for(*known.workload, target_of(*known.machine), known.workload->run.grad_accum_steps > 1);
  if (!laid_out) {
    notes.push_back(laid_out.error().message);
    return std::nullopt;
  }
  const Program& program = *laid_out;
  const auto report = estimate_program(*known.workload, *known.machine, options, program);
  if (!report) {
    notes.push_back(report.error().message);
    return std::nullopt;
  }
  const bool evaluates = device.peak_phase == Phase::evaluation || device.peak_phase == Phase::sampling;
  const PhaseResult* phase = nullptr;
  for (const PhaseResult& p : report->phases) {
    const bool training = p.name == "first_step" || p.name == "train_step";
    if (training != evaluates && p.name != "load" && p.name != "resume" && (phase == nullptr || p.allocated > phase->allocated)) phase = &p;
  }
  if (phase == nullptr) return std::nullopt;
  SnapshotComparison out;
  out.device = device.device;
  out.predicted_allocated = phase->allocated;
  out.predicted_reserved = phase->reserved;
  out.seen_allocated = device.peak.allocated;
  out.seen_reserved = device.peak.reserved;
  out.phase = phase->name;
  out.event = phase->event;
  out.run_allocated = report->allocated.bytes;
  out.run_phase = report->peak_phase;
  const Timeline timeline = run_timeline(program);
  const auto peak = std::ranges::find(timeline.phases, phase->name, &PhasePeak::phase);
  struct Pair { std::int64_t predicted = 0, seen = 0; const TensorInfo* tensor = nullptr; };
  std::map<std::int64_t, Pair, std::greater<>> sizes;
  for (const std::int32_t index : live_tensors(program, peak == timeline.phases.end() ? timeline.peak_event : peak->event)) {
    const TensorInfo& t = program.tensors[static_cast<std::size_t>(index)];
    const std::int64_t bytes = block_bytes(t.bytes);
    out.predicted_by_category[static_cast<std::size_t>(t.category)] += Bytes(bytes);
    Pair& pair = sizes[bytes];
    ++pair.predicted;
    if (pair.tensor == nullptr) pair.tensor = &t;
  }
  for (const Bytes size : device.live_at_peak) {
    // a block of an ordinary segment may carry up to 1 MiB that was not split off
    auto at = sizes.lower_bound(size.count);
    if (at == sizes.end() || (at->first != size.count && (size.count - at->first > (1 << 20) || at->first <= (1 << 20) || at->second.seen >= at->second.predicted))) at = sizes.try_emplace(size.count).first;
    ++at->second.seen;
  }
  for (const auto& [size, pair] : sizes) {
    const std::int64_t both = std::min(pair.predicted, pair.seen);
    out.matched += Bytes(size) * both;
    out.only_predicted += Bytes(size) * (pair.predicted - both);
    out.only_seen += Bytes(size) * (pair.seen - both);
    if (out.sizes.size() < 64) out.sizes.push_back({Bytes(size), pair.predicted, pair.seen, pair.tensor == nullptr ? "" : pair.tensor->name()});
  }
  std::ranges::stable_sort(out.sizes, [](const SizeMatch& a, const SizeMatch& b) { return a.size * std::max(a.predicted, a.seen) > b.size * std::max(b.predicted, b.seen); });
  if (!device.traced) notes.push_back("without a trace the snapshot's end stands for its peak");
  return out;
}

}  // namespace dryfit
