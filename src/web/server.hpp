// The page of web/ on loopback: a fixed set of files that are in the binary, nothing of the disk, no other address. HTTP/1.1, GET and HEAD.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "cli/cli.hpp"

namespace dryfit::web {

struct File { std::string_view path, type, bytes; };  // "/app.js"; bytes: as gzip, which every browser takes

// What this binary holds; none where it was built without the page (DRYFIT_SITE).
std::span<const File> site();

// The whole answer to a request whose head is complete. Any text is a request; a wrong one gets 400, 404, 405, or 406 where it refuses gzip.
std::string respond(std::string_view head, std::span<const File> files);

// Serves until the process ends. Errors: "no_page", "bad_value", "no_port".
Result<int> serve(const cli::Options& options, const cli::Env& env);

}  // namespace dryfit::web
