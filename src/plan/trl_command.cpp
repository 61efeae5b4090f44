// See trl_command.hpp. Source: huggingface/trl 1.10 of 2026-07-24 and 1.16 of 2026-10-15: trainer/{base,sft,dpo,kto,reward,grpo,model}_config.py, trainer/{sft,dpo,kto,reward}_trainer.py, cli/, accelerate_configs/.
#include "plan/trl_command.hpp"

#include <algorithm>
#include <array>

namespace dryfit {

namespace {

struct Named { TrlTrainer trainer; std::string_view word, module; };
constexpr std::array kNamed = {Named{TrlTrainer::sft, "sft", "trl.scripts.sft"}, Named{TrlTrainer::dpo, "dpo", "trl.scripts.dpo"}, Named{TrlTrainer::kto, "kto", "trl.scripts.kto"}, Named{TrlTrainer::reward, "reward", "trl.scripts.reward"}, Named{TrlTrainer::grpo, "grpo", "trl.scripts.grpo"}};

}  // namespace

TrlTrainer trl_trainer(std::string_view word) {
  const auto it = std::ranges::find(kNamed, word, &Named::word);
  return it == kNamed.end() ? TrlTrainer::none : it->trainer;
}

TrlTrainer trl_trainer(const LaunchLine& launch) {
  const std::string& script = launch.script;
  for (const Named& n : kNamed) {
    const std::string file = std::string(n.word) + ".py";
    if (script == n.module || script.ends_with("trl/scripts/" + file)) return n.trainer;
    // where their repository had them, and names them still
    const bool example = n.trainer == TrlTrainer::dpo || n.trainer == TrlTrainer::kto || n.trainer == TrlTrainer::grpo;
    if (example && (script == file || script.ends_with("examples/scripts/" + file))) return n.trainer;
  }
  return TrlTrainer::none;
}

TrlTrainer trl_trainer(const Training& t) {
  using Trainer = Preference::Trainer;
  if (t.rollouts) return TrlTrainer::grpo;
  if (!t.preference) return t.head == HeadLoss::trl ? TrlTrainer::sft : TrlTrainer::none;
  return t.preference->of_factory() ? TrlTrainer::none : t.preference->trainer == Trainer::dpo ? TrlTrainer::dpo : t.preference->trainer == Trainer::kto ? TrlTrainer::kto : TrlTrainer::reward;
}

std::string_view module_of(TrlTrainer trainer) {
  const auto it = std::ranges::find(kNamed, trainer, &Named::trainer);
  return it == kNamed.end() ? std::string_view() : it->module;
}

void apply_trl_defaults(const TrlSaid& said, TransformersFlags& flags, std::vector<std::string>& assumed) {
  const auto assume = [&](const char* value) { assumed.push_back(std::string(value) + " (TRL's default)"); };
  if (!flags.mixed && !said.bf16) {
    flags.mixed = MixedPrecision::bf16;
    assume("bf16 True");
  }
  if (!flags.weights && !said.dtype) {
    flags.weights = Dtype::fp32;
    assume("dtype float32");
  }
  if (!flags.recompute) {
    flags.recompute = Recompute::full;
    assume("gradient_checkpointing True");
  }
  if (!flags.max_seq_len && !flags.rollouts) {
    flags.max_seq_len = 1024;
    assume("max_length 1024");
  }
  if (flags.preference && flags.preference->of_rewards()) return;
  flags.head = HeadLoss::trl;
  assumed.emplace_back("no logits: the loss from tiles of them, as TRL 1.16 takes it (versions before made all)");
}

std::string_view trl_accelerate_config(std::string_view name) {
  struct Shipped { std::string_view name, yaml; };
  static constexpr std::array kShipped = {
      Shipped{"single_gpu", "distributed_type: 'NO'\nmixed_precision: bf16\nnum_processes: 8\n"},
      Shipped{"multi_gpu", "distributed_type: MULTI_GPU\nmixed_precision: bf16\nnum_processes: 8\n"},
      Shipped{"zero1", "distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 1, gradient_accumulation_steps: 1}\nmixed_precision: bf16\nnum_processes: 8\n"},
      Shipped{"zero2", "distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 2}\nmixed_precision: bf16\nnum_processes: 8\n"},
      Shipped{"zero3", "distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 3}\nmixed_precision: bf16\nnum_processes: 8\n"},
      Shipped{"fsdp1", "distributed_type: FSDP\nfsdp_config: {fsdp_version: 1, fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP, fsdp_backward_prefetch: BACKWARD_PRE, fsdp_forward_prefetch: true, fsdp_reshard_after_forward: FULL_SHARD}\nmixed_precision: bf16\nnum_processes: 8\n"},
      Shipped{"fsdp2", "distributed_type: FSDP\nfsdp_config: {fsdp_version: 2, fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP, fsdp_reshard_after_forward: true}\nmixed_precision: bf16\nnum_processes: 8\n"}};
  for (const Shipped& s : kShipped) {
    if (s.name == name) return s.yaml;
  }
  return {};
}

}  // namespace dryfit
