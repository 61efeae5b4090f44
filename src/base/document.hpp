// Document: what a JSON, YAML or TOML text says, as a plain tree; and Fields, a strict reader of one map of it.
// Readers of texts stand at the edge (workload/probe_document.hpp); here is nothing that can throw.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace dryfit {

struct Document {
  enum class Kind : std::uint8_t { null, boolean, whole, real, text, list, map };
  Kind kind = Kind::null;
  bool flag = false;
  std::int64_t whole = 0;
  double real = 0;                                       // of a whole number too
  std::string text;
  std::vector<Document> items;                           // list
  struct Field;
  std::vector<Field> fields;                             // map, in the text's order; keys are unique

  const Document* find(std::string_view key) const;      // none: absent, null, or not a map
  Document& at(std::string_view key);                    // the field of a map, made when absent
};
struct Document::Field { std::string first; Document second; };  // key, value

// "-3", "\"silu\"", "a list of 4": what stands there, for messages; at most some 40 characters.
std::string shown(const Document& value);

// The value as JSON, in one line.
std::string json_text(const Document& value);

// What of a file's keys was used, what nobody asked for, and what stands for keys it lacks ("sequence_len 512"): for people.
struct KeysTold { std::vector<std::string> used, unused, assumed; };

// Reads the fields of one map. A field is absent (or null), or of its kind and within its bounds, or the first fault is kept:
// its place is "<where>: <prefix>key". Names every field that nobody asked for.
class Fields {
 public:
  // document outlives the reader. code: of the errors, "bad_config".
  Fields(const Document& document, std::string where, std::string prefix = "", std::string code = "bad_config");

  const Document* find(std::string_view key);
  std::optional<std::int64_t> whole(std::string_view key, std::int64_t low, std::int64_t high);
  std::optional<double> real(std::string_view key, double low, double high);
  std::optional<bool> yes(std::string_view key);
  std::optional<std::string> text(std::string_view key);  // at most 4096 bytes
  std::vector<std::string> texts(std::string_view key, std::size_t most);
  const Document* map(std::string_view key);
  const Document* list(std::string_view key, std::size_t most);

  // whole(), but absent is a fault too: "is missing".
  std::int64_t needed(std::string_view key, std::int64_t low, std::int64_t high);
  void fault(std::string_view key, std::string what, std::string hint = "");
  void used(std::string_view key);                        // counts as asked for, and is not worth telling
  void left(std::string_view key);                        // counts as not asked for
  std::string place(std::string_view key) const;          // "config.json: hidden_size", as errors name it
  std::unexpected<Error> not_laid_out(std::string_view key, std::string_view what, std::string hint) const;  // "unsupported_training"
  bool is_null(std::string_view key) const;               // stands there as null
  const std::optional<Error>& error() const { return error_; }
  std::vector<std::string> unused() const;                // keys with a value other than null that nobody asked for
  void tell(KeysTold& told) const;                        // adds those, and the keys whose values were read; maps tell of themselves

 private:
  const Document& document_;
  std::string where_, prefix_, code_;
  enum class Asked : std::uint8_t { no, counted, read };
  void mark(std::string_view key, Asked as);
  std::vector<Asked> asked_;
  std::optional<Error> error_;
};

}  // namespace dryfit
