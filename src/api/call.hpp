// One question of a program: words or a JSON request in, the bytes that `dryfit ... --json` prints and its exit status out. The C ABI, Python,
// WebAssembly and MCP are this function; it is the command line's own code with the outside taken away.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/cli.hpp"

namespace dryfit::api {

struct Reply {
  std::string body;                       // JSON, or the text that was asked for
  int status = cli::kInternal;            // as the exit status: 0 fits, 1 does not, 2 bad input, 70 internal
};

struct Call {
  std::vector<std::string> words;         // as on the command line, without "dryfit"
  std::optional<std::string> input;       // what "-" reads
  bool text = false;                      // the screen for people instead of JSON
  bool local = false;                     // may look at this machine: its GPUs, environment, calibration, files named in the words
};

// {"command":"check","args":{"depth":26,"fp8":true},"paste":"torchrun ...","operands":["gpus"],"input":"a log"} or {"argv":["check",...]};
// "text": true and "local": true as above. A value of args is text, a number, true, false or null (both: left out), or a list (joined by commas).
// Errors: "bad_json", "bad_request", with the place in `where`.
Result<Call> parse_call(std::string_view request);

// local: the machine's Env, used where the call allows it. Never writes to env.out or env.err.
// Commands that watch this machine or serve are refused ("not_here").
Reply answer(const Call& call, const cli::Env& local);

Reply answer_json(std::string_view request, const cli::Env& local);

// An Env with nothing outside: no GPU, environment, file or processor but its own.
cli::Env closed_env();

// The bytes of an error as any command prints them with --json.
Reply refusal(const Error& error);

}  // namespace dryfit::api
