// Each command: options to values, one call of plan/, values to a screen or JSON. See cli.hpp.
#include "cli/cli.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/version.hpp"
#include "base/text.hpp"
#include "cli/calibrate.hpp"
#include "cli/calibration_file.hpp"
#include "cli/capture_source.hpp"
#include "cli/commands.hpp"
#include "cli/doctor.hpp"
#include "cli/doctor_live.hpp"
#include "cli/job_flags.hpp"
#include "cli/list.hpp"
#include "cli/model_source.hpp"
#include "cli/options.hpp"
#include "cli/paste_options.hpp"
#include "cli/rule.hpp"
#include "cli/running_job_flags.hpp"
#include "cli/style.hpp"
#include "cli/transformers_plan.hpp"
#include "cli/watch.hpp"
#include "plan/alternatives.hpp"
#include "plan/captured.hpp"
#include "plan/launch.hpp"
#include "plan/plan.hpp"
#include "report/json.hpp"
#include "report/speed.hpp"
#include "report/text.hpp"

namespace dryfit::cli {

namespace {

class Command {
 public:
  Command(const Options& options, const Env& env, Style style) : o_(options), env_(env), style_(style) {}

  Result<int> run() {
    if (o_.help) return help(o_.command);
    for (const std::string& note : o_.pasted_notes) talk("note: " + note + "\n");
    if (const auto service = env_.services.find(o_.command); service != env_.services.end()) return service->second(o_, env_);
    if (o_.command == "check") return check();
    if (o_.command == "explain") return explain();
    if (o_.command == "plan") return plan_command();
    if (o_.command == "table") return table_command();
    if (o_.command == "doctor") return doctor_command();
    if (o_.command == "watch") return watch_command();
    if (o_.command == "calibrate") return calibrate_command();
    if (o_.command == "rule-of-thumb") return rule();
    if (o_.command == "list") return list();
    if (o_.command == "completions") return completion();
    if (o_.command == "version") return print(json() ? version_json() : "dryfit " DRYFIT_VERSION "\n");
    if (const CommandSpec* c = find_command(o_.command); c != nullptr && c->local) return fail("not_here", o_.command + " is not part of this build", "use the dryfit program", o_.command);
    return help(o_.positional.empty() ? "" : o_.positional[0]);
  }

 private:
  bool json() const { return o_.has("json"); }
  int print(std::string_view text) const {
    env_.out(text);
    return kOk;
  }
  void talk(std::string_view text) const {
    if (!style_.quiet) env_.err(text);
  }

  Result<std::optional<std::int64_t>> number(std::string_view flag) const { return number_of(o_, flag); }

