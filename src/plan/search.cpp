// The search: loops over device batches, depths and machines around estimate(). One built program answers every batch;
// the answer itself is always a full estimate.
#include <algorithm>

#include "base/text.hpp"
#include "memory/outside.hpp"
#include "memory/timeline.hpp"
#include "plan/plan.hpp"

namespace dryfit {

namespace {

constexpr std::int64_t kLadder[] = {4, 8, 12, 16, 20, 24, 26, 28, 32};
constexpr std::int64_t kWorthwhileBatch = 4;  // below this a GPU mostly waits

struct Found { std::int64_t batch; Report report; };

// Legal batches from the largest whose envelope could fit, downwards, until a full estimate says it fits.
// guess: a batch near the answer, 0 when unknown.
Result<std::optional<Found>> search_batch(const Workload& workload, const Machine& machine, EstimateOptions options, std::int64_t guess = 0) {
  options.only_fits = true;
  const auto legal = legal_device_batches(workload);
  if (legal.empty()) return std::optional<Found>();
  if (std::ranges::find(legal, guess) == legal.end()) guess = legal[legal.size() / 2];
  const Target target = target_of(machine);
  const Bytes room = machine.usable() - outside_memory(target.compute_major, target.compute_minor, workload.run.world_size).low;
  const auto probe = with_device_batch(workload, guess);
  if (!probe) return std::unexpected(probe.error());
  const Program program = build_program(*probe, target, true);
  const Envelope envelope = make_envelope(program);
  for (std::int64_t batch : legal) {
    const auto w = with_device_batch(workload, batch);
    if (!w) return std::unexpected(w.error());
    const bool accumulates = w->run.grad_accum_steps > 1;
    if (accumulates && envelope.at(batch) > room) continue;
    auto report = accumulates && batch == guess ? estimate_program(*w, machine, options, program) : estimate(*w, machine, options);
    if (!report) return std::unexpected(report.error());
    if (report->verdict == Verdict::fits) return std::optional<Found>({batch, std::move(*report)});
  }
  return std::optional<Found>();
}

Result<Workload> at_depth(WorkloadFlags flags, const Machine& machine, std::int64_t depth) {
  flags.depth = depth;
  flags.gpus = machine.gpus;
  flags.device_batch_size = -1;
  return make_nanochat_workload(flags);
}

}  // namespace

Result<std::optional<std::int64_t>> largest_device_batch(const Workload& workload, const Machine& machine, const EstimateOptions& options) {
  const auto found = search_batch(workload, machine, options);
  if (!found) return std::unexpected(found.error());
  return *found ? std::optional((*found)->batch) : std::nullopt;
}

Result<PlanResult> plan(const WorkloadFlags& flags, const Machine& machine, const EstimateOptions& options) {
  EstimateOptions quick = options;
  quick.alternatives = quick.timeline = false;
  PlanResult result;
  std::vector<std::int64_t> depths(std::begin(kLadder), std::end(kLadder));
  if (flags.depth) depths = {*flags.depth};
  std::optional<Error> last;
  for (std::int64_t depth : depths) {
    const auto workload = at_depth(flags, machine, depth);
    if (!workload) {
      last = workload.error();
      continue;
    }
    auto found = search_batch(*workload, machine, quick, result.plans.empty() ? 0 : result.plans.back().workload.run.device_batch_size);
    if (!found) return std::unexpected(found.error());
    if (!*found) break;  // deeper models need more
    result.plans.push_back(std::move((*found)->report));
  }
  if (result.plans.empty()) {
    if (last && flags.depth) return std::unexpected(*last);
    return result;
  }
  result.chosen = 0;
  for (std::size_t i = 0; i < result.plans.size(); ++i) {
    if (result.plans[i].workload.run.device_batch_size >= kWorthwhileBatch) result.chosen = i;
  }
  const Run& run = result.plans[result.chosen].workload.run;
  result.why = flags.depth ? "the largest device batch that fits" : "the deepest model that fits with a device batch of at least " + std::to_string(kWorthwhileBatch);
  if (run.device_batch_size < kWorthwhileBatch && !flags.depth) result.why = "the deepest model that fits at all";
  return result;
}

Result<std::vector<TableRow>> table(const std::vector<Machine>& machines, const std::vector<std::int64_t>& depths, const WorkloadFlags& flags, const EstimateOptions& options) {
  std::vector<TableRow> rows;
  for (const Machine& machine : machines) {
    for (std::int64_t depth : depths) {
      const auto workload = at_depth(flags, machine, depth);
      if (!workload) return std::unexpected(workload.error());
      const auto found = search_batch(*workload, machine, options);
      if (!found) return std::unexpected(found.error());
      TableRow row{machine.gpu.name, machine.usable(), depth, std::nullopt, std::nullopt};
      if (*found) row.device_batch_size = (*found)->batch, row.allocated = (*found)->report.allocated.bytes;
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

}  // namespace dryfit
