// JSON or YAML text to a Document. Named probe_ because the JSON library may throw (nothing here lets it) and YAML is read by a C library; no I/O.
#pragma once

#include <string_view>

#include "base/document.hpp"

namespace dryfit {

// Errors: "bad_json" with line and column in `where` ("config.json:3:14"), "too_large" beyond 8 MiB, 64 levels or a million values.
// Of a repeated key the last value counts, as in Python.
Result<Document> document_from_json(std::string_view text, std::string_view name);

// What PyYAML's safe_load gives: "1e-4" is text there, "yes" is true, 010 is 8, "<<" merges. Otherwise than there, a key that stands twice is an error, keys and dates are
// text as written, and a list or map that holds itself is refused. Errors: "bad_yaml" with line and column, "too_large" beyond 1 MiB, 64 levels or, aliases written out,
// 131072 values or 2 MiB of text.
Result<Document> document_from_yaml(std::string_view text, std::string_view name);

// TOML 1.0, as Python's tomllib takes it; dates are words of no meaning. Errors: "bad_toml" with line and column, "too_large" beyond 1 MiB, 64 levels or 4096 points.
Result<Document> document_from_toml(std::string_view text, std::string_view name);

// "config.json:3:14" for the byte at `position`, counted from 1.
std::string text_place(std::string_view text, std::size_t position, std::string_view name);

}  // namespace dryfit
