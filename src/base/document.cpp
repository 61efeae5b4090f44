// See document.hpp.
#include "base/document.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace dryfit {

namespace {

constexpr std::size_t kMostText = 4096;

std::string number_text(double x) {
  if (std::abs(x) < 1e15 && x == std::floor(x)) return std::to_string(static_cast<std::int64_t>(x));
  std::string out = std::to_string(x);
  return out.size() > 24 ? "a number of " + std::to_string(out.size()) + " characters" : out;
}

}  // namespace

const Document* Document::find(std::string_view key) const {
  const auto it = std::ranges::find(fields, key, &Document::Field::first);
  return it == fields.end() || it->second.kind == Kind::null ? nullptr : &it->second;
}

Document& Document::at(std::string_view key) {
  const auto it = std::ranges::find(fields, key, &Document::Field::first);
  if (it != fields.end()) return it->second;
  return fields.emplace_back(std::string(key), Document()).second;
}

std::string shown(const Document& value) {
  switch (value.kind) {
    case Document::Kind::null: return "null";
    case Document::Kind::boolean: return value.flag ? "true" : "false";
    case Document::Kind::whole: return std::to_string(value.whole);
    case Document::Kind::real: return number_text(value.real);
    case Document::Kind::text: return "\"" + value.text.substr(0, 40) + (value.text.size() > 40 ? "..." : "") + "\"";
    case Document::Kind::list: return "a list of " + std::to_string(value.items.size());
    case Document::Kind::map: return "a map of " + std::to_string(value.fields.size());
  }
  return "";
}

namespace {

std::string quoted(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\', out += c;
    else if (static_cast<unsigned char>(c) < 0x20) out += "\\u00", out += kHex[static_cast<std::size_t>(c) >> 4], out += kHex[static_cast<std::size_t>(c) & 15];
    else out += c;
  }
  return out + '"';
}

// The shortest text of the same number; what is no finite number is null.
std::string real_text(double x) {
  if (!std::isfinite(x)) return "null";
  std::array<char, 32> text;
  return std::string(text.data(), std::to_chars(text.data(), text.data() + text.size(), x).ptr);
}

}  // namespace

std::string json_text(const Document& value) {
  std::string out;
  switch (value.kind) {
    case Document::Kind::text: return quoted(value.text);
    case Document::Kind::real: return real_text(value.real);
    case Document::Kind::list:
      for (const Document& item : value.items) out += (out.empty() ? "" : ", ") + json_text(item);
      return "[" + out + "]";
    case Document::Kind::map:
      for (const auto& [key, field] : value.fields) out += (out.empty() ? "" : ", ") + quoted(key) + ": " + json_text(field);
      return "{" + out + "}";
    default: return shown(value);
  }
}

Fields::Fields(const Document& document, std::string where, std::string prefix, std::string code)
    : document_(document), where_(std::move(where)), prefix_(std::move(prefix)), code_(std::move(code)), asked_(document.fields.size(), Asked::no) {
  if (document.kind != Document::Kind::map) error_ = Error{code_, "there is " + shown(document) + " where fields with names are expected", "see docs/models.md for what is read", where_};
}

void Fields::mark(std::string_view key, Asked as) {
  const auto it = std::ranges::find(document_.fields, key, &Document::Field::first);
  if (it == document_.fields.end()) return;
  Asked& asked = asked_[static_cast<std::size_t>(it - document_.fields.begin())];
  if (as != Asked::counted || asked == Asked::no) asked = as;  // what was read stays so
}

void Fields::used(std::string_view key) { mark(key, Asked::counted); }
void Fields::left(std::string_view key) { mark(key, Asked::no); }

bool Fields::is_null(std::string_view key) const {
  const auto it = std::ranges::find(document_.fields, key, &Document::Field::first);
  return it != document_.fields.end() && it->second.kind == Document::Kind::null;
}

const Document* Fields::find(std::string_view key) {
  mark(key, Asked::read);
  return document_.find(key);
}

void Fields::fault(std::string_view key, std::string what, std::string hint) {
  if (error_) return;
  const std::string name = prefix_ + std::string(key);
  error_ = Error{code_, name + " " + what, hint.empty() ? "correct " + name : std::move(hint), place(key)};
}