  // Flags of the command line over those of a pasted command.
  Result<WorkloadFlags> workload_flags() {
    WorkloadFlags f;
    const auto options = paste_options(o_);
    if (!options) return std::unexpected(options.error());
    if (o_.has_pasted) {
      const auto pasted = parse_pasted_command(o_.pasted, *options);
      if (!pasted) return std::unexpected(pasted.error());
      f = pasted->flags;
      pasted_conf_ = pasted->alloc_conf;
      for (const std::string& w : pasted->ignored) talk("note: not used: " + w + "\n");
    }
    struct Number { const char* flag; std::optional<std::int64_t> WorkloadFlags::*field; };
    for (const Number& n : {Number{"depth", &WorkloadFlags::depth}, Number{"aspect-ratio", &WorkloadFlags::aspect_ratio}, Number{"head-dim", &WorkloadFlags::head_dim},
                            Number{"vocab-size", &WorkloadFlags::vocab_size}, Number{"device-batch-size", &WorkloadFlags::device_batch_size}, Number{"total-batch-size", &WorkloadFlags::total_batch_size},
                            Number{"max-seq-len", &WorkloadFlags::max_seq_len}, Number{"gpus", &WorkloadFlags::gpus},
                            Number{"core-metric-every", &WorkloadFlags::core_metric_every}, Number{"core-metric-max-per-task", &WorkloadFlags::core_metric_max_per_task},
                            Number{"eval-every", &WorkloadFlags::eval_every}, Number{"sample-every", &WorkloadFlags::sample_every}, Number{"save-every", &WorkloadFlags::save_every},
                            Number{"chatcore-every", &WorkloadFlags::chatcore_every}, Number{"resume-from-step", &WorkloadFlags::resume_from_step},
                            Number{"num-samples", &WorkloadFlags::num_samples}, Number{"max-new-tokens", &WorkloadFlags::max_new_tokens}, Number{"examples-per-step", &WorkloadFlags::examples_per_step}}) {
      const auto value = number(n.flag);
      if (!value) return std::unexpected(value.error());
      if (*value) f.*n.field = *value;
    }
    for (const auto& [flag, field] : {std::pair{"window-pattern", &WorkloadFlags::window_pattern}, std::pair{"nanochat", &WorkloadFlags::nanochat}, std::pair{"dtype", &WorkloadFlags::dtype},
                                      std::pair{"attention", &WorkloadFlags::attention}, std::pair{"torch", &WorkloadFlags::torch}, std::pair{"script", &WorkloadFlags::script}, std::pair{"phases", &WorkloadFlags::phases}}) {
      if (o_.has(flag)) f.*field = *o_.get(flag);
    }
    // what tells how long to train goes into the command as it is; the horizon is read from there
    for (const char* flag : {"num-iterations", "target-flops", "target-param-data-ratio"}) {
      const auto text = o_.get(flag);
      if (!text) continue;
      if (const auto x = parse_real(*text, "--" + std::string(flag)); !x) return std::unexpected(x.error());
      const std::string start = "--" + std::string(flag) + "=";
      std::erase_if(f.passthrough, [&](const std::string& kept) { return kept.starts_with(start); });
      f.passthrough.push_back(start + std::string(trim(*text)));
    }
    if (!f.dtype) {
      if (const auto dtype = env_.variable("NANOCHAT_DTYPE"); dtype && !dtype->empty()) f.dtype = *dtype;
    }
    if (o_.has("fp8")) f.fp8 = true;
    for (const auto& [flag, field] : {std::pair{"compile", &WorkloadFlags::compile}, std::pair{"cold-caches", &WorkloadFlags::cold_caches}, std::pair{"load-optimizer", &WorkloadFlags::load_optimizer}, std::pair{"torchrun", &WorkloadFlags::torchrun}}) {
      const auto value = o_.get(flag);
      if (!value) continue;
      const std::string name = "--" + std::string(flag);
      if (*value != "0" && *value != "1") return fail("bad_value", name + " " + value->substr(0, 30) + " is neither 0 nor 1", "write " + name + " 1", name);
      f.*field = *value == "1";
    }
    return f;
  }

  Result<MachineFlags> machine_flags(const WorkloadFlags& w) const {
    MachineFlags f;
    f.gpu = o_.get("gpu");
    f.gpus = w.gpus;
    for (const auto& [flag, field] : {std::pair{"memory", &MachineFlags::memory}, std::pair{"reserve", &MachineFlags::reserve}}) {
      if (const auto text = o_.get(flag)) {
        const auto size = parse_size(*text, "--" + std::string(flag));
        if (!size) return std::unexpected(size.error());
        f.*field = *size;
      }
    }
    return f;
  }

  Result<Machine> machine(const WorkloadFlags& w) {
    const auto given = machine_flags(w);
    if (!given) return std::unexpected(given.error());
    MachineFlags f = *given;
    if (f.gpu || f.memory) {
      auto named = machine_from_flags(f);
      if (named && !f.memory) apply_driver_reserve(*calibration(), *named);
      return named;
    }
    const auto probe = env_.probe()->read();
    if (probe) return machine_from_probe(*probe, f);
    if (env_.variable("DRYFIT_PROBE").value_or("") != "") return std::unexpected(probe.error());
    f.gpu = "h100";
    auto fallback = machine_from_flags(f);
    if (fallback) {
      fallback->source = MachineSource::default_gpu;
      fallback->notes.push_back("no GPU found here: using --gpu h100");
    }
    return fallback;
  }

  // What this machine's own runs taught; a file that cannot be read is said and otherwise no matter.
  const Calibration* calibration() {
    if (calibration_) return &*calibration_;
    calibration_.emplace();
    const auto path = calibration_path(env_);
    if (!path) return &*calibration_;
    auto read = read_calibration(*path);
    if (read) calibration_ = std::move(*read);
    else talk("warning: the calibration is not used: " + read.error().message + "\nhint:  " + read.error().hint + "\n");
    return &*calibration_;
  }

