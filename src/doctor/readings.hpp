// Readings: seconds of samples of every GPU, put together as one Observation each. Constant memory; time comes in with the samples.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "doctor/underuse.hpp"
#include "machine/sample.hpp"

namespace dryfit {

class Readings {
 public:
  // One GPU over all samples. in_job: one of the job's processes was seen on it.
  struct Gpu { int index = 0; std::string name, uuid; bool lost = false, mig = false, in_job = false; Observation seen; };

  // Samples in the order of time. MachineSample::processes are the job's own; none: who holds what is not told.
  void add(const MachineSample& sample);
  std::int64_t samples() const { return samples_; }
  double seconds() const { return samples_ == 0 ? 0 : last_ - first_; }
  // Means are weighted by the time since the sample before; of a single sample they are its readings.
  std::vector<Gpu> gpus() const;

 private:
  struct Mean {
    double sum = 0, weight = 0;
    std::optional<double> only;                          // the first reading, which stands for no time yet
    void add(const std::optional<double>& value, double seconds);
    std::optional<double> value() const { return weight > 0 ? std::optional(sum / weight) : only; }
  };
  static constexpr std::size_t kReasons = 9;             // bits of Throttle
  struct Seen {
    GpuSample now;
    Mean utilization, power, clock;
    std::array<Mean, kReasons> throttle;
    std::optional<Bytes> used, others;                   // used: the highest; others: at that moment
    std::int64_t other_processes = 0;
    int pcie_generation = 0, pcie_width = 0;             // the highest
    bool in_job = false;
  };
  struct Host { std::int64_t pid = 0; Mean cores; };

  std::vector<Seen> gpus_;
  std::vector<Host> hosts_;
  double first_ = 0, last_ = 0;
  std::int64_t samples_ = 0;
};

}  // namespace dryfit
