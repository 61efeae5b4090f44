// The command table: names, one-line descriptions, examples and flags. Help, completions and parsing read it.
#pragma once

#include <array>
#include <span>
#include <string_view>

namespace dryfit::cli {

struct FlagSpec {
  std::string_view name;      // without --
  std::string_view argument;  // "N", "" for a switch
  std::string_view help;
};

struct CommandSpec {
  std::string_view name, summary, examples;
  std::span<const FlagSpec> flags[4];
};

std::span<const CommandSpec> commands();
const CommandSpec* find_command(std::string_view name);

}  // namespace dryfit::cli
