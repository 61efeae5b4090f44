// See trl_command.hpp. Source: huggingface/trl 1.10 of 2026-07-24 and 1.16 of 2026-10-15: trainer/{base_config,sft_config,dpo_config,model_config,sft_trainer,dpo_trainer}.py, cli/, accelerate_configs/.
#include "plan/trl_command.hpp"

#include <array>

namespace dryfit {

TrlTrainer trl_trainer(const LaunchLine& launch) {
  const std::string& script = launch.script;
  if (script.ends_with("trl/scripts/sft.py") || script == module_of(TrlTrainer::sft)) return TrlTrainer::sft;
  // examples/scripts/dpo.py is where its repository had it, and names it still
  const bool dpo = script.ends_with("trl/scripts/dpo.py") || script.ends_with("examples/scripts/dpo.py") || script == "dpo.py" || script == module_of(TrlTrainer::dpo);
  return dpo ? TrlTrainer::dpo : TrlTrainer::none;
}

std::string_view module_of(TrlTrainer trainer) { return trainer == TrlTrainer::dpo ? "trl.scripts.dpo" : trainer == TrlTrainer::sft ? "trl.scripts.sft" : ""; }

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
  if (!flags.max_seq_len) {
    flags.max_seq_len = 1024;
    assume("max_length 1024");
  }
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
