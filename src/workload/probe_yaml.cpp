// YAML text to a Document, by libyaml's events; plain scalars are what PyYAML's SafeLoader makes of them, as the tools whose files these are load them with it.
// Sources: PyYAML 6.0 resolver.py and constructor.py. Named probe_ because it talks to a C library; it does no I/O. The page has none of it (web/absent.cpp).
#include <yaml.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <map>

#include "base/text.hpp"
#include "workload/probe_document.hpp"

namespace dryfit {

namespace {

// Training configurations are some kilobytes. Aliases count as often as they are written out, anchors once more.
constexpr std::size_t kMostYaml = 1 << 20, kMostYamlDepth = 64, kMostYamlValues = 1 << 17, kMostYamlText = 1 << 21, kMostYamlFields = 1 << 12, kMostTags = 64;
constexpr std::string_view kTagStart = "tag:yaml.org,2002:";

bool is_binary(char c) { return c == '0' || c == '1' || c == '_'; }
bool is_octal(char c) { return (c >= '0' && c <= '7') || c == '_'; }
bool is_decimal(char c) { return is_digit(c) || c == '_'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == '_'; }

std::size_t run_of(std::string_view s, std::size_t at, bool (*is)(char)) {
  while (at < s.size() && is(s[at])) ++at;
  return at;
}

std::string_view unsigned_part(std::string_view s) { return s.starts_with('-') || s.starts_with('+') ? s.substr(1) : s; }

// ":[0-5]?[0-9]", once or more, from `at` on; `at` where there is none.
std::size_t sixties(std::string_view s, std::size_t at) {
  while (at + 1 < s.size() && s[at] == ':' && is_digit(s[at + 1])) at += s[at + 1] <= '5' && at + 2 < s.size() && is_digit(s[at + 2]) ? 3 : 2;
  return at;
}

bool reads_as_whole(std::string_view s) {
  const std::string_view r = unsigned_part(s);
  if (r.empty() || !is_digit(r[0])) return false;
  if (r == "0") return true;
  if (r[0] == '0') {
    if (r[1] == 'b') return r.size() > 2 && run_of(r, 2, is_binary) == r.size();
    if (r[1] == 'x') return r.size() > 2 && run_of(r, 2, is_hex) == r.size();
    return run_of(r, 1, is_octal) == r.size();
  }
  const std::size_t digits = run_of(r, 0, is_decimal);
  return digits == r.size() || sixties(r, digits) == r.size();
}

// "1e-4" is none: there must be a point, and a sign in the exponent.
bool reads_as_real(std::string_view s) {
  const auto exponent = [&](std::string_view r, std::size_t at) {
    if (at == r.size()) return true;
    if (to_lower(r.substr(at, 1)) != "e" || at + 2 >= r.size() || (r[at + 1] != '-' && r[at + 1] != '+')) return false;
    return run_of(r, at + 2, is_digit) == r.size();
  };
  if (s == ".nan" || s == ".NaN" || s == ".NAN") return true;
  if (s.size() > 1 && s[0] == '.' && is_digit(s[1])) return exponent(s, run_of(s, 1, is_decimal));  // no sign before it
  const std::string_view r = unsigned_part(s);
  if (r == ".inf" || r == ".Inf" || r == ".INF") return true;
  if (r.empty() || !is_digit(r[0])) return false;
  const std::size_t digits = run_of(r, 0, is_decimal);
  if (digits < r.size() && r[digits] == '.') return exponent(r, run_of(r, digits + 1, is_decimal));
  const std::size_t minutes = sixties(r, digits);
  return minutes > digits && minutes < r.size() && r[minutes] == '.' && run_of(r, minutes + 1, is_decimal) == r.size();
}

bool one_of(std::string_view s, std::initializer_list<std::string_view> words) { return std::ranges::find(words, s) != words.end(); }
bool reads_as_null(std::string_view s) { return one_of(s, {"", "~", "null", "Null", "NULL"}); }
bool reads_as_yes(std::string_view s) { return one_of(s, {"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"}); }
bool reads_as_no(std::string_view s) { return one_of(s, {"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"}); }

Document real_value(double x) {
  Document d;
  d.kind = Document::Kind::real, d.real = x;
  return d;
}

// construct_yaml_float: underscores go, sixties are summed up. Nothing: Python refuses.
std::optional<Document> construct_real(std::string_view text) {
  std::string s = to_lower(text);
  std::erase(s, '_');
  const double sign = s.starts_with('-') ? -1 : 1;
  const std::string_view r = unsigned_part(s);
  if (r == ".inf") return real_value(sign * std::numeric_limits<double>::infinity());
  if (r == ".nan") return real_value(std::numeric_limits<double>::quiet_NaN());
  double sum = 0;
  for (std::string_view part : split(r, ':')) {
    double x = 0;
    const std::errc error = part.starts_with('-') ? std::errc::invalid_argument : read_real(part, x);
    if (error == std::errc::result_out_of_range) x = part.find("e-") != std::string_view::npos ? 0 : std::numeric_limits<double>::infinity();
    else if (error != std::errc()) return std::nullopt;
    sum = sum * 60 + x;
  }
  return real_value(sign * sum);
}

// construct_yaml_int; what is too large for 64 bits is a real number, as in JSON.
std::optional<Document> construct_whole(std::string_view text) {
  std::string s(text);
  std::erase(s, '_');
  const bool negative = s.starts_with('-');
  std::string_view r = unsigned_part(s);
  int base = 10;
  if (r.starts_with("0b")) base = 2, r.remove_prefix(2);
  else if (r.starts_with("0x")) base = 16, r.remove_prefix(2);
  else if (r.size() > 1 && r[0] == '0') base = 8;
  std::uint64_t n = 0;
  double large = 0;
  bool fits = true;
  for (std::string_view part : split(r, ':')) {  // 1:30 is 90; the other bases have one part
    std::uint64_t digits = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), digits, base);
    if (part.empty() || end != part.data() + part.size() || (base != 10 && part.size() != r.size())) return std::nullopt;
    if (error != std::errc() || n > (std::numeric_limits<std::uint64_t>::max() - digits) / 60) fits = false;
    double x = 0;
    for (char c : part) x = x * base + (is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
    large = large * 60 + x;
    if (fits) n = n * 60 + digits;
  }
  if (!fits || n > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) + (negative ? 1 : 0)) return real_value(negative ? -large : large);
  Document d;
  d.kind = Document::Kind::whole, d.whole = static_cast<std::int64_t>(negative ? 0 - n : n), d.real = static_cast<double>(d.whole);
  return d;
}

