// Any bytes as an agent's standard input, before and after a handshake: one JSON line an answer, never a crash. Also any bytes as a request of the C ABI.
#include <cstdlib>

#include "api/call.hpp"
#include "mcp/server.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  dryfit::cli::Env env = dryfit::api::closed_env();
  std::string said;
  env.out = [&](std::string_view line) { said += line; };
  env.stream_file = [&](const std::string& path, const dryfit::cli::ReadSink& sink) -> dryfit::Result<void> {
    if (path != "-") return dryfit::fail("unreadable_file", "none", "none");
    if (size % 2 == 1) sink("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-03-26\"}}\n", {});
    sink(text.substr(0, size / 2), {});
    sink(text.substr(size / 2), {});
    return {};
  };
  if (!dryfit::mcp::serve({}, env)) std::abort();
  if (!said.empty() && said.back() != '\n') std::abort();
  const dryfit::api::Reply reply = dryfit::api::answer_json(text, env);
  if (reply.body.empty()) std::abort();
  return 0;
}
