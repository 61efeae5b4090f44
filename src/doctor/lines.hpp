// Bytes of a log to lines of clean text, chunk by chunk in constant memory: UTF-8 and UTF-16, LF, CRLF and the lone carriage
// returns of progress bars. The same lines come out however the bytes are cut. Knows nothing of what the lines say.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace dryfit {

struct Line {
  std::string_view text;      // without its end; empty lines are not handed on. Valid during the call only
  std::int64_t number = 1;    // 1-based, counts line feeds
  std::int64_t column = 0;    // bytes before `text` in its line: > 0 after a carriage return, or in a piece of a very long line
};

enum class Encoding { undecided, utf8, utf16le, utf16be };
std::string_view name_of(Encoding encoding);

class LineReader {
 public:
  using Sink = std::function<void(const Line&)>;
  // Longer lines come in pieces of this size that overlap, so that no message of up to kOverlap bytes is cut in two.
  static constexpr std::size_t kLongest = 1 << 16, kOverlap = 1 << 12;

  explicit LineReader(Sink sink) : sink_(std::move(sink)) {}
  void feed(std::string_view bytes);
  void finish();                                   // hands on what has no line end yet
  Encoding encoding() const { return encoding_; }
  std::int64_t bytes() const { return bytes_; }    // fed so far
  std::int64_t lines() const { return line_ - (at_line_start_ ? 1 : 0); }  // begun so far
  std::int64_t odd_bytes() const { return odd_; }  // control characters no text has, within the first MiB
  bool binary() const { return examined_ >= (1 << 20) && odd_ * 3 > examined_; }  // no use in reading on

 private:
  void decide();
  void decode(std::string_view bytes);             // UTF-16 to UTF-8
  void count_odd(std::string_view text);
  void text(std::string_view text);
  void whole(std::string_view line);               // text up to a CR or LF
  void fragment(std::string_view text, std::int64_t column) const;

  Sink sink_;
  Encoding encoding_ = Encoding::undecided;
  std::string head_;                               // first bytes, until the encoding is decided
  std::string carry_, utf8_, units_;
  std::int64_t line_ = 1, column_ = 0, bytes_ = 0, odd_ = 0, examined_ = 0;
  bool at_line_start_ = true;
};

}  // namespace dryfit
