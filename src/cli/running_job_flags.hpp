// Flags of what looks at a running job (watch, doctor --live), and of files they name.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "cli/options.hpp"

namespace dryfit::cli {

// A file named by a flag; left alone when it is not given. Errors: "missing_value".
Result<void> file_flag(const Options& options, const std::string& flag, std::string& name);
// --pid. Errors: "bad_value", "bad_number".
Result<std::optional<std::int64_t>> pid_flag(const Options& options);
// Seconds from `least` to 3600. Errors: "bad_value", "bad_number".
Result<std::optional<double>> seconds_flag(const Options& options, const std::string& flag, double least);
// live: flags of a job that runs, beside which a recording makes no sense. Errors: "bad_value".
Result<void> no_live_flags_with_replay(const Options& options, std::initializer_list<const char*> live);
// Of doctor without --live: none of those that go with it. Errors: "bad_value".
Result<void> no_live_flags(const Options& options);

}  // namespace dryfit::cli
