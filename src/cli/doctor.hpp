// The doctor command at the edge: which file, what kind of file, a progress bar while a large one is read. The judgement is doctor/.
#pragma once

#include <string>
#include <vector>

#include "cli/cli.hpp"
#include "doctor/known_run.hpp"
#include "report/text.hpp"

namespace dryfit::cli {

struct DoctorRequest {
  std::vector<std::string> paths;  // exactly one, "-" for standard input
  Given given;
  bool json = false;
};

// Exit status: 0 something was found and explained, 1 the text holds neither a failure nor training steps.
// Errors: "missing_file", "unreadable_file", "empty_file", "not_text", "archive", "memory_snapshot", and those of the flags.
Result<int> doctor(const DoctorRequest& request, const Env& env, const Style& style);

}  // namespace dryfit::cli
