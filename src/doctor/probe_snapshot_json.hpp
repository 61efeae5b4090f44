// A memory snapshot written as JSON (json.dump of torch.cuda.memory._snapshot()) into the same store as a pickle. At the edge for its
// parser's sake: nlohmann/json, event by event, over pieces that are let go as they are read.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "doctor/snapshot_store.hpp"

namespace dryfit {

class SnapshotJson {
 public:
  explicit SnapshotJson(SnapshotStore& store) : store_(store) {}
  void feed(std::string_view bytes);
  // Parses what was fed. Errors: "bad_json" with the byte.
  Result<void> finish();
  std::int64_t bytes() const { return bytes_; }

 private:
  SnapshotStore& store_;
  std::deque<std::string> pieces_;
  std::int64_t bytes_ = 0;
};

}  // namespace dryfit
