// See history.hpp. Thresholds are told in docs/watch.md; each is a point where a person would act, none is fitted to a run.
#include "watch/history.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace dryfit {

namespace {

constexpr double kRecentSeconds = 60, kNearFull = 0.95;
constexpr double kSteadyWithoutLog = 300;     // seconds watched before growth may be called a leak, without a log to tell
constexpr double kLeakSeconds = 180;          // of steady history
constexpr std::size_t kLeakWindows = 6;
constexpr Bytes kPage = mib(2), kLeakLeast = mib(32), kGrowthLeast = mib(8);
constexpr std::size_t kMostGpus = 4096;

Bytes sum_of(const GpuSample& gpu, const std::vector<std::int64_t>& own, bool mine, bool& told) {
  Bytes sum;
  for (const GpuProcess& p : *gpu.processes) {
    if ((std::ranges::find(own, p.pid) != own.end()) != mine) continue;
    if (p.used) sum += *p.used;
    else told = false;
  }
  return sum;
}

// The smallest value of each of kLeakWindows equal windows rises from window to window, by whole pages, without slowing down: a cache
// that fills or fragments does slow down.
std::optional<double> leak_rate(const ByteSeries& series, double since, double now) {
  const double length = (now - since) / static_cast<double>(kLeakWindows);
  if (now - since < kLeakSeconds) return std::nullopt;
  std::array<Bytes, kLeakWindows> low;
  for (std::size_t i = 0; i < kLeakWindows; ++i) {
    const auto lowest = series.lowest(since + length * static_cast<double>(i), since + length * static_cast<double>(i + 1));
    if (!lowest || (i > 0 && *lowest < low[i - 1] + kPage)) return std::nullopt;
    low[i] = *lowest;
  }
  const Bytes growth = low.back() - low.front(), last = low.back() - low[kLeakWindows - 2];
  if (growth < kLeakLeast || static_cast<double>(last.count) * 4 * (kLeakWindows - 1) < static_cast<double>(growth.count)) return std::nullopt;
  return static_cast<double>(growth.count) / (length * (kLeakWindows - 1));
}

std::optional<double> seconds_to_full(Bytes free, std::optional<double> rate) {
  return rate && *rate > 0 ? std::optional(std::max(0.0, static_cast<double>(free.count) / *rate)) : std::nullopt;
}

void judge_gpu(const GpuHistory& g, const History& history, bool job, std::vector<Finding>& out) {
  const int index = g.now.index;
  if (g.now.lost) {
    out.push_back({FindingKind::gpu_lost, Level::alarm, index, {}, 0, std::nullopt, 0});
    return;
  }
  const auto usable = g.now.usable();
  if (usable && g.now.used && usable->count > 0) {
    const double share = static_cast<double>(g.now.used->count) / static_cast<double>(usable->count);
    const Bytes free = *usable - *g.now.used;
    auto rate = slope(g.recent);
    if (g.recent.empty() || g.recent.back().second - g.recent.front().second < kGrowthLeast) rate.reset();
    const auto left = seconds_to_full(free, rate);
    if (share > kNearFull) out.push_back({FindingKind::near_full, left ? Level::alarm : Level::warning, index, free, share, left, 0});
    else if (left && *left < 60 && history.steady_since) out.push_back({FindingKind::out_soon, Level::warning, index, free, share, left, 0});
  }
  constexpr std::uint64_t kSlow = static_cast<std::uint64_t>(Throttle::hardware_slowdown) | static_cast<std::uint64_t>(Throttle::thermal) | static_cast<std::uint64_t>(Throttle::hardware_thermal) | static_cast<std::uint64_t>(Throttle::power_brake);
  if (g.now.throttle && (*g.now.throttle & kSlow) != 0) out.push_back({FindingKind::slowed, Level::warning, index, {}, 0, std::nullopt, *g.now.throttle & kSlow});
  if (!job) return;
  const double since = history.steady_since.value_or(history.first + kSteadyWithoutLog);
  if (const auto rate = leak_rate(g.job_series, since, history.now)) {
    const Bytes hourly(static_cast<std::int64_t>(std::min(*rate * 3600, 9e17)));
    const auto left = usable && g.now.used ? seconds_to_full(*usable - *g.now.used, rate) : std::nullopt;
    out.push_back({FindingKind::leak, Level::warning, index, hourly, 0, left, 0});
  }
}

void judge_prediction(const History& history, const JobPrediction& prediction, const LogRun* log, std::vector<Finding>& out) {
  if (prediction.verdict == Verdict::wont_fit) out.push_back({FindingKind::wont_fit, Level::warning, -1, prediction.process.bytes - prediction.usable, 0, std::nullopt, 0});
  for (std::size_t i : job_gpus(history)) {
    const GpuHistory& g = history.gpus[i];
    if (!g.job || g.now.lost) continue;
    if (g.job_peak > prediction.process.high) out.push_back({FindingKind::above_prediction, Level::warning, g.now.index, g.job_peak - prediction.process.high, 0, std::nullopt, 0});
    // the cache never shrinks by itself: below what the phases so far should have left is below
    const Bytes low = predicted_by_now(prediction, log) - (prediction.process.bytes - prediction.process.low);
    if (log != nullptr && log->steps >= 3 && g.job_peak < low) out.push_back({FindingKind::below_prediction, Level::note, g.now.index, low - g.job_peak, 0, std::nullopt, 0});
  }
}

}  // namespace

