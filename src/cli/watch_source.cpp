// See watch_source.hpp.
#include "cli/watch_source.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <set>

#include "cli/log_follower.hpp"
#include "machine/probe_os.hpp"
#include "plan/launch.hpp"
#include "watch/job.hpp"
#include "watch/probe_recording.hpp"

namespace dryfit::cli {

namespace {

constexpr double kTreeSeconds = 10, kSearchSeconds = 5;  // how often /proc is read as a whole

// Seconds since the first call.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

class LiveSource final : public WatchSource {
 public:
  LiveSource(std::unique_ptr<GpuSampler> sampler, const LiveRequest& request) : sampler_(std::move(sampler)), table_(make_process_table()), pid_(request.pid) {
    if (!request.log.empty()) log_ = std::make_unique<LogFollower>(request.log);
  }

  Result<void> open() {
    if (log_) {
      if (const auto ok = log_->check(); !ok) return ok;
    }
    const auto first = sampler_->sample();
    if (!first) return std::unexpected(first.error());
    gpus_ = *first;
    if (pid_ && !table_->read(*pid_)) return fail("no_process", "there is no process " + std::to_string(*pid_), "leave --pid out to find the newest training process, or see: nvidia-smi", "--pid");
    return {};
  }

  Result<std::optional<Moment>> next() override {
    Moment moment;
    auto gpus = sampler_->sample();
    if (!gpus) return std::unexpected(gpus.error());
    moment.sample.seconds = clock_.seconds();
    moment.sample.gpus = std::move(*gpus);
    find_job(moment);
    follow_tree(moment);
    if (log_) moment.log = log_->poll();
    explain_hidden(moment);
    return moment;
  }

  std::vector<GpuSample> gpus() const override { return gpus_; }
  MachineSource kind() const override { return sampler_->source(); }
  std::string name() const override { return std::string(name_of(sampler_->source())); }
  std::vector<std::string> notes() const override { return sampler_->notes(); }
  bool live() const override { return true; }

 private:
  // The process named by --pid, else the newest that trains among those the driver names, else among all that are here.
  void find_job(Moment& moment) {
    if (job_pid_) return;
    std::set<std::int64_t> pids;
    for (const GpuSample& g : moment.sample.gpus) {
      if (!g.processes) continue;
      for (const GpuProcess& p : *g.processes) pids.insert(p.pid);
    }
    const double now = clock_.seconds();
    if (!pid_ && pids == searched_ && now - last_search_ < kSearchSeconds && last_search_ > 0) return;
    searched_ = pids;
    last_search_ = std::max(now, 1e-9);
    std::optional<std::int64_t> found = pid_;
    if (!found) {
      std::vector<ProcessSample> candidates;
      for (std::int64_t pid : pids) {
        if (auto p = table_->read(pid); p && plausible(*p)) candidates.push_back(std::move(*p));
      }
      found = newest_training(candidates);
    }
    if (!found) found = search_everywhere();
    if (!found) return;
    job_pid_ = found;
    read_tree();
    const Job job = read_job(tree_, *found);
    SeenJob seen{*found, job.command, {}};
    for (const ProcessSample& p : tree_) {
      for (const std::string& entry : p.environment) {
        if (seen.environment.size() < 64 && std::ranges::find(seen.environment, entry) == seen.environment.end()) seen.environment.push_back(entry);
      }
    }
    moment.job = std::move(seen);
  }

  // In a container a number of the driver's may be another process's here: one that neither trains by name nor has a GPU open is not meant.
  bool plausible(const ProcessSample& p) { return trains(p) >= Trains::script || table_->uses_gpu(p.pid) != false; }

  // Where the driver's numbers are of no use: processes whose command line is nanochat's.
  std::optional<std::int64_t> search_everywhere() {
    std::vector<ProcessSample> candidates;
    for (const ProcessSample& light : table_->all()) {
      if (!light.name.starts_with("python") && !light.name.starts_with("pt_main") && !light.name.starts_with("torchrun")) continue;
      auto p = table_->read(light.pid);
      if (!p || trains(*p) != Trains::nanochat || is_launcher(*p)) continue;
      candidates.push_back(std::move(*p));
    }
    return newest_training(candidates);
  }

  // Parents are read whole before the tree is cut: only a launcher's command tells that it is one.
  void read_tree() {
    std::vector<ProcessSample> all = table_->all();
    std::int64_t at = *job_pid_;
    for (std::size_t up = 0; up < 16 && at > 1; ++up) {
      const auto p = std::ranges::find(all, at, &ProcessSample::pid);
      if (p == all.end()) break;
      if (auto whole = table_->read(at)) *p = std::move(*whole);
      at = p->parent;
    }
    const auto started = std::ranges::find(all, *job_pid_, &ProcessSample::pid);
    if (started == all.end() || (job_started_ && started->started != *job_started_)) {  // gone, or its number given to another
      tree_.clear();
      return;
    }
    job_started_ = started->started;
    std::vector<ProcessSample> tree = process_tree(all, *job_pid_);
    for (ProcessSample& p : tree) {
      const auto known = std::ranges::find_if(tree_, [&](const ProcessSample& q) { return q.pid == p.pid && q.started == p.started && !q.command.empty(); });
      if (known != tree_.end()) p = *known;
      else if (auto whole = table_->read(p.pid)) p = std::move(*whole);
    }
    tree_ = std::move(tree);
    last_tree_ = clock_.seconds();
  }

