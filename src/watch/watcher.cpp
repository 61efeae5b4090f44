// See watcher.hpp.
#include "watch/watcher.hpp"

#include <algorithm>

#include "plan/launch.hpp"

namespace dryfit {

namespace {

std::string short_name(const std::string& gpu) {
  for (std::string_view drop : {"NVIDIA GeForce ", "NVIDIA ", "AMD Instinct ", "AMD "}) {
    if (gpu.starts_with(drop)) return gpu.substr(drop.size());
  }
  return gpu;
}

}  // namespace

void Watcher::take(const Moment& moment) {
  tree_ = moment.sample.processes;
  if (!tree_.empty()) last_tree_ = tree_;
  if (moment.job) {
    job_ = job_of(*moment.job);
    seen_alive_ = false;
  }
  seen_alive_ = seen_alive_ || !tree_.empty();
  for (const std::string& line : moment.log) log_.line(line);
  log_seen_ = log_seen_ || !moment.log.empty();
  std::vector<std::int64_t> own;
  for (const ProcessSample& p : tree_) own.push_back(p.pid);
  add_sample(history_, moment.sample, own, log_seen_ ? &log_.current() : nullptr);
  notes_ = moment.sample.notes;
  if (moment.job) predict(false);
  const bool header_came = log_seen_ && flags_of(log_.current()).has_value();
  if (!prediction_ && header_came && !tried_log_) predict(true);
}

// From what the user said, the command line, and the log's header, in this order.
void Watcher::predict(bool from_log) {
  prediction_.reset();
  const auto in_log = log_seen_ ? flags_of(log_.current()) : std::nullopt;
  tried_log_ = from_log;
  WorkloadFlags flags = settings_.given;
  const bool said = flags.depth.has_value();
  if (job_ && job_->flags) flags = overlaid(*job_->flags, settings_.given);
  else if (in_log) flags = overlaid(*in_log, settings_.given);
  else if (!said) {
    no_prediction_ = job_ ? job_->unread : "no training process is found yet";
    return;
  }
  auto machine = settings_.machine ? Result<Machine>(*settings_.machine) : machine_of(history_, settings_.source);
  if (!machine) {
    no_prediction_ = machine.error().message;
    return;
  }
  if (!flags.gpus) flags.gpus = machine->gpus;
  flags.compute_major = machine->gpu.compute_major;
  const auto workload = make_nanochat_workload(flags);
  if (!workload) {
    no_prediction_ = workload.error().message;
    return;
  }
  EstimateOptions options;
  options.calibration = settings_.calibration;
  options.allocator = settings_.allocator;
  if (job_ && job_->alloc_conf && !options.allocator) {
    if (const auto conf = parse_alloc_conf(*job_->alloc_conf)) options.allocator = *conf;
  }
  const auto report = estimate(*workload, *machine, options);
  if (!report) {
    no_prediction_ = report.error().message;
    return;
  }
  prediction_ = prediction_of(*report, settings_.calibration);
  no_prediction_.clear();
}

WatchView Watcher::view() const {
  WatchView v;
  v.source = settings_.source_name;
  v.history = &history_;
  v.prediction = prediction_ ? &*prediction_ : nullptr;
  v.no_prediction = no_prediction_;
  v.job = job_ ? &*job_ : nullptr;
  v.log = log_seen_ ? &log_.current() : nullptr;
  v.findings = judge(history_, v.prediction, v.log);
  v.tree = last_tree_;
  if (job_ended()) v.mode = "ended";
  const auto add = [&](const std::string& part) { v.title += (v.title.empty() ? "" : ", ") + part; };
  if (job_) add("pid " + std::to_string(job_->pid));
  if (prediction_) add(prediction_->run);
  else if (job_ && !job_->script.empty()) add(job_->script);
  else if (!last_tree_.empty()) add(last_tree_.front().name.substr(0, 40));
  if (const auto used = job_gpus(history_); !used.empty()) add(std::to_string(used.size()) + " x " + short_name(history_.gpus[used.front()].now.name).substr(0, 40));
  for (char& c : v.title) c = c >= ' ' && c <= '~' ? c : '?';
  v.notes = settings_.notes;
  v.notes.insert(v.notes.end(), notes_.begin(), notes_.end());
  if (settings_.has_log && !log_seen_) v.notes.push_back("nothing is in the log yet");
  if (prediction_) {
    for (const std::string& w : prediction_->warnings) v.notes.push_back(w);
  }
  return v;
}

}  // namespace dryfit
