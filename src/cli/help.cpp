// Help: the screen of all commands, of one command, and the command table as JSON, which programs generate their own surfaces from.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.hpp"
#include "cli/cli.hpp"

namespace dryfit::cli {

namespace {

std::string commands_json(std::span<const CommandSpec> which) {
  using Ordered = nlohmann::ordered_json;
  Ordered out = Ordered::array();
  for (const CommandSpec& c : which) {
    Ordered flags = Ordered::array();
    for (const FlagSpec& f : flags_of(c)) flags.push_back({{"name", f.name}, {"argument", f.argument.empty() ? Ordered() : Ordered(f.argument)}, {"help", f.help}});
    out.push_back({{"name", c.name}, {"summary", c.summary}, {"examples", c.examples}, {"flags", flags}});
  }
  const Ordered all = {{"schema_version", 1}, {"commands", out}};
  return all.dump(1, ' ', false, Ordered::error_handler_t::replace) + "\n";
}

}  // namespace

Result<std::string> help(std::string_view name, bool json) {
  if (json && (name.empty() || name == "help")) return commands_json(commands());
  if (name.empty() || name == "help") {
    std::string out = "dryfit: will it fit, and what should I run? Answered before a GPU is touched.\n\nExamples\n"
                      "  dryfit plan --gpu \"RTX 4090\"                        what should I run?\n"
                      "  dryfit check --depth 26 --device-batch-size 32      will this run fit?\n"
                      "  dryfit check -- torchrun --nproc_per_node=8 -m scripts.base_train --depth=26\n"
                      "  dryfit explain --depth 20 --gpu h100 --gpus 8       where every GiB goes\n"
                      "  dryfit doctor train.log                             why it died, and what to change\n\nCommands\n";
    static constexpr std::string_view kOthers[] = {"mcp", "web", "completions", "help", "version"};  // one line for all of them: the screen has 24
    for (const CommandSpec& c : commands()) {
      if (std::ranges::find(kOthers, c.name) == std::end(kOthers)) out += fmt::format("  {:<14} {}\n", c.name, c.summary);
    }
    out += "  also           mcp (for agents), web (a page), completions SHELL, help COMMAND, version\n";
    return out + "\nEverywhere: --json, --color auto|always|never, --ascii, -q, -v\nExit status: 0 fits, 1 does not, 2 bad input, 70 internal error\n";
  }
  const CommandSpec* c = find_command(name);
  if (c == nullptr) {
    std::vector<std::string_view> names;
    for (const CommandSpec& known : commands()) names.push_back(known.name);
    return fail("unknown_command", "no help for '" + std::string(name.substr(0, 40)) + "'", did_you_mean(name, names, "see: dryfit help"), "help");
  }
  if (json) return commands_json({c, 1});
  std::string out = fmt::format("dryfit {}: {}\n\n{}", c->name, c->summary, c->examples);
  for (const auto& group : c->flags) {
    std::string line = "\n ";
    for (const FlagSpec& f : group) {
      const std::string word = fmt::format(" --{}{}", f.name, f.argument.empty() ? "" : " " + std::string(f.argument));
      if (line.size() - line.rfind('\n') + word.size() > 80) line += "\n ";
      line += word;
    }
    if (!group.empty()) out += line + "\n";
  }
  return out;
}

}  // namespace dryfit::cli