  // --prices: a price list is short, it is read whole.
  Result<void> read_own_prices() {
    const auto path = o_.get("prices");
    if (!path || prices_) return {};
    constexpr std::size_t kMost = 1 << 20;
    std::string text;
    const auto ok = env_.stream_file(*path, [&](std::string_view chunk, const ReadProgress&) {
      text += chunk;
      return text.size() <= kMost;
    });
    if (!ok) return ok;
    if (text.size() > kMost) return fail("bad_prices", "'" + path->substr(0, 200) + "' is larger than 1 MiB", "a price list has one line a GPU", "--prices");
    auto prices = read_prices(text, *path);
    if (!prices) return std::unexpected(prices.error());
    prices_ = std::move(*prices);
    return {};
  }

  Result<EstimateOptions> estimate_options() {
    EstimateOptions options;
    if (const auto ok = read_own_prices(); !ok) return std::unexpected(ok.error());
    if (prices_) options.prices = &*prices_;
    options.loop = env_.loop;
    options.calibration = calibration();
    const auto conf = o_.has("alloc-conf") ? o_.get("alloc-conf") : pasted_conf_;
    if (conf) {
      const auto parsed = parse_alloc_conf(*conf);
      if (!parsed) return std::unexpected(parsed.error());
      options.allocator = *parsed;
    }
    return options;
  }

  // Whether a report says what would change it: most of the time that an answer takes goes there.
  enum class Levers { never, when_needed, always };

  struct Asked { TransformersRequest request; Machine machine; };
  // A transformers run as it is asked for, from --model, --config or a pasted command.
  Result<TransformersRequest> transformers_told() {
    auto request = transformers_request(o_, env_);
    if (!request) return request;
    pasted_conf_ = request->alloc_conf;
    for (const std::string& line : request->told) talk(line + "\n");
    for (const std::string& w : request->notes) talk("note: not used: " + w + "\n");
    return request;
  }

  // The same and the machine it is for.
  Result<Asked> transformers_asked() {
    auto request = transformers_told();
    if (!request) return std::unexpected(request.error());
    WorkloadFlags gpus;
    gpus.gpus = request->flags.gpus;
    auto m = machine(gpus);
    if (!m) return std::unexpected(m.error());
    request->flags.gpus = m->gpus;
    return Asked{std::move(*request), std::move(*m)};
  }

  // The same of a transformers run.
  Result<Report> transformers_report(bool timeline, Levers levers) {
    auto asked = transformers_asked();
    if (!asked) return std::unexpected(asked.error());
    auto& [request, m] = *asked;
    const bool search = request.flags.device_batch_size == -1;
    if (search) request.flags.device_batch_size = 1;
    const auto workload = transformers_workload(request, env_);
    if (!workload) return std::unexpected(workload.error());
    return report_of(*workload, m, search, timeline, levers);
  }

  // Whether a Hugging Face model is asked about; flags that only one has stand beside no nanochat.
  Result<bool> transformers() const {
    const auto asks = asks_for_transformers(o_);
    if (asks && *asks && o_.has("ignore")) return fail("bad_value", "--ignore is for nanochat's commands, and this is one of another program", "leave it out: what dryfit does not use of such a command it names, and goes on", "--ignore");
    if (!asks || *asks) return asks;
    for (const char* only : {"optimizer", "mixed", "recompute", "grad-accum-steps", "max-steps", "max-tokens", "lora-rank", "load-in-4bit", "dora", "liger", "no-cache", "padded", "ema", "offload", "parallel", "framework"}) {
      if (o_.has(only)) return fail("bad_value", "--" + std::string(only) + " is for Hugging Face models, and this is nanochat", "leave it out, or give --model or --config", "--" + std::string(only));
    }
    return false;
  }

  // The same of a captured run: it is laid out already.
  Result<Report> captured_report(bool timeline, Levers levers) {
    auto capture = read_capture(o_, env_);
    if (!capture) return std::unexpected(capture.error());
    WorkloadFlags flags;
    flags.gpus = capture->gpus;
    const auto m = machine(flags);
    if (!m) return std::unexpected(m.error());
    auto options = estimate_options();
    if (!options) return std::unexpected(options.error());
    options->alternatives = levers != Levers::never;
    options->timeline = timeline;
    return estimate_captured(*capture, *m, *options);
  }