Document text_value(std::string_view s) {
  Document d;
  d.kind = Document::Kind::text, d.text = std::string(s);
  return d;
}

Document yes_value(bool yes) {
  Document d;
  d.kind = Document::Kind::boolean, d.flag = yes;
  return d;
}

// Of a scalar with the tag "!!int" and its like, or (tag empty) of a plain one. Nothing: PyYAML refuses. Dates stay text.
std::optional<Document> scalar_value(std::string_view s, std::string_view tag) {
  if (tag == "str" || tag == "timestamp") return text_value(s);
  if (tag == "null" || (tag.empty() && reads_as_null(s))) return Document();
  if (tag == "int" || (tag.empty() && reads_as_whole(s))) return construct_whole(s);
  if (tag == "float" || (tag.empty() && reads_as_real(s))) return construct_real(s);
  if (tag == "bool") {
    const std::string lower = to_lower(s);
    return reads_as_yes(lower) ? std::optional(yes_value(true)) : reads_as_no(lower) ? std::optional(yes_value(false)) : std::nullopt;
  }
  if (!tag.empty()) return std::nullopt;
  if (reads_as_yes(s) || reads_as_no(s)) return yes_value(reads_as_yes(s));
  if (s == "=") return std::nullopt;  // YAML 1.1's default value, which SafeLoader does not construct
  return text_value(s);
}

