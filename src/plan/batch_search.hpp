// The largest device batch of a transformers run that fits a machine. nanochat's search is another (search.cpp): its batches are powers of two.
#pragma once

#include <memory>
#include <vector>

#include "memory/timeline.hpp"
#include "plan/plan.hpp"

namespace dryfit {

struct BatchFound {
  bool fits = false;
  Report report;             // of the largest batch that fits; where none does, of the smallest
  std::optional<Program> program = {};  // where one was built for the report's batch
};

// What searches of one workload lay out, for machines on which it is laid out alike (passes/program.hpp).
class SharedLayouts {
 public:
  struct LaidOut { Program program; Envelope envelope; };
  using Answer = Result<std::shared_ptr<LaidOut>>;
  Answer of(const Workload& workload, const Target& target, const std::optional<StaticBytes>& fixed);

 private:
  struct Known { std::int64_t device_batch, grad_accum_steps; Answer laid_out; };
  std::vector<Known> known_;
};

struct SearchOf {
  bool own_batch = false;                 // the workload's own batch is the only one, and is built
  std::optional<StaticBytes> fixed = {};  // of the workload, where they are known
  SharedLayouts* shared = nullptr;        // layouts are taken from there, and of what does not fit only that is said
};

// By bisection on programs scaled to each batch, one for each way that steps are laid out (layout_of). The report's tensors have the shapes of the batch
// that was built. Errors: "unsupported_training".
Result<BatchFound> search_device_batch(const Workload& workload, const Machine& machine, const EstimateOptions& options, SearchOf of = {});

// The same answer from a program built for its own batch.
Result<BatchFound> confirm_device_batch(BatchFound found, const Machine& machine, const EstimateOptions& options);

}  // namespace dryfit
