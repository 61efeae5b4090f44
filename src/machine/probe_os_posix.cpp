// See probe_os.hpp: Linux and macOS.
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "base/text.hpp"
#include "machine/probe_os.hpp"

#ifdef __APPLE__
#include <crt_externs.h>
#define environ (*_NSGetEnviron())  // a library has no other
#else
extern char** environ;
#endif

namespace dryfit::os {

namespace {

FileInfo told(const struct stat& info) {
  const auto kind = S_ISDIR(info.st_mode) ? FileInfo::Kind::folder : S_ISREG(info.st_mode) ? FileInfo::Kind::regular : FileInfo::Kind::other;
  return {kind, info.st_size, info.st_mtime, static_cast<std::uint64_t>(info.st_dev), static_cast<std::uint64_t>(info.st_ino)};
}

}  // namespace

int open(const std::string& path, Access access) {
  switch (access) {
    case Access::read: return ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    case Access::read_now: return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    case Access::write: return ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    case Access::write_own: return ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    case Access::write_new: return ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    case Access::lock: return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  }
  return -1;
}

int close(int file) { return ::close(file) == 0 ? 0 : errno; }

std::ptrdiff_t read(int file, char* into, std::size_t size) {
  for (;;) {
    const ssize_t n = ::read(file, into, size);
    if (n >= 0 || errno != EINTR) return n;
  }
}

std::ptrdiff_t read_at(int file, char* into, std::size_t size, std::int64_t at) { return ::pread(file, into, size, at); }

int write(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(file, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return 0;
}

int flush(int file) { return fsync(file) == 0 ? 0 : errno; }

bool lock(int file) {
  while (flock(file, LOCK_EX) != 0) {
    if (errno != EINTR) return false;
  }
  return true;
}

std::optional<FileInfo> info(const std::string& path) {
  struct stat found{};
  return ::stat(path.c_str(), &found) == 0 ? std::optional(told(found)) : std::nullopt;
}
std::optional<FileInfo> info(int file) {
  struct stat found{};
  return fstat(file, &found) == 0 ? std::optional(told(found)) : std::nullopt;
}
bool readable(const std::string& path) { return access(path.c_str(), R_OK) == 0; }
int replace(const std::string& from, const std::string& to) { return std::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno; }
void remove(const std::string& path) { std::remove(path.c_str()); }
int make_folder(const std::string& path) { return mkdir(path.c_str(), 0700) == 0 || errno == EEXIST ? 0 : errno; }

void flush_folder(const std::string& path) {
  const int folder = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  fsync(folder);
  ::close(folder);
}

std::string absolute(const std::string& path) {
  char buffer[PATH_MAX];
  return realpath(path.c_str(), buffer) != nullptr ? buffer : path;
}
bool is_absolute(std::string_view path) { return path.starts_with('/'); }

std::vector<std::string> arguments(int argc, const char* const* argv) { return {argv + (argc > 0 ? 1 : 0), argv + argc}; }

std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

std::int64_t process_number() { return getpid(); }
void prepare_streams() { signal(SIGPIPE, SIG_IGN); }
bool is_terminal(int file) { return isatty(file) != 0; }

std::optional<Size> terminal_size() {
  winsize now{};
  if (ioctl(kOutput, TIOCGWINSZ, &now) != 0 || now.ws_col == 0 || now.ws_row == 0) return std::nullopt;
  return Size{now.ws_col, now.ws_row};
}

std::optional<std::string> output_of(const std::string& program, const std::vector<std::string>& words, int seconds, std::size_t most) {
  int ends[2];
  if (pipe(ends) != 0) return std::nullopt;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t child = 0;
  const bool started = posix_spawnp(&child, program.c_str(), &actions, nullptr, argv.data(), environ) == 0;
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  std::string text;
  if (started) {
    char buffer[4096];
    pollfd waiting{ends[0], POLLIN, 0};
    while (poll(&waiting, 1, seconds * 1000) > 0 && text.size() < most) {
      const ssize_t n = ::read(ends[0], buffer, sizeof buffer);
      if (n <= 0) break;
      text.append(buffer, static_cast<std::size_t>(n));
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  ::close(ends[0]);
  return started ? std::optional(std::move(text)) : std::nullopt;
}

void* load(const std::string& library) { return dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL); }
void* find(void* library, const char* name) { return dlsym(library, name); }
void unload(void* library) { dlclose(library); }

bool windows_manages_gpus() {
  std::ifstream in("/proc/version");
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  return to_lower(text).find("microsoft") != std::string::npos;
}

}  // namespace dryfit::os
