// See doctor_live.hpp.
#include "cli/doctor_live.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "cli/live.hpp"
#include "cli/watch_source.hpp"
#include "doctor/diagnosis.hpp"
#include "report/doctor.hpp"
#include "watch/history.hpp"
#include "watch/job.hpp"

namespace dryfit::cli {

namespace {

constexpr double kSeconds = 5, kReplaySeconds = 60;
constexpr double kLiveInterval = 0.25, kLiveSmiInterval = 1;  // the driver renews its utilization every sixth of a second to a second

class Reader {
 public:
  Reader(const DoctorLiveRequest& request, const Env& env, const Style& style) : r_(request), env_(env), style_(style) {}

  Result<int> run() {
    auto source = r_.replay.empty() ? open_live_source({r_.pid, r_.log}) : open_replay_source(r_.replay);
    if (!source) return std::unexpected(hinted(source.error()));
    const auto read = r_.replay.empty() ? from_driver(**source) : from_recording(**source);
    if (!read && read.error().code == "gpu_lost") {
      env_.err(error_text(read.error(), style_));
      return kDoesNotFit;
    }
    if (!read) return std::unexpected(read.error());
    if (readings_.samples() == 0) return fail("bad_recording", "the recording holds no moment", "dryfit watch --record FILE makes one", r_.replay);
    auto diagnosis = judge(**source);
    if (!diagnosis) return std::unexpected(diagnosis.error());
    if (!r_.json && !style_.quiet) env_.err(doctor_sources_text(diagnosis->known));
    const std::string name = r_.replay.empty() ? "live" : r_.replay;
    env_.out(r_.json ? doctor_json(*diagnosis, name) : doctor_text(*diagnosis, name, style_));
    return diagnosis->finding == Diagnosis::Finding::nothing ? kDoesNotFit : kOk;
  }

 private:
  static Error hinted(Error error) {
    if (error.hint.find("dryfit watch --replay") != std::string::npos) error.hint = "run it where the training runs; or give the log alone: dryfit doctor train.log; or a recording: dryfit doctor --live --replay FILE";
    return error;
  }

  void take(const Moment& moment) {
    readings_.add(moment.sample);
    if (moment.job) job_ = job_of(*moment.job);
    for (const std::string& line : moment.log) scanner_.feed(line + "\n");
    std::vector<std::int64_t> own;
    for (const ProcessSample& p : moment.sample.processes) own.push_back(p.pid);
    add_sample(history_, moment.sample, own, nullptr);
    notes_ = moment.sample.notes;
  }

  void progress(double done, double of) const {
    if (!env_.err_is_terminal || style_.quiet) return;
    env_.err(fmt::format("\rreading the GPUs: {:.0f} of {:.0f} s\x1b[K", done, of));
  }
  void progress_done() const {
    if (env_.err_is_terminal && !style_.quiet) env_.err("\r\x1b[K");
  }

  Result<void> from_driver(WatchSource& source) {
    const double seconds = r_.seconds.value_or(kSeconds), interval = source.kind() == MachineSource::nvml ? kLiveInterval : kLiveSmiInterval;
    Signals signals;
    std::optional<Error> problem;
    for (;;) {
      const auto moment = source.next();
      if (!moment) problem = moment.error();
      if (!moment || !*moment) break;
      take(**moment);
      if (readings_.seconds() >= seconds) break;
      progress(readings_.seconds(), seconds);
      if (signals.wait(std::min(interval, seconds - readings_.seconds()), false) == LiveEvent::quit) break;
    }
    progress_done();
    if (problem) return std::unexpected(*problem);
    return {};
  }

  // Its last seconds: a first reading tells when it ends, so that a long recording needs no memory.
  Result<void> from_recording(WatchSource& source) {
    double end = 0;
    for (;;) {
      const auto moment = source.next();
      if (!moment) return std::unexpected(moment.error());
      if (!*moment) break;
      end = (*moment)->sample.seconds;
    }
    const auto again = open_replay_source(r_.replay);
    if (!again) return std::unexpected(again.error());
    const double from = end - r_.seconds.value_or(kReplaySeconds);
    for (;;) {
      auto moment = (*again)->next();
      if (!moment) return std::unexpected(moment.error());
      if (!*moment) break;
      if ((*moment)->job) job_ = job_of(*(*moment)->job);
      if ((*moment)->sample.seconds >= from) take(**moment);
      else for (const std::string& line : (*moment)->log) scanner_.feed(line + "\n");
    }
    return {};
  }

  Result<Diagnosis> judge(const WatchSource& source) {
    Given given = r_.given;
    Live live;
    live.source = source.name();
    live.replay = !source.live();
    if (job_) {
      live.pid = job_->pid;
      live.command = job_->command;
      given.running = job_->flags;
      given.running_source = fmt::format("the command line of process {}", job_->pid);
      if (const auto conf = job_->alloc_conf ? parse_alloc_conf(*job_->alloc_conf) : Result<AllocatorConfig>(AllocatorConfig{}); job_->alloc_conf && conf && !given.allocator) given.allocator = *conf;
    }
    const bool anything = job_ || std::ranges::any_of(history_.gpus, [](const GpuHistory& g) { return g.now.used && *g.now.used > gib(1); });
    const auto used = anything ? job_gpus(history_) : std::vector<std::size_t>();
    std::string no_machine;
    if (anything) {
      auto machine = machine_of(history_, source.kind());
      if (machine) given.here = std::move(*machine);
      else no_machine = machine.error().message;
    }
    auto diagnosis = diagnose_live(std::move(live), readings_, used, scanner_.finish(), given);
    if (!diagnosis) return diagnosis;
    const auto note = [&](const std::string& text) {
      if (!text.empty() && std::ranges::find(diagnosis->notes, text) == diagnosis->notes.end()) diagnosis->notes.push_back(text);
    };
    for (const std::string& text : source.notes()) note(text);
    for (const std::string& text : notes_) note(text);
    note(no_machine);
    if (job_ && !diagnosis->known.workload) note("no prediction: " + (job_->unread.empty() ? "its command does not tell the depth" : job_->unread));
    return diagnosis;
  }

  const DoctorLiveRequest& r_;
  const Env& env_;
  Style style_;
  Readings readings_;
  LogScanner scanner_;
  History history_;
  std::vector<std::string> notes_;
  std::optional<Job> job_;
};

}  // namespace

Result<int> doctor_live(const DoctorLiveRequest& request, const Env& env, const Style& style) { return Reader(request, env, style).run(); }

}  // namespace dryfit::cli
