// See tools.hpp.
#include "mcp/tools.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

#include "base/embedded.hpp"
#include "cli/commands.hpp"

namespace dryfit::mcp {

namespace {

using Json = nlohmann::ordered_json;

struct Tool {
  std::string_view name, command, title, description;
  const std::string_view& output_schema;
  bool pastes;                                      // takes a training command
  bool reads;                                       // takes a log, or a file
  const std::string_view* other_schema = nullptr;   // of an answer of another kind: what to rent, a memory snapshot
};

const Tool kTools[] = {
    {"dryfit_plan", "plan", "What should I run?", "Choose the configuration of a training run that fits the GPUs: nanochat's depth, or of a Hugging Face model (model, config) the method, recomputation and sharding; device batch, gradient accumulation, and the command to start it. Without gpu: the GPUs of this machine.", embedded_plan_schema_json, true, false, &embedded_offers_schema_json},
    {"dryfit_check", "check", "Will this run fit?", "Predict the peak GPU memory of exactly this training run before it is started: verdict fits, tight or wont_fit, and what would change it. Use before launching or renting.", embedded_report_schema_json, true, false},
    {"dryfit_explain", "explain", "Where does the memory go?", "The full account of one run: phases, categories, the largest tensors alive at the peak, what each lever would change; timeline: memory over the step.", embedded_report_schema_json, true, false},
    {"dryfit_table", "table", "Which batch on which GPU?", "GPU x depth, or x method of a Hugging Face model: the largest device batch that fits.", embedded_table_schema_json, false, false},
    {"dryfit_doctor", "doctor", "Why did it run out of memory?", "Read an out-of-memory message, a traceback or a training log: which tensor, why, and what to change with its predicted effect; or why the GPU idles.", embedded_doctor_schema_json, true, true, &embedded_snapshot_schema_json},
};

// What concerns a terminal or writes a file has no place in an answer.
constexpr std::string_view kLeftOut[] = {"json", "color", "ascii", "quiet", "verbose", "help", "csv", "svg"};

std::string with_underscores(std::string_view name) {
  std::string out(name);
  std::ranges::replace(out, '-', '_');
  return out;
}

// From the argument's name in the command table to a type.
Json type_of(std::string_view argument) {
  if (argument.empty()) return {{"type", "boolean"}};
  if (argument == "N" || argument == "TOKENS") return {{"type", "integer"}};
  if (argument == "0|1") return {{"type", "integer"}, {"enum", {0, 1}}};
  if (argument == "X" || argument == "SECONDS") return {{"type", "number"}};
  if (argument == "N,N,..") return {{"type", "array"}, {"items", {{"type", "integer"}}}};
  if (argument == "A,B,..") return {{"type", "array"}, {"items", {{"type", "string"}}}};
  return {{"type", "string"}};
}

Json input_schema(const Tool& tool) {
  Json properties = Json::object();
  if (tool.reads) {
    properties["text"] = {{"type", "string"}, {"description", "the text itself: an error message, a traceback, or a log"}};
    properties["file"] = {{"type", "string"}, {"description", "or a file on this machine: a long log, or a CUDA memory snapshot"}};
  }
  if (tool.pastes) properties["command"] = {{"type", "string"}, {"description", "the training command as typed: torchrun --nproc_per_node=8 -m scripts.base_train --depth=26; other arguments win over it"}};
  for (const cli::FlagSpec& flag : cli::flags_of(*cli::find_command(tool.command))) {
    if (std::ranges::find(kLeftOut, flag.name) != std::end(kLeftOut)) continue;
    Json property = type_of(flag.argument);
    property["description"] = flag.help;
    properties[with_underscores(flag.name)] = std::move(property);
  }
  return {{"type", "object"}, {"properties", std::move(properties)}, {"additionalProperties", false}};
}

// A schema, for place `at` of another one ("#": it stands alone), with its references made to follow. Without the name of its draft: a validator of
// an older draft stumbles over a newer one's, and nothing in these schemas depends on it.
Json schema_at(std::string_view text, const std::string& at) {
  constexpr std::string_view kOwn = "\"#/$defs/";
  std::string moved;
  for (std::size_t found = text.find(kOwn); found != std::string_view::npos; found = text.find(kOwn)) {
    moved.append(text.substr(0, found)).append("\"" + at + "/$defs/");
    text.remove_prefix(found + kOwn.size());
  }
  Json schema = Json::parse(moved.append(text), nullptr, false);
  schema.erase("$schema");
  return schema;
}

Json output_schema(const Tool& tool) {
  if (tool.other_schema == nullptr) return schema_at(tool.output_schema, "#");
  return {{"type", "object"}, {"anyOf", Json::array({schema_at(tool.output_schema, "#/anyOf/0"), schema_at(*tool.other_schema, "#/anyOf/1")})}};
}

}  // namespace

std::string tools_json() {
  Json out = Json::array();
  for (const Tool& tool : kTools) {
    out.push_back({{"name", tool.name}, {"title", tool.title}, {"description", tool.description}, {"inputSchema", input_schema(tool)}, {"outputSchema", output_schema(tool)},
                   {"annotations", {{"title", tool.title}, {"readOnlyHint", true}, {"destructiveHint", false}, {"idempotentHint", true}, {"openWorldHint", false}}}});
  }
  return out.dump();
}

std::optional<api::Reply> call_tool(std::string_view name, std::string_view text, const cli::Env& env) {
  const auto tool = std::ranges::find(kTools, name, &Tool::name);
  if (tool == std::end(kTools)) return std::nullopt;
  Json arguments = Json::parse(text, nullptr, false);
  Json request = {{"command", tool->command}, {"local", true}, {"args", Json::object()}};
  const auto refuse = [&](const std::string& what, const std::string& hint, const std::string& where) { return api::refusal({"bad_argument", what, hint, where}); };
  for (const auto& [key, value] : arguments.items()) {
    std::string flag = key;
    std::ranges::replace(flag, '_', '-');
    if (tool->pastes && key == "command") request["paste"] = value;
    else if (tool->reads && key == "text") request["input"] = value;
    else if (tool->reads && key == "file") request["operands"] = Json::array({value});
    else if (std::ranges::find(kLeftOut, flag) != std::end(kLeftOut)) return refuse("'" + key.substr(0, 60) + "' is not an argument of " + std::string(name), "see the tool's input schema", key.substr(0, 60));
    else request["args"][flag] = value;
  }
  if (tool->reads) {
    const bool text_given = request.contains("input"), file = request.contains("operands");
    if (text_given && file) return refuse("text and file do not go together", "give the text itself, or where it lies", "text");
    if (file && request["operands"][0] == "-") return refuse("'-' is not a file", "hand the text over as text", "file");
    if (text_given) request["operands"] = {"-"};
  }
  return api::answer_json(request.dump(-1, ' ', false, Json::error_handler_t::replace), env);
}

}  // namespace dryfit::mcp
