// The command line: words in, text out, an exit status. All contact with the outside comes through Env, so tests run it in-process.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/options.hpp"
#include "machine/probe.hpp"
#include "plan/plan.hpp"

namespace dryfit::cli {

enum ExitStatus { kOk = 0, kDoesNotFit = 1, kBadInput = 2, kInternal = 70 };

struct ReadProgress { std::int64_t done = 0, total = 0; double seconds = 0; };  // total 0: not known
// Receives a file piece by piece; false ends the reading.
using ReadSink = std::function<bool(std::string_view chunk, const ReadProgress& progress)>;

struct Env;
// A command that lives in a room above this one ("mcp"): handed in by main, so that help and flags are as for any other.
using Service = std::function<Result<int>(const Options& options, const Env& env)>;

struct Env {
  std::function<void(std::string_view)> out;                                   // stdout: data
  std::function<void(std::string_view)> err;                                   // stderr: talk
  std::function<std::optional<std::string>(const char*)> variable;             // environment
  std::function<std::unique_ptr<GpuProbe>()> probe;
  std::function<Result<void>(const std::string& path, std::string_view text)> write_file;  // whole or not at all
  std::function<Result<void>(const std::string& path, const ReadSink& sink)> stream_file;  // "-": stdin. Errors: "unreadable_file"
  Loop loop;                                                                   // how searches are gone over; empty: one after the other
  std::map<std::string, Service, std::less<>> services;
  bool out_is_terminal = false, err_is_terminal = false;
  int width = 80;
};

int run(std::span<const std::string_view> words, const Env& env);

// Help of all commands (name empty or "help") or of one, as a screen or as JSON (docs/schema/commands.schema.json). Errors: "unknown_command".
Result<std::string> help(std::string_view name, bool json);

// Shell completions, from the same command table as help. shell: bash, zsh, fish, powershell.
Result<std::string> completions(std::string_view shell);

}  // namespace dryfit::cli
