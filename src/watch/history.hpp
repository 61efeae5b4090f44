// History: samples over time in constant memory, and what they say beside a prediction: how full, how fast, whether a job stays within
// what was predicted, whether it leaks. Pure: time comes in with the samples.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "machine/sample.hpp"
#include "plan/plan.hpp"
#include "watch/job.hpp"
#include "workload/nanochat_log.hpp"

namespace dryfit {

// Bytes over time: at most kMost buckets of equal length; when full, neighbours merge and the length doubles. Nothing is forgotten but
// where within a bucket a value stood.
class ByteSeries {
 public:
  static constexpr std::size_t kMost = 240;
  struct Bucket { double first = 0, last = 0; Bytes low, high; };  // seconds of the first and last value in it
  void add(double seconds, Bytes value);
  const std::vector<Bucket>& buckets() const { return buckets_; }
  // Largest value at or after `since`, smallest within [from, to]; empty when there is none.
  std::optional<Bytes> highest(double since) const;
  std::optional<Bytes> lowest(double from, double to) const;

 private:
  std::vector<Bucket> buckets_;
  double length_ = 0;                // seconds a bucket spans; 0: one value each
};

struct GpuHistory {
  GpuSample now;
  std::optional<Bytes> job;          // memory of the job's processes here now; empty when the driver does not tell it
  Bytes job_peak;                    // largest seen
  Bytes others;                      // other processes, as far as the driver tells
  ByteSeries used;                   // the card's, without the driver's reserve
  ByteSeries job_series;             // the job's; the card's where `job` is empty
  std::deque<std::pair<double, Bytes>> recent;  // of `used`, the last minute
  double busy_seconds = 0, seen_seconds = 0;    // time-weighted utilization
  bool in_job = false;               // a process of the job was seen here
};

struct History {
  std::vector<GpuHistory> gpus;
  double first = 0, now = 0;         // seconds
  std::int64_t samples = 0;
  std::optional<double> steady_since;  // first sample after the second optimizer step; empty without a log
};

// own: the job's processes.
void add_sample(History& history, const MachineSample& sample, const std::vector<std::int64_t>& own, const LogRun* log);

// GPUs the job uses, as indices: those where its processes were seen; where that cannot be known, all that hold memory; else all.
std::vector<std::size_t> job_gpus(const History& history);

// Those GPUs as a machine, with what other processes hold there taken off; where it is not told who holds what, all is taken as the job's.
// Errors: those of machine_of.
Result<Machine> machine_of(const History& history, MachineSource source);

// The largest the job has held on any of its GPUs; of the whole card where the driver does not tell processes apart.
struct Measured { Bytes bytes; bool by_process = false; };
Measured measured_peak(const History& history);

// The prediction of a job, without what a live view does not show.
struct JobPrediction {
  Estimate allocated, reserved, process;
  Bytes context, usable;
  Verdict verdict = Verdict::fits;
  struct Phase { std::string name; Bytes process; };  // reserved peak within it, with the context
  std::vector<Phase> phases;
  std::string run;                   // "d26 b16 x 2048": what was predicted
  std::string gpu, configuration;    // the driver's name of it; configuration_of
  std::int64_t world_size = 1;
  std::optional<LearnedSpeed> speed; // of earlier runs of the same configuration here
  std::optional<double> tokens_per_second;  // as the report has it: learned, else modelled
  std::vector<std::string> assumptions, warnings;
};
JobPrediction prediction_of(const Report& report, const Calibration* calibration);

// What the process is predicted to have reached by now: the largest phase it went through, as far as the log tells; the peak without one.
Bytes predicted_by_now(const JobPrediction& prediction, const LogRun* log);

enum class FindingKind { near_full, out_soon, above_prediction, below_prediction, leak, gpu_lost, slowed, wont_fit };
enum class Level { note, warning, alarm };
struct Finding {
  FindingKind kind;
  Level level;
  int gpu = -1;                      // NVML index; -1: the job
  Bytes amount;                      // near_full: free; above/below: by how much; leak: growth a hour
  double share = 0;                  // near_full: of usable
  std::optional<double> seconds;     // to full, by the present slope
  std::uint64_t reasons = 0;         // slowed: bits of Throttle
};
std::string_view name_of(FindingKind kind);
std::string_view name_of(Level level);

// Worst first. Thresholds: docs/watch.md.
std::vector<Finding> judge(const History& history, const JobPrediction* prediction, const LogRun* log);

// Growth in bytes a second of the points by least squares; empty below three points or within one second.
std::optional<double> slope(const std::deque<std::pair<double, Bytes>>& points);

}  // namespace dryfit
