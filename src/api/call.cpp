// See call.hpp.
#include "api/call.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

#include "base/text.hpp"
#include "report/json.hpp"

namespace dryfit::api {

namespace {

using Json = nlohmann::json;

constexpr std::string_view kFields[] = {"argv", "command", "args", "paste", "operands", "input", "text", "local"};

class NoGpu final : public GpuProbe {
 public:
  Result<ProbeResult> read() override { return fail("no_gpu", "this call does not look at the machine", "give the gpu, or allow it: \"local\": true", "gpu"); }
};

std::unexpected<Error> bad_request(const std::string& where, const std::string& what) {
  return fail("bad_request", what, R"({"command":"check","args":{"depth":26,"gpu":"h100"}}, or {"argv":["check","--depth","26"]})", where);
}

Result<std::string> scalar(const Json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number()) return value.dump();
  return bad_request(where, where + " is neither text nor a number");
}

Result<std::vector<std::string>> texts(const Json& list, const std::string& where) {
  if (!list.is_array()) return bad_request(where, where + " is not a list");
  std::vector<std::string> out;
  for (const Json& value : list) {
    auto text = scalar(value, where);
    if (!text) return std::unexpected(text.error());
    out.push_back(std::move(*text));
  }
  return out;
}

// "--depth=26": one word, so that a value may begin with a dash.
Result<void> add_flag(const std::string& name, const Json& value, std::vector<std::string>& words) {
  const std::string where = "args." + name.substr(0, 60);
  if (name.empty() || name[0] == '-' || name.find('=') != std::string::npos) return bad_request(where, "'" + name.substr(0, 60) + "' is not the name of a flag");
  if (value.is_null() || value == false) return {};
  if (value == true) {
    words.push_back("--" + name);
    return {};
  }
  std::string text;
  if (value.is_array()) {
    const auto list = texts(value, where);
    if (!list) return std::unexpected(list.error());
    for (const std::string& item : *list) text += (text.empty() ? "" : ",") + item;
  } else {
    auto one = scalar(value, where);
    if (!one) return std::unexpected(one.error());
    text = std::move(*one);
  }
  words.push_back("--" + name + "=" + text);
  return {};
}

Result<std::vector<std::string>> words_of(const Json& request) {
  const auto has = [&](const char* field) { return request.contains(field); };
  if (has("argv")) {
    for (const char* field : {"command", "args", "paste", "operands"}) {
      if (has(field)) return bad_request(field, std::string("argv and ") + field + " do not go together");
    }
    return texts(request["argv"], "argv");
  }
  if (!has("command") || !request["command"].is_string()) return bad_request("command", "the request names no command");
  std::vector<std::string> words{request["command"].get<std::string>()};
  if (words[0].starts_with("-")) return bad_request("command", "'" + words[0].substr(0, 60) + "' is not a command");
  if (has("args")) {
    if (!request["args"].is_object()) return bad_request("args", "args is not an object");
    for (const auto& [name, value] : request["args"].items()) {
      if (const auto ok = add_flag(name, value, words); !ok) return std::unexpected(ok.error());
    }
  }
  if (has("operands")) {
    const auto operands = texts(request["operands"], "operands");
    if (!operands) return std::unexpected(operands.error());
    for (const std::string& operand : *operands) {
      if (operand.size() > 1 && operand[0] == '-') return bad_request("operands", "'" + operand.substr(0, 60) + "' is a flag: it goes into args");
      words.push_back(operand);
    }
  }
  if (has("paste") && !request["paste"].is_null()) {
    words.emplace_back("--");
    if (request["paste"].is_string()) {
      words.push_back(request["paste"].get<std::string>());
    } else {
      const auto pasted = texts(request["paste"], "paste");
      if (!pasted) return std::unexpected(pasted.error());
      words.insert(words.end(), pasted->begin(), pasted->end());
    }
  }
  return words;
}

}  // namespace

