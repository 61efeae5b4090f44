// See scripts.hpp.
#include "workload/scripts.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace dryfit {

namespace {

using Sft = NanochatVersion::Sft;

constexpr std::string_view kScripts[] = {"base_train", "mid_train", "chat_sft", "chat_rl"};
constexpr std::string_view kPhaseNames[] = {"load",       "resume",          "rollout",         "validation", "first_step",
                                            "train_step", "core_evaluation", "chat_evaluation", "sampling",   "checkpoint"};
constexpr std::int64_t kConversationTokens = 2048;  // tokenizer.render_conversation cuts there

Result<void> set_cadence(std::int64_t& every, const std::optional<std::int64_t>& given, std::string_view flag) {
  constexpr std::int64_t kMost = std::int64_t{1} << 40;
  if (!given) return {};
  if (*given < -1 || *given > kMost) return fail("bad_value", std::string(flag) + " " + std::to_string(*given) + " is out of range", "use a number of steps, or -1 for never", std::string(flag));
  every = *given;
  return {};
}

Result<void> read_script(const WorkloadFlags& flags, const NanochatVersion& version, Run& run) {
  const std::string wanted = to_lower(flags.script.value_or("base_train"));
  const auto found = std::ranges::find(kScripts, wanted);
  if (found == std::end(kScripts)) {
    return fail("bad_value", "--script '" + wanted.substr(0, 40) + "' is not known", did_you_mean(wanted, kScripts, "use base_train, mid_train, chat_sft or chat_rl"), "--script");
  }
  run.script = static_cast<Script>(found - std::begin(kScripts));
  if (run.script == Script::mid_train && version.sft != Sft::rows) {
    return fail("bad_value", "nanochat " + version.epoch + " has no mid_train: it went on 2026-01-31", "use --script chat_sft, or --nanochat E4d or older", "--script");
  }
  return {};
}

Result<void> read_phases(const std::string& text, Run& run) {
  std::vector<RunPhase> only;
  for (std::string_view part : split(text, ',')) {
    const std::string wanted = to_lower(trim(part));
    const auto found = std::ranges::find(kPhaseNames, wanted);
    if (found == std::end(kPhaseNames)) {
      return fail("bad_value", wanted.empty() ? "--phases has an empty name" : "there is no phase '" + wanted.substr(0, 40) + "'",
                  did_you_mean(wanted, kPhaseNames, "phases: load, resume, validation, first_step, train_step, core_evaluation, chat_evaluation, sampling, rollout, checkpoint"), "--phases");
    }
    only.push_back(static_cast<RunPhase>(found - std::begin(kPhaseNames)));
  }
  run.only = std::move(only);
  return {};
}

Result<void> read_rollouts(const WorkloadFlags& flags, const Workload& w, Run& run) {
  struct Count { const std::optional<std::int64_t>& given; std::int64_t& value; std::string_view flag; };
  const bool rows = run.script == Script::chat_sft && w.model.version.sft == Sft::rows;
  if (rows) run.examples_per_step = 32;  // --target-examples-per-step
  for (const Count& c : {Count{flags.num_samples, run.num_samples, "--num-samples"}, Count{flags.max_new_tokens, run.max_new_tokens, "--max-new-tokens"},
                         Count{flags.examples_per_step, run.examples_per_step, "--examples-per-step"}}) {
    if (!c.given) continue;
    if (run.script != Script::chat_rl && !(rows && c.flag == "--examples-per-step")) {
      return fail("bad_value", std::string(c.flag) + " is a flag of chat_rl", "leave it out, or give --script chat_rl", std::string(c.flag));
    }
    if (*c.given < 1 || *c.given > 65536) return fail("bad_value", std::string(c.flag) + " " + std::to_string(*c.given) + " is out of range", "use a value from 1 to 65536", std::string(c.flag));
    c.value = *c.given;
  }
  return {};
}

}  // namespace

std::string_view name_of(Script script) { return kScripts[static_cast<std::size_t>(script)]; }
std::string_view name_of(RunPhase phase) { return kPhaseNames[static_cast<std::size_t>(phase)]; }