struct Size { std::size_t values = 0, bytes = 0, depth = 0; };

Size size_of(const Document& d) {  // as deep as kMostYamlDepth
  Size out{1, d.text.size(), 0};
  const auto add = [&](const Document& inner, std::size_t key) {
    const Size s = size_of(inner);
    out = {out.values + s.values, out.bytes + s.bytes + key, std::max(out.depth, s.depth + 1)};
  };
  for (const Document& item : d.items) add(item, 0);
  for (const auto& [key, value] : d.fields) add(value, key.size());
  if (out.depth == 0 && (d.kind == Document::Kind::list || d.kind == Document::Kind::map)) out.depth = 1;
  return out;
}

class YamlReader {
 public:
  YamlReader(std::string_view text, std::string_view name) : text_(text), name_(name) {
    ready_ = yaml_parser_initialize(&parser_) == 1;
    if (!ready_) return;
    yaml_parser_set_encoding(&parser_, YAML_UTF8_ENCODING);  // as Python opens it; UTF-16 is no text
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  }
  ~YamlReader() {
    if (ready_) yaml_parser_delete(&parser_);
  }
  YamlReader(const YamlReader&) = delete;
  YamlReader& operator=(const YamlReader&) = delete;

  Result<Document> read() {
    if (!ready_) return fail("too_large", "there is no memory to read it", "give a training configuration", std::string(name_));
    for (bool more = true; more;) {
      yaml_event_t event;
      if (yaml_parser_parse(&parser_, &event) != 1) return std::unexpected(parse_error());
      mark_ = event.start_mark;
      more = event.type != YAML_STREAM_END_EVENT;
      const auto ok = take(event);
      yaml_event_delete(&event);
      if (!ok) return std::unexpected(ok.error());
    }
    if (documents_ == 0) return fail("bad_yaml", "this says nothing", "the file is empty", std::string(name_));
    return std::move(root_);
  }

 private:
  // A list or map whose end is not reached, with what was read of it.
  struct Open {
    Document value;
    std::string anchor, key;
    bool has_key = false, merges = false;  // a key waits for its value; that key is "<<"
    std::vector<Document> merged;          // maps under "<<"; a later one's fields stand over an earlier one's
  };

  static std::string_view words(const yaml_char_t* text) { return text == nullptr ? std::string_view() : std::string_view(reinterpret_cast<const char*>(text)); }

  std::string place_of_mark(const yaml_mark_t& mark) const { return std::string(name_) + ":" + std::to_string(mark.line + 1) + ":" + std::to_string(mark.column + 1); }
  std::unexpected<Error> wrong(std::string what, std::string hint) const { return fail("bad_yaml", std::move(what), std::move(hint), place_of_mark(mark_)); }
  std::unexpected<Error> limit(const std::string& what) const { return fail("too_large", "the YAML cannot be read: " + what, "give a training configuration", place_of_mark(mark_)); }

  Error parse_error() const {
    const std::string what(words(reinterpret_cast<const yaml_char_t*>(parser_.problem)));
    if (parser_.error == YAML_MEMORY_ERROR) return {"too_large", "the YAML cannot be read: it is nested too deep", "give a training configuration", std::string(name_)};
    if (parser_.error == YAML_READER_ERROR) return {"bad_yaml", "this is no YAML: " + what, "save it as UTF-8 text", text_place(text_, parser_.problem_offset + 1, name_)};
    const std::size_t at = parser_.problem_mark.index;
    const bool tab = what.find("cannot start any token") != std::string::npos && at < text_.size() && text_[at] == '\t';
    return {"bad_yaml", "this is no YAML: " + what, tab ? "YAML indents by spaces: put spaces for the tab" : "see that indentation and quotes are as meant", place_of_mark(parser_.problem_mark)};
  }

