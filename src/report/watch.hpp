// What watch shows, as values to text: a frame of any size, one line, JSON, Prometheus. Pure.
#pragma once

#include <string>
#include <vector>

#include "report/text.hpp"
#include "watch/layout.hpp"
#include "watch/watcher.hpp"

namespace dryfit {

// Lines of at most `width` columns, at most `height` of them, at least one; escapes only where style.colour.
std::vector<std::string> watch_frame(const WatchView& view, int width, int height, const Style& style);
// Rows the whole of the view takes at this width, for printing it once.
int watch_rows(const WatchView& view, int width);

std::string watch_line(const WatchView& view);          // one line for a log file or a pipe, with its end
std::string watch_json(const WatchView& view);          // one object on one line (docs/schema/watch.schema.json)
std::string watch_prometheus(const WatchView& view);    // text exposition format 0.0.4
std::string watch_prometheus_down();                    // what is left when watch ends
std::string finding_text(const Finding& finding);       // "97 % full, 1.2 GiB free, full in 40 s"

// Characters that show as themselves in one column each; anything else becomes '?'.
std::string plain_text(std::string_view text, std::size_t most);

}  // namespace dryfit
