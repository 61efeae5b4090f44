// See probe_document.hpp. Values are taken from the parser one by one, so that no tree of the library's own is ever built.
#include "workload/probe_document.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace dryfit {

namespace {

constexpr std::size_t kMostBytes = 8 << 20, kMostDepth = 64, kMostValues = 1 << 20, kMostFields = 1 << 14;

class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return put({}); }
  bool boolean(bool b) override {
    Document d;
    d.kind = Document::Kind::boolean, d.flag = b;
    return put(std::move(d));
  }
  bool number_integer(number_integer_t n) override { return put(whole(n)); }
  bool number_unsigned(number_unsigned_t n) override {
    if (n <= static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max())) return put(whole(static_cast<std::int64_t>(n)));
    return number_float(static_cast<double>(n), "");
  }
  bool number_float(number_float_t x, const string_t&) override {
    Document d;
    d.kind = Document::Kind::real, d.real = x;
    return put(std::move(d));
  }
  bool string(string_t& s) override {
    Document d;
    d.kind = Document::Kind::text, d.text = std::move(s);
    return put(std::move(d));
  }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Document::Kind::map); }
  bool start_array(std::size_t) override { return open(Document::Kind::list); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& s) override {
    if (open_.back()->fields.size() >= kMostFields) return stop("a map has more than " + std::to_string(kMostFields) + " fields");
    slot_ = &open_.back()->at(s);
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& e) override {
    position_ = position;
    what_ = e.what();
    const std::size_t colon = what_.find("; ");  // "...: syntax error while parsing value - invalid literal; last read: 'NaN'"
    const std::size_t dash = what_.rfind(" - ", colon);
    if (dash != std::string::npos) what_ = what_.substr(dash + 3);
    return false;
  }

  Document root;
  std::string limit;                // which limit was met
  std::string what_;
  std::size_t position_ = 0;

 private:
  static Document whole(std::int64_t n) {
    Document d;
    d.kind = Document::Kind::whole, d.whole = n, d.real = static_cast<double>(n);
    return d;
  }
  bool stop(std::string why) {
    limit = std::move(why);
    return false;
  }
  // Where the next value goes: a map's named field, a list's end, or the root.
  Document& place() {
    if (open_.empty()) return root;
    if (open_.back()->kind == Document::Kind::map) return *slot_;
    return open_.back()->items.emplace_back();
  }
  bool put(Document d) {
    if (++values_ > kMostValues) return stop("it has more than " + std::to_string(kMostValues) + " values");
    place() = std::move(d);
    return true;
  }
  bool open(Document::Kind kind) {
    if (open_.size() >= kMostDepth) return stop("it is nested deeper than " + std::to_string(kMostDepth) + " levels");
    if (++values_ > kMostValues) return stop("it has more than " + std::to_string(kMostValues) + " values");
    Document& d = place();
    d = Document();
    d.kind = kind;
    open_.push_back(&d);  // stays where it is: nothing is added beside an open value
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }
  std::vector<Document*> open_;
  Document* slot_ = nullptr;
  std::size_t values_ = 0;
};

}  // namespace

std::string text_place(std::string_view text, std::size_t position, std::string_view name) {
  const std::string_view before = text.substr(0, std::min(position > 0 ? position - 1 : 0, text.size()));
  const auto line = std::ranges::count(before, '\n') + 1;
  const std::size_t start = before.rfind('\n') + 1;  // npos + 1 is 0
  return std::string(name) + ":" + std::to_string(line) + ":" + std::to_string(before.size() - start + 1);
}

Result<Document> document_from_json(std::string_view text, std::string_view name) {
  if (text.size() > kMostBytes) return fail("too_large", "the file is larger than " + std::to_string(kMostBytes >> 20) + " MiB", "give a configuration, not weights", std::string(name));
  Builder builder;
  const bool ok = nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  if (ok) return std::move(builder.root);
  if (!builder.limit.empty()) return fail("too_large", "the JSON cannot be read: " + builder.limit, "give a model's config.json", std::string(name));
  return fail("bad_json", "this is no JSON: " + builder.what_.substr(0, 200), text.find_first_not_of(" \t\r\n") == std::string_view::npos ? "the file is empty" : "see that the file is whole and valid JSON",
              text_place(text, builder.position_, name));
}

}  // namespace dryfit
