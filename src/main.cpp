// argv to cli::run to an exit status.
#include <string>
#include <string_view>
#include <vector>

#include "cli/terminal.hpp"
#include "machine/probe_os.hpp"
#include "mcp/server.hpp"
#include "web/server.hpp"

int main(int argc, char** argv) {
  const std::vector<std::string> arguments = dryfit::os::arguments(argc, argv);
  const std::vector<std::string_view> words(arguments.begin(), arguments.end());
  dryfit::cli::Env env = dryfit::cli::real_env();
  env.services = {{"mcp", dryfit::mcp::serve}, {"web", dryfit::web::serve}};
  return dryfit::cli::run(words, env);
}
