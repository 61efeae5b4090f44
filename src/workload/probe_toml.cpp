// TOML text to a Document, by toml++, which refuses what TOML 1.0 does. Named probe_ because it talks to a library; it does no I/O.
#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#define TOML_ENABLE_FORMATTERS 0
#define TOML_MAX_NESTED_VALUES 64
#include <toml++/toml.h>

#include <algorithm>

#include "workload/probe_document.hpp"

namespace dryfit {

namespace {

// Training configurations are some kilobytes. A dotted key nests as deep as it has points, and tables go as deep when they go.
constexpr std::size_t kMostToml = 1 << 20, kMostTomlPoints = 4096, kMostTomlDepth = 64;

class TomlReader {
 public:
  explicit TomlReader(std::string_view name) : name_(name) {}

  Result<Document> read(const toml::node& node, std::size_t depth) {
    if (depth > kMostTomlDepth) return fail("too_large", "the TOML cannot be read: it is nested deeper than " + std::to_string(kMostTomlDepth) + " levels", "give a training configuration", place(node.source()));
    Document d;
    if (const toml::table* table = node.as_table()) {
      d.kind = Document::Kind::map;
      // as the text has them: toml++ sorts by name
      std::vector<std::pair<toml::source_position, const toml::key*>> order;
      for (auto&& [key, value] : *table) order.emplace_back(key.source().begin, &key);
      std::ranges::stable_sort(order, [](const auto& a, const auto& b) { return std::pair(a.first.line, a.first.column) < std::pair(b.first.line, b.first.column); });
      for (const auto& [position, key] : order) {
        auto value = read(*table->get(key->str()), depth + 1);
        if (!value) return value;
        d.fields.push_back({std::string(key->str()), std::move(*value)});
      }
    } else if (const toml::array* array = node.as_array()) {
      d.kind = Document::Kind::list;
      for (const toml::node& item : *array) {
        auto value = read(item, depth + 1);
        if (!value) return value;
        d.items.push_back(std::move(*value));
      }
    } else if (const auto* text = node.as_string()) {
      d.kind = Document::Kind::text, d.text = text->get();
    } else if (const auto* whole = node.as_integer()) {
      d.kind = Document::Kind::whole, d.whole = whole->get(), d.real = static_cast<double>(d.whole);
    } else if (const auto* real = node.as_floating_point()) {
      d.kind = Document::Kind::real, d.real = real->get();
    } else if (const auto* flag = node.as_boolean()) {
      d.kind = Document::Kind::boolean, d.flag = flag->get();
    } else {
      d.kind = Document::Kind::text, d.text = "a date or a time";  // which no configuration asks for
    }
    return d;
  }

  std::string place(const toml::source_region& region) const { return name_ + ":" + std::to_string(region.begin.line) + ":" + std::to_string(region.begin.column); }

 private:
  std::string name_;
};

}  // namespace

Result<Document> document_from_toml(std::string_view text, std::string_view name) {
  if (text.size() > kMostToml) return fail("too_large", "the file is larger than " + std::to_string(kMostToml >> 20) + " MiB", "give a training configuration", std::string(name));
  if (static_cast<std::size_t>(std::ranges::count(text, '.')) > kMostTomlPoints) return fail("too_large", "the TOML cannot be read: it has more than " + std::to_string(kMostTomlPoints) + " points", "give a training configuration", std::string(name));
  const toml::parse_result parsed = toml::parse(text);
  TomlReader reader(name);
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    const bool deep = error.description().find("maximum nested") != std::string_view::npos;
    return fail(deep ? "too_large" : "bad_toml", "this is no TOML: " + std::string(error.description()).substr(0, 200), deep ? "give a training configuration" : "words stand between quotes, and a name = a value on each line", reader.place(error.source()));
  }
  return reader.read(parsed.table(), 0);
}

}  // namespace dryfit
