// What kind of file its first bytes announce: a text to read, a memory snapshot, or something packed.
#pragma once

#include <string_view>

namespace dryfit {

enum class FileKind { text, snapshot, archive };
constexpr std::size_t kKindHead = 1 << 16;  // bytes that decide
FileKind file_kind(std::string_view head);

}  // namespace dryfit