  // Workload and machine of check and explain; a device batch of -1 is searched for.
  Result<Report> report(bool timeline, Levers levers) {
    if (o_.has("capture")) return captured_report(timeline, levers);
    const auto hf = transformers();
    if (!hf) return std::unexpected(hf.error());
    if (*hf) return transformers_report(timeline, levers);
    auto flags = workload_flags();
    if (!flags) return std::unexpected(flags.error());
    const auto m = machine(*flags);
    if (!m) return std::unexpected(m.error());
    flags->gpus = m->gpus;
    flags->compute_major = capability_for_dtype(m->gpu);
    const auto workload = make_nanochat_workload(*flags);
    if (!workload) return std::unexpected(workload.error());
    return report_of(*workload, *m, flags->device_batch_size == -1, timeline, levers);
  }

  Result<Report> report_of(const Workload& given, const Machine& m, bool search, bool timeline, Levers levers) {
    const auto options = estimate_options();
    if (!options) return std::unexpected(options.error());
    Result<Workload> workload = given;
    std::optional<Program> built;
    if (search) {
      auto best = largest_batch(*workload, m, *options);
      if (!best) return std::unexpected(best.error());
      workload = with_device_batch(*workload, *best ? (*best)->device_batch : 1);
      if (!workload) return std::unexpected(workload.error());
      workload->assumptions.push_back({"device_batch_size", std::to_string(workload->run.device_batch_size), *best ? "the largest that fits" : "nothing larger fits"});
      if (*best) built = std::move((*best)->program);
    }
    if (!built) {
      auto program = program_for(*workload, target_of(m), workload->run.grad_accum_steps > 1);
      if (!program) return std::unexpected(program.error());
      built = std::move(*program);
    }
    EstimateOptions full = *options;
    full.alternatives = levers == Levers::always;
    full.timeline = timeline;
    full.neighbours = true;
    auto result = estimate_program(*workload, m, full, *built);
    if (!result || result->verdict == Verdict::fits || levers != Levers::when_needed) return result;
    full.alternatives = true;  // it does not fit: what would
    result->alternatives = find_alternatives(*result, *built, full);
    return result;
  }

  Result<int> check() {
    if (!o_.positional.empty()) return stray();
    const auto r = report(false, json() ? Levers::always : Levers::when_needed);
    if (!r) return std::unexpected(r.error());
    const auto job = job_asked_for(o_, r->verdict != Verdict::wont_fit ? &*r : nullptr, pasted_conf_);
    if (!job) return std::unexpected(job.error());
    if (json()) {
      print(report_json(*r, *job));
    } else {
      talk(assumptions_text(*r));
      answer_with_job(o_, env_, style_, check_text(*r, style_), *job);
    }
    return r->verdict == Verdict::wont_fit ? kDoesNotFit : kOk;
  }

  Result<int> explain() {
    if (!o_.positional.empty()) return stray();
    const bool timeline = o_.has("timeline") || o_.has("svg");
    const std::string levers = o_.get("alternatives").value_or("1");
    if (levers != "0" && levers != "1") return fail("bad_value", "--alternatives " + levers.substr(0, 30) + " is neither 0 nor 1", "leave it out, or write --alternatives 0", "--alternatives");
    const auto r = report(timeline, levers == "1" && o_.get("svg") != "-" ? Levers::always : Levers::never);
    if (!r) return std::unexpected(r.error());
    if (o_.get("svg") == "-") return print(timeline_svg(*r));
    if (const auto path = o_.get("svg")) {
      if (const auto ok = env_.write_file(*path, timeline_svg(*r)); !ok) return std::unexpected(ok.error());
      talk("wrote " + *path + "\n");
    }
    if (json()) return print(report_json(*r));
    talk(assumptions_text(*r));
    return print(explain_text(*r, style_) + (o_.has("timeline") ? timeline_text(*r, style_) : ""));
  }