std::string_view name_of(FindingKind kind) {
  switch (kind) {
    case FindingKind::near_full: return "near_full";
    case FindingKind::out_soon: return "out_soon";
    case FindingKind::above_prediction: return "above_prediction";
    case FindingKind::below_prediction: return "below_prediction";
    case FindingKind::leak: return "leak";
    case FindingKind::gpu_lost: return "gpu_lost";
    case FindingKind::slowed: return "slowed";
    case FindingKind::wont_fit: return "wont_fit";
  }
  return "";
}

std::string_view name_of(Level level) {
  switch (level) {
    case Level::note: return "note";
    case Level::warning: return "warning";
    case Level::alarm: return "alarm";
  }
  return "";
}

void ByteSeries::add(double seconds, Bytes value) {
  if (!buckets_.empty() && seconds - buckets_.back().first < length_) {
    Bucket& b = buckets_.back();
    b.last = std::max(b.last, seconds);
    b.low = std::min(b.low, value);
    b.high = std::max(b.high, value);
    return;
  }
  if (buckets_.size() == kMost) {
    for (std::size_t i = 0; i < kMost / 2; ++i) {
      const Bucket &a = buckets_[2 * i], &b = buckets_[2 * i + 1];
      buckets_[i] = {a.first, b.last, std::min(a.low, b.low), std::max(a.high, b.high)};
    }
    buckets_.resize(kMost / 2);
    const double span = buckets_.back().last - buckets_.front().first;
    length_ = std::max(length_ * 2, span / static_cast<double>(kMost / 2));
  }
  buckets_.push_back({seconds, seconds, value, value});
}

std::optional<Bytes> ByteSeries::highest(double since) const {
  std::optional<Bytes> out;
  for (const Bucket& b : buckets_) {
    if (b.last >= since && (!out || b.high > *out)) out = b.high;
  }
  return out;
}

std::optional<Bytes> ByteSeries::lowest(double from, double to) const {
  std::optional<Bytes> out;
  for (const Bucket& b : buckets_) {
    if (b.first >= from && b.last <= to && (!out || b.low < *out)) out = b.low;
  }
  return out;
}

std::optional<double> slope(const std::deque<std::pair<double, Bytes>>& points) {
  if (points.size() < 3 || points.back().first - points.front().first < 1) return std::nullopt;
  const double n = static_cast<double>(points.size()), t0 = points.front().first;
  double st = 0, sy = 0, stt = 0, sty = 0;
  for (const auto& [t, bytes] : points) {
    const double x = t - t0, y = static_cast<double>(bytes.count);
    st += x, sy += y, stt += x * x, sty += x * y;
  }
  const double spread = n * stt - st * st;
  return spread > 0 ? std::optional((n * sty - st * sy) / spread) : std::nullopt;
}

void add_sample(History& history, const MachineSample& sample, const std::vector<std::int64_t>& own, const LogRun* log) {
  if (history.samples++ == 0) history.first = sample.seconds;
  const double before = history.now;
  history.now = std::max(history.now, sample.seconds);
  const double step = history.samples == 1 ? 0 : history.now - before;
  const bool steady = log != nullptr && log->steps >= 3;
  if (steady && !history.steady_since) history.steady_since = history.now;
  if (log != nullptr && !steady) history.steady_since.reset();  // the run began anew
  if (history.gpus.size() < sample.gpus.size()) history.gpus.resize(std::min(sample.gpus.size(), kMostGpus));
  for (std::size_t i = 0; i < std::min(sample.gpus.size(), history.gpus.size()); ++i) {
    GpuHistory& g = history.gpus[i];
    g.now = sample.gpus[i];
    if (g.now.lost) continue;
    bool told = g.now.processes.has_value();
    g.job.reset();
    g.others = {};
    if (told) {
      bool mine_here = false;
      for (const GpuProcess& p : *g.now.processes) mine_here = mine_here || std::ranges::find(own, p.pid) != own.end();
      const Bytes mine = sum_of(g.now, own, true, told);
      bool others_told = true;
      g.others = sum_of(g.now, own, false, others_told);
      if (told && mine_here) g.job = mine;
      g.in_job = g.in_job || mine_here;
      if (g.job) g.job_peak = std::max(g.job_peak, *g.job);
    }
    if (g.now.used) {
      g.used.add(history.now, *g.now.used);
      g.recent.emplace_back(history.now, *g.now.used);
      while (history.now - g.recent.front().first > kRecentSeconds || g.recent.size() > 512) g.recent.pop_front();
    }
    if (const auto value = g.job ? g.job : g.in_job ? std::nullopt : g.now.used) g.job_series.add(history.now, *value);
    if (g.now.utilization) g.busy_seconds += *g.now.utilization * step, g.seen_seconds += step;
  }
}

