// LLaMA-Factory's command line: `llamafactory-cli train FILE [key=value]`, or its train.py under a launcher. Which file it names and what it says over it; the keys are workload/llamafactory.hpp's.
#pragma once

#include "plan/trainer_command.hpp"

namespace dryfit {

// Whether a launch line starts LLaMA-Factory's training: its program, or a script whose arguments (filed: those of the file that it names) are its own, finetuning_type or one of its stages.
bool is_llamafactory_command(const LaunchLine& launch, std::span<const Argument> filed = {});

struct LlamafactoryCommand {
  TrainerCommand launched;              // what the launcher says
  std::string file;                     // empty: all of it stands in the command
  std::vector<Argument> over;           // key=value, or --key value: over the file; underscored
};

// gpus: how many there are, where the command does not say. Errors: "bad_command" when it names nothing to train, and those of the launcher's options.
Result<LlamafactoryCommand> read_llamafactory_command(const LaunchLine& launch, const std::optional<std::int64_t>& gpus);

// llamafactory-cli train and arguments that say a run of its trainers of preferences and rewards; datasets and template are the user's.
std::vector<std::string> llamafactory_written(const Workload& workload);

}  // namespace dryfit
