// See transformers_plan.hpp. Which machine to rent is in rent.cpp.
#include "plan/transformers_plan.hpp"

#include <algorithm>
#include <tuple>

#include "plan/alternatives.hpp"
#include "plan/batch_search.hpp"
#include "plan/rent.hpp"
#include "plan/static_sums.hpp"
#include "plan/ways.hpp"

namespace dryfit {

namespace {

constexpr double kAsFast = 1.005;  // of the time a token: the way that comes first is as good

Result<Candidate> candidate(Method method, Result<BatchFound> found) {
  if (!found) return std::unexpected(found.error());
  return Candidate{method, found->fits, std::move(found->report)};
}

Result<Candidate> candidate(const HfModel& model, const Way& way, const Machine& machine, const EstimateOptions& options) {
  const auto workload = workload_of(model, way, machine);
  if (!workload) return std::unexpected(workload.error());
  auto outlook = outlook_of(*workload, machine, options);
  if (!outlook) return std::unexpected(outlook.error());
  if (outlook->hopeless) return Candidate{way.method, false, std::move(*outlook->hopeless), true};
  return candidate(way.method, search_device_batch(*workload, machine, options, {way.fixed_batch, outlook->fixed}));
}

// Every way of one method that is laid out.
struct Tried { std::vector<Candidate> candidates; std::optional<Error> refused; };
Tried try_method(const HfModel& model, const TransformersFlags& flags, Method method, const Machine& machine, const EstimateOptions& options) {
  const std::vector<Way> ways = ways_of(flags, method, machine);
  std::vector<Result<Candidate>> answers(ways.size());
  go_over(options.loop, ways.size(), [&](std::size_t i) {
    answers[i] = candidate(model, ways[i], machine, options);
    return true;
  });
  Tried out;
  for (auto& answer : answers) {
    if (answer) out.candidates.push_back(std::move(*answer));
    else if (!out.refused) out.refused = answer.error();
  }
  return out;
}

// Of those that fit from `first` on: the fastest; where that is not known of all, the first.
std::optional<std::size_t> best_of(const std::vector<Candidate>& candidates, std::size_t first) {
  std::optional<std::size_t> earliest;
  double least = 0;
  bool known = true;
  for (std::size_t i = first; i < candidates.size(); ++i) {
    const Candidate& c = candidates[i];
    if (!c.fits) continue;
    known = known && c.seconds_per_token();
    if (known) least = earliest ? std::min(least, *c.seconds_per_token()) : *c.seconds_per_token();
    if (!earliest) earliest = i;
  }
  if (!earliest || !known) return earliest;
  for (std::size_t i = *earliest;; ++i) {
    if (candidates[i].fits && *candidates[i].seconds_per_token() <= least * kAsFast) return i;
  }
}

std::string reason(const TransformersPlan& plan, const std::vector<Method>& methods) {
  const Candidate& chosen = plan.candidates[*plan.chosen];
  std::string out = chosen.method == methods.front() ? "" : std::string(name_of(chosen.method)) + ", as nothing that trains more fits; ";
  const auto fitting = std::ranges::count_if(plan.candidates, &Candidate::fits);
  if (fitting == 1) return out + "the only way that fits";
  return out + (chosen.seconds_per_token() ? "the fastest of the ways that fit" : "of the ways that fit the one with the least recomputation, then the least communication");
}

// The argument whose change makes the nearest way of a method fit: one that leaves the training as it is before one that does not.
std::optional<Alternative> change_of(const std::vector<Candidate>& candidates, Method method, EstimateOptions options) {
  const Candidate* nearest = nullptr;
  for (const Candidate& c : candidates) {
    if (c.method == method && (nearest == nullptr || std::tuple(c.at_least, c.report.process.bytes) < std::tuple(nearest->at_least, nearest->report.process.bytes))) nearest = &c;
  }
  if (nearest == nullptr) return std::nullopt;
  options.alternatives = true;
  auto report = estimate(nearest->report.workload, nearest->report.machine, options);
  if (!report) return std::nullopt;
  std::erase_if(report->alternatives, [](const Alternative& a) { return a.change.front().first == "--lora-rank"; });  // another method
  const Alternative* change = smallest_change(*report);
  return change != nullptr ? std::optional(*change) : std::nullopt;
}

// The first way that fits with its states on the host, at its largest device batch.
std::optional<Alternative> on_host(const HfModel& model, const TransformersFlags& flags, Method method, const Machine& machine, const EstimateOptions& options) {
  for (const Way& way : ways_on_host(flags, method, machine)) {
    const auto found = candidate(model, way, machine, options);
    if (!found || !found->fits) continue;
    const Training& t = found->report.workload.transformers->training;
    std::vector<std::pair<std::string, std::string>> change{{"--parallel", std::string(name_of(t.sharding))}, {"--offload", ""}, {"--device-batch-size", std::to_string(found->report.workload.run.device_batch_size)}};
    if (t.recompute == Recompute::full) change.insert(change.begin(), {"--recompute", "full"});
    Workload on_gpus = found->report.workload;
    on_gpus.transformers->training.offload_optimizer = on_gpus.transformers->training.offload_parameters = false;
    const auto sum = [](const StaticBytes& s) { return s.weights + s.gradients + s.optimizer; };
    const Bytes host = (sum(static_bytes(on_gpus)) - sum(static_bytes(found->report.workload))) * t.world_size;
    Alternative out = alternative(std::move(change), found->report, true, "states on the host, some " + std::to_string(ceil_div(host.count, std::int64_t{1} << 30)) + " GiB of it; slow");
    out.command = found->report.command;
    return out;
  }
  return std::nullopt;
}

}  // namespace

std::string_view name_of(Method method) {
  switch (method) {
    case Method::full: return "full";
    case Method::lora: return "lora";
    case Method::qlora: return "qlora";
  }
  return "";
}

Method method_of(const Training& t) { return t.quantized ? Method::qlora : t.lora ? Method::lora : Method::full; }

std::optional<double> Candidate::seconds_per_token() const { return report.speed ? std::optional(1 / report.speed->tokens_per_second) : std::nullopt; }

std::optional<double> Candidate::least_seconds_per_token() const {
  return report.speed ? std::optional(report.speed->parts.roofline / static_cast<double>(report.workload.run.total_batch_size)) : std::nullopt;
}

Result<TransformersPlan> plan_transformers(const HfModel& model, const TransformersFlags& flags, const Machine& machine, const EstimateOptions& options) {
  TransformersPlan plan;
  std::optional<Error> refused;
  const std::vector<Method> methods = methods_of(flags);
  std::vector<Method> tried;
  std::optional<Program> built;  // for the chosen one, where its batch was searched
  for (Method method : methods) {
    const std::size_t first = plan.candidates.size();
    Tried some = try_method(model, flags, method, machine, options);
    if (some.candidates.empty()) {
      if (!refused) refused = some.refused;
      continue;
    }
    std::ranges::move(some.candidates, std::back_inserter(plan.candidates));
    plan.chosen = best_of(plan.candidates, first);
    while (plan.chosen && flags.device_batch_size.value_or(-1) == -1) {
      Candidate& best = plan.candidates[*plan.chosen];
      auto found = confirm_device_batch({best.fits, best.report}, machine, options);
      if (found) built = std::move(found->program);
      auto confirmed = candidate(method, std::move(found));
      if (!confirmed) return std::unexpected(confirmed.error());
      best = std::move(*confirmed);
      if (best.fits) break;
      plan.chosen = best_of(plan.candidates, first);
    }
    if (plan.chosen) break;
    tried.push_back(method);
  }
  if (plan.candidates.empty()) return std::unexpected(*refused);
  plan.why = plan.chosen ? reason(plan, methods) : "nothing fits";
  if (plan.chosen) {
    Report& best = plan.candidates[*plan.chosen].report;
    if (const auto growing = growing_segments_of(best, options, built ? &*built : nullptr)) best.alternatives = {*growing};
    warn_of_filled_rows(best, options);
  }
  plan.missed.resize(tried.size());
  go_over(options.loop, 3 * tried.size(), [&](std::size_t i) {
    Missed& missed = plan.missed[i / 3];
    missed.method = tried[i / 3];
    if (i % 3 == 2) missed.on_host = on_host(model, flags, missed.method, machine, options);
    else if (i % 3 == 0) missed.change = change_of(plan.candidates, missed.method, options);
    else missed.rent = cheapest_machine(model, flags, missed.method, options);
    return true;
  });
  return plan;
}

BestWays best_ways(const HfModel& model, const TransformersFlags& flags, std::span<const Machine> machines, const EstimateOptions& options) {
  BestWays out{std::vector<std::optional<Candidate>>(machines.size()), {}};
  std::optional<Error> refused;
  bool laid_out = false;
  StaticSums sums;
  for (Method method : methods_of(flags)) {
    std::vector<std::vector<Candidate>> candidates(machines.size());
    for (const Way& way : ways_of(flags, method, machines.front())) {
      const auto w = workload_of(model, way, machines.front());
      SharedLayouts shared;
      for (std::size_t i = 0; i < machines.size(); ++i) {
        if (out.of[i]) continue;
        const bool too_large = w && least_bytes(*w, sums.of(*w)) > most_that_may_fit(*w, machines[i], options);
        auto found = !w ? std::unexpected(w.error()) : too_large ? Result<BatchFound>(BatchFound{}) : search_device_batch(*w, machines[i], options, {way.fixed_batch, sums.of(*w), &shared});
        if (!found && !refused) refused = found.error();
        laid_out = laid_out || found;
        if (found && found->fits) candidates[i].push_back({method, true, std::move(found->report)});
      }
    }
    for (std::size_t i = 0; i < machines.size(); ++i) {
      if (const auto best = best_of(candidates[i], 0)) out.of[i] = std::move(candidates[i][*best]);
    }
  }
  if (!laid_out) out.refused = refused;
  return out;
}

Result<std::vector<TableRow>> table_transformers(const HfModel& model, const TransformersFlags& flags, const std::vector<Machine>& machines, const EstimateOptions& options) {
  struct Cell { const Machine* machine; std::vector<Way> ways; Result<std::optional<TableRow>> row; };
  std::vector<Cell> cells;
  for (const Machine& machine : machines) {
    for (Method method : methods_of(flags)) {
      std::vector<Way> ways = ways_of(flags, method, machine);
      for (Recompute recompute : {Recompute::none, Recompute::full}) {
        std::vector<Way> same;
        std::ranges::copy_if(ways, std::back_inserter(same), [&](const Way& w) { return w.flags.recompute.value_or(Recompute::none) == recompute; });
        // all weights are shared out where that is laid out, adapters are few
        std::ranges::stable_sort(same, {}, [&](const Way& w) { return method == Method::full && w.flags.sharding != Sharding::fsdp2 ? w.flags.sharding == Sharding::zero3 ? 1 : 2 : 0; });
        if (!same.empty()) cells.push_back({&machine, std::move(same), std::optional<TableRow>()});
      }
    }
  }
  std::optional<Error> refused;
  go_over(options.loop, cells.size(), [&](std::size_t i) {
    Cell& cell = cells[i];
    for (const Way& way : cell.ways) {
      const auto found = candidate(model, way, *cell.machine, options);
      if (!found) {
        cell.row = std::unexpected(found.error());
        continue;
      }
      const Training& t = found->report.workload.transformers->training;
      TableRow row{cell.machine->gpu.name, cell.machine->usable(), found->report.workload.model.depth, std::nullopt, std::nullopt, TableRow::Way{std::string(name_of(found->method)), t.recompute, t.sharding}};
      if (found->fits) row.device_batch_size = found->report.workload.run.device_batch_size, row.allocated = found->report.allocated.bytes;
      if (found->fits && found->report.speed) row.tokens_per_second = found->report.speed->tokens_per_second;
      cell.row = std::optional(std::move(row));
      break;
    }
    return true;
  });
  std::vector<TableRow> rows;
  for (Cell& cell : cells) {
    if (!cell.row && !refused) refused = cell.row.error();
    if (cell.row && *cell.row) rows.push_back(std::move(**cell.row));
  }
  if (rows.empty()) return std::unexpected(*refused);
  return rows;
}

}  // namespace dryfit
