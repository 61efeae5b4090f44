// The Model Context Protocol over standard input and output: one JSON-RPC message a line. Tools are commands; their schemas come from the
// command table and docs/schema. Not an SDK: no resources, prompts, sampling or HTTP. Handshake revisions 2024-11-05 to 2025-11-25, and 2026-07-28
// (no handshake: every request names its revision).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "cli/cli.hpp"

namespace dryfit::mcp {

struct Session {
  std::string version;   // negotiated by `initialize`; empty before
};

// Longest message that is read; a longer line is answered with an error and skipped.
constexpr std::size_t kLongestLine = std::size_t{16} << 20;

// One line in, at most one line out (with its end); none for notifications and responses. Never throws, any input.
std::optional<std::string> handle(std::string_view line, Session& session, const cli::Env& env);

// Lines out of pieces of any size. A line longer than kLongestLine is handed on as `too_long`, without its text.
class Lines {
 public:
  struct Line { std::string text; bool too_long = false; };
  void feed(std::string_view chunk, const std::function<void(const Line&)>& sink);
  void finish(const std::function<void(const Line&)>& sink);  // a last line without an end

 private:
  Line line_;
};

// Reads env.stream_file("-") until it ends, answers on env.out. The service behind `dryfit mcp`.
Result<int> serve(const cli::Options& options, const cli::Env& env);

}  // namespace dryfit::mcp
