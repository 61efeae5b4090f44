// The engine as a Python extension module: one question of the C ABI, and the command line. Types and words for people are python/dryfit's.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <dryfit/dryfit.hpp>

#include "cli/terminal.hpp"
#include "mcp/server.hpp"
#include "web/server.hpp"

namespace nb = nanobind;

namespace {

// request: as dryfit_call documents it. Gives (status, bytes); other threads of Python run meanwhile.
std::pair<int, nb::bytes> call(std::string_view request) {
  dryfit::Answer answer;
  {
    const nb::gil_scoped_release others_run;
    answer = dryfit::call(request);
  }
  return {answer.status, nb::bytes(answer.json.data(), answer.json.size())};
}

// The program's main: words without its own name; gives the exit status.
int run(const std::vector<std::string>& words) {
  const std::vector<std::string_view> views(words.begin(), words.end());
  dryfit::cli::Env env = dryfit::cli::real_env();
  env.services = {{"mcp", dryfit::mcp::serve}, {"web", dryfit::web::serve}};
  const nb::gil_scoped_release others_run;
  return dryfit::cli::run(views, env);
}

}  // namespace

NB_MODULE(_engine, m) {
  m.def("call", &call);
  m.def("run", &run);
  m.attr("__version__") = dryfit_version();
}
