// See rent.hpp.
#include "plan/rent.hpp"

#include <algorithm>

#include "plan/batch_search.hpp"
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

// What weights, gradients and states take, asked once for runs that share it.
class StaticSums {
 public:
  Bytes of(const Workload& w) {
    const Training& t = w.transformers->training;
    for (const auto& [known, sum] : known_) {
      if (known.sharding == t.sharding && known.world_size == t.world_size && known.mixed == t.mixed && known.weights == t.weights) return sum;
    }
    const StaticBytes s = static_bytes(w);
    known_.emplace_back(t, s.weights + s.gradients + s.optimizer);
    return known_.back().second;
  }

 private:
  std::vector<std::pair<Training, Bytes>> known_;
};

}  // namespace

std::optional<Rent> cheapest_machine(const HfModel& model, const TransformersFlags& flags, Method method, const EstimateOptions& options) {
  StaticSums sums;
  TransformersFlags given = flags;
  if (!given.recompute && given.framework != Framework::litgpt && given.framework != Framework::torchtune) given.recompute = Recompute::full;  // needs least
  if (given.device_batch_size.value_or(-1) == -1) given.device_batch_size = 1;
  for (const Offered& offered : machines_of(options.prices != nullptr ? std::span<const Price>(*options.prices) : known_prices())) {
    for (const Way& way : ways_of(given, method, offered.machine)) {
      const auto w = workload_of(model, way, offered.machine);
      if (!w) continue;
      const int major = offered.machine.gpu.compute_major;
      if (w->run.compute == Dtype::bf16 && major > 0 && major < 8) continue;  // has no tensor cores for it
      if (sums.of(*w) > offered.machine.usable()) continue;
      auto found = search_device_batch(*w, offered.machine, options, true);
      if (found && found->fits) return Rent{offered.price, std::move(found->report)};
    }
  }
  return std::nullopt;
}

}  // namespace dryfit
