// What python/dryfit/_engine.py calls: the C ABI (src/api), which this library exports as it is, and here the command line.
#include <dryfit/dryfit.h>

#include <string_view>
#include <vector>

#include "cli/terminal.hpp"
#include "mcp/server.hpp"
#include "web/server.hpp"

// The program's main: `count` words without its own name; gives the exit status.
extern "C" DRYFIT_API int dryfit_main(int count, const char* const* words) {
  const std::vector<std::string_view> views(words, words + count);
  dryfit::cli::Env env = dryfit::cli::real_env();
  env.services = {{"mcp", dryfit::mcp::serve}, {"web", dryfit::web::serve}};
  return dryfit::cli::run(views, env);
}
