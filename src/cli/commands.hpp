// The command table: names, one-line descriptions, examples and flags. Help, completions and parsing read it.
#pragma once

#include <array>
#include <span>
#include <string_view>
#include <vector>

namespace dryfit::cli {

struct FlagSpec {
  std::string_view name;      // without --
  std::string_view argument;  // "N", "" for a switch
  std::string_view help;
};

struct CommandSpec {
  std::string_view name, summary, examples;
  std::span<const FlagSpec> flags[6];
  bool local = false;         // works on this machine's processes and files; not an answer that a program could ask for by its words
};

std::span<const CommandSpec> commands();
const CommandSpec* find_command(std::string_view name);
// Every flag of a command: those that all commands take, then its own.
std::vector<FlagSpec> flags_of(const CommandSpec& command);

}  // namespace dryfit::cli
