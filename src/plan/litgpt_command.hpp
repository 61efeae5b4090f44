// LitGPT's command line: a pasted `litgpt finetune_lora MODEL --train.micro_batch_size 4 ...` to flags, and the command of a run. No other script's.
#pragma once

#include "plan/trainer_command.hpp"

namespace dryfit {

// Whether the launch line is LitGPT's program.
bool is_litgpt_command(const LaunchLine& launch);

// filed: the arguments of the file after --config, nested ones by their whole names (plan/argument_file.hpp).
// Errors: "bad_command", "bad_value", "bad_number", "unsupported_training", each with the flag or the file.
Result<TrainerCommand> read_litgpt_command(const LaunchLine& launch, std::span<const Argument> filed = {});

// The command that runs the workload; reading it gives the same Training.
std::vector<std::string> litgpt_command(const Workload& workload);

}  // namespace dryfit
