// --emit and --nodes: the job that `plan` and `check` are asked for.
#pragma once

#include <optional>

#include "cli/options.hpp"
#include "plan/job.hpp"

namespace dryfit::cli {

// report: a run that fits; none where nothing does. Without --emit: none. Wrong flags are errors either way.
Result<std::optional<JobFile>> job_asked_for(const Options& options, const Report* report);

}  // namespace dryfit::cli
