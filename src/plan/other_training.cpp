// See other_training.hpp. Source: huggingface/trl 1.16 trainer/*_config.py and examples/scripts; huggingface/alignment-handbook scripts; allenai/open-instruct; huggingface/transformers examples/pytorch.
#include "plan/other_training.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"
#include "plan/trl_command.hpp"

namespace dryfit {

namespace {

constexpr std::string_view kCapture = "python -m dryfit.capture runs your script itself on a GPU that is not there (docs/capture.md)";

// Words of a script's name, between _ and -, and what it then trains on.
struct NamedTraining { std::string_view word, what; };
constexpr std::array kByName = {
    NamedTraining{"dpo", "preferences (DPO), with rows of both answers and a reference model"}, NamedTraining{"grpo", "rollouts (GRPO)"}, NamedTraining{"ppo", "rollouts (PPO)"}, NamedTraining{"rloo", "rollouts (RLOO)"}, NamedTraining{"kto", "preferences (KTO)"},
    NamedTraining{"orpo", "preferences (ORPO)"}, NamedTraining{"cpo", "preferences (CPO)"}, NamedTraining{"simpo", "preferences (SimPO)"}, NamedTraining{"bco", "preferences (BCO)"}, NamedTraining{"xpo", "rollouts (XPO)"}, NamedTraining{"nash", "rollouts (Nash-MD)"},
    NamedTraining{"gkd", "a teacher's answers (GKD)"}, NamedTraining{"gold", "a teacher's answers (GOLD)"}, NamedTraining{"minillm", "a teacher's answers (MiniLLM)"}, NamedTraining{"reward", "rewards"}, NamedTraining{"prm", "rewards of steps"}, NamedTraining{"rlhf", "rollouts"}};

// Arguments that only such trainers have.
struct ArgumentTraining { std::string_view name, what; };
constexpr std::array kByArgument = {
    ArgumentTraining{"num-generations", "rollouts"}, ArgumentTraining{"max-completion-length", "rollouts"}, ArgumentTraining{"reward-funcs", "rollouts"}, ArgumentTraining{"reward-model-path", "rollouts"}, ArgumentTraining{"reward-model-name-or-path", "rollouts"}, ArgumentTraining{"vllm-mode", "rollouts"},
    ArgumentTraining{"max-prompt-length", "preferences or rollouts"}, ArgumentTraining{"dpo-beta", "preferences (DPO)"}, ArgumentTraining{"dpo-loss-type", "preferences (DPO)"}, ArgumentTraining{"pref-loss", "preferences"}, ArgumentTraining{"pref-beta", "preferences"},
    ArgumentTraining{"ref-model-name-or-path", "preferences"}, ArgumentTraining{"teacher-model-name-or-path", "a teacher's answers"}};

// Names that move no memory though they speak of adapters or bits, and those that a reader takes as they are (trainer_command.cpp).
constexpr std::array<std::string_view, 26> kHarmless = {
    "lora-alpha", "lora-task-type", "use-rslora", "lora-use-rslora", "bnb-4bit-quant-type", "bnb-4bit-compute-dtype", "quant-type", "lora-weight-path", "lora-init", "init-lora-weights", "lora-plus-scale", "loraplus-lr-ratio", "adapter-name", "freeze-support",
    "lora-r", "lora-rank", "lora-dropout", "lora-target-modules", "lora-modules-to-save", "lora-bias", "use-peft", "use-lora", "load-in-4bit", "use-bnb-nested-quant", "bnb-4bit-quant-storage", "lora-fan-in-fan-out"};

bool asks(const Argument& a) {
  const std::string v = a.values.empty() ? "true" : to_lower(a.values[0]);
  return v != "false" && v != "0" && v != "no" && v != "none" && v != "null" && !v.empty();
}
bool asks_for_several(const Argument& a) { return asks(a) && !a.values.empty() && a.values[0] != "1"; }

std::string_view what_of(Unclear about) {
  switch (about) {
    case Unclear::adapters: return "adapters";
    case Unclear::quantization: return "quantized weights";
    case Unclear::int8: return "int8 weights";
    case Unclear::freezing: return "frozen weights";
    case Unclear::parallel: return "another way to share a model out";
    case Unclear::offload: return "what is kept on the host";
    case Unclear::activations: return "activations on the host";
  }
  return "";
}

}  // namespace

std::optional<Unclear> unclear_about(const Argument& a) {
  const std::string& n = a.name;
  if (std::ranges::find(kHarmless, n) != kHarmless.end()) return std::nullopt;
  const auto has = [&](std::string_view part) { return n.find(part) != std::string::npos; };
  for (std::string_view part : {"tensor-parallel", "pipeline-parallel", "context-parallel", "sequence-parallel", "expert-parallel", "-cp-size", "-tp-size", "-sp-size", "ulysses"}) {
    if (has(part) || n == part.substr(1)) return asks_for_several(a) ? std::optional(Unclear::parallel) : std::nullopt;
  }
  if (!asks(a)) return std::nullopt;
  const bool optimizer = has("optim") || has("adam");
  if (!optimizer && (has("8bit") || has("8-bit") || has("int8"))) return Unclear::int8;
  for (std::string_view part : {"4bit", "4-bit", "nested-quant", "double-quant", "quantization", "quantize"}) {
    if (has(part) && !optimizer) return Unclear::quantization;
  }
  if (n == "bits") return Unclear::quantization;
  if (has("lora") || has("peft") || n == "adapter" || n == "adapter-name-or-path" || n == "finetuning-type" || n == "train-type" || n == "tuner-type") return Unclear::adapters;
  if (n.starts_with("freeze") || n.starts_with("unfreeze") || has("freeze-")) return Unclear::freezing;
  if (has("offload") && !has("folder")) return has("activation") ? Unclear::activations : Unclear::offload;
  return std::nullopt;
}

std::string_view option_for(Unclear about) {
  switch (about) {
    case Unclear::adapters: return "lora-rank";
    case Unclear::quantization: return "load-in-4bit";
    case Unclear::parallel: return "parallel";
    case Unclear::offload: return "offload";
    case Unclear::int8:
    case Unclear::freezing:
    case Unclear::activations: return "";
  }
  return "";
}

Error unclear_error(const UnclearArgument& a) {
  const std::string option(option_for(a.about));
  const std::string leave = "leave it out of the pasted command for a run without";
  const std::string value = a.about == Unclear::adapters ? " N, 0 for none" : a.about == Unclear::parallel ? " KIND" : "";
  const std::string say = option.empty() ? "" : "say before the -- what it does: --" + option + value + "; or ";
  return {"unsupported_flag", a.place + " speaks of " + std::string(what_of(a.about)) + ", which change the memory, and what its script makes of it dryfit does not know", say + leave, a.place};
}

std::optional<Error> other_training(const LaunchLine& launch, std::span<const Argument> arguments) {
  const auto error = [](const std::string& who, std::string_view what, const std::string& where) {
    const std::string of = what.find("DPO") != what.npos ? "DPO" : what.find("KTO") != what.npos ? "KTO" : what == "rewards" ? "reward models" : what.find("GRPO") != what.npos || what == "rollouts" ? "GRPO" : "";
    const std::string command = of.empty() ? "" : of == "reward models" ? "trl reward" : "trl " + to_lower(of);
    return Error{"unsupported_training", who + " trains on " + std::string(what) + ", not laid out: supervised training is" + (command.empty() ? "" : ", and TRL's own " + of), (command.empty() ? "" : "paste " + command + " ... where TRL's script is what runs; ") + std::string(kCapture), where};
  };
  if (is_of_preferences(trl_trainer(launch)) || trl_trainer(launch) == TrlTrainer::grpo) return std::nullopt;
  std::string name = launch.script.substr(launch.script.find_last_of("/\\") + 1);
  if (name.ends_with(".py")) name.resize(name.size() - 3);
  if (launch.module) name = name.substr(name.rfind('.') + 1);
  name = dashed(to_lower(name));
  if (name.starts_with("run-swag")) return Error{"unsupported_training", "'" + launch.script.substr(0, 60) + "' trains on multiple choice, four rows a question, which is not laid out yet", "run_glue.py with four times the batch and this --max_seq_length is near: the head differs", "pasted command"};
  for (const std::string_view word : split(name, '-')) {
    const auto found = std::ranges::find(kByName, word, &NamedTraining::word);
    if (found != kByName.end()) return error("'" + launch.script.substr(0, 60) + "'", found->what, "pasted command");
  }
  for (const Argument& a : arguments) {
    const auto found = std::ranges::find(kByArgument, a.name, &ArgumentTraining::name);
    if (found != kByArgument.end() && asks(a)) return error("a script with " + place_of(a), found->what, place_of(a));
  }
  return std::nullopt;
}

}  // namespace dryfit
