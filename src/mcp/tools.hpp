// The tools: which commands they are, their schemas, and a call of one. JSON as text in and out, so that only this room's sources see the JSON library.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "api/call.hpp"

namespace dryfit::mcp {

// The array of `tools/list`.
std::string tools_json();

// arguments: the text of a JSON object. None: there is no tool of that name.
std::optional<api::Reply> call_tool(std::string_view name, std::string_view arguments, const cli::Env& env);

}  // namespace dryfit::mcp
