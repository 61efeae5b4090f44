// A GPU that trains below what it could: what was observed, and what that says. Observations come from a log (here), from readings of
// the driver (readings.hpp), or from both; the judgement is one function of values.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
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
  std::optional<std::uint64_t> throttle;                 // bits of Throttle that stood in a tenth of the time or more
  std::optional<int> pcie_generation, pcie_generation_max, pcie_width, pcie_width_max;  // the best seen: an idle link saves power
  std::optional<Bytes> others;                           // other processes' part of `used`
  std::int64_t other_processes = 0;
  std::optional<double> host_cores;                      // cores that the busiest of the job's processes used
  std::optional<std::int64_t> host_pid;                  // that process
  std::optional<Bytes> predicted;                        // of the process at its peak, which may be still to come
  std::int64_t ranks = 1;                                // GPUs that train together
};

struct Advice { std::string change, expected, command; };  // expected: the gain where it can be derived, else why it cannot

struct Underuse {
  enum class Verdict { busy, room_in_memory, waiting, throttled, slow_kernels, unknown, small_model, pcie, other_tenants, idle };
  Verdict verdict = Verdict::unknown;
  Observation seen;
  std::string summary;
  std::vector<std::string> why;
  std::vector<Advice> next;
  std::optional<Bytes> headroom;
  std::optional<std::int64_t> device_batch, largest_device_batch;
  std::optional<double> gain;                            // of tokens per second, 0.12 = 12 % more; only where derived
  std::optional<double> gain_at_most;                    // what removing the verdict's cause can bring, were it the only limit
};
std::string_view name_of(Underuse::Verdict verdict);

// workload and machine: empty when not known; then no batch is named.
Underuse diagnose_underuse(const Observation& seen, const std::optional<Workload>& workload, const std::optional<Machine>& machine);

// Of several GPUs that train together, the one to look at first: the slowest holds up all others. Index into `judged`, which is not empty.
std::size_t worst_of(std::span<const Underuse> judged);

// What a log tells of the run's GPU.
Observation observation_of(const RunLog& run, const std::optional<Machine>& machine);

}  // namespace dryfit
