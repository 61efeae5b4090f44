// See watch.hpp.
#include "cli/watch.hpp"

#include <fmt/format.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "cli/live.hpp"
#include "cli/watch_source.hpp"
#include "machine/probe_os.hpp"
#include "report/watch.hpp"
#include "watch/probe_recording.hpp"

namespace dryfit::cli {

namespace {

constexpr double kDefaultInterval = 1, kWatchSmiInterval = 5;

std::int64_t wall_ms() { return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count(); }
double monotonic() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// A recording being written: a new file, each moment handed to the system at once.
class Recorder {
 public:
  Recorder() = default;
  ~Recorder() {
    if (file_ >= 0) os::close(file_);
  }
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  Result<void> open(const std::string& path) {
    path_ = path;
    file_ = os::open(path, os::Access::write_new);  // command lines are nobody else's business
    if (file_ >= 0) return {};
    if (errno == EEXIST) return fail("file_exists", "'" + path + "' exists already", "give a new name: a recording never overwrites anything", "--record");
    return fail("unwritable_file", "cannot write '" + path + "': " + std::strerror(errno), "give a path in a folder you may write to", "--record");
  }
  bool write(const std::string& text) {
    if (file_ < 0) return true;
    const int problem = os::write(file_, text);
    if (problem == 0) return true;
    problem_ = std::string("the recording '") + path_ + "' stopped: " + std::strerror(problem);
    os::close(file_);
    file_ = -1;
    return false;
  }
  const std::string& problem() const { return problem_; }

 private:
  int file_ = -1;
  std::string path_, problem_;
};

class Session {
 public:
  Session(WatchRequest request, const Env& env, const Style& style) : r_(std::move(request)), env_(env), style_(style) {}

  Result<int> run() {
    auto source = r_.replay.empty() ? open_live_source({r_.pid, r_.log}) : open_replay_source(r_.replay);
    if (!source) return std::unexpected(source.error());
    source_ = std::move(*source);
    if (const auto ok = open_outputs(); !ok) return std::unexpected(ok.error());
    r_.settings.source = source_->kind();
    r_.settings.source_name = source_->name();
    r_.settings.notes = source_->notes();
    r_.settings.has_log = !r_.log.empty();
    watcher_ = std::make_unique<Watcher>(std::move(r_.settings));
    const bool drawing = env_.out_is_terminal && !r_.once && !r_.json && env_.variable("TERM").value_or("") != "dumb";
    auto status = drawing ? on_screen() : in_lines();
    if (!status) return status;
    if (!r_.prometheus.empty()) env_.write_file(r_.prometheus, watch_prometheus_down());
    for (const std::string& problem : {recorder_.problem(), prometheus_problem_}) {
      if (problem.empty()) continue;
      env_.err("error: " + problem + "\nhint:  is the disk full?\n");
      status = kInternal;
    }
    return status;
  }

 private:
  Result<void> open_outputs() {
    if (!r_.prometheus.empty()) {  // a path that cannot be written is told before anything else happens
      if (const auto ok = env_.write_file(r_.prometheus, watch_prometheus_down()); !ok) return ok;
    }
    if (r_.record.empty()) return {};
    if (const auto ok = recorder_.open(r_.record); !ok) return ok;
    recorder_.write(write_recording_header({wall_ms(), source_->name(), source_->gpus()}));
    return {};
  }

  // One moment further. False: there is none.
  Result<bool> step() {
    auto moment = source_->next();
    if (!moment) return std::unexpected(moment.error());
    if (!*moment) return false;
    watcher_->take(**moment);
#ifdef __GLIBC__
    if ((*moment)->job) malloc_trim(0);  // an estimate takes a few megabytes that are not needed again
#endif
    recorder_.write(write_recording_moment(**moment));
    if (!r_.prometheus.empty()) {
      const auto ok = env_.write_file(r_.prometheus, watch_prometheus(view()));
      prometheus_problem_ = ok ? "" : ok.error().message;
    }
    return true;
  }

  WatchView view() const {
    WatchView v = watcher_->view();
    v.time_ms = source_->live() ? wall_ms() : 0;
    if (v.mode.empty() && !source_->live()) v.mode = ended_ ? "replay ended" : "replay";
    for (const std::string& problem : {recorder_.problem(), prometheus_problem_}) {
      if (!problem.empty()) v.notes.insert(v.notes.begin(), problem);
    }
    return v;
  }

