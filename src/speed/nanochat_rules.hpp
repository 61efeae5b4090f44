// nanochat's own arithmetic about speed, digit for digit by version: FLOPs per token, the peak its MFU divides by, how long it trains.
// Source: estimate_flops (nanochat/gpt.py), get_peak_flops (nanochat/common.py), scripts/base_train.py.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "workload/workload.hpp"

namespace dryfit {

// "Estimated FLOPs per token": 6 per parameter of a matrix product, 12 H h per key that a layer's window shows.
double flops_per_token(const Workload& workload);

// FLOP/s of one GPU that `mfu` is measured against; empty: this nanochat does not know the card and prints 0.
// device_name: as torch.cuda.get_device_name gives it.
std::optional<double> logged_peak_flops(std::string_view device_name, const NanochatVersion& version);

// How long the run trains: --num-iterations, else --target-flops, else --target-param-data-ratio, in that order, as the command gives
// them (Workload::passthrough) or by the version's default ratio.
struct Horizon {
  std::int64_t iterations = 0;
  double tokens = 0;
  std::string rule;                  // "ratio 12", "--num-iterations", "--target-flops"
};
// Errors: "bad_number" where one of the three flags is no number; "bad_value" where none of them gives a step.
Result<Horizon> horizon_of(const Workload& workload);

}  // namespace dryfit
