// Lines of the embedded tables. Not a reader of files: those are the callers'.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dryfit {

// Fields of one CSV line; quotes as RFC 4180, no line breaks inside fields.
std::vector<std::string> csv_fields(std::string_view line);

}  // namespace dryfit