  // doctor's, of a Hugging Face model.
  Result<int> doctor_of_model() {
    auto request = transformers_told();
    if (!request) return std::unexpected(request.error());
    if (request->flags.device_batch_size == -1) return fail("bad_value", "the run that failed had a device batch: -1 is searched for", "write the batch that it had", "--device-batch-size");
    WorkloadFlags gpus;
    gpus.gpus = request->flags.gpus;
    const auto machine = machine_flags(gpus);
    if (!machine) return std::unexpected(machine.error());
    if (machine->gpus) request->flags.gpus = machine->gpus;
    const auto workload = transformers_workload(*request, env_);
    if (!workload) return std::unexpected(workload.error());
    const auto options = estimate_options();
    if (!options) return std::unexpected(options.error());
    Given given{{}, *machine, options->allocator};
    given.model = *workload;
    given.model_source = o_.pasted.empty() ? "the flags given" : "the command given";
    return doctor({o_.positional, std::move(given), json(), o_.get("svg")}, env_, style_);
  }

  // Flags and a pasted command tell what the log does not.
  Result<int> doctor_command() {
    const auto hf = transformers();
    if (!hf) return std::unexpected(hf.error());
    if (*hf && o_.has("live")) return fail("unsupported_training", "--live lays out nanochat's runs alone", "leave the model out: whether GPUs are in use is told of every job; what its log or a traceback holds is explained without --live", "--live");
    if (*hf) {
      if (const auto ok = no_live_flags(o_); !ok) return std::unexpected(ok.error());
      return doctor_of_model();
    }
    auto flags = workload_flags();
    if (!flags) return std::unexpected(flags.error());
    const auto machine = machine_flags(*flags);
    if (!machine) return std::unexpected(machine.error());
    const auto options = estimate_options();
    if (!options) return std::unexpected(options.error());
    if (o_.has("live")) return doctor_live_command(*flags, *machine, options->allocator);
    if (const auto ok = no_live_flags(o_); !ok) return std::unexpected(ok.error());
    return doctor({o_.positional, {*flags, *machine, options->allocator, o_.get("transformers")}, json(), o_.get("svg")}, env_, style_);
  }

  Result<int> doctor_live_command(WorkloadFlags flags, const MachineFlags& machine, const std::optional<AllocatorConfig>& allocator) {
    if (!o_.positional.empty()) return fail("stray_word", "'" + o_.positional[0].substr(0, 60) + "' does not go with --live", "a running job's log: --log FILE; a recording: --replay FILE; a file alone: dryfit doctor FILE", "doctor");
    if (o_.has("svg")) return fail("bad_value", "--svg does not go with --live", "it draws memory snapshots: dryfit doctor snapshot.pickle --svg FILE", "--svg");
    if (!o_.has("dtype")) flags.dtype.reset();  // the job's own environment decides it, not this shell's
    if (machine.gpu || machine.memory) {
      if (const auto named = machine_from_flags(machine); !named) return std::unexpected(named.error());
    }
    DoctorLiveRequest request;
    request.given = {std::move(flags), machine, allocator};
    request.json = json();
    for (const auto& [flag, field] : {std::pair{"log", &DoctorLiveRequest::log}, std::pair{"replay", &DoctorLiveRequest::replay}}) {
      if (const auto ok = file_flag(o_, flag, request.*field); !ok) return std::unexpected(ok.error());
    }
    const auto pid = pid_flag(o_);
    if (!pid) return std::unexpected(pid.error());
    request.pid = *pid;
    const auto seconds = seconds_flag(o_, "seconds", 0);
    if (!seconds) return std::unexpected(seconds.error());
    request.seconds = *seconds;
    if (const auto ok = no_live_flags_with_replay(o_, {"pid", "log"}); !ok) return std::unexpected(ok.error());
    return doctor_live(request, env_, style_);
  }

