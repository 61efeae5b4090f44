// The live terminal: the alternate screen, keys, signals. Whatever ends the process, the terminal is put back as it was. No curses.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dryfit::cli {

enum class LiveEvent { timeout, resized, redraw, quit };
std::optional<LiveEvent> event_of(char key);  // what a key asks for; none: nothing

// The terminal's own other screen, without cursor and wrapping, and back.
inline constexpr std::string_view kEnterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J\x1b[H", kLeaveScreen = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

// While it exists: SIGINT, SIGTERM, SIGQUIT and SIGHUP (Windows: Ctrl-C, Ctrl-Break, a closed window) ask to quit, SIGWINCH tells of a new size. One at a time.
class Signals {
 public:
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  // Waits for a signal, a key or the time. keys: also reads standard input, where q, Q, Ctrl-D and its end quit.
  LiveEvent wait(double seconds, bool keys) const;
  static bool quit_asked();
  static bool hung_up();  // the terminal is gone: nothing can be written to it
};

// While it exists: standard output shows a screen of its own. Ctrl-Z puts the terminal back and takes it again.
class Screen {
 public:
  Screen();
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;
  struct Size { int width = 80, height = 24; };
  static Size size();
  // Writes what changed since the last call. False: the terminal is gone.
  bool draw(const std::vector<std::string>& lines, Size size);
  void forget() { shown_.clear(); }  // the next draw writes everything
  bool keys() const { return keys_; }

 private:
  static bool put(std::string_view frame);

  std::vector<std::string> shown_;
  Size shown_size_{0, 0};
  bool keys_ = false;
};

}  // namespace dryfit::cli