Result<void> set_script(const WorkloadFlags& flags, Workload& w) {
  Run& run = w.run;
  const NanochatVersion& version = w.model.version;
  if (const auto ok = read_script(flags, version, run); !ok) return ok;
  if (run.script == Script::mid_train || (run.script == Script::chat_sft && version.sft == Sft::packed)) run.eval_every = 150;
  if (run.script == Script::chat_sft && version.sft == Sft::inherits) run.eval_every = 200;
  if (run.script == Script::chat_sft && version.sft == Sft::rows) run.eval_every = 100;
  if (run.script == Script::chat_rl) run.eval_every = run.save_every = 60;
  struct Cadence { std::int64_t& every; const std::optional<std::int64_t>& given; std::string_view flag; };
  for (const Cadence& c : {Cadence{run.eval_every, flags.eval_every, "--eval-every"}, Cadence{run.sample_every, flags.sample_every, "--sample-every"},
                           Cadence{run.save_every, flags.save_every, "--save-every"}, Cadence{run.chatcore_every, flags.chatcore_every, "--chatcore-every"},
                           Cadence{run.resume_from_step, flags.resume_from_step, "--resume-from-step"}}) {
    if (const auto ok = set_cadence(c.every, c.given, c.flag); !ok) return ok;
  }
  if (run.resume_from_step >= 0 && (run.script != Script::base_train || !version.resumes)) {
    return fail("bad_value", run.script != Script::base_train ? std::string(name_of(run.script)) + " cannot resume" : "nanochat " + version.epoch + " cannot resume: it came on 2025-11-13",
                "leave --resume-from-step out", "--resume-from-step");
  }
  run.load_optimizer = flags.load_optimizer.value_or(true);
  if (flags.phases) {
    if (const auto ok = read_phases(*flags.phases, run); !ok) return ok;
  }
  return read_rollouts(flags, w, run);
}

std::string phases_text(const Run& run) {
  std::string out;
  for (RunPhase p : run.only.value_or(std::vector<RunPhase>())) out += (out.empty() ? "" : ",") + std::string(name_of(p));
  return out;
}

bool trains_on_rows(const Workload& w) { return w.run.script == Script::chat_rl || (w.run.script == Script::chat_sft && w.model.version.sft == Sft::rows); }
bool trains_eagerly(const Workload& w) { return trains_on_rows(w); }

std::int64_t row_tokens(const Workload& w) { return w.run.script == Script::chat_rl ? rollout_tokens(w.run).middle - 1 : kConversationTokens - 1; }

std::int64_t rows_per_step(const Run& run) { return run.examples_per_step * (run.script == Script::chat_rl ? run.num_samples : 1); }

ScriptDefault default_device_batch(const Workload& w) {
  if (w.run.script == Script::chat_rl) return {8, "chat_rl's default"};
  if (w.run.script != Script::chat_sft) return {32, "nanochat default"};
  switch (w.model.version.sft) {
    case Sft::rows: return {4, "chat_sft's default"};
    case Sft::packed: return {32, "chat_sft's default"};
    case Sft::inherits: break;
  }
  return {32, "inherited from the base run, taken at its default"};
}

// GSM8K's questions: the longest of the training split has 209 tokens by o200k and cl100k, 213 by r50k; chat_rl meets it once an epoch, on
// one of the GPUs. The longest that one of 32 GPUs meets has 114. Four tokens stand around the question. Counted on
// openai/grade-school-math; that some sample of 16 runs to --max-new-tokens there is assumed.
RolloutTokens rollout_tokens(const Run& run) {
  constexpr std::int64_t kAround = 4;
  return {114 + kAround + run.max_new_tokens, 209 + kAround + run.max_new_tokens, 213 + kAround + run.max_new_tokens};
}

bool meets(const Workload& w, RunPhase phase) {
  const Run& run = w.run;
  const NanochatVersion& v = w.model.version;
  if (phase == RunPhase::load) return true;
  if (run.only && std::ranges::find(*run.only, phase) == run.only->end()) return false;
  const bool base = run.script == Script::base_train, sft = run.script == Script::chat_sft, rl = run.script == Script::chat_rl;
  const bool has_state = run.resume_from_step >= 0 || (sft && v.sft == Sft::inherits && run.load_optimizer);
  switch (phase) {
    case RunPhase::load: return true;
    case RunPhase::resume: return base && run.resume_from_step >= 0;
    case RunPhase::rollout: return rl;
    // chat_sft always evaluates at its last step
    case RunPhase::validation: return sft || (!rl && (run.eval_every > 0 || !v.minus_one_switches_off));
    case RunPhase::first_step: return !has_state;
    case RunPhase::train_step: return true;
    case RunPhase::core_evaluation: return base && (run.core_metric_every > 0 || v.epoch == "E1");  // -1 switches it off from 2025-10-20 on
    case RunPhase::chat_evaluation: return sft && v.sft != Sft::packed && (run.chatcore_every > 0 || v.sft == Sft::rows);
    case RunPhase::sampling: return base && (run.sample_every > 0 || !v.minus_one_switches_off);
    case RunPhase::checkpoint: return true;
  }
  return false;
}

}  // namespace dryfit
