// /proc by plain system calls: a live view may read some of these every second. See process.hpp.
#include <dirent.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>

#include "base/text.hpp"
#include "machine/process.hpp"

namespace dryfit {

namespace {

constexpr std::size_t kMostText = 256 << 10;

std::optional<std::string> slurp(const std::string& path, std::size_t most) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  std::string text;
  std::array<char, 4096> buffer;
  while (text.size() < most) {
    const ssize_t n = ::read(file, buffer.data(), buffer.size());
    if (n <= 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(n));
  }
  close(file);
  return text;
}

std::vector<std::string> zero_separated(std::string_view text) {
  std::vector<std::string> out;
  if (text.ends_with('\0')) text.remove_suffix(1);
  if (text.empty()) return out;
  for (std::string_view word : split(text, '\0')) out.emplace_back(word);
  return out;
}

struct Stat { std::string name; std::int64_t parent = 0, busy_ticks = 0, resident_pages = 0; std::uint64_t started = 0; char state = '?'; };

// "pid (name) state ppid ..."; the name may hold spaces and brackets, so fields count from the last ')'. Fields: proc(5).
std::optional<Stat> parse_stat(std::string_view text) {
  const std::size_t open_at = text.find('('), close_at = text.rfind(')');
  if (open_at == std::string_view::npos || close_at == std::string_view::npos || close_at < open_at) return std::nullopt;
  Stat s;
  s.name = text.substr(open_at + 1, close_at - open_at - 1);
  const auto f = split(trim(text.substr(close_at + 1)), ' ');
  if (f.size() < 22 || f[0].empty()) return std::nullopt;
  s.state = f[0][0];
  s.parent = parse_int(f[1], "").value_or(0);
  s.busy_ticks = parse_int(f[11], "").value_or(0) + parse_int(f[12], "").value_or(0);
  s.started = static_cast<std::uint64_t>(std::max<std::int64_t>(0, parse_int(f[19], "").value_or(0)));
  s.resident_pages = parse_int(f[21], "").value_or(0);
  return s;
}

double now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

class Proc final : public ProcessTable {
 public:
  explicit Proc(std::string root) : root_(std::move(root)), page_(sysconf(_SC_PAGESIZE)), hertz_(static_cast<double>(sysconf(_SC_CLK_TCK))) {}

  std::optional<ProcessSample> read(std::int64_t pid) override {
    const auto s = stat(pid);
    if (!s) return std::nullopt;
    ProcessSample p = light(pid, *s);
    p.resident = Bytes(page_) * s->resident_pages;
    p.command = zero_separated(slurp(path(pid, "cmdline"), kMostText).value_or(""));
    for (std::string& entry : zero_separated(slurp(path(pid, "environ"), kMostText).value_or(""))) {
      const std::string_view key = std::string_view(entry).substr(0, std::min(entry.find('='), entry.size()));
      if (std::ranges::find(kEnvironmentKeys, key) != std::end(kEnvironmentKeys)) p.environment.push_back(std::move(entry));
    }
    std::array<char, 4096> folder;
    if (const ssize_t n = readlink(path(pid, "cwd").c_str(), folder.data(), folder.size()); n > 0) p.folder = std::string(folder.data(), static_cast<std::size_t>(n));
    return p;
  }

  bool update(ProcessSample& p) override {
    const auto s = stat(p.pid);
    if (!s || s->started != p.started) {
      busy_.erase(p.pid);
      return false;
    }
    p.parent = s->parent;
    p.resident = Bytes(page_) * s->resident_pages;
    const double t = now();
    const auto before = busy_.find(p.pid);
    if (before != busy_.end() && t > before->second.at) p.cpu = static_cast<double>(s->busy_ticks - before->second.ticks) / hertz_ / (t - before->second.at);
    busy_[p.pid] = {t, s->busy_ticks};
    return true;
  }

  std::vector<ProcessSample> all() override {
    std::vector<ProcessSample> out;
    DIR* folder = opendir(root_.c_str());
    if (folder == nullptr) return out;
    while (const dirent* entry = readdir(folder)) {
      if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
      const auto pid = parse_int(entry->d_name, "");
      const auto s = pid ? stat(*pid) : std::nullopt;
      if (s) out.push_back(light(*pid, *s));
    }
    closedir(folder);
    return out;
  }

  std::optional<bool> uses_gpu(std::int64_t pid) override {
    DIR* folder = opendir(path(pid, "fd").c_str());
    if (folder == nullptr) return std::nullopt;
    bool found = false;
    const int base = dirfd(folder);
    std::array<char, 64> target;
    while (const dirent* entry = readdir(folder)) {
      const ssize_t n = readlinkat(base, entry->d_name, target.data(), target.size());
      const std::string_view text(target.data(), static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
      found = found || text.starts_with("/dev/nvidia") || text.starts_with("/dev/kfd") || text.starts_with("/dev/dxg");
      if (found) break;
    }
    closedir(folder);
    return found;
  }

 private:
  struct Busy { double at; std::int64_t ticks; };

  std::string path(std::int64_t pid, const char* file) const { return root_ + "/" + std::to_string(pid) + "/" + file; }
  std::optional<Stat> stat(std::int64_t pid) const {
    const auto text = slurp(path(pid, "stat"), 4096);
    const auto s = text ? parse_stat(*text) : std::nullopt;
    return s && s->state != 'Z' && s->state != 'X' ? s : std::nullopt;  // a zombie has ended
  }
  static ProcessSample light(std::int64_t pid, const Stat& s) {
    ProcessSample p;
    p.pid = pid, p.parent = s.parent, p.started = s.started, p.name = s.name;
    return p;
  }

  std::string root_;
  std::int64_t page_;
  double hertz_;
  std::map<std::int64_t, Busy> busy_;
};

}  // namespace

std::unique_ptr<ProcessTable> make_process_table(std::string root) { return std::make_unique<Proc>(std::move(root)); }

}  // namespace dryfit
