// See screen.hpp.
#include "report/screen.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace dryfit {

std::string paint(std::string_view text, std::string_view code, const Style& style) { return style.colour ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text); }

std::string wrapped(std::string_view text, std::size_t indent, const Style& style) {
  const std::size_t room = static_cast<std::size_t>(std::clamp(style.width, 40, 120)) - indent;
  std::string out;
  std::size_t line = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    if (line > 0 && line + 1 + word.size() > room) {
      out += "\n" + std::string(indent, ' ');
      line = 0;
    } else if (line > 0) {
      out += ' ';
      ++line;
    }
    out += word;
    line += word.size();
    text.remove_prefix(std::min(text.size(), end + 1));
  }
  return out;
}

std::string paragraph(std::string_view head, std::string_view text, const Style& style) { return fmt::format("{:<8}", head) + wrapped(text, 8, style) + "\n"; }

std::string duration_text(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  const auto s = static_cast<std::int64_t>(seconds);
  if (s < 90) return fmt::format("{} s", s);
  if (s < 5400) return fmt::format("{} min", (s + 30) / 60);
  if (s < 172800) return fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
  return fmt::format("{} d {} h", s / 86400, s / 3600 % 24);
}

}  // namespace dryfit
