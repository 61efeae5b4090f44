// See file_kind.hpp. Snapshots: torch.cuda.memory._dump_snapshot pickles a dict (protocol 2 to 5); its JSON form has "segments".
#include "doctor/file_kind.hpp"

namespace dryfit {

FileKind file_kind(std::string_view head) {
  if (head.size() >= 2 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5) return FileKind::snapshot;
  for (std::string_view magic : {std::string_view("\x1f\x8b", 2), std::string_view("PK\x03\x04", 4), std::string_view("\x28\xb5\x2f\xfd", 4), std::string_view("\xfd" "7zXZ", 5), std::string_view("BZh", 3)}) {
    if (head.starts_with(magic)) return FileKind::archive;
  }
  const std::size_t first = head.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && head[first] == '{' && head.substr(0, kKindHead).find("\"segments\"") != std::string_view::npos) return FileKind::snapshot;
  return FileKind::text;
}

}  // namespace dryfit
