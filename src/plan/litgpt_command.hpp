// LitGPT's command line: a pasted `litgpt finetune_lora MODEL --train.micro_batch_size 4 ...` to flags, and the command of a run. No other script's.
#pragma once

#include "plan/trainer_command.hpp"

namespace dryfit {

// Whether the launch line is LitGPT's program.
bool is_litgpt_command(const LaunchLine& launch);

// Errors: "bad_command", "bad_value", "bad_number", each with the flag.
Result<TrainerCommand> read_litgpt_command(const LaunchLine& launch);

// The command that runs the workload; reading it gives the same Training.
std::vector<std::string> litgpt_command(const Workload& workload);

}  // namespace dryfit
