// See server.hpp.
#include "mcp/server.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

#include "base/version.hpp"
#include "mcp/tools.hpp"

namespace dryfit::mcp {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kHandshakes[] = {"2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"};  // newest first
constexpr std::string_view kStateless = "2026-07-28";
constexpr const char* kVersionKey = "io.modelcontextprotocol/protocolVersion";
constexpr const char* kInstructions =
    "dryfit predicts the GPU memory of LLM training runs from their configuration: no GPU is needed, an answer takes milliseconds. Check a run before it is "
    "started; after a CUDA out-of-memory error hand the log to dryfit_doctor. Bytes are integers; null is unknown; a negative headroom_bytes says by how much it fails. "
    "Quote the interval (low, high) with a peak.";

enum Code { kParseError = -32700, kInvalidRequest = -32600, kNoMethod = -32601, kInvalidParams = -32602, kInternalError = -32603, kUnsupportedVersion = -32022 };

std::string dump(const Json& message) { return message.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

Json failure(const Json& id, Code code, const std::string& message, const Json& data = nullptr) {
  Json error = {{"code", code}, {"message", message}};
  if (!data.is_null()) error["data"] = data;
  return {{"jsonrpc", "2.0"}, {"id", id}, {"error", std::move(error)}};
}

// A text or a whole number; null and everything else cannot be answered to.
bool is_id(const Json& id) { return id.is_string() || id.is_number_integer(); }

Json implementation() { return {{"name", "dryfit"}, {"title", "dryfit"}, {"version", DRYFIT_VERSION}}; }
Json capabilities() { return {{"tools", {{"listChanged", false}}}}; }

Json versions() {
  Json out = Json::array({kStateless});
  for (std::string_view v : kHandshakes) out.push_back(v);
  return out;
}

struct Request {
  const Json& id;
  std::string method;
  Json params;
  bool stateless = false;   // of revision 2026-07-28
};

// What every result of 2026-07-28 carries.
Json result(const Request& r, Json value, bool cacheable) {
  if (r.stateless) {
    value["resultType"] = "complete";
    value["_meta"] = {{"io.modelcontextprotocol/serverInfo", implementation()}};
    if (cacheable) {
      value["ttlMs"] = 3600000;
      value["cacheScope"] = "public";
    }
  }
  return {{"jsonrpc", "2.0"}, {"id", r.id}, {"result", std::move(value)}};
}

Json initialize(const Request& r, Session& session) {
  const Json& wanted = r.params.contains("protocolVersion") ? r.params["protocolVersion"] : Json();
  if (!wanted.is_string()) return failure(r.id, kInvalidParams, "initialize: protocolVersion is not text");
  const auto known = std::ranges::find(kHandshakes, wanted.get_ref<const std::string&>());
  session.version = known == std::end(kHandshakes) ? kHandshakes[0] : *known;
  return result(r, {{"protocolVersion", session.version}, {"capabilities", capabilities()}, {"serverInfo", implementation()}, {"instructions", kInstructions}}, false);
}

Json call(const Request& r, const cli::Env& env) {
  if (!r.params.contains("name") || !r.params["name"].is_string()) return failure(r.id, kInvalidParams, "tools/call: name is not text");
  const Json arguments = r.params.contains("arguments") && !r.params["arguments"].is_null() ? r.params["arguments"] : Json::object();
  if (!arguments.is_object()) return failure(r.id, kInvalidParams, "tools/call: arguments is not an object");
  const std::string name = r.params["name"].get<std::string>();
  const auto reply = call_tool(name, dump(arguments), env);
  if (!reply) return failure(r.id, kInvalidParams, "unknown tool: " + name.substr(0, 60));
  const bool failed = reply->status != cli::kOk && reply->status != cli::kDoesNotFit;  // "does not fit" is an answer
  Json value = {{"content", Json::array({{{"type", "text"}, {"text", reply->body}}})}, {"isError", failed}};
  if (!failed) value["structuredContent"] = Json::parse(reply->body, nullptr, false);
  return result(r, std::move(value), false);
}

Json dispatch(const Request& r, Session& session, const cli::Env& env) {
  if (r.method == "initialize") return initialize(r, session);
  if (r.method == "server/discover") return result(r, {{"supportedVersions", versions()}, {"capabilities", capabilities()}, {"instructions", kInstructions}}, true);
  if (r.method == "ping") return result(r, Json::object(), false);
  if (r.method == "tools/call") return call(r, env);
  if (r.method == "tools/list") {
    if (r.params.contains("cursor") && !r.params["cursor"].is_null()) return failure(r.id, kInvalidParams, "tools/list: there is one page, and no cursor");
    return result(r, {{"tools", Json::parse(tools_json(), nullptr, false)}}, true);
  }
  return failure(r.id, kNoMethod, "no method " + r.method.substr(0, 60));
}

// None: nothing to answer.
std::optional<Json> one(const Json& message, Session& session, const cli::Env& env) {
  if (!message.is_object()) return failure(nullptr, kInvalidRequest, "a message is an object");
  const bool asks = message.contains("id");
  if (!message.contains("method") && asks && (message.contains("result") || message.contains("error"))) return std::nullopt;  // a response; nothing was asked
  const Json id = asks && is_id(message["id"]) ? message["id"] : Json();
  if (!message.contains("jsonrpc") || message["jsonrpc"] != "2.0") return failure(id, kInvalidRequest, "jsonrpc is not \"2.0\"");
  if (!message.contains("method") || !message["method"].is_string()) return failure(id, kInvalidRequest, "method is not text");
  if (!asks) return std::nullopt;  // a notification: answers take milliseconds and come in order, so there is never one left to cancel
  if (id.is_null()) return failure(nullptr, kInvalidRequest, "id is neither text nor a whole number");
  Request r{id, message["method"].get<std::string>(), message.contains("params") ? message["params"] : Json::object()};
  if (!r.params.is_object()) return failure(id, kInvalidParams, "params is not an object");
  if (const auto meta = r.params.find("_meta"); meta != r.params.end() && meta->is_object() && meta->contains(kVersionKey) && r.method != "initialize") {
    const Json& version = (*meta)[kVersionKey];
    if (!version.is_string()) return failure(id, kInvalidParams, std::string(kVersionKey) + " is not text");
    if (version != kStateless) return failure(id, kUnsupportedVersion, "unsupported protocol version", {{"supported", versions()}, {"requested", version}});
    r.stateless = true;
  }
  return dispatch(r, session, env);
}

}  // namespace

std::optional<std::string> handle(std::string_view line, Session& session, const cli::Env& env) {
  if (std::ranges::all_of(line, [](char c) { return c == ' ' || c == '\t' || c == '\r'; })) return std::nullopt;
  const Json message = Json::parse(line, nullptr, false);
  if (message.is_discarded()) return dump(failure(nullptr, kParseError, "the line is not JSON"));
  if (!message.is_array()) {
    const auto reply = one(message, session, env);
    return reply ? std::optional(dump(*reply)) : std::nullopt;
  }
  // batches belong to 2025-03-26 (and to JSON-RPC, on which 2024-11-05 builds); later revisions took them out
  if (message.empty() || (session.version != "2025-03-26" && session.version != "2024-11-05")) return dump(failure(nullptr, kInvalidRequest, message.empty() ? "an empty batch" : "no batches in this revision"));
  Json replies = Json::array();
  for (const Json& item : message) {
    if (auto reply = one(item, session, env)) replies.push_back(std::move(*reply));
  }
  return replies.empty() ? std::nullopt : std::optional(dump(replies));
}

void Lines::feed(std::string_view chunk, const std::function<void(const Line&)>& sink) {
  while (!chunk.empty()) {
    const std::size_t end = std::min(chunk.find('\n'), chunk.size());
    if (line_.text.size() + end > kLongestLine) line_ = {"", true};
    if (!line_.too_long) line_.text += chunk.substr(0, end);
    if (end == chunk.size()) return;
    sink(line_);
    line_ = {};
    chunk.remove_prefix(end + 1);
  }
}

void Lines::finish(const std::function<void(const Line&)>& sink) {
  if (line_.too_long || !line_.text.empty()) sink(line_);
  line_ = {};
}

Result<int> serve(const cli::Options& options, const cli::Env& env) {
  if (!options.positional.empty()) return fail("stray_word", "'" + options.positional[0].substr(0, 60) + "' is not a flag", "dryfit mcp takes no arguments: it speaks over standard input and output", "mcp");
  Session session;
  Lines lines;
  const auto answer = [&](const Lines::Line& line) {
    const auto reply = line.too_long ? std::optional(dump(failure(nullptr, kInvalidRequest, "a message is longer than " + std::to_string(kLongestLine) + " bytes"))) : handle(line.text, session, env);
    if (reply) env.out(*reply);
  };
  const auto read = env.stream_file("-", [&](std::string_view chunk, const cli::ReadProgress&) {
    lines.feed(chunk, answer);
    return true;
  });
  if (!read) return std::unexpected(read.error());
  lines.finish(answer);
  return cli::kOk;
}

}  // namespace dryfit::mcp
