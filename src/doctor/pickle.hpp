// Python's pickle, protocols 2 to 5, piece by piece into a store of values. Builtin types only: whatever would build an object or call
// something is refused by name, nothing is ever executed. Memory is bounded by the bytes read. Not here: what the values mean.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "doctor/snapshot_store.hpp"

namespace dryfit {

class PickleReader {
 public:
  static constexpr std::size_t kLongestText = 16 << 20;

  explicit PickleReader(SnapshotStore& store) : store_(store) {}
  // Errors: "unsafe_pickle" (it wants to build something), "bad_pickle", "old_pickle" (protocols 0 and 1), "too_large". where: the byte.
  Result<void> feed(std::string_view bytes);
  Result<void> finish();                       // "truncated" unless the pickle was complete
  bool complete() const { return complete_; }  // bytes after it are not looked at
  std::int64_t bytes() const { return base_ + static_cast<std::int64_t>(carry_.size()); }  // fed so far

 private:
  enum class Step { done, starved, failed };
  Step step(std::string_view& in);
  Step text(std::string_view& in, std::size_t width, bool bytes);
  Step long_integer(std::string_view& in, std::size_t width);
  Step put(std::uint64_t index);
  Step get(std::uint64_t index);
  Step refuse(unsigned char op, std::string_view in);
  Step result(bool ok);
  Step failed(std::string code, std::string message, std::string hint);
  void remembered(std::string_view& in);
  Result<void> decode(std::string_view in);

  SnapshotStore& store_;
  Chunked<SnapshotStore::Value> memo_;
  std::string carry_;                          // an opcode whose end has not come yet
  std::int64_t base_ = 0;                      // bytes before carry_
  std::int64_t at_ = 0, checked_ = 0;          // of the opcode at hand; where memory was last looked at
  std::uint64_t puts_ = 0;
  bool complete_ = false;
  Error error_;
};

}  // namespace dryfit
