// One moment of a watched machine, live or recorded: what a source hands to the watcher.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "machine/sample.hpp"

namespace dryfit {

// The job as it was found: what it takes to predict it again from a recording.
struct SeenJob { std::int64_t pid = 0; std::string command; std::vector<std::string> environment; };

struct Moment {
  MachineSample sample;
  std::optional<SeenJob> job;          // in the first moment in which it is known, or is another one
  std::vector<std::string> log;        // lines of the training log that came since the moment before
};

}  // namespace dryfit
