// See calibrate.hpp.
#include "cli/calibrate.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <ctime>

#include "cli/calibration_file.hpp"
#include "cli/watch_source.hpp"
#include "plan/plan.hpp"
#include "report/calibration.hpp"
#include "watch/watcher.hpp"

namespace dryfit::cli {

namespace {

constexpr std::int64_t kLeastSteps = 3;  // with the third, every phase of training has been met once
constexpr std::size_t kLongestLine = 4096;

std::string date_of(const std::string& path) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0) return "";
  std::tm t{};
  gmtime_r(&info.st_mtime, &t);
  char text[16];
  return std::strftime(text, sizeof text, "%Y-%m-%d", &t) > 0 ? text : "";
}

std::string absolute(const std::string& path) {
  char buffer[PATH_MAX];
  return realpath(path.c_str(), buffer) != nullptr ? buffer : path;
}

// The same run has the same first step, to the last digit of its loss and time, in a log and in a recording, whatever was said beside it.
std::string run_id(const LogRun& run) {
  std::uint64_t hash = 14695981039346656037ULL;  // FNV-1a
  const LogStep first = run.first.value_or(LogStep{});
  for (unsigned char c : fmt::format("{}|{}|{}|{}", first.step, first.loss.value_or(0), first.seconds.value_or(0), first.tokens_per_second.value_or(0))) hash = (hash ^ c) * 1099511628211ULL;
  return fmt::format("run:{:016x}", hash);
}

void add_log(CalibrationRow& row, const LogRun& run) {
  row.allocated_peak = run.peak_allocated;
  row.tokens_per_second = run.median_rate();
  row.mfu = run.median_mfu();
  row.steps = run.steps;
}

class Reading {
 public:
  Reading(const CalibrateRequest& request, const Env& env) : r_(request), env_(env) {}

  // Every run of one file.
  Result<std::vector<CalibrationRead>> read(const std::string& path) {
    std::string head;
    const auto peeked = env_.stream_file(path, [&](std::string_view chunk, const ReadProgress&) {
      head += chunk.substr(0, 256);
      return false;
    });
    if (!peeked) return std::unexpected(peeked.error());
    if (head.empty()) return fail("empty_file", "'" + path + "' is empty", "give a training log or a recording of dryfit watch", path);
    const bool recording = head.starts_with('{') && head.find("\"dryfit_recording\"") != std::string::npos;
    return recording ? read_recording(path) : read_log(path);
  }

 private:
  CalibrationRead skipped(const std::string& path, std::string why) const { return {path, CalibrationRead::Status::skipped, std::move(why), std::nullopt}; }

  CalibrationRow row(const std::string& path, const std::string& gpu, std::int64_t world, const std::string& configuration) const {
    CalibrationRow out;
    out.file = absolute(path);
    out.date = date_of(path);
    out.gpu = gpu;
    out.world_size = world;
    out.configuration = configuration;
    return out;
  }

  Result<std::vector<CalibrationRead>> read_log(const std::string& path) {
    LogReader log;
    std::string carry;
    const auto fed = env_.stream_file(path, [&](std::string_view chunk, const ReadProgress&) {
      for (char c : chunk) {
        if (c != '\n' && c != '\r') {
          if (carry.size() < kLongestLine) carry += c;
          continue;
        }
        log.line(carry);
        carry.clear();
      }
      return true;
    });
    if (!fed) return std::unexpected(fed.error());
    log.line(carry);
    std::vector<CalibrationRead> out;
    for (const LogRun& run : log.runs()) out.push_back(from_log(path, run));
    if (out.empty()) out.push_back(skipped(path, "it holds no nanochat training run"));
    return out;
  }

  CalibrationRead from_log(const std::string& path, const LogRun& run) const {
    if (run.fine_tuning) return skipped(path, "a fine-tuning run: only pretraining is derived");
    if (run.steps < kLeastSteps) return skipped(path, fmt::format("{} steps are too few", run.steps));
    const auto told = flags_of(run);
    if (!told && !r_.given.depth) return skipped(path, "its header does not tell the run: add --depth, --device-batch-size, --gpus");
    const WorkloadFlags flags = overlaid(told.value_or(WorkloadFlags{}), r_.given);
    const auto workload = make_nanochat_workload(flags);
    if (!workload) return skipped(path, workload.error().message);
    auto machine = r_.machine ? Result<Machine>(*r_.machine) : run.gpu ? machine_from_flags({*run.gpu, workload->run.world_size, std::nullopt, std::nullopt}) : machine_from_flags({std::nullopt, 1, std::nullopt, std::nullopt});
    if (!machine) return skipped(path, "the log does not tell the GPU: add --gpu NAME");
    const auto report = estimate(*workload, *machine);
    if (!report) return skipped(path, report.error().message);
    CalibrationRow out = row(path, run.gpu && !r_.machine ? *run.gpu : machine->gpu.name, workload->run.world_size, configuration_of(*workload));
    out.id = run_id(run);
    out.allocated_derived = report->allocated.bytes;
    out.reserved_derived = report->reserved.bytes;
    add_log(out, run);
    if (!out.allocated_peak && !out.tokens_per_second) return skipped(path, fmt::format("{} steps and no peak: too little to learn from", run.steps));
    return {path, CalibrationRead::Status::added, "", out};
  }

