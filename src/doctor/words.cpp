// See words.hpp.
#include "doctor/words.hpp"

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace dryfit {

namespace {

std::string decimals(double value, int digits) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

}  // namespace

std::string piece(Bytes b) { return exact_text(b); }

std::string exact_text(Bytes b) {
  const double size = std::fabs(static_cast<double>(b.count));
  if (size < 1024) return std::to_string(b.count) + " bytes";
  if (size < (1 << 20)) return decimals(static_cast<double>(b.count) / 1024, 2) + " KiB";
  if (size < (1 << 30)) return decimals(b.mib(), 2) + " MiB";
  return decimals(b.gib(), 2) + " GiB";
}

std::string percent_text(double fraction) { return decimals(fraction * 100, fraction != 0 && std::fabs(fraction) < 0.0995 ? 1 : 0) + " %"; }

}  // namespace dryfit
