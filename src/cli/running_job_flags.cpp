// See running_job_flags.hpp.
#include "cli/running_job_flags.hpp"

#include <fmt/format.h>

#include "base/text.hpp"

namespace dryfit::cli {

Result<void> file_flag(const Options& options, const std::string& flag, std::string& name) {
  const auto given = options.get(flag);
  if (!given) return {};
  if (given->empty()) return fail("missing_value", "--" + flag + " has an empty name", "write --" + flag + " FILE", "--" + flag);
  name = *given;
  return {};
}

Result<std::optional<std::int64_t>> pid_flag(const Options& options) {
  const auto pid = number_of(options, "pid");
  if (pid && *pid && (**pid < 1 || **pid > (std::int64_t{1} << 31))) return fail("bad_value", "--pid " + std::to_string(**pid) + " is no process number", "see: nvidia-smi, or leave it out", "--pid");
  return pid;
}

Result<std::optional<double>> seconds_flag(const Options& options, const std::string& flag, double least) {
  const auto text = options.get(flag);
  if (!text) return std::optional<double>();
  const auto seconds = parse_real(*text, "--" + flag);
  if (!seconds) return std::unexpected(seconds.error());
  if (*seconds < least || *seconds > 3600) return fail("bad_value", "--" + flag + " " + text->substr(0, 30) + " is out of range", fmt::format("use seconds from {:g} to 3600", least), "--" + flag);
  return std::optional(*seconds);
}

Result<void> no_live_flags_with_replay(const Options& options, std::initializer_list<const char*> live) {
  if (!options.has("replay")) return {};
  for (const char* flag : live) {
    if (options.has(flag)) return fail("bad_value", "--" + std::string(flag) + " and --replay do not go together", "a recording holds its own job and log", "--" + std::string(flag));
  }
  return {};
}

Result<void> no_live_flags(const Options& options) {
  for (const char* live : {"pid", "log", "seconds", "replay"}) {
    if (options.has(live)) return fail("bad_value", "--" + std::string(live) + " goes with --live only", "dryfit doctor --live --" + std::string(live) + " ..., or a file: dryfit doctor train.log", "--" + std::string(live));
  }
  return {};
}

}  // namespace dryfit::cli
