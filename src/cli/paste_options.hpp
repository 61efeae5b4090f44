// How a pasted command of nanochat's is read, as the flags before the -- say.
#pragma once

#include "cli/options.hpp"
#include "plan/launch.hpp"

namespace dryfit::cli {

// Errors: "bad_value": --ignore without a pasted command, or of a flag that nanochat has.
Result<PasteOptions> paste_options(const Options& options);

}  // namespace dryfit::cli
