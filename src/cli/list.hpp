// list: GPUs, models, nanochat's versions.
#pragma once

#include "cli/cli.hpp"
#include "cli/options.hpp"

namespace dryfit::cli {

// Errors: "bad_value" (nothing of that name can be listed), and those of list_models.
Result<std::string> list_text(const Options& options, const Env& env);

}  // namespace dryfit::cli
