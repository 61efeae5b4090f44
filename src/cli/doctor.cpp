// See doctor.hpp.
#include "cli/doctor.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "doctor/diagnosis.hpp"
#include "doctor/file_kind.hpp"
#include "report/doctor.hpp"

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

std::unexpected<Error> not_a_log(FileKind kind, const std::string& path) {
  if (kind == FileKind::archive) return fail("archive", "'" + path + "' is compressed", "unpack it on the way: zcat " + path + " | dryfit doctor -", path);
  return fail("memory_snapshot", "'" + path + "' is a memory snapshot, which this dryfit cannot read yet", "give the training log or the traceback of the same run", path);
}

// Where the run comes from that the answer is about, and what was not given.
std::string sources_text(const KnownRun& known) {
  if (!known.workload) return "";
  std::string out;
  for (const std::string& s : known.sources) out += (out.empty() ? "the run: from " : ", ") + s;
  if (!out.empty()) out += "\n";
  for (const Assumption& a : known.workload->assumptions) {
    std::string key = a.key;
    std::ranges::replace(key, '_', '-');
    out += fmt::format("using --{} {} ({})\n", key, a.value, a.source);
  }
  return out;
}

}  // namespace

Result<int> doctor(const DoctorRequest& request, const Env& env, const Style& style) {
  if (request.paths.empty()) return fail("missing_file", "doctor needs a log or a traceback", "dryfit doctor train.log, or - to read standard input", "doctor");
  if (request.paths.size() > 1) return fail("stray_word", "'" + request.paths[1].substr(0, 60) + "' is one file too many", "one at a time, or together: cat rank*.log | dryfit doctor -", "doctor");
  const std::string& path = request.paths[0];
  if (request.given.machine.gpu || request.given.machine.memory) {
    if (const auto machine = machine_from_flags(request.given.machine); !machine) return std::unexpected(machine.error());
  }
  LogScanner scanner;
  std::string head;
  FileKind kind = FileKind::text;
  bool decided = false;
  {
    Bar bar(env, style);
    const auto read = env.stream_file(path, [&](std::string_view chunk, const ReadProgress& progress) {
      if (!decided) {
        head += chunk.substr(0, kKindHead);
        if (head.size() >= 8) {
          decided = true;
          kind = file_kind(head);
          head.clear();
          if (kind != FileKind::text) return false;
        }
      }
      scanner.feed(chunk);
      bar.show(progress);
      return !scanner.binary();
    });
    if (!read) return std::unexpected(read.error());
  }
  // a memory snapshot: its reader belongs here, return doctor_snapshot(path, ...)
  if (kind != FileKind::text) return not_a_log(kind, path);
  LogFacts facts = scanner.finish();
  if (facts.bytes == 0) return fail("empty_file", path == "-" ? "standard input is empty" : "'" + path + "' is empty", "give a training log, or paste a traceback: dryfit doctor -", path);
  auto diagnosis = diagnose(std::move(facts), request.given);
  if (!diagnosis) {
    Error error = diagnosis.error();
    if (error.where.empty()) error.where = path;
    return std::unexpected(error);
  }
  if (!request.json && !style.quiet) env.err(sources_text(diagnosis->known));
  env.out(request.json ? doctor_json(*diagnosis, path) : doctor_text(*diagnosis, path, style));
  return diagnosis->finding == Diagnosis::Finding::nothing ? kDoesNotFit : kOk;
}

}  // namespace dryfit::cli
