// A file of a training script's arguments: HfArgumentParser's (`run_clm.py args.yaml`), TRL's and LitGPT's (`--config FILE`), as the arguments that it stands for.
// The file is read by the caller.
#pragma once

#include "base/document.hpp"
#include "plan/launcher.hpp"

namespace dryfit {

// Whether a file is the first argument, alone or with flags after it that win over it, as alignment-handbook's parser takes them.
bool leads_with_file(const LaunchLine& launch);

// The file that a command names: its first argument when that ends in .json, .yaml or .yml, or what follows --config when that does.
std::optional<std::string> argument_file(const LaunchLine& launch);

// Each field as an argument: true is "True", a list has several values, a map is JSON; with `nested` a map's fields are arguments of their own, "train.seed".
// null is as if nothing was said. Errors: "bad_config" when it is no map.
Result<std::vector<Argument>> arguments_in(const Document& document, const std::string& file, bool nested = false);

}  // namespace dryfit
