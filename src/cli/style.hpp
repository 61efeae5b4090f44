// How an answer is to look: colours, characters, width, as flags, the environment and the terminal say.
#pragma once

#include "cli/cli.hpp"
#include "report/text.hpp"

namespace dryfit::cli {

// Errors: "bad_value" of --color.
Result<Style> make_style(const Options& options, const Env& env);

}  // namespace dryfit::cli
