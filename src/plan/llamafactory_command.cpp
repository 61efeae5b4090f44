// See llamafactory_command.hpp. Source: hiyouga/LLaMA-Factory 0.9.5 launcher.py (torchrun, expandable segments) and hparams/parser.py (read_args).
#include "plan/llamafactory_command.hpp"

#include <algorithm>
#include <array>

namespace dryfit {

namespace {

bool of_llamafactory(std::string_view name, std::string_view value) {
  constexpr std::array<std::string_view, 6> kStages = {"pt", "sft", "rm", "ppo", "dpo", "kto"};
  return name == "finetuning-type" || (name == "stage" && std::ranges::find(kStages, value) != kStages.end());
}

}  // namespace

bool is_llamafactory_command(const LaunchLine& launch, std::span<const Argument> filed) {
  if (launch.script == "llamafactory") return true;
  const auto own = [](const Argument& a) { return of_llamafactory(a.name, a.values.empty() ? "" : a.values[0]); };
  std::vector<std::string> stray;
  return std::ranges::any_of(filed, own) || std::ranges::any_of(arguments_of(launch, stray), own);
}

Result<LlamafactoryCommand> read_llamafactory_command(const LaunchLine& launch, const std::optional<std::int64_t>& gpus) {
  LaunchLine rest = launch;
  rest.arguments.clear();
  rest.script = "train.py";
  const bool cli = launch.script == "llamafactory";
  bool forced = false, expands = cli;
  std::erase_if(rest.environment, [&](const auto& one) {
    const auto& [name, value] = one;
    if (name == "FORCE_TORCHRUN") forced = value == "1" || value == "true";
    if (name == "OPTIM_TORCH") expands = expands && (value == "1" || value == "true");
    return name == "FORCE_TORCHRUN" || name == "OPTIM_TORCH" || name == "NPROC_PER_NODE" || name == "NNODES" || name == "NODE_RANK" || name == "MASTER_ADDR" || name == "MASTER_PORT";
  });
  auto launched = read_trainer_command(rest);
  if (!launched) return std::unexpected(launched.error());
  const std::int64_t all = gpus.value_or(launch.gpus.value_or(1));
  if (expands && (forced || all > 1)) launched->alloc_conf = "expandable_segments:True";  // launcher.py's OPTIM_TORCH
  LlamafactoryCommand out{std::move(*launched), "", {}};
  for (const std::string& word : launch.arguments) {
    const std::size_t eq = word.find('=');
    if (word.starts_with("--")) rest.arguments.push_back(word);
    else if (!rest.arguments.empty()) rest.arguments.push_back(word);
    else if (out.file.empty() && eq == std::string::npos) out.file = word;
    else if (eq != std::string::npos) out.over.push_back({word.substr(0, eq), {word.substr(eq + 1)}, {}});
    else out.launched.ignored.push_back("'" + word.substr(0, 60) + "'");
  }
  for (Argument& a : arguments_of(rest, out.launched.ignored)) out.over.push_back(std::move(a));
  for (Argument& a : out.over) {
    if (a.values.empty()) a.values.emplace_back("true");
    for (std::size_t i = 1; i < a.values.size(); ++i) a.values[0] += "," + a.values[i];
    std::ranges::replace(a.name, '-', '_');
  }
  if (out.file.empty() && out.over.empty()) return fail("bad_command", "LLaMA-Factory's command says nothing of what to train", "paste all of it: llamafactory-cli train config.yaml", "pasted command");
  return out;
}

std::vector<std::string> llamafactory_written(const Workload& workload) {
  const Architecture& a = workload.transformers->architecture;
  const Training t = training_of(*workload.transformers, workload.run);
  const Preference& p = *t.preference;
  std::vector<std::string> out;
  if (t.world_size > 1) out = {"FORCE_TORCHRUN=1", "NPROC_PER_NODE=" + std::to_string(t.world_size)};
  out.insert(out.end(), {"llamafactory-cli", "train"});
  const auto add = [&](const char* name, std::string text) { out.insert(out.end(), {"--" + std::string(name), std::move(text)}); };
  add("stage", p.of_rewards() ? "rm" : "dpo");
  add("do_train", "true");
  if (!p.of_rewards()) add("pref_loss", p.loss == Preference::Loss::orpo ? "orpo" : p.loss == Preference::Loss::simpo ? "simpo" : "sigmoid");
  if (!a.given_to_scripts().empty()) add("model_name_or_path", a.given_to_scripts());
  add("finetuning_type", t.lora ? "lora" : "full");
  if (t.lora) {
    std::string targets;
    for (const std::string& one : t.lora->targets) targets += (targets.empty() ? "" : ",") + (one == "all-linear" ? "all" : one);
    add("lora_rank", std::to_string(t.lora->rank));
    if (t.lora->dropout > 0) add("lora_dropout", flag_text(t.lora->dropout));
    add("lora_target", targets.empty() ? "all" : targets);
  }
  if (t.quantized) add("quantization_bit", "4");
  if (t.quantized && !t.double_quantized) add("double_quantization", "false");
  add("cutoff_len", std::to_string(t.seq_len));
  add("per_device_train_batch_size", std::to_string(t.device_batch_size));
  add("gradient_accumulation_steps", std::to_string(t.grad_accum_steps));
  if (t.mixed != MixedPrecision::none) add(t.mixed == MixedPrecision::bf16 ? "bf16" : "fp16", "true");
  else if (t.weights == Dtype::bf16) add("pure_bf16", "true");
  add("optim", std::string(name_of(t.optimizer)));
  if (t.attention != AttentionCode::sdpa) add("flash_attn", t.attention == AttentionCode::eager ? "disabled" : t.attention == AttentionCode::flash_attention_2 ? "fa2" : "fa3");
  if (t.recompute == Recompute::none) add("disable_gradient_checkpointing", "true");
  else if (!t.reentrant) add("use_reentrant_gc", "false");
  if (t.max_grad_norm != 1.0) add("max_grad_norm", flag_text(t.max_grad_norm));
  if (t.max_steps) add("max_steps", std::to_string(*t.max_steps));
  if (t.world_size > 1 && t.ddp_find_unused && (*t.ddp_find_unused || !t.lora)) add("ddp_find_unused_parameters", *t.ddp_find_unused ? "true" : "false");
  return out;
}

}  // namespace dryfit
