// See axolotl_command.hpp. Source: axolotl-ai-cloud/axolotl of 2026-07-24, cli/{main,train}.py.
#include "plan/axolotl_command.hpp"

#include <algorithm>

namespace dryfit {

bool is_axolotl_command(const LaunchLine& launch) { return launch.script == "axolotl.cli.train"; }

Result<AxolotlCommand> read_axolotl_command(const LaunchLine& launch) {
  LaunchLine rest = launch;
  rest.arguments.clear();
  auto launched = read_trainer_command(rest);
  if (!launched) return std::unexpected(launched.error());
  AxolotlCommand out{std::move(*launched), "", {}};
  for (const std::string& word : launch.arguments) {
    if (!word.starts_with("--") && out.file.empty()) out.file = word;
    else rest.arguments.push_back(word);
  }
  if (out.file.empty()) return fail("bad_command", "axolotl's command names no configuration", "paste all of it: axolotl train config.yml", "pasted command");
  for (Argument& a : arguments_of(rest, out.launched.ignored)) {
    if (a.values.empty()) a.values.push_back(a.name.starts_with("no-") ? "false" : "true");
    if (a.name.starts_with("no-")) a.name.erase(0, 3);
    std::ranges::replace(a.name, '-', '_');
    out.over.push_back(std::move(a));
  }
  return out;
}

}  // namespace dryfit
