// The Env of a real process.
#pragma once

#include "cli/cli.hpp"

namespace dryfit::cli {

Env real_env();

}  // namespace dryfit::cli
