// See file_kind.hpp. Pages: torch/cuda/_memory_viz.py and torch/profiler/_memory_profiler.py.
#include "doctor/file_kind.hpp"

namespace dryfit {

namespace {

bool holds(std::string_view head, std::string_view text) { return head.find(text) != std::string_view::npos; }

}  // namespace

FileKind file_kind(std::string_view head) {
  head = head.substr(0, kKindHead);
  if (head.size() >= 2 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5) return FileKind::snapshot_pickle;
  if (head.starts_with("(dp0\n") || head.starts_with("(lp0\n") || head.starts_with(std::string_view("}q\0", 3)) || head.starts_with(std::string_view("]q\0", 3))) return FileKind::snapshot_pickle;  // protocols 0 and 1, which its reader refuses
  for (std::string_view magic : {std::string_view("\x1f\x8b", 2), std::string_view("PK\x03\x04", 4), std::string_view("\x28\xb5\x2f\xfd", 4), std::string_view("\xfd" "7zXZ", 5), std::string_view("BZh", 3)}) {
    if (head.starts_with(magic)) return FileKind::archive;
  }
  const std::size_t first = head.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return FileKind::text;
  const char opening = head[first];
  if (opening == '{' && (holds(head, "\"segments\"") || holds(head, "\"device_traces\""))) return FileKind::snapshot_json;
  if (opening == '[' && holds(head, "\"segment_type\"")) return FileKind::snapshot_json;  // torch.cuda.memory_snapshot() itself
  if (opening == '{' && holds(head.substr(0, head.find('\n')), "\"dryfit_recording\"")) return FileKind::recording;
  if (opening == '{' && (holds(head, "\"traceEvents\"") || holds(head, "\"deviceProperties\""))) return FileKind::profile;
  if (opening == '<' && (holds(head, "MemoryViz.js") || holds(head, "add_local_files"))) return FileKind::snapshot_page;
  if (opening == '<' && holds(head, "data:image/png;base64")) return FileKind::profile_page;
  return FileKind::text;
}

}  // namespace dryfit
