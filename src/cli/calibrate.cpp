// See calibrate.hpp.
#include "cli/calibrate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "cli/calibration_file.hpp"
#include "cli/snapshot_file.hpp"
#include "cli/watch_source.hpp"
#include "doctor/snapshot_report.hpp"
#include "machine/probe_os.hpp"
#include "plan/plan.hpp"
#include "report/calibration.hpp"
#include "watch/watcher.hpp"

namespace dryfit::cli {

namespace {

constexpr std::int64_t kLeastSteps = 3;  // with the third, every phase of training has been met once
constexpr std::size_t kLongestLine = 4096, kHead = 4096;  // of the head: what tells a recording, a snapshot and a log apart

std::string date_of(const std::string& path) {
  const auto info = os::info(path);
  if (!info) return "";
  const std::chrono::year_month_day day{std::chrono::floor<std::chrono::days>(std::chrono::sys_seconds(std::chrono::seconds(info->modified)))};
  return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(day.year()), static_cast<unsigned>(day.month()), static_cast<unsigned>(day.day()));
}

std::string id_of(const char* kind, std::string_view text) {
  std::uint64_t hash = 14695981039346656037ULL;  // FNV-1a
  for (unsigned char c : text) hash = (hash ^ c) * 1099511628211ULL;
  return fmt::format("{}:{:016x}", kind, hash);
}

// The same run has the same first step, to the last digit of its loss and time, in a log and in a recording, whatever was said beside it.
std::string run_id(const LogRun& run) {
  const LogStep first = run.first.value_or(LogStep{});
  return id_of("run", fmt::format("{}|{}|{}|{}", first.step, first.loss.value_or(0), first.seconds.value_or(0), first.tokens_per_second.value_or(0)));
}

void add_log(CalibrationRow& row, const LogRun& run) {
  row.allocated_peak = run.peak_allocated;
  row.tokens_per_second = run.median_rate();
  row.mfu = run.median_mfu();
  row.steps = run.steps;
}

// A log in pieces to its reader, line by line.
class LogLines {
 public:
  void feed(std::string_view bytes) {
    for (char c : bytes) {
      if (c == '\n' || c == '\r') finish();
      else if (carry_.size() < kLongestLine) carry_ += c;
    }
  }
  const LogReader& finish() {
    log_.line(carry_);
    carry_.clear();
    return log_;
  }

 private:
  LogReader log_;
  std::string carry_;
};

class Reading {
 public:
  // known: what earlier runs taught; of it the driver's reserve of a card that is only named.
  Reading(const CalibrateRequest& request, const Env& env, const Calibration& known) : r_(request), env_(env), known_(known) {}

  // Every run of one file, in one pass.
  Result<std::vector<CalibrationRead>> read(const std::string& path) {
    std::string head;
    std::optional<FileKind> kind;
    LogLines log;
    SnapshotFile snapshot;
    const auto take = [&](std::string_view bytes) {
      if (is_snapshot(*kind)) return snapshot.feed(*kind, bytes);
      log.feed(bytes);
      return *kind == FileKind::text;
    };
    const auto decide = [&] {
      kind = file_kind(head);
      return take(std::exchange(head, {}));
    };
    const auto fed = env_.stream_file(path, [&](std::string_view chunk, const ReadProgress&) {
      if (kind) return take(chunk);
      head += chunk;
      return head.size() < kHead || decide();
    });
    if (!fed) return std::unexpected(fed.error());
    if (!kind && head.empty()) return fail("empty_file", "'" + path + "' is empty", "give a training log, a recording of dryfit watch, or a memory snapshot", path);
    if (!kind) decide();
    if (*kind == FileKind::recording) return read_recording(path);
    if (is_snapshot(*kind)) return read_snapshot(path, snapshot);
    return read_log(path, log);
  }

 private:
  CalibrationRead skipped(const std::string& path, std::string why) const { return {path, CalibrationRead::Status::skipped, std::move(why), std::nullopt}; }

  CalibrationRow row(const std::string& path, const std::string& gpu, std::int64_t world, const std::string& configuration) const {
    CalibrationRow out;
    out.file = os::absolute(path);
    out.date = date_of(path);
    out.gpu = gpu;
    out.world_size = world;
    out.configuration = configuration;
    return out;
  }

