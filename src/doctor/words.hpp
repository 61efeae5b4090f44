// Sentences from pieces: the few helpers that diagnoses are written with. Nothing here knows about memory.
#pragma once

#include <concepts>
#include <string>
#include <string_view>

#include "base/bytes.hpp"

namespace dryfit {

inline std::string piece(std::string_view text) { return std::string(text); }
std::string piece(Bytes b);                          // as exact_text
std::string piece(std::integral auto n) { return std::to_string(n); }

// The pieces one after the other: said("asked for ", bytes, " on line ", 12).
template <class... Pieces>
std::string said(const Pieces&... pieces) {
  std::string out;
  ((out += piece(pieces)), ...);
  return out;
}

std::string exact_text(Bytes b);                     // "3.25 GiB", "512.00 MiB": two decimals, as PyTorch prints sizes
std::string percent_text(double fraction);           // 0.123 -> "12 %"; below a tenth one decimal

}  // namespace dryfit
