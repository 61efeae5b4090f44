// Words to typed options: flags of one command, checked against the command table. Knows nothing of what they mean.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "cli/commands.hpp"

namespace dryfit::cli {

struct Options {
  std::string command;
  std::map<std::string, std::string, std::less<>> flags;  // without --; switches have an empty value
  std::vector<std::string> positional;
  std::vector<std::string> pasted;                        // after --
  std::vector<std::string> pasted_notes;                  // what was left out of a pasted text, for people
  bool has_pasted = false, help = false;
  std::optional<std::string> get(std::string_view name) const {
    const auto it = flags.find(name);
    return it == flags.end() ? std::nullopt : std::optional(it->second);
  }
  bool has(std::string_view name) const { return flags.contains(name); }
};

// The whole number a flag was given; none: it was not. Errors: "bad_number".
Result<std::optional<std::int64_t>> number_of(const Options& options, std::string_view flag);

// One word after -- is a command line, or the text of a script (plan/shell_text.hpp). Errors: "unknown_command", "unknown_flag" with did-you-mean, "missing_value", "repeated_flag".
Result<Options> parse_options(std::span<const std::string_view> words);

}  // namespace dryfit::cli