  Result<std::vector<CalibrationRead>> read_recording(const std::string& path) {
    auto source = open_replay_source(path);
    if (!source) return std::unexpected(source.error());
    WatchSettings settings;
    settings.given = r_.given;
    settings.machine = r_.machine;
    settings.source = (*source)->kind();
    Watcher watcher(std::move(settings));
    for (;;) {
      const auto moment = (*source)->next();
      if (!moment) return std::unexpected(moment.error());
      if (!*moment) break;
      watcher.take(**moment);
    }
    return std::vector<CalibrationRead>{from_recording(path, watcher)};
  }

  CalibrationRead from_recording(const std::string& path, const Watcher& watcher) const {
    const WatchView v = watcher.view();
    if (v.prediction == nullptr) return skipped(path, v.no_prediction);
    if (v.log == nullptr || v.log->steps < kLeastSteps) return skipped(path, "it holds no steps of the training log (watch --log FILE), so it cannot tell that the peak was met");
    const auto used = job_gpus(*v.history);
    const GpuHistory& first = v.history->gpus[used.front()];  // the log, and its peak, are rank 0's
    CalibrationRow out = row(path, v.prediction->gpu, v.prediction->world_size, v.prediction->configuration);
    out.id = run_id(*v.log);
    if (first.job_peak > Bytes(0)) out.process_peak = first.job_peak;
    if (first.now.reserved && *first.now.reserved > Bytes(0)) out.driver_reserve = first.now.reserved;
    out.allocated_derived = v.prediction->allocated.bytes;
    out.reserved_derived = v.prediction->reserved.bytes;
    add_log(out, *v.log);
    if (!out.process_peak && !out.driver_reserve && !out.allocated_peak && !out.tokens_per_second) return skipped(path, "it measured nothing to learn from");
    return {path, CalibrationRead::Status::added, "", out};
  }

  const CalibrateRequest& r_;
  const Env& env_;
};

}  // namespace

Result<int> calibrate(const CalibrateRequest& request, const Env& env, const Style& style) {
  const auto path = calibration_path(env);
  if (!path) return std::unexpected(path.error());
  if (request.reset) {
    if (!request.files.empty()) return fail("stray_word", "--reset takes no files", "first dryfit calibrate --reset, then dryfit calibrate FILE", "--reset");
    const auto gone = reset_calibration(*path);
    if (!gone) return std::unexpected(gone.error());
    if (!style.quiet) env.err(*gone ? "put aside as " + *path + ".old\n" : "there was no calibration\n");
    if (request.json) env.out(calibration_report_json({}, {}, *path, calibration_text({})));
    return kOk;
  }
  if (request.files.empty() && !request.show) return fail("missing_file", "calibrate needs the log or the recording of a run", "dryfit calibrate train.log run.jsonl, or --show for what is known", "calibrate");
  std::vector<CalibrationRead> read;
  Reading reading(request, env);
  for (const std::string& file : request.files) {
    auto found = reading.read(file);
    if (!found) return std::unexpected(found.error());
    read.insert(read.end(), std::make_move_iterator(found->begin()), std::make_move_iterator(found->end()));
  }
  const bool any = std::ranges::any_of(read, [](const CalibrationRead& r) { return r.row.has_value(); });
  const auto learn = [&](Calibration& calibration) {
    for (CalibrationRead& r : read) {
      if (r.row) r.status = merge(calibration, *r.row) ? CalibrationRead::Status::added : CalibrationRead::Status::renewed;
    }
  };
  const auto calibration = any ? update_calibration(*path, learn) : read_calibration(*path);
  if (!calibration) return std::unexpected(calibration.error());
  env.out(request.json ? calibration_report_json(*calibration, read, *path, calibration_text(*calibration)) : calibration_report_text(*calibration, read, *path, style));
  return any || (request.files.empty() && request.show) ? kOk : kDoesNotFit;
}

}  // namespace dryfit::cli
