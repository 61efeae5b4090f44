// See speed_estimate.hpp.
#include "plan/speed_estimate.hpp"

#include <algorithm>

#include "base/embedded.hpp"
#include "base/text.hpp"
#include "workload/data_loader.hpp"
#include "workload/scripts.hpp"

namespace dryfit {

SpeedBand speed_band(std::string_view family) {
  for (std::string_view line : split(embedded_speed_intervals_csv, '\n')) {
    const auto f = split(line, ',');
    if (f.size() < 3 || f[0] != family) continue;
    return {parse_real(f[1], "").value_or(0.5), parse_real(f[2], "").value_or(0.5)};
  }
  return {0.5, 0.5};
}

std::optional<double> SpeedEstimate::horizon_seconds() const { return horizon ? std::optional(static_cast<double>(horizon->iterations) * step_seconds) : std::nullopt; }

std::optional<double> SpeedEstimate::horizon_usd(std::int64_t gpus) const {
  const auto seconds = horizon_seconds();
  return seconds && price ? std::optional(*seconds / 3600 * price->usd_per_gpu_hour * static_cast<double>(gpus)) : std::nullopt;
}

std::optional<double> SpeedEstimate::usd_per_million_tokens(std::int64_t gpus) const {
  return price ? std::optional(1e6 / tokens_per_second / 3600 * price->usd_per_gpu_hour * static_cast<double>(gpus)) : std::nullopt;
}

std::optional<SpeedEstimate> estimate_speed(const Workload& workload, const Machine& machine, const StepWork& work, const SpeedSources& sources) {
  const auto rates = sources.rates != nullptr ? std::optional(*sources.rates) : rates_of(machine.gpu);
  const Run& run = workload.run;
  if (trains_on_rows(workload)) return std::nullopt;  // rollouts, and rows as long as they come: not the step's time
  if (workload.captured || (workload.transformers && work.laid_out.empty())) return std::nullopt;
  if (!rates || run.world_size > rates->link_gpus || (run.world_size > 1 && rates->link <= 0) || gemm_rate(*rates, run.compute) <= 0) return std::nullopt;
  SpeedEstimate out;
  const double loader = loader_seconds(workload);
  const auto timed = [&](double factor) { return time_step(work, *rates, run.world_size, run.grad_accum_steps, run.compute, run.compile, loader * factor); };
  out.parts = timed(1);
  out.step_seconds = out.parts.seconds;
  const double tokens = static_cast<double>(run.total_batch_size);
  out.tokens_per_second = tokens / out.step_seconds;
  const SpeedBand band = speed_band(workload.transformers ? "transformers" : "all");
  out.low = (loader > 0 ? tokens / timed(kSlowHost).seconds : out.tokens_per_second) * (1 - band.below);
  out.high = (out.parts.loading > 0 ? tokens / timed(kFastHost).seconds : out.tokens_per_second) * (1 + band.above);
  if (sources.calibration != nullptr) {
    if (const auto learned = learned_speed(*sources.calibration, machine.gpu.name, configuration_of(workload)); learned && learned->tokens_per_second > 0) {
      out.tokens_per_second = learned->tokens_per_second;
      out.step_seconds = tokens / learned->tokens_per_second;
      out.low = learned->low.value_or(out.tokens_per_second * (1 - band.below));
      out.high = learned->high.value_or(out.tokens_per_second * (1 + band.above));
      out.provenance = Provenance::calibrated;
    }
  }
  const auto logged = workload.transformers ? std::nullopt : logged_peak_flops(machine.gpu.name, workload.model.version);
  const double peak = logged.value_or(rates->bf16_peak);
  if (peak > 0) out.mfu = (workload.transformers ? transformers_flops_per_token(workload) : flops_per_token(workload)) * out.tokens_per_second / (peak * static_cast<double>(run.world_size));
  if (workload.transformers) {
    out.horizon = transformers_horizon(workload);
  } else if (run.script == Script::base_train) {  // fine-tuning ends with its data
    if (const auto horizon = horizon_of(workload)) out.horizon = *horizon;
  }
  out.price = price_of(sources.prices != nullptr ? std::span<const Price>(*sources.prices) : known_prices(), machine.gpu, run.world_size);
  return out;
}

}  // namespace dryfit
