// The real Env: streams, environment, terminal, files. A closed pipe ends quietly; a full disk does not.
#include "cli/terminal.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "base/text.hpp"
#include "cli/parallel.hpp"
#include "machine/probe_os.hpp"

namespace dryfit::cli {

namespace {

void write_all(int descriptor, std::string_view text) {
  const int problem = os::write(descriptor, text);
  if (problem == 0) return;
  if (problem == EPIPE) std::_Exit(0);
  if (descriptor != os::kErrors) os::write(os::kErrors, std::string("error: cannot write: ") + std::strerror(problem) + "\nhint:  is the disk full?\n");
  std::_Exit(kInternal);
}

int terminal_width() {
  if (const auto columns = os::variable("COLUMNS")) {
    const auto n = parse_int(*columns, "COLUMNS");
    if (n && *n >= 20 && *n <= 1000) return static_cast<int>(*n);
  }
  const auto size = os::terminal_size();
  return size && size->width >= 20 ? size->width : 80;
}

// Written beside the target and renamed, so that no half file is left.
Result<void> write_file(const std::string& path, std::string_view text) {
  const auto bad = [&](const char* what) { return fail("unwritable_file", "cannot write '" + path + "': " + what, "give a path in a folder you may write to", path); };
  if (const auto there = os::info(path); there && there->kind == os::FileInfo::Kind::folder) return bad("it is a folder");
  const std::string temporary = path + ".tmp" + std::to_string(os::process_number());
  const int file = os::open(temporary, os::Access::write);
  if (file < 0) return bad(std::strerror(errno));
  int problem = os::write(file, text);
  const int closing = os::close(file);
  if (problem == 0) problem = closing;
  if (problem == 0) problem = os::replace(temporary, path);
  if (problem == 0) return {};
  os::remove(temporary);
  return bad(std::strerror(problem));
}

Result<void> stream_file(const std::string& path, const ReadSink& sink) {
  const auto bad = [&](const std::string& what) { return fail("unreadable_file", "cannot read '" + path + "': " + what, "give the path of a text file, or - to read standard input", path); };
  const auto folder = [](const std::optional<os::FileInfo>& info) { return info && info->kind == os::FileInfo::Kind::folder; };
  if (path != "-" && folder(os::info(path))) return bad("it is a folder");
  const int file = path == "-" ? os::kInput : os::open(path, os::Access::read);
  if (file < 0) return bad(std::strerror(errno));
  const auto info = os::info(file);
  std::string problem = folder(info) ? "it is a folder" : "";
  ReadProgress progress;
  if (info && info->kind == os::FileInfo::Kind::regular) progress.total = info->size;
  std::vector<char> buffer(1 << 20);
  const auto start = std::chrono::steady_clock::now();
  while (problem.empty()) {
    const std::ptrdiff_t n = os::read(file, buffer.data(), buffer.size());
    if (n < 0) problem = std::strerror(errno);
    if (n <= 0) break;
    progress.done += n;
    progress.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!sink({buffer.data(), static_cast<std::size_t>(n)}, progress)) break;
  }
  if (path != "-") os::close(file);
  if (!problem.empty()) return bad(problem);
  return {};
}

}  // namespace

Env machine_env() {
  Env env;
  env.out = env.err = [](std::string_view) {};
  env.variable = os::variable;
  env.probe = make_probe;
  env.write_file = write_file;
  env.stream_file = stream_file;
  env.loop = [](std::size_t count, const std::function<bool(std::size_t)>& call) {
    for_each_until(count, std::clamp(std::thread::hardware_concurrency(), 1U, 8U), call);
  };
  return env;
}

Env real_env() {
  os::prepare_streams();
  Env env = machine_env();
  env.out = [](std::string_view text) { write_all(os::kOutput, text); };
  env.err = [](std::string_view text) { write_all(os::kErrors, text); };
  env.out_is_terminal = os::is_terminal(os::kOutput);
  env.err_is_terminal = os::is_terminal(os::kErrors);
  env.width = terminal_width();
  return env;
}

}  // namespace dryfit::cli
