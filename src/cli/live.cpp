// See live.hpp: what is the same on every system. Signals and keys: live_posix.cpp, live_windows.cpp.
#include "cli/live.hpp"

#include <algorithm>

#include "machine/probe_os.hpp"

namespace dryfit::cli {

std::optional<LiveEvent> event_of(char key) {
  if (key == 'q' || key == 'Q' || key == 4) return LiveEvent::quit;  // Ctrl-D
  if (key == 12) return LiveEvent::redraw;                           // Ctrl-L
  return std::nullopt;
}

Screen::Size Screen::size() {
  const auto size = os::terminal_size();
  return size ? Size{size->width, size->height} : Size{};
}

bool Screen::draw(const std::vector<std::string>& lines, Size size) {
  std::string out = "\x1b[?2026h";  // a terminal that knows it shows the frame at once
  const bool all = size.width != shown_size_.width || size.height != shown_size_.height || shown_.empty();
  if (all) out += "\x1b[0m\x1b[2J";
  bool changed = all;
  const std::size_t rows = std::min<std::size_t>(std::max(lines.size(), shown_.size()), static_cast<std::size_t>(size.height));
  for (std::size_t i = 0; i < rows; ++i) {
    const std::string line = i < lines.size() ? lines[i] : "";
    if (!all && i < shown_.size() && shown_[i] == line) continue;
    if (all && line.empty()) continue;
    out += "\x1b[" + std::to_string(i + 1) + ";1H" + line + "\x1b[K";
    changed = true;
  }
  shown_ = lines;
  shown_size_ = size;
  if (!changed) return true;
  out += "\x1b[?2026l";
  return put(out);
}

}  // namespace dryfit::cli
