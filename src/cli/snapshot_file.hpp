// A memory snapshot read piece by piece, from the pickle or the JSON that its first bytes announce. What it means is doctor/snapshot_report.
#pragma once

#include <optional>
#include <string_view>

#include "doctor/file_kind.hpp"
#include "doctor/pickle.hpp"
#include "doctor/probe_snapshot_json.hpp"
#include "doctor/snapshot_store.hpp"

namespace dryfit::cli {

constexpr bool is_snapshot(FileKind kind) { return kind == FileKind::snapshot_pickle || kind == FileKind::snapshot_json; }

class SnapshotFile {
 public:
  // kind: one of the two. False: no use in reading on.
  bool feed(FileKind kind, std::string_view bytes);
  // Errors: those of the reader, "bad_snapshot"; `where` is a place in the file, or empty.
  Result<Snapshot> finish();

 private:
  SnapshotStore store_;
  PickleReader pickle_{store_};
  SnapshotJson json_{store_};
  std::optional<Result<void>> problem_;
  bool is_json_ = false;
};

}  // namespace dryfit::cli
