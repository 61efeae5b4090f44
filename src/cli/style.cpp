// See style.hpp.
#include "cli/style.hpp"

namespace dryfit::cli {

// An explicit flag, then FORCE_COLOR, then NO_COLOR, then CLICOLOR_FORCE, then a capable terminal.
Result<Style> make_style(const Options& options, const Env& env) {
  Style style;
  const auto set = [&](const char* name) { return env.variable(name).value_or("") != ""; };
  const std::string when = options.get("color").value_or("auto");
  if (when == "always") style.colour = true;
  else if (when == "never") style.colour = false;
  else if (when != "auto") return fail("bad_value", "--color " + when.substr(0, 30) + " is not known", "use auto, always or never", "--color");
  else if (set("FORCE_COLOR")) style.colour = true;
  else if (set("NO_COLOR")) style.colour = false;
  else if (set("CLICOLOR_FORCE")) style.colour = true;
  else style.colour = env.out_is_terminal && env.variable("TERM").value_or("") != "dumb";
  style.ascii = options.has("ascii");
  style.quiet = options.has("quiet");
  style.verbose = options.has("verbose");
  style.width = env.width;
  return style;
}

}  // namespace dryfit::cli
