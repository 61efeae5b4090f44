// The search: loops over device batches, depths and machines around estimate(). One built program answers every batch;
// the answer itself is always a full estimate.
#include <algorithm>

#include "base/text.hpp"
#include "memory/timeline.hpp"
#include "plan/alternatives.hpp"
#include "plan/batch_search.hpp"
#include "plan/plan.hpp"
#include "plan/rent.hpp"

namespace dryfit {

namespace {

constexpr std::int64_t kLadder[] = {4, 8, 12, 16, 20, 24, 26, 28, 32};
constexpr std::int64_t kWorthwhileBatch = 4;  // below this a GPU mostly waits

constexpr double kFaster = 0.995;  // of the step time: below, a smaller batch is said to be faster

struct Found { std::int64_t batch; Report report; Program program; };  // built for that batch

// A batch near the answer, only to begin with: 36 D bytes saved per token and layer, 2 V per token of logits, on top of what is static.
std::int64_t first_guess(const Workload& workload, Bytes room, const std::vector<std::int64_t>& legal) {
  const Model& m = workload.model;
  const StaticBytes fixed = static_bytes(workload);
  const Bytes left = room - fixed.weights - fixed.gradients - fixed.optimizer;
  const std::int64_t sequence = workload.run.max_seq_len * (36 * m.width * m.depth + 2 * m.vocab);
  const auto fits = std::ranges::find_if(legal, [&](std::int64_t batch) { return batch * sequence <= left.count; });
  return fits == legal.end() ? legal.back() : *fits;
}

// How searches ask.
EstimateOptions without_every_step(EstimateOptions options) {
  options.every_step = false;
  return options;
}

// Legal batches from the largest whose envelope could fit, downwards, until a full estimate says it fits. The program of the first
// guess gives the envelope, and the answer when the guess was right. fixed: the workload's own batch is the only one.
Result<std::optional<Found>> search_batch(const Workload& workload, const Machine& machine, const EstimateOptions& options, bool fixed = false) {
  const auto legal = fixed ? std::vector{workload.run.device_batch_size} : legal_device_batches(workload);
  if (legal.empty()) return std::optional<Found>();
  const Target target = target_of(machine);
  const Bytes room = most_that_may_fit(workload, machine, options);
  const std::int64_t guess = first_guess(workload, room, legal);
  const auto accumulates = [&](std::int64_t batch) { return batch * workload.run.max_seq_len * workload.run.world_size < workload.run.total_batch_size; };
  const auto probe = with_device_batch(workload, guess);
  if (!probe) return std::unexpected(probe.error());
  auto program = program_for(*probe, target, accumulates(guess));
  if (!program) return std::unexpected(program.error());
  const Envelope envelope = make_envelope(*program);
  // one micro-step a step keeps no gradients of an earlier one: a bound from one kind of program holds for the other with this
  const Bytes gradients = static_bytes(workload).gradients;
  for (std::int64_t batch : legal) {
    if (envelope.at(batch) - (accumulates(guess) && !accumulates(batch) ? gradients : Bytes(0)) > room) continue;
    const auto w = with_device_batch(workload, batch);
    if (!w) return std::unexpected(w.error());
    auto other = batch == guess ? Result<Program>() : program_for(*w, target, accumulates(batch));
    if (!other) return std::unexpected(other.error());
    Program& its = batch == guess ? *program : *other;
    auto report = estimate_if_it_fits(*w, machine, options, its);
    if (!report) return std::unexpected(report.error());
    if (report->verdict == Verdict::fits) return std::optional<Found>({batch, std::move(*report), std::move(its)});
  }
  return std::optional<Found>();
}

// The report of a batch with all its steps played, or of the largest smaller one that then fits; its program takes the place of `program`.
Result<std::optional<Report>> confirm(const Workload& workload, const Machine& machine, const EstimateOptions& options, Program& program, bool fixed) {
  auto report = estimate_if_it_fits(workload, machine, options, program);
  if (!report) return std::unexpected(report.error());
  if (report->verdict == Verdict::fits) return std::optional(std::move(*report));
  auto found = search_batch(workload, machine, options, fixed);
  if (!found) return std::unexpected(found.error());
  if (!*found) return std::optional<Report>();
  program = std::move((*found)->program);
  return std::optional(std::move((*found)->report));
}

// The fastest of the batches that fit: the largest, unless the model says that a smaller one fills the GPU's units better.
Result<Found> prefer_faster(Found found, const Machine& machine, const EstimateOptions& options) {
  if (!found.report.speed) return found;
  double best = found.report.speed->parts.seconds * kFaster;
  std::optional<Workload> faster;
  for (std::int64_t batch : legal_device_batches(found.report.workload)) {
    if (batch >= found.batch || 4 * batch < found.batch) continue;
    const auto w = with_device_batch(found.report.workload, batch);
    const auto speed = w ? estimate_speed(*w, machine, at_batch(found.program.work, batch)) : std::nullopt;
    if (!speed || speed->parts.seconds >= best) continue;
    best = speed->parts.seconds;
    faster = *w;
  }
  if (!faster) return found;
  Program program = build_program(*faster, target_of(machine), faster->run.grad_accum_steps > 1);
  auto report = estimate_if_it_fits(*faster, machine, options, program);
  if (!report) return std::unexpected(report.error());
  if (report->verdict != Verdict::fits) return found;
  return Found{faster->run.device_batch_size, std::move(*report), std::move(program)};
}

// Whether the flags fix the device batch; else it is searched for.
bool fixes_batch(const WorkloadFlags& flags) { return flags.device_batch_size.value_or(-1) != -1; }

Result<Workload> at_depth(WorkloadFlags flags, const Machine& machine, std::int64_t depth) {
  flags.depth = depth;
  flags.gpus = machine.gpus;
  flags.compute_major = capability_for_dtype(machine.gpu);
  if (!fixes_batch(flags)) flags.device_batch_size = -1;
  return make_nanochat_workload(flags);
}

// Where nothing fits: the least that was asked for, and what would change it.
Result<void> add_closest(PlanResult& result, const WorkloadFlags& flags, const Machine& machine, std::int64_t depth, EstimateOptions options) {
  const bool fixed = fixes_batch(flags);
  auto workload = at_depth(flags, machine, depth);
  if (!workload) return std::unexpected(workload.error());
  if (!fixed) workload = with_device_batch(*workload, legal_device_batches(*workload).back());
  if (!workload) return std::unexpected(workload.error());
  options.alternatives = true;
  auto report = estimate(*workload, machine, options);
  if (!report) return std::unexpected(report.error());
  const std::string batch = "a device batch of " + std::to_string(workload->run.device_batch_size);
  result.why = "nothing fits: " + std::string(flags.depth ? "" : "even ") + "depth " + std::to_string(depth) + (report->verdict == Verdict::wont_fit ? " is too large" : " is tight") +
               (fixed ? " with " + batch + ", as asked for" : flags.depth ? " even with " + batch : " with " + batch);
  result.closest = std::move(*report);
  return {};
}

Result<TableRow> table_row(const Machine& machine, std::int64_t depth, WorkloadFlags flags, const EstimateOptions& options) {
  flags.device_batch_size = -1;
  const auto workload = at_depth(flags, machine, depth);
  if (!workload) return std::unexpected(workload.error());
  const auto found = search_batch(*workload, machine, options);
  if (!found) return std::unexpected(found.error());
  TableRow row{machine.gpu.name, machine.usable(), depth, std::nullopt, std::nullopt};
  if (*found) row.device_batch_size = (*found)->batch, row.allocated = (*found)->report.allocated.bytes;
  return row;
}

}  // namespace

void go_over(const Loop& loop, std::size_t count, const std::function<bool(std::size_t)>& call) {
  if (loop) return loop(count, call);
  for (std::size_t i = 0; i < count && call(i); ++i) {}
}

Result<std::optional<LargestBatch>> largest_batch(const Workload& workload, const Machine& machine, const EstimateOptions& options) {
  if (workload.transformers) {
    auto found = search_device_batch(workload, machine, options);
    if (found && found->fits) found = confirm_device_batch(std::move(*found), machine, options);
    if (!found) return std::unexpected(found.error());
    return found->fits ? std::optional(LargestBatch{found->report.workload.run.device_batch_size, std::move(*found->program)}) : std::nullopt;
  }
  auto found = search_batch(workload, machine, options);
  if (!found) return std::unexpected(found.error());
  return *found ? std::optional(LargestBatch{(*found)->batch, std::move((*found)->program)}) : std::nullopt;
}

Result<std::optional<std::int64_t>> largest_device_batch(const Workload& workload, const Machine& machine, const EstimateOptions& options) {
  const auto found = largest_batch(workload, machine, options);
  if (!found) return std::unexpected(found.error());
  return *found ? std::optional((*found)->device_batch) : std::nullopt;
}

Result<PlanResult> plan(const WorkloadFlags& flags, const Machine& machine, const EstimateOptions& options) {
  PlanResult result;
  std::vector<std::int64_t> depths(std::begin(kLadder), std::end(kLadder));
  if (flags.depth) depths = {*flags.depth};
  const bool fixed = fixes_batch(flags);
  std::optional<Error> refused;
  std::optional<std::int64_t> too_large;
  struct Answer { std::optional<Error> refused; Result<std::optional<Found>> found; };
  std::vector<Answer> answers(depths.size());
  std::vector<Program> programs;  // of the plans
  const EstimateOptions quick = without_every_step(options);
  go_over(options.loop, depths.size(), [&](std::size_t i) {
    const auto workload = at_depth(flags, machine, depths[i]);
    if (workload) answers[i].found = search_batch(*workload, machine, quick, fixed);
    else answers[i].refused = workload.error();
    return !workload || (answers[i].found && *answers[i].found);  // where nothing fits, deeper models need more
  });
  for (std::size_t i = 0; i < answers.size(); ++i) {
    Answer& answer = answers[i];
    if (answer.refused) {
      if (!refused) refused = answer.refused;
      continue;
    }
    if (!answer.found) return std::unexpected(answer.found.error());
    if (!*answer.found) {
      too_large = depths[i];
      break;
    }
    auto best = fixed ? Result<Found>(std::move(**answer.found)) : prefer_faster(std::move(**answer.found), machine, quick);
    if (!best) return std::unexpected(best.error());
    result.plans.push_back(std::move(best->report));
    programs.push_back(std::move(best->program));
  }
  while (!result.plans.empty()) {
    result.chosen = 0;
    for (std::size_t i = 0; i < result.plans.size(); ++i) {
      if (fixed || result.plans[i].workload.run.device_batch_size >= kWorthwhileBatch) result.chosen = i;
    }
    Program& program = programs[result.chosen];
    if (!options.every_step || !program.steady) break;
    auto whole = confirm(result.plans[result.chosen].workload, machine, options, program, fixed);  // the answer itself is played to the end
    if (!whole) return std::unexpected(whole.error());
    if (*whole) {
      result.plans[result.chosen] = std::move(**whole);
      break;
    }
    too_large = result.plans[result.chosen].workload.model.depth;
    result.plans.erase(result.plans.begin() + static_cast<std::ptrdiff_t>(result.chosen));
    programs.erase(programs.begin() + static_cast<std::ptrdiff_t>(result.chosen));
  }
  if (result.plans.empty()) {
    if (!too_large) return std::unexpected(*refused);
    if (const auto ok = add_closest(result, flags, machine, *too_large, options); !ok) return std::unexpected(ok.error());
    return result;
  }
  if (const auto growing = growing_segments_of(result.plans[result.chosen], options, &programs[result.chosen])) result.plans[result.chosen].alternatives = {*growing};
  const Run& run = result.plans[result.chosen].workload.run;
  const bool largest = !result.plans[result.chosen].speed;
  result.why = flags.depth ? (largest ? "the largest device batch that fits" : "the fastest device batch that fits") : "the deepest model that fits with a device batch of at least " + std::to_string(kWorthwhileBatch);
  if (run.device_batch_size < kWorthwhileBatch && !flags.depth) result.why = "the deepest model that fits at all";
  if (fixed) result.why = flags.depth ? "the device batch that was asked for" : "the deepest model that fits with the device batch that was asked for";
  return result;
}

Result<std::vector<Offer>> offers(const WorkloadFlags& flags, std::span<const Price> prices, const EstimateOptions& options) {
  struct Answer { std::optional<Error> error; std::optional<Report> report; };
  std::vector<Answer> answers(prices.size());
  go_over(options.loop, prices.size(), [&](std::size_t i) {
    const auto machine = machine_from_flags({prices[i].gpu, prices[i].gpus, std::nullopt, std::nullopt});
    if (!machine || !rates_of(machine->gpu)) return true;
    const auto workload = at_depth(flags, *machine, flags.depth.value_or(20));
    if (!workload) {
      if (workload.error().code != "illegal_batch" && workload.error().code != "illegal_gpus") answers[i].error = workload.error();
      return !answers[i].error;
    }
    auto found = search_batch(*workload, *machine, without_every_step(options), fixes_batch(flags));
    if (!found) answers[i].error = found.error();
    else if (*found && (*found)->report.speed) answers[i].report = std::move((*found)->report);
    return true;
  });
  std::vector<Offer> out;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (answers[i].error) return std::unexpected(*answers[i].error);
    if (!answers[i].report) continue;
    answers[i].report->speed->price = prices[i];
    if (answers[i].report->speed->horizon_usd(prices[i].gpus)) out.push_back({prices[i], std::move(*answers[i].report), false});
  }
  rank_offers(out);
  return out;
}

Result<std::vector<TableRow>> table(const std::vector<Machine>& machines, const std::vector<std::int64_t>& depths, const WorkloadFlags& flags, const EstimateOptions& options) {
  std::vector<std::optional<Result<TableRow>>> answers(machines.size() * depths.size());
  go_over(options.loop, answers.size(), [&](std::size_t i) {
    answers[i] = table_row(machines[i / depths.size()], depths[i % depths.size()], flags, without_every_step(options));
    return answers[i]->has_value();
  });
  std::vector<TableRow> rows;
  for (auto& answer : answers) {
    if (!*answer) return std::unexpected(answer->error());
    rows.push_back(std::move(**answer));
  }
  return rows;
}

}  // namespace dryfit
