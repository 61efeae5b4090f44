// What watch shows, as values to text: a frame of any size, one line, JSON, Prometheus. Pure.
#pragma once

#include <string>
#include <vector>

#include "report/text.hpp"
#include "watch/history.hpp"
#include "watch/job.hpp"
#include "watch/layout.hpp"

namespace dryfit {

struct WatchView {
  std::string title;                        // "pid 41212 · base_train d26 b16 x 2048"
  std::string mode;                         // "", "replay", "ended"
  std::string footer;                       // keys, where to learn more; may be empty
  std::int64_t time_ms = 0;                 // wall clock, ms since 1970; 0: not known
  std::string source;                       // "nvml"
  const History* history = nullptr;         // never null
  const Prediction* prediction = nullptr;   // null: none
  std::string no_prediction;                // why there is none
  const Job* job = nullptr;                 // null: only GPUs are watched
  const LogRun* log = nullptr;              // null: no log
  std::vector<Finding> findings;
  std::vector<ProcessSample> tree;
  std::vector<std::string> notes;
};

// Lines of at most `width` columns, at most `height` of them, at least one; escapes only where style.colour.
std::vector<std::string> watch_frame(const WatchView& view, int width, int height, const Style& style);
// Rows the whole of the view takes at this width, for printing it once.
int watch_rows(const WatchView& view);

std::string watch_line(const WatchView& view);          // one line for a log file or a pipe, with its end
std::string watch_json(const WatchView& view);          // one object on one line (docs/schema/watch.schema.json)
std::string watch_prometheus(const WatchView& view);    // text exposition format 0.0.4
std::string watch_prometheus_down();                    // what is left when watch ends
std::string finding_text(const Finding& finding);       // "97 % full, 1.2 GiB free, full in 40 s"

// "2 h 13 min", "41 s"; negative or absurd durations are "?".
std::string duration_text(double seconds);
// Characters that show as themselves in one column each; anything else becomes '?'.
std::string plain_text(std::string_view text, std::size_t most);

}  // namespace dryfit
