// See log_follower.hpp.
#include "cli/log_follower.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace dryfit::cli {

LogFollower::~LogFollower() {
  if (file_ >= 0) ::close(file_);
}

Result<void> LogFollower::check() const {
  const auto bad = [&](const std::string& what) { return fail("unreadable_file", "cannot follow '" + path_ + "': " + what, "give the file that the training writes its output to: ... 2>&1 | tee train.log", "--log"); };
  struct stat info{};
  if (::stat(path_.c_str(), &info) != 0) return errno == ENOENT ? Result<void>() : bad(std::strerror(errno));
  if (S_ISDIR(info.st_mode)) return bad("it is a folder");
  if (!S_ISREG(info.st_mode)) return bad("it is no regular file");
  if (::access(path_.c_str(), R_OK) != 0) return bad(std::strerror(errno));
  return {};
}

void LogFollower::open() {
  if (file_ >= 0) ::close(file_);
  offset_ = 0;
  carry_.clear();
  file_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat info{};
  if (file_ >= 0 && (fstat(file_, &info) != 0 || !S_ISREG(info.st_mode))) {
    ::close(file_);
    file_ = -1;
  }
  inode_ = info.st_ino;
  device_ = info.st_dev;
}

void LogFollower::read_to(std::int64_t end, std::vector<std::string>& lines, std::int64_t& budget) {
  char buffer[65536];
  while (offset_ < end && budget > 0) {
    const ssize_t n = ::pread(file_, buffer, static_cast<std::size_t>(std::min<std::int64_t>({static_cast<std::int64_t>(sizeof buffer), end - offset_, budget})), offset_);
    if (n <= 0) return;
    offset_ += n;
    budget -= n;
    for (ssize_t i = 0; i < n; ++i) {
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
    struct stat info{};
    if (fstat(file_, &info) != 0) return lines;
    if (info.st_size < offset_) offset_ = 0, carry_.clear();  // truncated: begins anew
    if (fresh && info.st_size > kHead + kTail) {
      read_to(kHead, lines, budget);
      carry_.clear();
      offset_ = info.st_size - kTail;
    }
    read_to(info.st_size, lines, budget);
    struct stat named{};
    const bool moved = ::stat(path_.c_str(), &named) == 0 && (named.st_ino != inode_ || named.st_dev != device_);
    if (!moved || budget <= 0) return lines;
    ::close(file_);  // rotated: the old one is read to its end, the new one begins
    file_ = -1;
  }
  return lines;
}

}  // namespace dryfit::cli
