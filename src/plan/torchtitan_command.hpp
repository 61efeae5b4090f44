// torchtitan's command line: a launcher, its train module and `--job.config_file FILE --section.key value ...`. Which file it names and what the command says
// over it; the configuration's keys are workload/torchtitan.hpp's.
#pragma once

#include "plan/trainer_command.hpp"

namespace dryfit {

// Whether the launch line is torchtitan's.
bool is_torchtitan_command(const LaunchLine& launch);

struct TorchtitanCommand {
  TrainerCommand launched;              // what the launcher says
  std::string config;                   // the file; empty: JobConfig's defaults
  struct Word { std::string key; Document value; std::string text; };  // "training.seq_len", and as --emit writes it
  std::vector<Word> over;
};

// A value as tyro takes it for a field of the kind that its text looks like. listed: of a comma-separated list.
Document torchtitan_value(std::string_view key, std::string_view text);

// Errors: "bad_command" for what is no key; "unsupported_script" for the Python configurations of later versions.
Result<TorchtitanCommand> read_torchtitan_command(const LaunchLine& launch);

// A workload as the command that its trainer takes: the file, what the command said over it, and over that what may have been chosen.
std::vector<std::string> torchtitan_command(const Workload& workload);

}  // namespace dryfit
