// What people paste out of a shell script: a training command among assignments, loops, comments and other commands.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace dryfit {

struct ShellCommand {
  std::vector<std::string> words;  // as the shell would hand them on; a variable that the text does not set stays "$NAME"
  std::vector<std::string> notes;  // for people: other trainings of the text, variables that it leaves open
};

// The first command of the text that trains, behind the assignments that `export` surely makes before it; where none does, the one that starts a program which may, else the first of all. Variables are filled in from assignments before it ("d=12", "export D=12", arrays, ${D:-12}); one that loops or
// conditions give several values is left. Nothing is run: $(...) stays as it is. Errors: "bad_command" for an open quote, or where the text or what variables make of it is too large.
Result<ShellCommand> training_command_in(std::string_view text);

}  // namespace dryfit
