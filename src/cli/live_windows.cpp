// See live.hpp: Windows, by the calls of its console.
#include <windows.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "cli/live.hpp"
#include "machine/probe_os.hpp"

namespace dryfit::cli {

namespace {

HANDLE g_wake = nullptr;
volatile LONG g_quit = 0, g_hung_up = 0, g_entered = 0;
DWORD g_before = 0;  // the mode of standard input

HANDLE console_input() { return GetStdHandle(STD_INPUT_HANDLE); }

void leave_screen() {
  if (InterlockedExchange(&g_entered, 0) == 0) return;
  os::write(os::kOutput, kLeaveScreen);
  if (g_before != 0) SetConsoleMode(console_input(), g_before);
}

// On a thread that Windows makes. A window that closes ends the process once this returns.
BOOL WINAPI on_control(DWORD kind) {
  if (kind != CTRL_C_EVENT && kind != CTRL_BREAK_EVENT) InterlockedExchange(&g_hung_up, 1);
  InterlockedExchange(&g_quit, 1);
  SetEvent(g_wake);
  return TRUE;
}

std::optional<LiveEvent> event_of_input(const INPUT_RECORD& input) {
  if (input.EventType == WINDOW_BUFFER_SIZE_EVENT) return LiveEvent::resized;
  if (input.EventType != KEY_EVENT || input.Event.KeyEvent.bKeyDown == FALSE) return std::nullopt;
  return event_of(static_cast<char>(input.Event.KeyEvent.uChar.AsciiChar));
}

}  // namespace

Signals::Signals() {
  g_quit = 0;
  g_hung_up = 0;
  g_wake = CreateEventW(nullptr, FALSE, FALSE, nullptr);
  SetConsoleCtrlHandler(on_control, TRUE);
}

Signals::~Signals() {
  SetConsoleCtrlHandler(on_control, FALSE);
  CloseHandle(g_wake);
}

bool Signals::quit_asked() { return g_quit != 0; }
bool Signals::hung_up() { return g_hung_up != 0; }

LiveEvent Signals::wait(double seconds, bool keys) const {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::clamp(seconds, 0.0, 3600.0)));
  const HANDLE waits[] = {g_wake, console_input()};
  for (;;) {
    if (g_quit != 0) return LiveEvent::quit;
    const double left = std::chrono::duration<double>(end - Clock::now()).count();
    if (left <= 0) return LiveEvent::timeout;
    if (WaitForMultipleObjects(keys ? 2 : 1, waits, FALSE, static_cast<DWORD>(std::ceil(left * 1000))) != WAIT_OBJECT_0 + 1) continue;
    INPUT_RECORD inputs[16];
    DWORD n = 0;
    if (ReadConsoleInputA(console_input(), inputs, 16, &n) == 0) {  // the console is gone
      InterlockedExchange(&g_hung_up, 1);
      return LiveEvent::quit;
    }
    for (DWORD i = 0; i < n; ++i) {
      if (const auto event = event_of_input(inputs[i])) return *event;
    }
  }
}

Screen::Screen() {
  keys_ = GetConsoleMode(console_input(), &g_before) != 0;
  if (!keys_) g_before = 0;
  else SetConsoleMode(console_input(), (g_before | ENABLE_WINDOW_INPUT | ENABLE_PROCESSED_INPUT) & ~static_cast<DWORD>(ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT));
  os::write(os::kOutput, kEnterScreen);
  g_entered = 1;
}

Screen::~Screen() { leave_screen(); }

bool Screen::put(std::string_view frame) {
  if (os::write(os::kOutput, frame) == 0) return true;
  InterlockedExchange(&g_hung_up, 1);
  return false;
}

}  // namespace dryfit::cli
