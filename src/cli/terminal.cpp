// The real Env: streams, environment, terminal, files. A closed pipe ends quietly; a full disk does not.
#include "cli/terminal.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "base/text.hpp"
#include "cli/parallel.hpp"

namespace dryfit::cli {

namespace {

void write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(descriptor, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EPIPE) std::_Exit(0);
    if (n < 0) {
      const std::string message = std::string("error: cannot write: ") + std::strerror(errno) + "\nhint:  is the disk full?\n";
      if (descriptor != STDERR_FILENO && ::write(STDERR_FILENO, message.data(), message.size()) < 0) std::_Exit(kInternal);
      std::_Exit(kInternal);
    }
    text.remove_prefix(static_cast<std::size_t>(n));
  }
}

int terminal_width() {
  if (const char* columns = std::getenv("COLUMNS")) {
    const auto n = parse_int(columns, "COLUMNS");
    if (n && *n >= 20 && *n <= 1000) return static_cast<int>(*n);
  }
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
  return 80;
}

// Written beside the target and renamed, so that no half file is left.
Result<void> write_file(const std::string& path, std::string_view text) {
  const auto bad = [&](const char* what) { return fail("unwritable_file", "cannot write '" + path + "': " + what, "give a path in a folder you may write to", path); };
  struct stat info{};
  if (stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return bad("it is a folder");
  const std::string temporary = path + ".tmp" + std::to_string(getpid());
  std::FILE* file = std::fopen(temporary.c_str(), "wb");
  if (file == nullptr) return bad(std::strerror(errno));
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if ((std::fclose(file) != 0) || !written || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    std::remove(temporary.c_str());
    return bad(std::strerror(error));
  }
  return {};
}

Result<void> stream_file(const std::string& path, const ReadSink& sink) {
  const auto bad = [&](const std::string& what) { return fail("unreadable_file", "cannot read '" + path + "': " + what, "give the path of a text file, or - to read standard input", path); };
  const int file = path == "-" ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return bad(std::strerror(errno));
  struct stat info{};
  const bool known = fstat(file, &info) == 0;
  std::string problem = known && S_ISDIR(info.st_mode) ? "it is a folder" : "";
  ReadProgress progress;
  if (known && S_ISREG(info.st_mode)) progress.total = info.st_size;
  std::vector<char> buffer(1 << 20);
  const auto start = std::chrono::steady_clock::now();
  while (problem.empty()) {
    const ssize_t n = ::read(file, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) problem = std::strerror(errno);
    if (n <= 0) break;
    progress.done += n;
    progress.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!sink({buffer.data(), static_cast<std::size_t>(n)}, progress)) break;
  }
  if (path != "-") ::close(file);
  if (!problem.empty()) return bad(problem);
  return {};
}

}  // namespace

Env machine_env() {
  Env env;
  env.out = env.err = [](std::string_view) {};
  env.variable = [](const char* name) -> std::optional<std::string> {
    const char* value = std::getenv(name);
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
  env.probe = make_probe;
  env.write_file = write_file;
  env.stream_file = stream_file;
  env.loop = [](std::size_t count, const std::function<bool(std::size_t)>& call) {
    for_each_until(count, std::clamp(std::thread::hardware_concurrency(), 1U, 8U), call);
  };
  return env;
}

Env real_env() {
  std::signal(SIGPIPE, SIG_IGN);
  Env env = machine_env();
  env.out = [](std::string_view text) { write_all(STDOUT_FILENO, text); };
  env.err = [](std::string_view text) { write_all(STDERR_FILENO, text); };
  env.out_is_terminal = isatty(STDOUT_FILENO) != 0;
  env.err_is_terminal = isatty(STDERR_FILENO) != 0;
  env.width = terminal_width();
  return env;
}

}  // namespace dryfit::cli
