// See log_follower.hpp.
#include "cli/log_follower.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "machine/probe_os.hpp"

namespace dryfit::cli {

LogFollower::~LogFollower() {
  if (file_ >= 0) os::close(file_);
}

Result<void> LogFollower::check() const {
  const auto bad = [&](const std::string& what) { return fail("unreadable_file", "cannot follow '" + path_ + "': " + what, "give the file that the training writes its output to: ... 2>&1 | tee train.log", "--log"); };
  const auto info = os::info(path_);
  if (!info) return errno == ENOENT ? Result<void>() : bad(std::strerror(errno));
  if (info->kind == os::FileInfo::Kind::folder) return bad("it is a folder");
  if (info->kind != os::FileInfo::Kind::regular) return bad("it is no regular file");
  if (!os::readable(path_)) return bad(std::strerror(errno));
  return {};
}

void LogFollower::open() {
  if (file_ >= 0) os::close(file_);
  offset_ = 0;
  carry_.clear();
  file_ = os::open(path_, os::Access::read_now);
  if (file_ < 0) return;
  const auto info = os::info(file_);
  if (!info || info->kind != os::FileInfo::Kind::regular) {
    os::close(file_);
    file_ = -1;
    return;
  }
  number_ = info->number;
  device_ = info->device;
}

void LogFollower::read_to(std::int64_t end, std::vector<std::string>& lines, std::int64_t& budget) {
  char buffer[65536];
  while (offset_ < end && budget > 0) {
    const std::ptrdiff_t n = os::read_at(file_, buffer, static_cast<std::size_t>(std::min<std::int64_t>({static_cast<std::int64_t>(sizeof buffer), end - offset_, budget})), offset_);
    if (n <= 0) return;
    offset_ += n;
    budget -= n;
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      if (buffer[i] != '\n' && buffer[i] != '\r') {
        if (carry_.size() < kLongestLine) carry_ += buffer[i];
        continue;
      }
      if (!carry_.empty()) lines.push_back(std::move(carry_));
      carry_.clear();
    }
  }
}

std::vector<std::string> LogFollower::poll() {
  std::vector<std::string> lines;
  std::int64_t budget = kMostAtOnce;
  for (int round = 0; round < 2; ++round) {
    const bool fresh = file_ < 0;
    if (fresh) open();
    if (file_ < 0) return lines;
    const auto info = os::info(file_);
    if (!info) return lines;
    if (info->size < offset_) offset_ = 0, carry_.clear();  // truncated: begins anew
    if (fresh && info->size > kHead + kTail) {
      read_to(kHead, lines, budget);
      carry_.clear();
      offset_ = info->size - kTail;
    }
    read_to(info->size, lines, budget);
    const auto named = os::info(path_);
    const bool moved = named && (named->number != number_ || named->device != device_);
    if (!moved || budget <= 0) return lines;
    os::close(file_);  // rotated: the old one is read to its end, the new one begins
    file_ = -1;
  }
  return lines;
}

}  // namespace dryfit::cli