  // The job's own environment decides its dtype, not this shell's: only flags and a pasted command are handed on.
  Result<int> watch_command() {
    if (!o_.positional.empty()) return stray();
    auto flags = workload_flags();
    if (!flags) return std::unexpected(flags.error());
    if (!o_.has("dtype")) flags->dtype.reset();
    const auto options = estimate_options();
    if (!options) return std::unexpected(options.error());
    WatchRequest request;
    request.settings.given = *flags;
    request.settings.allocator = options->allocator;
    request.settings.calibration = options->calibration;
    request.once = o_.has("once");
    request.json = json();
    for (const auto& [flag, field] : {std::pair{"log", &WatchRequest::log}, std::pair{"record", &WatchRequest::record}, std::pair{"replay", &WatchRequest::replay}, std::pair{"prometheus", &WatchRequest::prometheus}}) {
      if (const auto ok = file_flag(o_, flag, request.*field); !ok) return std::unexpected(ok.error());
    }
    const auto pid = pid_flag(o_);
    if (!pid) return std::unexpected(pid.error());
    request.pid = *pid;
    const auto interval = seconds_flag(o_, "interval", request.replay.empty() ? 0.1 : 0);
    if (!interval) return std::unexpected(interval.error());
    request.interval = *interval;
    if (const auto ok = no_live_flags_with_replay(o_, {"pid", "log", "record"}); !ok) return std::unexpected(ok.error());
    return watch(std::move(request), env_, style_);
  }

  Result<int> calibrate_command() {
    auto flags = workload_flags();
    if (!flags) return std::unexpected(flags.error());
    if (!o_.has("dtype")) flags->dtype.reset();
    CalibrateRequest request{o_.positional, *flags, std::nullopt, o_.has("show"), o_.has("reset"), json()};
    if (const auto gpu = o_.get("gpu")) {
      const auto named = machine_from_flags({*gpu, flags->gpus, std::nullopt, std::nullopt});
      if (!named) return std::unexpected(named.error());
      request.machine = *named;
    }
    return calibrate(request, env_, style_);
  }

  Result<int> transformers_plan() {
    if (o_.has("offers")) {
      if (const auto ok = machines_are_open({"gpu", "memory", "reserve"}); !ok) return std::unexpected(ok.error());
      const auto request = transformers_told();
      if (!request) return std::unexpected(request.error());
      const auto options = estimate_options();
      if (!options) return std::unexpected(options.error());
      return offers_transformers_command(o_, env_, style_, *request, *options);
    }
    auto asked = transformers_asked();
    if (!asked) return std::unexpected(asked.error());
    const auto options = estimate_options();
    if (!options) return std::unexpected(options.error());
    return plan_transformers_command(o_, env_, style_, asked->request, asked->machine, *options);
  }

  Result<int> plan_command() {
    if (!o_.positional.empty()) return stray();
    const auto hf = transformers();
    if (!hf) return std::unexpected(hf.error());
    if (*hf) return transformers_plan();
    auto flags = workload_flags();
    if (!flags) return std::unexpected(flags.error());
    if (o_.has("offers")) return offers_command(*flags);
    const auto m = machine(*flags);
    if (!m) return std::unexpected(m.error());
    const auto options = estimate_options();
    if (!options) return std::unexpected(options.error());
    const auto result = plan(*flags, *m, *options);
    if (!result) return std::unexpected(result.error());
    const auto job = job_asked_for(o_, result->plans.empty() ? nullptr : &result->plans[result->chosen], pasted_conf_);
    if (!job) return std::unexpected(job.error());
    if (json()) {
      print(plan_json(*result, *job));
    } else {
      talk(assumptions_text(result->plans.empty() ? *result->closest : result->plans[result->chosen]));
      answer_with_job(o_, env_, style_, plan_text(*result, *m, style_), *job);
    }
    return result->plans.empty() ? kDoesNotFit : kOk;
  }

  // --offers goes over machines: none is named beside it, and there is no job for all of them.
  Result<void> machines_are_open(std::initializer_list<const char*> flags) const {
    for (const char* flag : flags) {
      if (o_.has(flag)) return fail("bad_value", "--" + std::string(flag) + " and --offers do not go together", "the offers name the GPUs; --prices FILE narrows them", "--" + std::string(flag));
    }
    if (o_.has("emit")) return fail("bad_value", "--emit and --offers do not go together", "take one of the machines: plan --gpu NAME --gpus N --emit KIND", "--emit");
    return {};
  }

  Result<int> offers_command(const WorkloadFlags& flags) {
    if (const auto ok = machines_are_open({"gpu", "gpus", "memory", "reserve"}); !ok) return std::unexpected(ok.error());
    const auto options = estimate_options();
    if (!options) return std::unexpected(options.error());
    const auto found = offers(flags, options->prices != nullptr ? std::span<const Price>(*options->prices) : known_prices(), *options);
    if (!found) return std::unexpected(found.error());
    print(json() ? offers_json(*found) : offers_text(*found, style_));
    return found->empty() ? kDoesNotFit : kOk;
  }