std::vector<std::size_t> job_gpus(const History& history) {
  std::vector<std::size_t> out, busy, all;
  for (std::size_t i = 0; i < history.gpus.size(); ++i) {
    const GpuHistory& g = history.gpus[i];
    all.push_back(i);
    if (g.in_job) out.push_back(i);
    if (g.now.used && *g.now.used > gib(1)) busy.push_back(i);
  }
  return !out.empty() ? out : !busy.empty() ? busy : all;
}

Result<Machine> machine_of(const History& history, MachineSource source) {
  std::vector<GpuSample> gpus;
  for (const GpuHistory& g : history.gpus) gpus.push_back(g.now);
  const auto used = job_gpus(history);
  std::vector<Bytes> own;
  for (std::size_t i : used) own.push_back(history.gpus[i].job ? *history.gpus[i].job : history.gpus[i].now.used.value_or(Bytes(0)));
  return machine_of(gpus, used, own, source);
}

Measured measured_peak(const History& history) {
  Measured out;
  const auto gpus = job_gpus(history);
  for (std::size_t i : gpus) out.bytes = std::max(out.bytes, history.gpus[i].job_peak);
  out.by_process = out.bytes > Bytes(0);
  if (out.by_process) return out;
  for (std::size_t i : gpus) out.bytes = std::max(out.bytes, history.gpus[i].used.highest(history.first).value_or(Bytes(0)));
  return out;
}

JobPrediction prediction_of(const Report& report, const Calibration* calibration) {
  JobPrediction p;
  p.allocated = report.allocated, p.reserved = report.reserved, p.process = report.process;
  p.context = report.context, p.usable = report.machine.usable(), p.verdict = report.verdict;
  for (const PhaseResult& phase : report.phases) p.phases.push_back({phase.name, phase.reserved + report.context});
  const Run& run = report.workload.run;
  p.run = "d" + std::to_string(report.workload.model.depth) + " b" + std::to_string(run.device_batch_size) + " x " + std::to_string(run.max_seq_len);
  p.world_size = run.world_size;
  p.gpu = report.machine.gpu.name;
  p.configuration = configuration_of(report.workload);
  for (const Assumption& a : report.assumptions) p.assumptions.push_back(a.key + " " + a.value + " (" + a.source + ")");
  p.warnings = report.warnings;
  if (report.speed) p.tokens_per_second = report.speed->tokens_per_second;
  if (calibration != nullptr) p.speed = learned_speed(*calibration, p.gpu, p.configuration);
  return p;
}

Bytes predicted_by_now(const JobPrediction& prediction, const LogRun* log) {
  if (log == nullptr) return prediction.process.bytes;
  Bytes most;
  for (const JobPrediction::Phase& p : prediction.phases) {
    const bool met = p.name == "load" || (p.name == "first_step" && (log->steps >= 1)) || (p.name == "validation" && log->validations > 0) ||
                     (p.name == "train_step" && log->steps >= 2) || (p.name.starts_with("core") && log->core_evaluations > 0);
    if (met) most = std::max(most, p.process);
  }
  return std::min(most, prediction.process.bytes);
}

std::vector<Finding> judge(const History& history, const JobPrediction* prediction, const LogRun* log) {
  std::vector<Finding> out;
  const auto used = job_gpus(history);
  for (std::size_t i = 0; i < history.gpus.size(); ++i) judge_gpu(history.gpus[i], history, std::ranges::find(used, i) != used.end(), out);
  if (prediction != nullptr) judge_prediction(history, *prediction, log, out);
  std::ranges::stable_sort(out, [](const Finding& a, const Finding& b) { return a.level > b.level; });
  return out;
}

}  // namespace dryfit
