// The watch command: moments from a source to a screen, lines, JSON, a recording and Prometheus, until something ends it.
#pragma once

#include "cli/cli.hpp"
#include "report/text.hpp"
#include "watch/watcher.hpp"

namespace dryfit::cli {

struct WatchRequest {
  WatchSettings settings;
  std::optional<std::int64_t> pid;
  std::optional<double> interval;      // seconds; none: 1, or a recording's own pace
  std::string log, record, replay, prometheus;
  bool once = false, json = false;
};

// Exit status: 0 ended by the user, a signal, the job or the recording; 1 all GPUs were lost; 70 a file could not be written to its end.
// Errors: "no_gpu", "no_process", "unreadable_file", "unwritable_file", "file_exists", "bad_recording", ...
Result<int> watch(WatchRequest request, const Env& env, const Style& style);

}  // namespace dryfit::cli
