// What screens are made of: colour, wrapping, paragraphs with a head, durations. Nothing here knows what is said.
#pragma once

#include <string>
#include <string_view>

#include "report/text.hpp"

namespace dryfit {

std::string paint(std::string_view text, std::string_view code, const Style& style);
// Words on lines of the screen's width, each line after the first indented.
std::string wrapped(std::string_view text, std::size_t indent, const Style& style);
std::string paragraph(std::string_view head, std::string_view text, const Style& style);
// "2 h 13 min", "41 s"; negative or absurd durations are "?".
std::string duration_text(double seconds);

}  // namespace dryfit
