// TRL's supervised fine-tuning, `trl sft` or its script: the defaults that differ from the Trainer's, and the configurations of accelerate that ship with it.
#pragma once

#include "plan/launcher.hpp"
#include "workload/transformers.hpp"

namespace dryfit {

// Whether the script is TRL's sft.py, as parse_launch names it for `trl sft` too.
bool is_trl_sft(const LaunchLine& launch);

// What a command said that its flags do not show.
struct TrlSaid { bool bf16 = false, dtype = false; };
// SFTConfig's and ModelConfig's defaults for what the flags leave open, each told.
void apply_trl_defaults(const TrlSaid& said, TransformersFlags& flags, std::vector<std::string>& assumed);

// The YAML of `--accelerate_config NAME`, what of it moves memory; empty when TRL ships none of that name.
std::string_view trl_accelerate_config(std::string_view name);

}  // namespace dryfit
