// What kind of file its first bytes announce: a text to read, a memory snapshot, something packed, or what people take for a snapshot.
#pragma once

#include <string_view>

namespace dryfit {

enum class FileKind {
  text,
  snapshot_pickle,  // torch.cuda.memory._dump_snapshot
  snapshot_json,    // the same as JSON
  snapshot_page,    // the HTML page of torch.cuda._memory_viz, with a snapshot inside
  profile,          // a trace of torch.profiler: JSON for chrome://tracing or Perfetto
  profile_page,     // the HTML page of its export_memory_timeline
  recording,        // of dryfit watch
  archive,
};
constexpr std::size_t kKindHead = 1 << 16;  // bytes that decide
FileKind file_kind(std::string_view head);

}  // namespace dryfit
