// What should I run, of a Hugging Face model: method, recomputation, sharding and device batch chosen together. What the user fixed stays; the rest
// is searched in the order of what changes the training least. And the same question asked of many GPUs, as a table.
#pragma once

#include <span>
#include <string_view>

#include "plan/plan.hpp"
#include "workload/transformers.hpp"

namespace dryfit {

enum class Method : std::uint8_t { full, lora, qlora };  // what trains: all weights; adapters; adapters beside weights in 4 bits
std::string_view name_of(Method method);
Method method_of(const Training& training);

constexpr std::int64_t kUsualRank = 16;  // of adapters that nobody gave a rank

// One way to run the training, at the largest device batch that fits; where none does, at the smallest. Of the chosen one both are confirmed
// (confirm_device_batch).
struct Candidate {
  Method method = Method::full;
  bool fits = false;
  Report report;
  bool at_least = false;  // weights, gradients and optimizer states alone do not fit: the report has their sum, and nothing was laid out
  std::optional<double> seconds_per_token() const;        // of all GPUs together, predicted; ways are compared by it
  std::optional<double> least_seconds_per_token() const;  // no implementation of the same kernels is faster: the roofline
};

// A machine to rent: the cheapest by the hour, of up to 8 GPUs of one kind, on which a method fits at the smallest device batch.
struct Rent {
  Price price;
  Report report;
  double usd_per_hour() const { return price.usd_per_gpu_hour * static_cast<double>(report.machine.gpus); }
};

// A method that trains more than what was chosen, and does not fit: what would make it fit.
struct Missed {
  Method method = Method::full;
  std::optional<Alternative> change;  // of the way that needs least: one argument
  std::optional<Rent> rent;
  std::optional<Alternative> on_host;  // its states on the host, which is slow: how, and what it then needs
};

struct TransformersPlan {
  std::vector<Candidate> candidates;   // method by method, until one fits
  std::optional<std::size_t> chosen;   // of candidates; none: nothing fits
  std::string why;
  std::vector<Missed> missed;
};

// flags: device_batch_size -1 or none is searched for. Errors: those of make_transformers_workload and program_for, where they meet every way.
Result<TransformersPlan> plan_transformers(const HfModel& model, const TransformersFlags& flags, const Machine& machine, const EstimateOptions& options = {});

// The plan's choice alone, on machines of as many GPUs that lay it out alike (passes/program.hpp), each layout made once: of each the best way of the first method of which
// one fits, not confirmed; none where nothing does. refused: what met every way on every machine.
struct BestWays { std::vector<std::optional<Candidate>> of; std::optional<Error> refused; };
BestWays best_ways(const HfModel& model, const TransformersFlags& flags, std::span<const Machine> machines, const EstimateOptions& options);

// Every machine by method and recomputation, each at its largest device batch. On several GPUs: all weights under FSDP2 and adapters under DDP, or what
// is laid out nearest to that, unless flags say which.
Result<std::vector<TableRow>> table_transformers(const HfModel& model, const TransformersFlags& flags, const std::vector<Machine>& machines, const EstimateOptions& options = {});

}  // namespace dryfit