  Result<void> take(const yaml_event_t& event) {
    switch (event.type) {
      case YAML_DOCUMENT_START_EVENT:
        if (++documents_ > 1) return wrong("a second document starts here", "give one file for each");
        return {};
      case YAML_SCALAR_EVENT: return scalar(event);
      case YAML_ALIAS_EVENT: return alias(std::string(words(event.data.alias.anchor)));
      case YAML_SEQUENCE_START_EVENT: return open(Document::Kind::list, words(event.data.sequence_start.anchor), words(event.data.sequence_start.tag), "seq");
      case YAML_MAPPING_START_EVENT: return open(Document::Kind::map, words(event.data.mapping_start.anchor), words(event.data.mapping_start.tag), "map");
      case YAML_SEQUENCE_END_EVENT:
      case YAML_MAPPING_END_EVENT: return close();
      default: return {};
    }
  }

  Result<std::string_view> tag_of(std::string_view tag) const {
    if (tag.starts_with(kTagStart)) return tag.substr(kTagStart.size());
    if (!tag.empty() && tag != "!") return wrong("the tag '" + std::string(tag.substr(0, 60)) + "' is none that a safe reader knows", "write the value without it");
    return std::string_view();
  }

  Result<void> scalar(const yaml_event_t& event) {
    const auto& s = event.data.scalar;
    const std::string_view text(reinterpret_cast<const char*>(s.value), s.length);
    if (const auto ok = spend({1, text.size(), 0}); !ok) return ok;
    auto tag = tag_of(words(s.tag));
    if (!tag) return std::unexpected(tag.error());
    if (const auto ok = fresh(words(s.anchor)); !ok) return ok;
    const bool as_key = !open_.empty() && open_.back().value.kind == Document::Kind::map && !open_.back().has_key;
    const bool plain = s.plain_implicit != 0 || words(s.tag) == "!";
    if (as_key) return key(text, plain && text == "<<");
    auto value = scalar_value(text, plain ? "" : tag->empty() ? "str" : *tag);
    if (!value) return wrong("'" + std::string(text.substr(0, 40)) + "' is no value of the kind that it is said to be", "put it between quotes if it is text");
    return put(std::move(*value), std::string(words(s.anchor)));
  }

  // Keys are text as written, whatever their kind.
  Result<void> key(std::string_view text, bool merges) {
    Open& map = open_.back();
    if (!merges && std::ranges::find(map.value.fields, text, &Document::Field::first) != map.value.fields.end()) return wrong("'" + std::string(text.substr(0, 60)) + "' stands here twice", "leave one of them: PyYAML would take the last");
    if (map.value.fields.size() >= kMostYamlFields) return limit("a map has more than " + std::to_string(kMostYamlFields) + " fields");
    map.key = std::string(text), map.has_key = true, map.merges = merges;
    return {};
  }

  Result<void> fresh(std::string_view anchor) const {
    if (anchor.empty() || anchors_.find(anchor) == anchors_.end()) return {};
    return wrong("&" + std::string(anchor.substr(0, 60)) + " is the name of a value above already", "use another name");
  }

  Result<void> alias(const std::string& anchor) {
    for (const Open& o : open_) {
      if (o.anchor == anchor) return wrong("*" + anchor.substr(0, 60) + " stands inside what it names", "write the value out");
    }
    const auto named = anchors_.find(anchor);
    if (named == anchors_.end()) return wrong("*" + anchor.substr(0, 60) + " names nothing above it", "write &" + anchor.substr(0, 60) + " before the value that is meant");
    const Size size = size_of(named->second);
    if (open_.size() + size.depth > kMostYamlDepth) return too_deep();
    if (const auto ok = spend(size); !ok) return ok;
    return put(named->second, "");
  }

