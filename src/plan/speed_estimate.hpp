// The speed of one workload on one machine as the report has it: from the model of speed/, or learned from the machine's own runs.
#pragma once

#include <optional>
#include <string>

#include "machine/machine.hpp"
#include "passes/program.hpp"
#include "plan/calibration.hpp"
#include "speed/nanochat_rules.hpp"
#include "speed/prices.hpp"
#include "speed/step_time.hpp"
#include "speed/transformers_rules.hpp"

namespace dryfit {

struct SpeedEstimate {
  double step_seconds = 0, tokens_per_second = 0;  // of all GPUs together
  double low = 0, high = 0;          // 95 % interval of tokens_per_second
  std::optional<double> mfu;         // 0..1, as nanochat prints it, of transformers runs by PaLM's arithmetic; of the catalogue's bf16 peak where nanochat does not know the card
  Provenance provenance = Provenance::modelled;
  StepTime parts;                    // as modelled
  std::optional<Horizon> horizon;    // by nanochat's rule, or as far as a transformers run is told
  std::optional<Price> price;        // of one of these GPUs, where known
  std::optional<double> horizon_seconds() const;  // training steps alone: no evaluation, no compilation
  std::optional<double> horizon_usd(std::int64_t gpus) const;
  std::optional<double> usd_per_million_tokens(std::int64_t gpus) const;
};

// Fractions of the prediction, from data/speed_intervals.csv (written by dryfit-accuracy --speed): "all" of nanochat, "transformers".
struct SpeedBand { double below, above; };
SpeedBand speed_band(std::string_view family);

// What the speed depends on beside the workload and the GPU. Not owned.
struct SpeedSources {
  const Calibration* calibration = nullptr;
  const std::vector<Price>* prices = nullptr;  // none: the embedded ones
  const GpuRates* rates = nullptr;             // none: the GPU's
};

// Empty where the GPU's rates are not known, for more GPUs than its links join (no model of networks between nodes), and where no work was told:
// Megatron-LM's runs, captured ones.
std::optional<SpeedEstimate> estimate_speed(const Workload& workload, const Machine& machine, const StepWork& work, const SpeedSources& sources = {});

}  // namespace dryfit
