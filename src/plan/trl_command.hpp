// TRL's supervised fine-tuning, preference training, reward models and rollouts, `trl sft`, `trl dpo`, `trl kto`, `trl reward`, `trl grpo` or their scripts: the defaults that differ from the Trainer's, and the configurations of accelerate that ship with it.
#pragma once

#include "plan/launcher.hpp"
#include "workload/transformers.hpp"

namespace dryfit {

// Which of TRL's trainers the script starts: sft.py, dpo.py, ..., as parse_launch names them for `trl sft` and its kin too.
enum class TrlTrainer : std::uint8_t { none, sft, dpo, kto, reward, grpo };
TrlTrainer trl_trainer(const LaunchLine& launch);
inline bool is_trl(const LaunchLine& launch) { return trl_trainer(launch) != TrlTrainer::none; }
std::string_view module_of(TrlTrainer trainer);  // "trl.scripts.sft"
TrlTrainer trl_trainer(std::string_view word);   // "sft", as behind trl
TrlTrainer trl_trainer(const Training& training);  // whose loop it is; none where it is not TRL's
constexpr bool is_of_preferences(TrlTrainer t) { return t == TrlTrainer::dpo || t == TrlTrainer::kto || t == TrlTrainer::reward; }

// What a command said that its flags do not show.
struct TrlSaid { bool bf16 = false, dtype = false; };
// SFTConfig's, DPOConfig's, KTOConfig's, RewardConfig's, GRPOConfig's and ModelConfig's defaults for what the flags leave open, each told.
void apply_trl_defaults(const TrlSaid& said, TransformersFlags& flags, std::vector<std::string>& assumed);

// The YAML of `--accelerate_config NAME`, what of it moves memory; empty when TRL ships none of that name.
std::string_view trl_accelerate_config(std::string_view name);

}  // namespace dryfit
