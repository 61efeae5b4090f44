// The watcher: moments in, a view out. Puts the job, its prediction, its log and the history together. Pure: the same moments give the
// same view, live or replayed.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "plan/plan.hpp"
#include "watch/history.hpp"
#include "watch/job.hpp"
#include "watch/moment.hpp"

namespace dryfit {

struct WatchSettings {
  WorkloadFlags given;                        // what the user said: wins over what is read
  std::optional<AllocatorConfig> allocator;
  std::optional<Machine> machine;             // named by flags; none: from the samples
  const Calibration* calibration = nullptr;   // not owned
  MachineSource source = MachineSource::nvml;
  std::string source_name;                    // "nvml"
  bool has_log = false;                       // --log was given, or the recording has lines
  std::vector<std::string> notes;             // of the source
};

// All that is shown, as values and references into the watcher.
struct WatchView {
  std::string title;                          // "pid 41212 - d26 b16 x 2048 - 8 x H100"
  std::string mode;                           // "", "replay", "ended"
  std::string footer;                         // keys; may be empty
  std::int64_t time_ms = 0;                   // wall clock, ms since 1970; 0: not known
  std::string source;
  const History* history = nullptr;           // never null
  const JobPrediction* prediction = nullptr;     // null: none
  std::string no_prediction;                  // why there is none
  const Job* job = nullptr;                   // null: only GPUs are watched
  const LogRun* log = nullptr;                // null: no log
  std::vector<Finding> findings;
  std::vector<ProcessSample> tree;
  std::vector<std::string> notes;
};

class Watcher {
 public:
  explicit Watcher(WatchSettings settings) : settings_(std::move(settings)) {}
  void take(const Moment& moment);
  WatchView view() const;
  const History& history() const { return history_; }
  // The job was there and all its processes are gone.
  bool job_ended() const { return job_ && seen_alive_ && tree_.empty(); }

 private:
  void predict(bool from_log);

  WatchSettings settings_;
  History history_;
  std::optional<Job> job_;
  std::optional<JobPrediction> prediction_;
  std::string no_prediction_ = "no training process is found yet";
  LogReader log_;
  bool log_seen_ = false, seen_alive_ = false, tried_log_ = false;
  std::vector<ProcessSample> tree_, last_tree_;
  std::vector<std::string> notes_;
};

}  // namespace dryfit
