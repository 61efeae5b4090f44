// See live.hpp: Linux and macOS. What must work within a signal handler is kept in plain static data.
#include "cli/live.hpp"

#include <fcntl.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <ctime>

namespace dryfit::cli {

namespace {

constexpr std::array kQuitting = {SIGINT, SIGTERM, SIGQUIT, SIGHUP};
constexpr std::array kCrashing = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

int g_pipe[2] = {-1, -1};
volatile std::sig_atomic_t g_quit = 0, g_resized = 0, g_continued = 0, g_entered = 0, g_raw = 0, g_hung_up = 0;
termios g_before{};

void put(std::string_view text) {
  const char* at = text.data();
  std::size_t size = text.size();
  while (size > 0) {
    const ssize_t n = ::write(STDOUT_FILENO, at, size);
    if (n <= 0) return;
    at += n;
    size -= static_cast<std::size_t>(n);
  }
}

// Both are safe in a handler: write and tcsetattr.
void enter() {
  if (g_raw != 0) {
    termios raw = g_before;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  }
  put(kEnterScreen);
  g_entered = 1;
}
void leave() {
  if (g_entered == 0) return;
  g_entered = 0;
  put(kLeaveScreen);
  if (g_raw != 0) tcsetattr(STDIN_FILENO, TCSANOW, &g_before);
}

void wake() {
  const int saved = errno;
  const char byte = 0;
  if (::write(g_pipe[1], &byte, 1) < 0) errno = saved;  // full: a wake-up is waiting already
  errno = saved;
}
void on_quit(int signal) {
  if (signal == SIGHUP) g_hung_up = 1;
  g_quit = 1;
  wake();
}
void on_resize(int) {
  g_resized = 1;
  wake();
}
void on_crash(int signal) {
  leave();
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}
// Ctrl-Z: the terminal goes back first; SIGCONT takes it again.
void on_stop(int) {
  const int saved = errno;
  const bool was = g_entered != 0;
  leave();
  ::signal(SIGTSTP, SIG_DFL);
  sigset_t mask, old;
  sigemptyset(&mask);
  sigaddset(&mask, SIGTSTP);
  ::raise(SIGTSTP);
  sigprocmask(SIG_UNBLOCK, &mask, &old);  // stops here
  sigprocmask(SIG_SETMASK, &old, nullptr);
  struct sigaction again{};
  again.sa_handler = on_stop;
  sigaction(SIGTSTP, &again, nullptr);
  if (was) enter();
  g_continued = 1;
  wake();
  errno = saved;
}

void handle(int signal, void (*handler)(int), int flags = 0) {
  struct sigaction action{};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigaction(signal, &action, nullptr);
}

}  // namespace

Signals::Signals() {
  for (volatile std::sig_atomic_t* flag : {&g_quit, &g_resized, &g_continued, &g_hung_up}) *flag = 0;
  if (pipe(g_pipe) != 0) g_pipe[0] = g_pipe[1] = -1;
  for (int end : g_pipe) {
    fcntl(end, F_SETFD, FD_CLOEXEC);
    fcntl(end, F_SETFL, O_NONBLOCK);
  }
  for (int s : kQuitting) handle(s, on_quit);
  handle(SIGWINCH, on_resize);
}

Signals::~Signals() {
  for (int s : kQuitting) handle(s, SIG_DFL);
  handle(SIGWINCH, SIG_DFL);
  for (int& end : g_pipe) {
    if (end >= 0) ::close(end);
    end = -1;
  }
}

bool Signals::quit_asked() { return g_quit != 0; }
bool Signals::hung_up() { return g_hung_up != 0; }

LiveEvent Signals::wait(double seconds, bool keys) const {
  timespec until{};
  clock_gettime(CLOCK_MONOTONIC, &until);
  const double end = static_cast<double>(until.tv_sec) + static_cast<double>(until.tv_nsec) * 1e-9 + std::max(0.0, seconds);
  for (;;) {
    if (g_quit != 0) return LiveEvent::quit;
    if (g_continued != 0) {
      g_continued = 0;
      return LiveEvent::redraw;
    }
    if (g_resized != 0) {
      g_resized = 0;
      return LiveEvent::resized;
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    const double left = end - static_cast<double>(until.tv_sec) - static_cast<double>(until.tv_nsec) * 1e-9;
    if (left <= 0) return LiveEvent::timeout;
    pollfd waiting[2] = {{g_pipe[0], POLLIN, 0}, {keys ? STDIN_FILENO : -1, POLLIN, 0}};
    const int ready = ::poll(waiting, 2, static_cast<int>(std::ceil(std::min(left, 3600.0) * 1000)));
    if (ready <= 0) continue;
    char bytes[64];
    if ((waiting[0].revents & POLLIN) != 0) {
      while (::read(g_pipe[0], bytes, sizeof bytes) > 0) {}
    }
    if (waiting[1].revents == 0) continue;
    const ssize_t n = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) {  // the terminal is gone
      g_hung_up = 1;
      return LiveEvent::quit;
    }
    for (ssize_t i = 0; i < n; ++i) {
      if (const auto event = event_of(bytes[i])) return *event;
    }
  }
}

Screen::Screen() {
  keys_ = isatty(STDIN_FILENO) != 0 && tcgetattr(STDIN_FILENO, &g_before) == 0;
  g_raw = keys_ ? 1 : 0;
  for (int s : kCrashing) handle(s, on_crash);
  handle(SIGTSTP, on_stop);
  enter();
}

Screen::~Screen() {
  leave();
  for (int s : kCrashing) handle(s, SIG_DFL);
  handle(SIGTSTP, SIG_DFL);
}

bool Screen::put(std::string_view frame) {
  while (!frame.empty()) {
    const ssize_t n = ::write(STDOUT_FILENO, frame.data(), frame.size());
    if (n < 0 && errno == EINTR && !Signals::quit_asked()) continue;
    if (n <= 0) {
      g_hung_up = 1;
      return false;
    }
    frame.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace dryfit::cli
