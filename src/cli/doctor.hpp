// The doctor command at the edge: which file, what kind of file (a log or a memory snapshot), a progress bar while a large one is read. The judgement is doctor/.
#pragma once

#include <optional>
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
  std::optional<std::string> svg;  // where the timeline of a snapshot goes
};

// Exit status: 0 something was found and explained, 1 the text holds neither a failure nor training steps.
// Errors: "missing_file", "unreadable_file", "empty_file", "not_text", "archive", "snapshot_page", "profiler_trace", those of a snapshot's
// reader (doctor/pickle.hpp, snapshot_store.hpp) and those of the flags.
Result<int> doctor(const DoctorRequest& request, const Env& env, const Style& style);

}  // namespace dryfit::cli