  void follow_tree(Moment& moment) {
    if (!job_pid_) return;
    if (!tree_.empty() && clock_.seconds() - last_tree_ >= kTreeSeconds) read_tree();
    std::erase_if(tree_, [&](ProcessSample& p) { return !table_->update(p); });
    moment.sample.processes = tree_;
  }

  void explain_hidden(Moment& moment) {
    bool used = false, listed = false, known = false;
    for (const GpuSample& g : moment.sample.gpus) {
      used = used || (g.used && *g.used > gib(1));
      if (!g.processes) continue;
      for (const GpuProcess& p : *g.processes) {
        listed = true;
        if (known) continue;
        const auto here = table_->read(p.pid);
        known = here && plausible(*here);
      }
    }
    if (used && !listed) moment.sample.notes.push_back("the driver shows no processes (a container, or no permission): measured is the whole card");
    else if (listed && !known) moment.sample.notes.push_back("the driver's process numbers mean nothing here (a container without --pid=host): measured is the whole card");
    if (!job_pid_) moment.sample.notes.push_back("no training process here yet; --pid N names one");
  }

  std::unique_ptr<GpuSampler> sampler_;
  std::unique_ptr<ProcessTable> table_;
  std::unique_ptr<LogFollower> log_;
  std::optional<std::int64_t> pid_, job_pid_;
  std::optional<std::uint64_t> job_started_;
  std::vector<GpuSample> gpus_;
  std::vector<ProcessSample> tree_;
  std::set<std::int64_t> searched_;
  double last_search_ = 0, last_tree_ = 0;
  Stopwatch clock_;
};

class ReplaySource final : public WatchSource {
 public:
  explicit ReplaySource(std::string path) : path_(std::move(path)) {}
  ~ReplaySource() override {
    if (file_ >= 0) os::close(file_);
  }

  Result<void> open() {
    const auto bad = [&](const std::string& what) { return fail("unreadable_file", "cannot read '" + path_ + "': " + what, "give a recording: dryfit watch --record FILE makes one", "--replay"); };
    file_ = os::open(path_, os::Access::read);
    if (file_ < 0) return bad(std::strerror(errno));
    bool whole = false;
    const auto line = read_line(whole);
    if (!line) return bad(problem_ != 0 ? std::strerror(problem_) : "it is empty");
    return placed(reader_.read_header(*line));
  }

  Result<std::optional<Moment>> next() override {
    bool whole = true;
    const auto line = read_line(whole);
    if (!line) return std::optional<Moment>();
    auto moment = reader_.read_moment(*line);
    if (moment) return std::optional(std::move(*moment));
    if (!whole) {  // a recording cut short by a full disk or a power cut: what is whole still counts
      notes_.push_back("the last line of the recording is cut and left out");
      return std::optional<Moment>();
    }
    return std::unexpected(placed(Result<void>(std::unexpected(moment.error()))).error());
  }

  std::vector<GpuSample> gpus() const override { return reader_.header().gpus; }
  MachineSource kind() const override { return reader_.header().source == "nvidia-smi" ? MachineSource::nvidia_smi : MachineSource::nvml; }
  std::string name() const override { return reader_.header().source; }
  std::vector<std::string> notes() const override { return notes_; }
  bool live() const override { return false; }

 private:
  Result<void> placed(Result<void> result) const {
    if (!result) result.error().where = path_ + ":" + (result.error().where.starts_with("line ") ? result.error().where.substr(5) : result.error().where);
    return result;
  }

  // A line without its end; empty at the end of the file. Longer lines than a recording has come back cut, which the reader refuses.
  std::optional<std::string> read_line(bool& whole) {
    std::string line;
    for (whole = false; !whole; ++at_) {
      if (at_ == held_.size() && !read_more()) break;
      whole = held_[at_] == '\n';
      if (!whole && line.size() <= kLongestRecordingLine) line += held_[at_];
    }
    if (!whole && line.empty()) return std::nullopt;
    return line;
  }

  bool read_more() {
    held_.resize(1 << 16);
    const std::ptrdiff_t n = os::read(file_, held_.data(), held_.size());
    problem_ = n < 0 ? errno : 0;
    held_.resize(static_cast<std::size_t>(std::max<std::ptrdiff_t>(n, 0)));
    at_ = 0;
    return n > 0;
  }

  std::string path_, held_;  // held_: read, and not yet given from at_ on
  std::size_t at_ = 0;
  int file_ = -1, problem_ = 0;
  RecordingReader reader_;
  std::vector<std::string> notes_;
};

}  // namespace

Result<std::unique_ptr<WatchSource>> open_live_source(const LiveRequest& request) {
  auto sampler = open_sampler();
  if (!sampler) {
    Error error = sampler.error();
    if (error.hint.find("--gpu") != std::string::npos) error.hint = "watch needs a GPU and its driver here; a recording plays anywhere: dryfit watch --replay FILE";
    return std::unexpected(error);
  }
  auto source = std::make_unique<LiveSource>(std::move(*sampler), request);
  if (const auto ok = source->open(); !ok) return std::unexpected(ok.error());
  return source;
}

Result<std::unique_ptr<WatchSource>> open_replay_source(const std::string& path) {
  auto source = std::make_unique<ReplaySource>(path);
  if (const auto ok = source->open(); !ok) return std::unexpected(ok.error());
  return source;
}

}  // namespace dryfit::cli
