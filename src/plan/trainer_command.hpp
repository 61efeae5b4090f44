// A pasted command of a script around transformers' Trainer (run_clm.py, TRL's sft.py, ...): what of it moves memory. What is used is said, and what is not.
// Files that it names are not read here: the caller reads them and applies them (workload/transformers.hpp).
#pragma once

#include "plan/launcher.hpp"
#include "plan/other_training.hpp"
#include "workload/transformers.hpp"

namespace dryfit {

struct TrainerCommand {
  TransformersFlags flags;
  std::optional<std::string> alloc_conf;         // PYTORCH_ALLOC_CONF or PYTORCH_CUDA_ALLOC_CONF
  std::optional<std::string> deepspeed_file, accelerate_file;  // to be read and applied before the flags: the command's own words win
  std::vector<std::string> understood, ignored;  // for people
  KeysTold told;                                 // of a file of arguments
  std::vector<UnclearArgument> unclear;          // what moves memory in a way that only the script knows: an error, unless dryfit's own options say it
};

// What a launch line says before its script's own arguments: what was understood, what was not, the environment.
TrainerCommand before_arguments(const LaunchLine& launch);

// Whether the script's arguments are the Trainer's, or a file of arguments that may be.
bool is_trainer_command(const LaunchLine& launch);

// filed: the arguments of the file that the command names (plan/argument_file.hpp); its own come over them.
// Errors: "bad_value", "bad_number", "bad_command", "unsupported_script", "unsupported_training" for other trainers, each with the flag or the file.
Result<TrainerCommand> read_trainer_command(const LaunchLine& launch, std::span<const Argument> filed = {});

// FSDP 2 in place of FSDP 1, where a version that comes after its other words says so.
void take_fsdp2(TransformersFlags& flags);

// 0.05 as a flag's value, without zeros that say nothing.
std::string flag_text(double x);

// A transformers workload as a command; reading it gives the same Training and GPUs. "train.py" stands for the user's script, unless it is TRL's or a pasted command named it,
// whose other arguments then stand behind those of the Training; more than 8 GPUs are nodes of 8.
std::vector<std::string> trainer_command(const Workload& workload);

}  // namespace dryfit
