// JSON text to a Document. Named probe_ because the JSON library may throw (nothing here lets it); it does no I/O.
#pragma once

#include <string_view>

#include "base/document.hpp"

namespace dryfit {

// Errors: "bad_json" with line and column in `where` ("config.json:3:14"), "too_large" beyond 8 MiB, 64 levels or a million values.
// Of a repeated key the last value counts, as in Python.
Result<Document> document_from_json(std::string_view text, std::string_view name);

}  // namespace dryfit
