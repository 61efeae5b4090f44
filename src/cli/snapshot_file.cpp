// See snapshot_file.hpp.
#include "cli/snapshot_file.hpp"

#include <utility>

namespace dryfit::cli {

bool SnapshotFile::feed(FileKind kind, std::string_view bytes) {
  is_json_ = kind == FileKind::snapshot_json;
  if (is_json_) {
    json_.feed(bytes);
    return true;
  }
  if (auto read = pickle_.feed(bytes); !read) problem_ = std::move(read);
  return !problem_ && !pickle_.complete();
}

Result<Snapshot> SnapshotFile::finish() {
  if (!problem_) problem_ = is_json_ ? json_.finish() : pickle_.finish();
  if (!*problem_) return std::unexpected(problem_->error());
  auto out = store_.finish();
  if (!out) return out;
  out->json = is_json_;
  out->bytes = is_json_ ? json_.bytes() : pickle_.bytes();
  return out;
}

}  // namespace dryfit::cli
