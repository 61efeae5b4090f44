// TRL's supervised fine-tuning and preference training, `trl sft`, `trl dpo` or their scripts: the defaults that differ from the Trainer's, and the configurations of accelerate that ship with it.
#pragma once

#include "plan/launcher.hpp"
#include "workload/transformers.hpp"

namespace dryfit {

// Which of TRL's trainers the script starts: sft.py, dpo.py, as parse_launch names them for `trl sft` and `trl dpo` too.
enum class TrlTrainer : std::uint8_t { none, sft, dpo };
TrlTrainer trl_trainer(const LaunchLine& launch);
inline bool is_trl(const LaunchLine& launch) { return trl_trainer(launch) != TrlTrainer::none; }
std::string_view module_of(TrlTrainer trainer);  // "trl.scripts.sft"

// What a command said that its flags do not show.
struct TrlSaid { bool bf16 = false, dtype = false; };
// SFTConfig's, DPOConfig's and ModelConfig's defaults for what the flags leave open, each told.
void apply_trl_defaults(const TrlSaid& said, TransformersFlags& flags, std::vector<std::string>& assumed);

// The YAML of `--accelerate_config NAME`, what of it moves memory; empty when TRL ships none of that name.
std::string_view trl_accelerate_config(std::string_view name);

}  // namespace dryfit
