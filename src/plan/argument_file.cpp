// See argument_file.hpp. Source: transformers 5.24 hf_argparser.py; TRL 0.25 scripts/utils.py (TrlParser); alignment-handbook's H4ArgumentParser; jsonargparse's configuration files.
#include "plan/argument_file.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace dryfit {

namespace {

bool is_file(std::string_view word) { return word.ends_with(".json") || word.ends_with(".yaml") || word.ends_with(".yml"); }

std::string value_text(const Document& value) {
  if (value.kind == Document::Kind::text) return value.text;
  if (value.kind == Document::Kind::boolean) return value.flag ? "True" : "False";
  return json_text(value);
}

void add_fields(const Document& map, const std::string& prefix, const std::string& file, bool nested, std::vector<Argument>& out) {
  for (const auto& [key, value] : map.fields) {
    if (value.kind == Document::Kind::null) continue;
    if (nested && value.kind == Document::Kind::map) {
      add_fields(value, prefix + key + ".", file, nested, out);
      continue;
    }
    Argument a{dashed(prefix + key), {}, file};
    if (value.kind != Document::Kind::list) a.values.push_back(value_text(value));
    for (const Document& item : value.items) a.values.push_back(value_text(item));
    out.push_back(std::move(a));
  }
}

}  // namespace

bool leads_with_file(const LaunchLine& launch) {
  const auto& words = launch.arguments;
  return !words.empty() && is_file(words[0]) && !words[0].starts_with("-") && (words.size() == 1 || words[1].starts_with("--"));
}

std::optional<std::string> argument_file(const LaunchLine& launch) {
  const auto& words = launch.arguments;
  if (leads_with_file(launch)) return words[0];
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i].starts_with("--config=") && is_file(words[i])) return words[i].substr(9);
    if (words[i] == "--config" && i + 1 < words.size() && is_file(words[i + 1])) return words[i + 1];
  }
  return std::nullopt;
}

Result<std::vector<Argument>> arguments_in(const Document& document, const std::string& file, bool nested) {
  if (document.kind != Document::Kind::map) return fail("bad_config", "there is " + shown(document) + " where arguments with names are expected", "write name: value, one a line", file);
  std::vector<Argument> out;
  add_fields(document, "", file, nested, out);
  return out;
}

}  // namespace dryfit
