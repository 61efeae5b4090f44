// torchtune's command line: `tune run RECIPE --config NAME-OR-FILE key=value ...`. Which configuration it names and what the command says over it; the
// configuration's keys are workload/torchtune.hpp's.
#pragma once

#include "plan/trainer_command.hpp"

namespace dryfit {

// Whether the launch line is torchtune's.
bool is_torchtune_command(const LaunchLine& launch);

struct TorchtuneCommand {
  TrainerCommand launched;              // what the launcher says
  TorchtuneRecipe recipe = TorchtuneRecipe::full_single_device;
  std::string config;                   // a name that ships with torchtune, or a file
  std::vector<Argument> over;           // key=value: keys of the configuration, which they stand over; places are as written
};

// Errors: "bad_command" when it names no recipe or no configuration, or says what is no key=value; "bad_value" for a recipe that is not laid out.
Result<TorchtuneCommand> read_torchtune_command(const LaunchLine& launch);

// A workload as the command that its recipe takes: the configuration, what the command said over it, and over that what may have been chosen.
std::vector<std::string> torchtune_command(const Workload& workload);

}  // namespace dryfit
