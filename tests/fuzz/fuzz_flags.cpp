// Any bytes as command-line words (separated by newlines): an exit status and a message, never a crash.
#include <cstdlib>
#include <string_view>

#include "base/text.hpp"
#include "cli/cli.hpp"

namespace {

class NoProbe final : public dryfit::GpuProbe {
 public:
  dryfit::Result<dryfit::ProbeResult> read() override { return dryfit::fail("no_gpu", "none", "none"); }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  dryfit::cli::Env env;
  std::string said;
  env.out = env.err = [&](std::string_view text) { said += text; };
  env.variable = [](const char*) { return std::optional<std::string>(); };
  env.probe = [] { return std::make_unique<NoProbe>(); };
  env.write_file = [](const std::string&, std::string_view) { return dryfit::Result<void>(); };
  env.stream_file = [](const std::string& path, const dryfit::cli::ReadSink&) -> dryfit::Result<void> { return dryfit::fail("unreadable_file", "cannot read '" + path.substr(0, 60) + "'", "there are no files here", "file"); };
  const auto words = dryfit::split(std::string_view(reinterpret_cast<const char*>(data), size), '\n');
  const int status = dryfit::cli::run(words, env);
  if (status == dryfit::cli::kBadInput && said.find("hint") == std::string::npos) std::abort();
  return 0;
}
