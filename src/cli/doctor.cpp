// See doctor.hpp.
#include "cli/doctor.hpp"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "base/text.hpp"
#include "cli/model_source.hpp"
#include "cli/snapshot_file.hpp"
#include "doctor/diagnosis.hpp"
#include "doctor/snapshot_report.hpp"
#include "report/doctor.hpp"
#include "report/snapshot.hpp"

namespace dryfit::cli {

namespace {

constexpr double kPatience = 1.0;  // seconds before a bar appears

class Bar {
 public:
  Bar(const Env& env, const Style& style) : env_(env), wanted_(env.err_is_terminal && !style.quiet), style_(style) {}
  ~Bar() {
    if (drawn_ > 0) env_.err("\r\x1b[K");
  }
  void show(const ReadProgress& p) {
    if (!wanted_ || p.seconds < kPatience || p.seconds - last_ < 0.1) return;
    last_ = p.seconds;
    ++drawn_;
    const double speed = static_cast<double>(p.done) / p.seconds;
    std::string text = fmt::format("\rreading {:.1f} GiB", static_cast<double>(p.done) / (1 << 30));
    if (p.total > 0) {
      const int width = 24, full = static_cast<int>(static_cast<double>(width) * static_cast<double>(p.done) / static_cast<double>(p.total));
      std::string cells;
      for (int i = 0; i < width; ++i) cells += i < full ? (style_.ascii ? "#" : "█") : (style_.ascii ? "." : "░");
      text = fmt::format("\rreading {} {:3.0f} %  {:.0f} s left", cells, 100.0 * static_cast<double>(p.done) / static_cast<double>(p.total), static_cast<double>(p.total - p.done) / speed);
    }
    env_.err(text + "\x1b[K");
  }

 private:
  const Env& env_;
  bool wanted_;
  Style style_;
  double last_ = 0;
  int drawn_ = 0;
};

std::unexpected<Error> not_readable(FileKind kind, const std::string& path) {
  const std::string quoted = "'" + path + "'";
  switch (kind) {
    case FileKind::archive: return fail("archive", quoted + " is compressed", "unpack it on the way: zcat " + path + " | dryfit doctor -", path);
    case FileKind::snapshot_page: return fail("snapshot_page", quoted + " is the memory viewer's page, with a snapshot packed inside", "give the .pickle it was made of, as torch.cuda.memory._dump_snapshot wrote it", path);
    case FileKind::recording: return fail("recording", quoted + " is a recording of dryfit watch", path == "-" ? "give it as a file: dryfit doctor --live --replay FILE" : "dryfit doctor --live --replay " + path + " judges it, dryfit watch --replay " + path + " plays it", path);
    case FileKind::profile_page:
    case FileKind::profile: break;
    default: return fail("not_text", quoted + " is not text", "give a training log, a pasted traceback, or a memory snapshot", path);
  }
  return fail("profiler_trace", quoted + (kind == FileKind::profile ? " is a profiler's trace, not a memory snapshot" : " is the profiler's picture of memory, not a snapshot"),
              "record one: torch.cuda.memory._record_memory_history(), run some steps, torch.cuda.memory._dump_snapshot(\"snapshot.pickle\")", path);
}

// What a file turns out to be, and its reader.
class Intake {
 public:
  // false: no use in reading on.
  bool feed(std::string_view chunk) {
    if (decided_) return take(chunk);
    head_ += chunk;
    return head_.size() < enough() || decide();
  }
  // After the last byte.
  FileKind kind() {
    if (!decided_) decide();
    return kind_;
  }
  LogFacts log() { return scanner_.finish(); }
  Result<Snapshot> snapshot() { return snapshot_.finish(); }

 private:
  // A pipe may give a byte at a time; JSON and pages tell by a word what they are.
  std::size_t enough() const {
    const std::size_t first = head_.find_first_not_of(" \t\r\n");
    return first == std::string::npos || std::string_view("{[<").find(head_[first]) == std::string_view::npos ? 8 : 4096;
  }
  bool decide() {
    decided_ = true;
    kind_ = file_kind(head_);
    return take(std::exchange(head_, {}));
  }
  bool take(std::string_view bytes) {
    if (is_snapshot(kind_)) return snapshot_.feed(kind_, bytes);
    if (kind_ != FileKind::text) return false;
    scanner_.feed(bytes);
    return !scanner_.binary();
  }