Result<Call> parse_call(std::string_view text) {
  const Json request = Json::parse(text, nullptr, false);
  if (request.is_discarded()) return fail("bad_json", "the request is not JSON", R"(write {"command":"check","args":{"depth":26}})", "request");
  if (!request.is_object()) return bad_request("request", "the request is not an object");
  for (const auto& [name, value] : request.items()) {
    if (std::ranges::find(kFields, name) == std::end(kFields)) {
      return fail("bad_request", "unknown field '" + name.substr(0, 60) + "'", did_you_mean(name, kFields, "fields: argv, or command, args, paste, operands; input, text, local"), name.substr(0, 60));
    }
  }
  Call call;
  auto words = words_of(request);
  if (!words) return std::unexpected(words.error());
  call.words = std::move(*words);
  for (const auto& [name, field] : {std::pair{"text", &Call::text}, std::pair{"local", &Call::local}}) {
    if (!request.contains(name)) continue;
    if (!request[name].is_boolean()) return bad_request(name, std::string(name) + " is neither true nor false");
    call.*field = request[name].get<bool>();
  }
  if (request.contains("input") && !request["input"].is_null()) {
    if (!request["input"].is_string()) return bad_request("input", "input is not text");
    call.input = request["input"].get<std::string>();
  }
  return call;
}

cli::Env closed_env() {
  cli::Env env;
  const auto no_files = [](const std::string& path, const char* code, const std::string& hint) { return fail(code, "this call opens no files", hint, path); };
  env.out = env.err = [](std::string_view) {};
  env.variable = [](const char*) { return std::optional<std::string>(); };
  env.probe = [] { return std::make_unique<NoGpu>(); };
  env.write_file = [no_files](const std::string& path, std::string_view) -> Result<void> { return no_files(path, "unwritable_file", "--svg - gives the chart itself"); };
  env.stream_file = [no_files](const std::string& path, const cli::ReadSink&) -> Result<void> { return no_files(path, "unreadable_file", "hand the text itself over as input, and name it -"); };
  return env;
}

Reply refusal(const Error& error) { return {error_json(error), error.code == "write_failed" ? cli::kInternal : cli::kBadInput}; }

Reply answer(const Call& call, const cli::Env& local) {
  std::vector<std::string> words = call.words;
  if (!words.empty()) {
    const cli::CommandSpec* command = cli::find_command(words[0]);
    if (command != nullptr && command->local) return refusal({"not_here", "'" + words[0] + "' does not answer a question", "run it as a program: dryfit " + words[0], "command"});
  }
  const auto end = std::ranges::find(words, "--");
  // reads the driver and a job's files by itself, not through Env
  if (!call.local && std::find(words.begin(), end, "--live") != end) return refusal({"not_here", "--live looks at this machine", "allow it: \"local\": true", "live"});
  if (!call.text && std::find(words.begin(), end, "--json") == end) words.insert(end, "--json");
  std::string out, talk;
  cli::Env env = call.local ? local : closed_env();
  env.out = [&](std::string_view text) { out += text; };
  env.err = [&](std::string_view text) { talk += text; };
  env.out_is_terminal = env.err_is_terminal = false;
  env.width = 80;
  env.services.clear();
  env.stream_file = [&, files = env.stream_file](const std::string& path, const cli::ReadSink& sink) -> Result<void> {
    if (path != "-") return files(path, sink);
    if (!call.input) return fail("missing_input", "there is no input to read", "hand the text over as input", "input");  // never this process's own standard input
    sink(*call.input, {static_cast<std::int64_t>(call.input->size()), static_cast<std::int64_t>(call.input->size()), 0});
    return {};
  };
  const std::vector<std::string_view> views(words.begin(), words.end());
  const int status = cli::run(views, env);
  return {out.empty() ? talk : out, status};
}

Reply answer_json(std::string_view request, const cli::Env& local) {
  const auto call = parse_call(request);
  return call ? answer(*call, local) : refusal(call.error());
}

}  // namespace dryfit::api