  Result<void> open(Document::Kind kind, std::string_view anchor, std::string_view tag, std::string_view usual) {
    const auto known = tag_of(tag);
    if (!known) return std::unexpected(known.error());
    if (!known->empty() && *known != usual) return wrong("the tag '" + std::string(known->substr(0, 60)) + "' does not go with a list or map here", "write the value without it");
    if (open_.size() >= kMostYamlDepth) return too_deep();
    if (const auto ok = fresh(anchor); !ok) return ok;
    if (!open_.empty() && open_.back().value.kind == Document::Kind::map && !open_.back().has_key) return wrong("a list or map is a key here", "keys are words");
    if (const auto ok = spend({1, 0, 0}); !ok) return ok;
    open_.emplace_back();
    open_.back().value.kind = kind;
    open_.back().anchor = std::string(anchor);
    return {};
  }

  // Fields under "<<" come first, and a map's own stand over them.
  Result<void> close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    if (!done.merged.empty()) {
      Document all;
      all.kind = Document::Kind::map;
      done.merged.push_back(std::move(done.value));
      for (Document& part : done.merged) {
        for (auto& [name, value] : part.fields) all.at(name) = std::move(value);
        if (all.fields.size() > kMostYamlFields) return limit("a map has more than " + std::to_string(kMostYamlFields) + " fields");
      }
      done.value = std::move(all);
    }
    return put(std::move(done.value), std::move(done.anchor));
  }

  Result<void> put(Document value, std::string anchor) {
    if (!anchor.empty()) {
      if (const auto ok = spend(size_of(value)); !ok) return ok;
      anchors_.emplace(std::move(anchor), value);
    }
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (Open& to = open_.back(); to.value.kind == Document::Kind::list) {
      to.value.items.push_back(std::move(value));
    } else if (!to.has_key) {
      return wrong("an alias is a key here", "write the key out");
    } else {
      to.has_key = false;
      if (to.merges) return merge(to, std::move(value));
      to.value.fields.push_back({std::move(to.key), std::move(value)});
    }
    return {};
  }

  // "<<: *base", or a list of which the first counts most.
  Result<void> merge(Open& to, Document value) {
    std::vector<Document> maps;
    if (value.kind == Document::Kind::list) maps = std::move(value.items);
    else maps.push_back(std::move(value));
    for (auto it = maps.rbegin(); it != maps.rend(); ++it) {
      if (it->kind != Document::Kind::map) return wrong("<< is given " + shown(*it) + " where a map is expected", "write <<: *NAME of a map above");
      to.merged.push_back(std::move(*it));
    }
    return {};
  }

  std::unexpected<Error> too_deep() const { return limit("it is nested deeper than " + std::to_string(kMostYamlDepth) + " levels"); }
  Result<void> spend(const Size& size) {
    values_ += size.values, bytes_ += size.bytes;
    if (values_ > kMostYamlValues) return limit("written out it has more than " + std::to_string(kMostYamlValues) + " values");
    if (bytes_ > kMostYamlText) return limit("written out it has more than " + std::to_string(kMostYamlText >> 20) + " MiB of text");
    return {};
  }

  std::string_view text_, name_;
  yaml_parser_t parser_;
  bool ready_ = false;
  yaml_mark_t mark_{};
  Document root_;
  std::vector<Open> open_;
  std::map<std::string, Document, std::less<>> anchors_;
  std::size_t documents_ = 0, values_ = 0, bytes_ = 0;
};

}  // namespace

Result<Document> document_from_yaml(std::string_view text, std::string_view name) {
  if (text.size() > kMostYaml) return fail("too_large", "the file is larger than " + std::to_string(kMostYaml >> 20) + " MiB", "give a training configuration", std::string(name));
  std::size_t tags = 0;  // libyaml compares every %TAG with all before it
  for (std::size_t at = text.find("%TAG"); at != std::string_view::npos && tags <= kMostTags; at = text.find("%TAG", at + 1)) ++tags;
  if (tags > kMostTags) return fail("too_large", "the YAML cannot be read: it has more than " + std::to_string(kMostTags) + " times %TAG", "give a training configuration", std::string(name));
  return YamlReader(text, name).read();
}

}  // namespace dryfit