  Result<std::vector<CalibrationRead>> read_log(const std::string& path, LogLines& lines) {
    const LogReader& log = lines.finish();
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

  Result<std::vector<CalibrationRead>> read_snapshot(const std::string& path, SnapshotFile& file) const {
    Result<SnapshotReport> report = std::unexpected(Error{});
    std::vector<std::int64_t> begins;  // by device: when its trace began, which no other run's did
    {
      const auto snapshot = file.finish();
      if (!snapshot) {
        Error error = snapshot.error();
        error.where = error.where.empty() ? path : path + ", " + error.where;
        return std::unexpected(error);
      }
      report = report_snapshot(*snapshot, {});
      if (!report) return std::unexpected(report.error());
      for (const DeviceReport& d : report->devices) {
        const auto trace = std::ranges::find(snapshot->traces, d.device, &Snapshot::Trace::device);
        begins.push_back(trace == snapshot->traces.end() ? 0 : snapshot->entries[trace->first].time_us);
      }
    }
    std::vector<CalibrationRead> out;
    for (std::size_t i = 0; i < report->devices.size(); ++i) out.push_back(from_device(path, report->devices[i], begins[i]));
    if (out.empty()) out.push_back(skipped(path, "the snapshot holds no device"));
    return out;
  }

  // The card as named; as the driver shows it where it is one of this machine's.
  std::optional<Machine> card() const {
    const auto probe = env_.probe()->read();
    const auto here = probe ? machine_from_probe(*probe, {}) : Result<Machine>(std::unexpected(probe.error()));
    if (here && (!r_.machine || r_.machine->gpu.name == here->gpu.name)) return *here;
    std::optional<Machine> named = r_.machine;
    if (named) apply_driver_reserve(known_, *named);
    return named;
  }

  // A failed request tells what the driver had left, and so what lay outside the pool. Else a snapshot tells how large the pool of this
  // configuration grows. Never speed: recording stacks slows a run down.
  CalibrationRead from_device(const std::string& path, const DeviceReport& d, std::int64_t began) const {
    const auto machine = card();
    if (!machine) return skipped(path, "a snapshot does not name the card: add --gpu NAME");
    std::optional<Workload> workload;
    if (r_.given.depth) {
      const auto made = make_nanochat_workload(r_.given);
      if (!made) return skipped(path, made.error().message);
      workload = *made;
    }
    const std::int64_t world = workload ? workload->run.world_size : r_.given.gpus.value_or(1);
    CalibrationRow out = row(path, machine->gpu.name, world, workload ? configuration_of(*workload) : "a run that was not told");
    out.id = id_of("snapshot", fmt::format("{}|{}|{}|{}|{}", d.device, began, d.entries, d.peak.allocated.count, d.end.reserved.count));
    if (!d.ooms.empty()) {
      const SnapshotOom& failed = d.ooms.back();
      out.process_peak = machine->total - machine->driver_reserve - failed.device_free;
      out.reserved_peak = failed.reserved;
      if (!outside_of({}, out)) return skipped(path, fmt::format("GPU {}: {} of the card taken and {} of it PyTorch's is no {}, or other processes were on it", d.device, gib_text(*out.process_peak), gib_text(failed.reserved), machine->gpu.name));
      return {path, CalibrationRead::Status::added, "", out};
    }
    if (!d.traced) return skipped(path, fmt::format("GPU {}: without a trace it does not tell a peak", d.device));
    if (!workload) return skipped(path, fmt::format("GPU {}: no request failed in it; the size of its pool teaches only with the run's configuration: add the training command after --", d.device));
    const auto report = estimate(*workload, *machine);
    if (!report) return skipped(path, report.error().message);
    out.allocated_derived = report->allocated.bytes;
    out.reserved_derived = report->reserved.bytes;
    out.allocated_peak = d.peak.allocated;
    out.reserved_peak = std::max(d.peak.reserved, d.end.reserved);
    for (const UsagePoint& p : d.timeline) out.reserved_peak = std::max(*out.reserved_peak, p.reserved);
    return {path, CalibrationRead::Status::added, "", out};
  }

  const CalibrateRequest& r_;
  const Env& env_;
  const Calibration& known_;
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
  if (request.files.empty() && !request.show) return fail("missing_file", "calibrate needs a log, a recording or a memory snapshot of a run", "dryfit calibrate train.log run.jsonl, or --show for what is known", "calibrate");
  std::vector<CalibrationRead> read;
  const auto known = read_calibration(*path);
  if (!known) return std::unexpected(known.error());
  Reading reading(request, env, *known);
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
