// See rent.hpp.
#include "plan/rent.hpp"

#include <algorithm>
#include <cmath>

#include "plan/batch_search.hpp"
#include "plan/static_sums.hpp"
#include "plan/ways.hpp"

namespace dryfit {

namespace {

struct Offered { Price price; Machine machine; };

// By what an hour of it costs.
std::vector<Offered> machines_of(std::span<const Price> prices) {
  std::vector<Offered> out;
  std::vector<std::string_view> seen;
  for (const Price& p : prices) {
    if (std::ranges::find(seen, p.gpu) != seen.end()) continue;
    seen.push_back(p.gpu);
    for (std::int64_t gpus : {1, 2, 4, 8}) {
      auto machine = machine_from_flags({p.gpu, gpus, std::nullopt, std::nullopt});
      if (!machine) break;
      if (const auto price = price_of(prices, machine->gpu, gpus)) out.push_back({*price, std::move(*machine)});
    }
  }
  std::ranges::stable_sort(out, {}, [](const Offered& o) { return o.price.usd_per_gpu_hour * static_cast<double>(o.machine.gpus); });
  return out;
}

std::span<const Price> prices_of(const EstimateOptions& options) { return options.prices != nullptr ? std::span<const Price>(*options.prices) : known_prices(); }

double seconds_of(const Offer& o) { return o.report.speed->horizon_seconds().value_or(1 / o.report.speed->tokens_per_second); }
double usd_of(const Offer& o) { return o.report.speed->horizon_usd(o.report.machine.gpus).value_or(*o.report.speed->usd_per_million_tokens(o.report.machine.gpus)); }

// Steps say how many tokens only where all machines make the same of one.
Result<void> same_tokens_everywhere(const TransformersFlags& f) {
  const bool same_step = f.total_batch_size || (f.gpus && f.device_batch_size.value_or(-1) != -1);
  if (!f.max_steps || same_step) return {};
  return fail("bad_value", "--max-steps tells no tokens where each machine takes a step of its own", "give --max-tokens N, or --total-batch-size too", "--max-steps");
}

// Ranked.
std::vector<Offer> offers_of_method(std::span<Candidate* const> fitting, Method method, std::span<const Price> prices) {
  std::vector<Offer> out;
  for (const Price& price : prices) {
    for (const Candidate* c : fitting) {
      const Machine& m = c->report.machine;
      if (c->method != method || m.gpu.name != price.gpu || m.gpus % price.gpus != 0) continue;
      out.push_back({price, c->report, false});
      out.back().report.speed->price = price;
    }
  }
  rank_offers(out);
  return out;
}

// Machines that one layout of each way serves; those with the most GPUs, which take longest, come first.
struct Alike { std::vector<Machine> machines; BestWays best; };

bool alike(const Machine& a, const Machine& b, const TransformersFlags& f) {
  const bool same_precision = a.gpu.compute_major == b.gpu.compute_major || (a.gpu.compute_major >= 8 && b.gpu.compute_major >= 8);  // workload_of
  return a.gpus == b.gpus && same_precision && laid_out_alike(target_of(a), target_of(b), f.liger.value_or(f.liger_parts.value_or(LigerParts()).any()) || f.compile.value_or(false), f.torch.value_or(Training().torch));
}

std::vector<Alike> machines_to_ask(std::span<const Price> prices, const TransformersFlags& f) {
  std::vector<Alike> out;
  for (std::int64_t gpus : f.gpus ? std::vector<std::int64_t>{*f.gpus} : std::vector<std::int64_t>{8, 4, 2, 1}) {
    std::vector<std::string_view> seen;
    for (const Price& p : prices) {
      if (gpus % p.gpus != 0 || std::ranges::find(seen, p.gpu) != seen.end()) continue;
      seen.push_back(p.gpu);
      auto machine = machine_from_flags({p.gpu, gpus, std::nullopt, std::nullopt});
      if (!machine || !rates_of(machine->gpu)) continue;
      auto group = std::ranges::find_if(out, [&](const Alike& g) { return alike(g.machines.front(), *machine, f); });
      if (group == out.end()) group = out.insert(out.end(), Alike{});
      group->machines.push_back(std::move(*machine));
    }
  }
  for (Alike& g : out) std::ranges::stable_sort(g.machines, {}, &Machine::usable);  // the smallest is laid out, whose loader is the most modest
  return out;
}

}  // namespace

std::optional<Rent> cheapest_machine(const HfModel& model, const TransformersFlags& flags, Method method, const EstimateOptions& options) {
  StaticSums sums;
  TransformersFlags given = flags;
  const bool full_needs_least = !given.compile.value_or(false) && given.framework.value_or(Framework::transformers) == Framework::transformers;  // compiled, some run without checkpoints alone
  if (full_needs_least && !given.recompute) given.recompute = Recompute::full;
  if (given.device_batch_size.value_or(-1) == -1) given.device_batch_size = least_device_batch(given.rollouts, 1, given.grad_accum_steps.value_or(1));
  for (const Offered& offered : machines_of(prices_of(options))) {
    for (const Way& way : ways_of(given, method, offered.machine)) {
      const auto w = workload_of(model, way, offered.machine);
      if (!w) continue;
      const int major = offered.machine.gpu.compute_major;
      if (w->run.compute == Dtype::bf16 && major > 0 && major < 8) continue;  // has no tensor cores for it
      if (least_bytes(*w, sums.of(*w)) > offered.machine.usable()) continue;
      auto found = search_device_batch(*w, offered.machine, options, {true, sums.of(*w)});
      if (found && found->fits) return Rent{offered.price, std::move(found->report)};
    }
  }
  return std::nullopt;
}

void rank_offers(std::span<Offer> offers) {
  std::ranges::stable_sort(offers, [](const Offer& a, const Offer& b) { return seconds_of(a) != seconds_of(b) ? seconds_of(a) < seconds_of(b) : usd_of(a) < usd_of(b); });
  double cheapest = INFINITY;
  for (Offer& o : offers) {
    o.best = usd_of(o) < cheapest;
    cheapest = std::min(cheapest, usd_of(o));
  }
}

Result<std::vector<Offer>> offers_transformers(const HfModel& model, const TransformersFlags& flags, const EstimateOptions& options) {
  if (const auto ok = same_tokens_everywhere(flags); !ok) return std::unexpected(ok.error());
  const std::span<const Price> prices = prices_of(options);
  std::vector<Alike> groups = machines_to_ask(prices, flags);
  EstimateOptions alone = options;
  alone.loop = {};
  go_over(options.loop, groups.size(), [&](std::size_t i) {
    groups[i].best = best_ways(model, flags, groups[i].machines, alone);
    return true;
  });
  std::vector<Candidate*> fitting;
  for (Alike& g : groups) {
    for (auto& best : g.best.of) {
      if (best && best->report.speed) fitting.push_back(&*best);
    }
  }
  const auto listed = [&] {
    std::vector<Offer> out;
    for (Method method : {Method::full, Method::lora, Method::qlora}) {
      const std::vector<Offer> all = offers_of_method(fitting, method, prices);
      std::ranges::copy_if(all, std::back_inserter(out), [&](const Offer& o) {
        return o.best || std::ranges::none_of(all, [&](const Offer& other) { return other.price == o.price && usd_of(other) < usd_of(o); });
      });
    }
    return out;
  };
  std::vector<Offer> out = listed();
  if (flags.device_batch_size.value_or(-1) == -1) {  // confirmed as plan's choice is: the batches of those that are listed
    std::erase_if(fitting, [&](const Candidate* c) { return std::ranges::none_of(out, [&](const Offer& o) { return o.report.machine.gpu.name == c->report.machine.gpu.name && o.report.machine.gpus == c->report.machine.gpus; }); });
    go_over(options.loop, fitting.size(), [&](std::size_t i) {
      auto found = confirm_device_batch({true, fitting[i]->report}, fitting[i]->report.machine, alone);
      if (found && found->fits) fitting[i]->report = std::move(found->report);
      return true;
    });
    out = listed();
  }
  if (!out.empty()) return out;
  for (const Alike& g : groups) {
    if (g.best.refused) return std::unexpected(*g.best.refused);
  }
  return out;
}

}  // namespace dryfit
