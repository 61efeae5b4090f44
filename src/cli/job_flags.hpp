// --emit and --nodes: the job that `plan` and `check` are asked for.
#pragma once

#include <optional>

#include "cli/cli.hpp"
#include "cli/options.hpp"
#include "plan/job.hpp"
#include "report/text.hpp"

namespace dryfit::cli {

// report: a run that fits; none where nothing does. pasted_conf: PYTORCH_ALLOC_CONF of the pasted command; --alloc-conf wins. Without --emit: none. Wrong flags are
// errors either way.
Result<std::optional<JobFile>> job_asked_for(const Options& options, const Report* report, const std::optional<std::string>& pasted_conf);

// The screen; with --emit the job's file alone, or nothing, and the screen is talk.
void answer_with_job(const Options& options, const Env& env, const Style& style, const std::string& screen, const std::optional<JobFile>& job);

}  // namespace dryfit::cli