  Result<int> table_command() {
    if (!o_.positional.empty()) return stray();
    const auto hf = transformers();
    if (!hf) return std::unexpected(hf.error());
    const auto flags = *hf ? Result<WorkloadFlags>() : workload_flags();
    if (!flags) return std::unexpected(flags.error());
    const auto request = *hf ? transformers_request(o_, env_) : Result<TransformersRequest>();
    if (!request) return std::unexpected(request.error());
    if (*hf) pasted_conf_ = request->alloc_conf;
    const auto given = *hf ? request->flags.gpus : flags->gpus;
    std::vector<Machine> machines;
    const std::string names = o_.get("gpu").value_or("rtx 3060 12gb,rtx 3080 10gb,rtx 3090,rtx 4070,rtx 4080,rtx 4090,a10,a100 40gb,a100 80gb,h100 80gb");
    for (std::string_view name : split(names, ',')) {
      auto m = machine_from_flags({std::string(trim(name)), given, std::nullopt, std::nullopt});
      if (!m) return std::unexpected(m.error());
      for (const std::string& note : m->notes) talk("note: " + note + "\n");
      machines.push_back(std::move(*m));
    }
    const std::int64_t gpus = machines.front().gpus;
    if (std::ranges::any_of(machines, [&](const Machine& m) { return m.gpus != gpus; })) return fail("bad_value", "a table is of one number of GPUs, and --gpu names several", "leave the numbers out, and give --gpus " + std::to_string(gpus), "--gpu");
    const auto options = estimate_options();
    if (!options) return std::unexpected(options.error());
    if (*hf) return table_transformers_command(o_, env_, style_, *request, machines, *options);
    std::vector<std::int64_t> depths;
    const std::string wanted = o_.get("depths").value_or("12,16,20,24");
    for (std::string_view text : split(wanted, ',')) {
      const auto n = parse_int(trim(text), "--depths");
      if (!n) return std::unexpected(n.error());
      depths.push_back(*n);
    }
    const auto rows = table(machines, depths, *flags, *options);
    if (!rows) return std::unexpected(rows.error());
    if (json()) return print(table_json(*rows));
    if (o_.has("csv")) return print(table_csv(*rows));
    return print(table_text(*rows, gpus, style_));
  }

  Result<int> rule() {
    const auto text = rule_answer(o_, style_);
    if (!text) return std::unexpected(text.error());
    return print(*text);
  }

  Result<int> list() {
    const auto text = list_text(o_, env_);
    if (!text) return std::unexpected(text.error());
    return print(*text);
  }

  Result<int> completion() {
    const auto script = completions(o_.positional.empty() ? "" : o_.positional[0]);
    if (!script) return std::unexpected(script.error());
    return print(*script);
  }

  Result<int> help(const std::string& name) {
    const auto text = cli::help(name, json());
    if (!text) return std::unexpected(text.error());
    return print(*text);
  }

  std::unexpected<Error> stray() const {
    return fail("stray_word", "'" + o_.positional[0].substr(0, 60) + "' is not a flag", "flags begin with --; a training command goes after --: dryfit check -- torchrun ...", "command line");
  }

  const Options& o_;
  const Env& env_;
  Style style_;
  std::optional<std::string> pasted_conf_;
  std::optional<Calibration> calibration_;
  std::optional<std::vector<Price>> prices_;
};

}  // namespace

int run(std::span<const std::string_view> words, const Env& env) {
  const bool wants_json = std::ranges::find(words, "--json") != words.end();
  const auto report_error = [&](const Error& e, const Style& style) {
    if (wants_json) env.out(error_json(e));
    else env.err(error_text(e, style));
    return e.code == "write_failed" ? kInternal : kBadInput;
  };
  const auto options = parse_options(words);
  if (!options) return report_error(options.error(), {});
  const auto style = make_style(*options, env);
  if (!style) return report_error(style.error(), {});
  const auto status = Command(*options, env, *style).run();
  return status ? *status : report_error(status.error(), *style);
}

}  // namespace dryfit::cli
