// A GPU that trains below what it could: what was observed, and what that says. Observations come from a log (here) or live from the
// driver (watch/); the judgement is one function of values.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "machine/machine.hpp"
#include "workload/workload.hpp"

namespace dryfit {

struct RunLog;

// One GPU while it trains. Empty: not observed.
struct Observation {
  std::optional<Bytes> used, total;                      // of the card; used: at its highest
  std::optional<Bytes> allocated_peak;                   // what PyTorch counted
  std::optional<double> utilization;                     // 0..1: share of time in which a kernel ran
  std::optional<double> power_watts, power_limit_watts;
  std::optional<double> clock_mhz, max_clock_mhz;
  std::optional<double> mfu;                             // 0..1, of the bf16 peak
  std::optional<double> tokens_per_second, step_milliseconds;
  std::optional<double> stalled_share;                   // 0..1: time lost in steps over 1.5 times the usual
};

struct Advice { std::string change, expected, command; };  // expected: the gain where it can be derived, else why it cannot

struct Underuse {
  enum class Verdict { busy, room_in_memory, waiting, throttled, slow_kernels, unknown };
  Verdict verdict = Verdict::unknown;
  Observation seen;
  std::string summary;
  std::vector<std::string> why;
  std::vector<Advice> next;
  std::optional<Bytes> headroom;
  std::optional<std::int64_t> device_batch, largest_device_batch;
  std::optional<double> gain;                            // of tokens per second, 0.12 = 12 % more; only where derived
};
std::string_view name_of(Underuse::Verdict verdict);

// workload and machine: empty when not known; then no batch is named.
Underuse diagnose_underuse(const Observation& seen, const std::optional<Workload>& workload, const std::optional<Machine>& machine);

// What a log tells of the run's GPU.
Observation observation_of(const RunLog& run, const std::optional<Machine>& machine);

}  // namespace dryfit