std::string Fields::place(std::string_view key) const { return (where_.empty() ? prefix_ : where_ + ": " + prefix_) + std::string(key); }

std::unexpected<Error> Fields::not_laid_out(std::string_view key, std::string_view what, std::string hint) const {
  return fail("unsupported_training", place(key) + " asks for " + std::string(what) + ", not laid out yet", std::move(hint), place(key));
}

std::optional<std::int64_t> Fields::whole(std::string_view key, std::int64_t low, std::int64_t high) {
  const Document* v = find(key);
  if (v == nullptr) return std::nullopt;
  // Python's json writes 1e3 or 512.0 where a config was made by hand
  const bool whole_real = v->kind == Document::Kind::real && v->real == std::floor(v->real) && std::abs(v->real) < 9e15;
  const std::int64_t n = whole_real ? static_cast<std::int64_t>(v->real) : v->whole;
  if ((v->kind != Document::Kind::whole && !whole_real) || n < low || n > high) {
    fault(key, "is " + shown(*v), "it should be a whole number from " + std::to_string(low) + " to " + std::to_string(high));
    return std::nullopt;
  }
  return n;
}

std::optional<double> Fields::real(std::string_view key, double low, double high) {
  const Document* v = find(key);
  if (v == nullptr) return std::nullopt;
  const bool number = v->kind == Document::Kind::whole || v->kind == Document::Kind::real;
  if (!number || !(v->real >= low && v->real <= high)) {
    fault(key, "is " + shown(*v), "it should be a number from " + number_text(low) + " to " + number_text(high));
    return std::nullopt;
  }
  return v->real;
}

std::optional<bool> Fields::yes(std::string_view key) {
  const Document* v = find(key);
  if (v == nullptr) return std::nullopt;
  if (v->kind == Document::Kind::boolean) return v->flag;
  fault(key, "is " + shown(*v), "it should be true or false");
  return std::nullopt;
}

std::optional<std::string> Fields::text(std::string_view key) {
  const Document* v = find(key);
  if (v == nullptr) return std::nullopt;
  if (v->kind == Document::Kind::text && v->text.size() <= kMostText) return v->text;
  fault(key, "is " + shown(*v), "it should be a text");
  return std::nullopt;
}

std::vector<std::string> Fields::texts(std::string_view key, std::size_t most) {
  std::vector<std::string> out;
  const Document* v = list(key, most);
  if (v == nullptr) return out;
  for (const Document& item : v->items) {
    if (item.kind != Document::Kind::text || item.text.size() > kMostText) {
      fault(key, "holds " + shown(item), "it should be a list of texts");
      return {};
    }
    out.push_back(item.text);
  }
  return out;
}

const Document* Fields::map(std::string_view key) {
  const Document* v = find(key);
  if (v == nullptr || v->kind == Document::Kind::map) return v;
  fault(key, "is " + shown(*v), "it should be a map of fields");
  return nullptr;
}

const Document* Fields::list(std::string_view key, std::size_t most) {
  const Document* v = find(key);
  if (v == nullptr) return nullptr;
  if (v->kind == Document::Kind::list && v->items.size() <= most) return v;
  fault(key, "is " + shown(*v), "it should be a list of at most " + std::to_string(most));
  return nullptr;
}

std::int64_t Fields::needed(std::string_view key, std::int64_t low, std::int64_t high) {
  const auto n = whole(key, low, high);
  if (!n) fault(key, "is missing", "give a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  return n.value_or(low);
}

std::vector<std::string> Fields::unused() const {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < asked_.size(); ++i) {
    if (asked_[i] == Asked::no && document_.fields[i].second.kind != Document::Kind::null) out.push_back(prefix_ + document_.fields[i].first);
  }
  return out;
}

void Fields::tell(KeysTold& told) const {
  for (std::string& key : unused()) told.unused.push_back(std::move(key));
  for (std::size_t i = 0; i < asked_.size(); ++i) {
    const auto& [key, value] = document_.fields[i];
    if (asked_[i] == Asked::read && value.kind != Document::Kind::null && value.kind != Document::Kind::map) told.used.push_back(prefix_ + key);
  }
}

}  // namespace dryfit
