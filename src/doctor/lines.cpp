// See lines.hpp.
#include "doctor/lines.hpp"

#include <algorithm>
#include <cstring>

namespace dryfit {

namespace {

constexpr std::size_t kHead = 512;  // bytes looked at to decide the encoding
constexpr std::size_t kStep = LineReader::kLongest - LineReader::kOverlap;
constexpr std::int64_t kExamined = 1 << 20;

void append_utf8(std::string& out, std::uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

}  // namespace

std::string_view name_of(Encoding encoding) {
  switch (encoding) {
    case Encoding::undecided:
    case Encoding::utf8: return "utf-8";
    case Encoding::utf16le: return "utf-16le";
    case Encoding::utf16be: return "utf-16be";
  }
  return "";
}

void LineReader::feed(std::string_view bytes) {
  bytes_ += static_cast<std::int64_t>(bytes.size());
  if (encoding_ == Encoding::undecided) {
    const std::size_t wanted = std::min(bytes.size(), kHead - head_.size());
    head_ += bytes.substr(0, wanted);
    bytes.remove_prefix(wanted);
    if (head_.size() < kHead) return;
    decide();
  }
  if (encoding_ == Encoding::utf8) text(bytes);
  else decode(bytes);
}

void LineReader::finish() {
  if (encoding_ == Encoding::undecided) decide();
  if (!units_.empty()) append_utf8(carry_, 0xFFFD), units_.clear();
  if (!carry_.empty()) {
    const std::string last = std::move(carry_);
    carry_.clear();
    whole(last);
  }
}

// A byte order mark, or text whose every second byte is zero (what some shells write when they redirect).
void LineReader::decide() {
  const auto starts = [&](std::string_view mark) { return head_.starts_with(mark); };
  std::size_t skip = 0, zeros[2] = {0, 0};
  for (std::size_t i = 0; i < head_.size(); ++i) zeros[i % 2] += head_[i] == '\0';
  encoding_ = Encoding::utf8;
  if (starts("\xEF\xBB\xBF")) skip = 3;
  else if (starts("\xFF\xFE")) encoding_ = Encoding::utf16le, skip = 2;
  else if (starts("\xFE\xFF")) encoding_ = Encoding::utf16be, skip = 2;
  else if (zeros[1] * 5 > head_.size() * 2 && zeros[0] == 0) encoding_ = Encoding::utf16le;
  else if (zeros[0] * 5 > head_.size() * 2 && zeros[1] == 0) encoding_ = Encoding::utf16be;
  const std::string head = std::move(head_);
  head_.clear();
  if (encoding_ == Encoding::utf8) text(std::string_view(head).substr(skip));
  else decode(std::string_view(head).substr(skip));
}

void LineReader::decode(std::string_view bytes) {
  units_ += bytes;  // at most three bytes are left from before: half a unit, or half a surrogate pair
  utf8_.clear();
  const auto unit = [&](std::size_t i) {
    const auto low = static_cast<unsigned char>(units_[i + (encoding_ == Encoding::utf16be)]), high = static_cast<unsigned char>(units_[i + (encoding_ == Encoding::utf16le)]);
    return static_cast<std::uint32_t>(high << 8 | low);
  };
  std::size_t i = 0;
  for (; i + 1 < units_.size(); i += 2) {
    std::uint32_t c = unit(i);
    if (c >= 0xD800 && c < 0xDC00) {
      if (i + 3 >= units_.size()) break;
      const std::uint32_t next = unit(i + 2);
      if (next >= 0xDC00 && next < 0xE000) {
        c = 0x10000 + ((c - 0xD800) << 10) + (next - 0xDC00);
        i += 2;
      } else {
        c = 0xFFFD;
      }
    } else if (c >= 0xDC00 && c < 0xE000) {
      c = 0xFFFD;
    }
    append_utf8(utf8_, c);
  }
  units_.erase(0, i);
  text(utf8_);
}

void LineReader::count_odd(std::string_view text) {
  const auto n = std::min<std::size_t>(text.size(), static_cast<std::size_t>(kExamined - examined_));
  examined_ += static_cast<std::int64_t>(n);
  odd_ += std::count_if(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(n), [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return u < 32 && c != '\n' && c != '\r' && c != '\t' && c != '\x1b' && c != '\b';
  });
}

void LineReader::text(std::string_view text) {
  if (examined_ < kExamined) count_odd(text);
  while (!text.empty()) {
    const void* const found = std::memchr(text.data(), '\n', text.size());
    const std::size_t line_end = found == nullptr ? text.size() : static_cast<std::size_t>(static_cast<const char*>(found) - text.data());
    std::string_view line = text.substr(0, line_end);
    while (!line.empty()) {
      at_line_start_ = false;
      const void* const cr = std::memchr(line.data(), '\r', line.size());
      if (cr == nullptr) break;
      const auto n = static_cast<std::size_t>(static_cast<const char*>(cr) - line.data());
      if (carry_.empty()) {
        whole(line.substr(0, n));
      } else {
        carry_ += line.substr(0, n);
        const std::string joined = std::move(carry_);
        carry_.clear();
        whole(joined);
      }
      column_ += 1;
      line.remove_prefix(n + 1);
    }
    if (found == nullptr) {
      carry_ += line;
      while (carry_.size() > kLongest) {  // a line without end must not fill the memory
        fragment(std::string_view(carry_).substr(0, kLongest), column_);
        carry_.erase(0, kStep);
        column_ += static_cast<std::int64_t>(kStep);
      }
      return;
    }
    if (carry_.empty()) {
      whole(line);
    } else {
      carry_ += line;
      const std::string joined = std::move(carry_);
      carry_.clear();
      whole(joined);
    }
    ++line_;
    column_ = 0;
    at_line_start_ = true;
    text.remove_prefix(line_end + 1);
  }
}

void LineReader::whole(std::string_view line) {
  while (line.size() > kLongest) {
    fragment(line.substr(0, kLongest), column_);
    line.remove_prefix(kStep);
    column_ += static_cast<std::int64_t>(kStep);
  }
  fragment(line, column_);
  column_ += static_cast<std::int64_t>(line.size());
}

void LineReader::fragment(std::string_view text, std::int64_t column) const {
  if (!text.empty()) sink_({text, line_, column});
}

}  // namespace dryfit
