// The questions dryfit answers, as functions of values: estimate one run, search for the largest batch, plan, table.
#pragma once

#include <functional>
#include <span>

#include "plan/calibration.hpp"
#include "plan/report.hpp"

namespace dryfit {

// Calls the function with 0 .. count-1, each call alone; after one returned false, later indices may be left out.
using Loop = std::function<void(std::size_t count, const std::function<bool(std::size_t)>& call)>;

// The call for every index through the loop, or where it is empty in order.
void go_over(const Loop& loop, std::size_t count, const std::function<bool(std::size_t)>& call);

struct EstimateOptions {
  std::optional<AllocatorConfig> allocator;  // none: what nanochat sets, where it takes effect
  bool alternatives = false;        // fill Report::alternatives
  bool timeline = false;            // fill Report::timeline
  bool every_step = true;           // play all steps between two evaluations, not only those that are laid out (simulate_reserved); matters for nanochat on several GPUs
  bool neighbours = false;          // warn of runs beside this one: the chat_sft that follows it, rows that are filled up
  Loop loop = {};                   // how plan and table go over their searches; empty: one after the other
  const Calibration* calibration = nullptr;  // constants learned on this machine; not owned
  const std::vector<Price>* prices = nullptr;  // the user's own; none: the embedded ones; not owned
};

// 95 % interval of the allocated peak around the derived one, from data/intervals.csv (written by dryfit-accuracy).
// late_peak: the peak stands among gradients, after the head's, where the passes are near and not equal.
struct ErrorBand { double below, above; };  // fractions of the prediction
ErrorBand error_band(const Workload& workload, bool late_peak);

Target target_of(const Machine& machine);

// Allocated bytes beyond which no run is called fitting: usable memory without the most that lies outside the allocator, and a reserve.
Bytes most_that_may_fit(const Machine& machine, const OutsideMemory& outside);
// The same of a workload on it, by what its options know of the machine.
Bytes most_that_may_fit(const Workload& workload, const Machine& machine, const EstimateOptions& options);

// The whole account of one workload on one machine.
Result<Report> estimate(const Workload& workload, const Machine& machine, const EstimateOptions& options = {});

// What rows that are filled up to the longest take more, where nobody said whether they are: a warning.
void warn_of_filled_rows(Report& report, const EstimateOptions& options);

// The same for a program already built for this workload and machine.
Result<Report> estimate_program(const Workload& workload, const Machine& machine, const EstimateOptions& options, const Program& program);

// For the search: no alternatives, no timeline, and of a run that does not fit only the verdict is filled in.
// program: built for this workload and machine.
Result<Report> estimate_if_it_fits(const Workload& workload, const Machine& machine, const EstimateOptions& options, const Program& program);

// What is known of a transformers run without a program: what lives through it, and where that alone is more than the machine has, a report of its sum. Neither of
// Megatron-LM's runs, nor where not all of it lives at once (torchtune's optimizer in backward). Errors: "unsupported_training".
struct Outlook { std::optional<StaticBytes> fixed; std::optional<Report> hopeless; };
Result<Outlook> outlook_of(const Workload& workload, const Machine& machine, const EstimateOptions& options);

// Largest legal device batch whose verdict is at least `fits`, and the program built for it; none when batch 1 does not fit.
struct LargestBatch { std::int64_t device_batch; Program program; };
Result<std::optional<LargestBatch>> largest_batch(const Workload& workload, const Machine& machine, const EstimateOptions& options = {});
Result<std::optional<std::int64_t>> largest_device_batch(const Workload& workload, const Machine& machine, const EstimateOptions& options = {});

// What should I run? With a depth: the best batches for it. Without: every depth of the ladder that fits, best batch each.
Result<PlanResult> plan(const WorkloadFlags& flags, const Machine& machine, const EstimateOptions& options = {});

// One way to rent the same training: on the machine of its report, at that price of one of its GPUs. best: no other is both cheaper and faster.
struct Offer { Price price; Report report; bool best = false; };
// Every price whose GPU is known, has a speed and fits the depth (20 when not given) on its instance's GPUs, fastest first.
Result<std::vector<Offer>> offers(const WorkloadFlags& flags, std::span<const Price> prices, const EstimateOptions& options = {});

Result<std::vector<TableRow>> table(const std::vector<Machine>& machines, const std::vector<std::int64_t>& depths, const WorkloadFlags& flags,
                                    const EstimateOptions& options = {});

}  // namespace dryfit