  std::string screenful(const WatchView& v) const {
    std::string out;
    for (const std::string& line : watch_frame(v, env_.width, watch_rows(v, env_.width), style_)) out += line + "\n";
    return out;
  }

  double interval() const { return r_.interval.value_or(source_->kind() == MachineSource::nvidia_smi && source_->live() ? kWatchSmiInterval : kDefaultInterval); }
  // Seconds until the next moment: live at fixed times, a recording at its own pace or the one asked for.
  double pause(double& due) const {
    due = std::max(due + interval(), monotonic());
    return due - monotonic();
  }

  Result<int> lost(const Error& error) const {
    env_.err(error_text(error, style_));
    return kDoesNotFit;
  }

  Result<int> in_lines() {
    Signals signals;
    double due = monotonic();
    for (;;) {
      const auto more = step();
      if (!more && more.error().code == "gpu_lost") return lost(more.error());
      if (!more) return std::unexpected(more.error());
      ended_ = !*more;
      const bool last = ended_ || (r_.once && source_->live()) || watcher_->job_ended();
      if (watcher_->history().samples > 0 && (r_.once ? last : *more)) env_.out(r_.json ? watch_json(view()) : r_.once ? screenful(view()) : watch_line(view()));
      if (last) break;
      if (r_.once || !source_->live()) {
        if (Signals::quit_asked()) break;
        continue;
      }
      if (wait_out(signals, pause(due)) == LiveEvent::quit) break;
    }
    if (watcher_->history().samples == 0) return fail("bad_recording", "the recording holds no moment", "dryfit watch --record FILE makes one", r_.replay);
    return kOk;
  }

  static LiveEvent wait_out(const Signals& signals, double seconds) {
    const double end = monotonic() + seconds;
    for (;;) {
      const LiveEvent event = signals.wait(end - monotonic(), false);
      if (event == LiveEvent::quit || event == LiveEvent::timeout) return event;
    }
  }

  bool draw(Screen& screen) const {
    const Screen::Size size = Screen::size();
    WatchView v = view();
    v.footer = ended_ ? "q quit" : std::string("q quit") + (r_.record.empty() ? "" : "   recording to " + plain_text(r_.record, 60)) + "   docs/watch.md tells what each line means";
    return screen.draw(watch_frame(v, size.width, size.height, style_), size);
  }

  Result<int> on_screen() {
    std::optional<Error> problem;
    {
      Signals signals;
      Screen screen;
      double due = monotonic();
      double before = 0;
      bool open = true;
      while (open) {
        const auto more = ended_ ? Result<bool>(false) : step();
        if (!more) {
          problem = more.error();
          break;
        }
        ended_ = !*more;
        if (watcher_->history().samples == 0 || !draw(screen) || watcher_->job_ended()) break;
        if (ended_ && !screen.keys()) break;  // nobody can press q
        double seconds = ended_ ? 3600 : pause(due);
        if (!source_->live() && !r_.interval && !ended_) {
          seconds = std::clamp(watcher_->history().now - before, 0.0, 5.0);
          before = watcher_->history().now;
        }
        const double end = monotonic() + seconds;
        for (;;) {
          const LiveEvent event = signals.wait(end - monotonic(), screen.keys());
          if (event == LiveEvent::timeout) break;
          screen.forget();  // a resized terminal may have moved what was there
          if (event == LiveEvent::quit || !draw(screen)) {
            open = false;
            break;
          }
        }
      }
    }
    if (problem && problem->code != "gpu_lost") return std::unexpected(*problem);
    if (Signals::hung_up()) return kOk;
    if (watcher_->history().samples > 0) env_.out(screenful(view()));  // what was seen stays in the scrollback
    if (problem) return lost(*problem);
    if (watcher_->history().samples == 0) return fail("bad_recording", "the recording holds no moment", "dryfit watch --record FILE makes one", r_.replay);
    return kOk;
  }

  WatchRequest r_;
  const Env& env_;
  Style style_;
  std::unique_ptr<WatchSource> source_;
  std::unique_ptr<Watcher> watcher_;
  Recorder recorder_;
  std::string prometheus_problem_;
  bool ended_ = false;
};

}  // namespace

Result<int> watch(WatchRequest request, const Env& env, const Style& style) { return Session(std::move(request), env, style).run(); }

}  // namespace dryfit::cli
