// See paste_options.hpp.
#include "cli/paste_options.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "workload/nanochat_flags.hpp"

namespace dryfit::cli {

Result<PasteOptions> paste_options(const Options& options) {
  PasteOptions out;
  for (const auto& [name, value] : options.flags) out.over.push_back(name);
  const std::string list = options.get("ignore").value_or("");
  if (options.has("ignore") && !options.has_pasted) {
    return fail("bad_value", "--ignore names flags of a pasted command, and none is given", "give it after --: dryfit " + options.command + " --ignore my-flag -- torchrun ...", "--ignore");
  }
  for (std::string_view part : split(list, ',')) {
    const std::string_view typed = trim(part);
    const std::string name = dashed(typed.substr(typed.starts_with("--") ? 2 : 0));
    if (std::ranges::find(nanochat_flags(), name, &NanochatFlag::name) != nanochat_flags().end()) {
      return fail("bad_value", "--" + name + " is a flag of nanochat's own, and is not ignored", "take it out of --ignore; what is given before the -- wins over the command", "--ignore");
    }
    if (!name.empty()) out.left_out.push_back(name);
  }
  return out;
}

}  // namespace dryfit::cli
