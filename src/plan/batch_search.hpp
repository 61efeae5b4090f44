// The largest device batch of a transformers run that fits a machine. nanochat's search is another (search.cpp): its batches are powers of two.
#pragma once

#include "plan/plan.hpp"

namespace dryfit {

struct BatchFound {
  bool fits = false;
  Report report;             // of the largest batch that fits; where none does, of the smallest
  std::optional<Program> program = {};  // where one was built for the report's batch
};

// By bisection on programs scaled to each batch, one for each way that steps are laid out (layout_of). The report's tensors have the shapes of the batch
// that was built. fixed: the workload's own batch is the only one, and is built. Errors: "unsupported_training".
Result<BatchFound> search_device_batch(const Workload& workload, const Machine& machine, const EstimateOptions& options, bool fixed = false);

// The same answer from programs built for its own batch, which fits, and for the next larger of legal_device_batches, which does not.
Result<BatchFound> confirm_device_batch(BatchFound found, const Machine& machine, const EstimateOptions& options);

}  // namespace dryfit