  LogScanner scanner_;
  SnapshotFile snapshot_;
  std::string head_;  // until it is decided
  FileKind kind_ = FileKind::text;
  bool decided_ = false;
};

Result<int> doctor_snapshot(const Snapshot& snapshot, const DoctorRequest& request, const Env& env, const Style& style) {
  const auto report = report_snapshot(snapshot, request.given);
  if (!report) return std::unexpected(report.error());
  const std::string& path = request.paths[0];
  const int status = report->devices.empty() ? kDoesNotFit : kOk;
  if (request.svg == "-") {
    env.out(snapshot_svg(*report, path));
    return status;
  }
  if (request.svg) {
    if (const auto written = env.write_file(*request.svg, snapshot_svg(*report, path)); !written) return std::unexpected(written.error());
    if (!style.quiet) env.err("wrote " + *request.svg + "\n");
  }
  if (!request.json && !style.quiet) env.err(doctor_sources_text(report->known));
  env.out(request.json ? snapshot_json(*report, path) : snapshot_text(*report, path, style));
  return status;
}

// The run of a Hugging Face model that a log's own command line starts. Files that it names are another machine's, and are not read.
Result<std::optional<Workload>> model_of(const std::string& command, const Given& given, const Env& env) {
  Options options;
  const auto words = shell_split(command);
  if (!words) return std::unexpected(words.error());
  options.command = "doctor", options.pasted = *words, options.has_pasted = true;
  const auto asks = asks_for_transformers(options);
  if (!asks || !*asks) return std::optional<Workload>();
  Env words_alone = env;
  words_alone.variable = [](const char*) { return std::nullopt; };
  words_alone.stream_file = [](const std::string& path, const ReadSink&) -> Result<void> { return fail("unreadable_file", "it names '" + path.substr(0, 60) + "', a file", "give the command after --, where its files are", path); };
  auto request = transformers_request(options, words_alone);
  if (!request) return std::unexpected(request.error());
  if (given.machine.gpus) request->flags.gpus = given.machine.gpus;
  if (given.transformers) request->flags.transformers = given.transformers;
  if (given.flags.torch) request->flags.torch = given.flags.torch;
  auto workload = transformers_workload(*request, words_alone);
  if (!workload) return std::unexpected(workload.error());
  return std::optional(std::move(*workload));
}

Result<Diagnosis> diagnosed(const LogFacts& facts, const Given& given, const Env& env) {
  auto diagnosis = diagnose(facts, given);
  if (!diagnosis || diagnosis->known.workload || diagnosis->known.problem || diagnosis->run.command.empty()) return diagnosis;
  const std::string where = "the training command (line " + std::to_string(diagnosis->run.command_line) + ")";
  auto model = model_of(diagnosis->run.command, given, env);
  if (!model) diagnosis->notes.push_back(where + " could not be used: " + model.error().message);
  if (!model || !*model) return diagnosis;
  Given with = given;
  with.model = std::move(*model);
  with.model_source = where;
  return diagnose(facts, with);
}

}  // namespace

Result<int> doctor(const DoctorRequest& request, const Env& env, const Style& style) {
  if (request.paths.empty()) return fail("missing_file", "doctor needs a log or a traceback", "dryfit doctor train.log, - to read standard input, or --live for a job that runs here", "doctor");
  if (request.paths.size() > 1) return fail("stray_word", "'" + request.paths[1].substr(0, 60) + "' is one file too many", "one at a time, or together: cat rank*.log | dryfit doctor -", "doctor");
  const std::string& path = request.paths[0];
  if (request.given.machine.gpu || request.given.machine.memory) {
    if (const auto machine = machine_from_flags(request.given.machine); !machine) return std::unexpected(machine.error());
  }
  std::optional<Intake> intake(std::in_place);
  {
    Bar bar(env, style);
    const auto read = env.stream_file(path, [&](std::string_view chunk, const ReadProgress& progress) {
      bar.show(progress);
      return intake->feed(chunk);
    });
    if (!read) return std::unexpected(read.error());
  }
  const FileKind kind = intake->kind();
  if (is_snapshot(kind)) {
    const auto snapshot = intake->snapshot();
    intake.reset();  // half of the memory in use
    if (snapshot) return doctor_snapshot(*snapshot, request, env, style);
    Error error = snapshot.error();
    error.where = error.where.empty() ? path : path + ", " + error.where;
    return std::unexpected(error);
  }
  if (kind != FileKind::text) return not_readable(kind, path);
  if (request.svg) return fail("no_timeline", "--svg draws the timeline of a memory snapshot; '" + path + "' is a log", "give a snapshot, or: dryfit explain ... --svg FILE", "--svg");
  const LogFacts facts = intake->log();
  if (facts.bytes == 0) return fail("empty_file", path == "-" ? "standard input is empty" : "'" + path + "' is empty", "give a training log, or paste a traceback: dryfit doctor -", path);
  auto diagnosis = diagnosed(facts, request.given, env);
  if (!diagnosis) {
    Error error = diagnosis.error();
    if (error.where.empty()) error.where = path;
    return std::unexpected(error);
  }
  if (!request.json && !style.quiet) env.err(doctor_sources_text(diagnosis->known));
  env.out(request.json ? doctor_json(*diagnosis, path) : doctor_text(*diagnosis, path, style));
  return diagnosis->finding == Diagnosis::Finding::nothing ? kDoesNotFit : kOk;
}

}  // namespace dryfit::cli
