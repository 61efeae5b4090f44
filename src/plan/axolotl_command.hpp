// axolotl's command line: `axolotl train config.yml`, or its module under a launcher. Which file it names and what the command says over it; the file's keys are workload/axolotl.hpp's.
#pragma once

#include "plan/trainer_command.hpp"

namespace dryfit {

// Whether the launch line starts axolotl's training.
bool is_axolotl_command(const LaunchLine& launch);

struct AxolotlCommand {
  TrainerCommand launched;              // what the launcher says
  std::string file;
  std::vector<Argument> over;           // --key value: keys of the file, which they stand over
};

// Errors: "bad_command" when it names no file, and those of the launcher's options.
Result<AxolotlCommand> read_axolotl_command(const LaunchLine& launch);

}  // namespace dryfit
