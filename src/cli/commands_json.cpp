// The command table as JSON: `dryfit help --json`. What programs generate their own surfaces from.
#include <nlohmann/json.hpp>

#include "cli/cli.hpp"

namespace dryfit::cli {

std::string commands_json(std::span<const CommandSpec> which) {
  using Json = nlohmann::ordered_json;
  Json out = Json::array();
  for (const CommandSpec& c : which) {
    Json flags = Json::array();
    for (const FlagSpec& f : flags_of(c)) flags.push_back({{"name", f.name}, {"argument", f.argument.empty() ? Json() : Json(f.argument)}, {"help", f.help}});
    out.push_back({{"name", c.name}, {"summary", c.summary}, {"examples", c.examples}, {"flags", flags}});
  }
  const Json all = {{"schema_version", 1}, {"commands", out}};
  return all.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace dryfit::cli
