// The Env of a real process, and of a library inside one.
#pragma once

#include "cli/cli.hpp"

namespace dryfit::cli {

// This machine's files, GPUs, environment and processors; says nothing anywhere, touches no signal.
Env machine_env();
// The same with standard output, standard error and the terminal.
Env real_env();

}  // namespace dryfit::cli
