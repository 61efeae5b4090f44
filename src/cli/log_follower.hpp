// A log file followed as `tail -F` does: new lines as they come, through truncation, rotation and a file that is not there yet.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace dryfit::cli {

class LogFollower {
 public:
  // Of a file longer than kHead + kTail when first opened, the middle is skipped: its header and its latest steps are what counts.
  static constexpr std::int64_t kHead = 1 << 20, kTail = 8 << 20, kMostAtOnce = 4 << 20;
  static constexpr std::size_t kLongestLine = 4096;

  explicit LogFollower(std::string path) : path_(std::move(path)) {}
  ~LogFollower();
  LogFollower(const LogFollower&) = delete;
  LogFollower& operator=(const LogFollower&) = delete;
  // Errors: "unreadable_file" where the path is a folder, a device or may not be read. A missing file is no error.
  Result<void> check() const;
  // Whole lines since the last call, at most kMostAtOnce bytes of them. Lines are cut at kLongestLine.
  std::vector<std::string> poll();

 private:
  void open();
  void read_to(std::int64_t end, std::vector<std::string>& lines, std::int64_t& budget);

  std::string path_, carry_;
  int file_ = -1;
  std::int64_t offset_ = 0;
  std::uint64_t number_ = 0, device_ = 0;  // which file is open
};

}  // namespace dryfit::cli
