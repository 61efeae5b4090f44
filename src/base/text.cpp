// Strict number reading, sizes with units, edit distance. Nothing about any domain.
#include "base/text.hpp"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <clocale>
#include <cmath>
#include <cstdlib>
#include <utility>

namespace dryfit {

namespace {

constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

Error bad_number(std::string_view text, std::string_view where, std::string_view what) {
  return {"bad_number", "'" + std::string(text.substr(0, 60)) + "' is not " + std::string(what), "give a plain number, such as 16", std::string(where)};
}

}  // namespace

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return text;
}

bool version_from(std::string_view version, int major, int minor) {
  int found[2] = {-1, -1};
  const char *next = version.data(), *end = next + version.size();
  for (int& number : found) {
    const auto [after, error] = std::from_chars(next, end, number);
    if (error != std::errc{} && (&number == found || next != end)) return false;
    if (error != std::errc{}) number = 0;  // "5"
    next = after < end && *after == '.' ? after + 1 : end;
  }
  return std::pair(found[0], found[1]) >= std::pair(major, minor);
}

std::string to_lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), lower);
  return out;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  std::size_t start = 0;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    if (i == text.size() || text[i] == separator) {
      parts.push_back(text.substr(start, i - start));
      start = i + 1;
    }
  }
  return parts;
}

Result<std::int64_t> parse_int(std::string_view text, std::string_view where) {
  std::string digits;
  std::string_view rest = text;
  if (!rest.empty() && (rest[0] == '-' || rest[0] == '+')) {
    if (rest[0] == '-') digits = "-";
    rest.remove_prefix(1);
  }
  for (std::size_t i = 0; i < rest.size(); ++i) {
    const bool inner_underscore = rest[i] == '_' && i > 0 && i + 1 < rest.size() && is_digit(rest[i - 1]) && is_digit(rest[i + 1]);
    if (is_digit(rest[i])) digits += rest[i];
    else if (!inner_underscore) return std::unexpected(bad_number(text, where, "a whole number"));
  }
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error == std::errc::result_out_of_range) return std::unexpected(bad_number(text, where, "a number dryfit can hold (it is too large)"));
  if (error != std::errc() || end != digits.data() + digits.size()) return std::unexpected(bad_number(text, where, "a whole number"));
  return value;
}

namespace {

// strtod where a point is a point, whatever locale the process that holds us has chosen.
double number_in_c(const char* text, char** end) {
#ifdef __GLIBC__
  static const locale_t plain = newlocale(LC_ALL_MASK, "C", nullptr);
  return strtod_l(text, end, plain);
#else  // musl, which WebAssembly's C library is made of, knows one locale alone
  return std::strtod(text, end);
#endif
}

}  // namespace

std::errc read_real(std::string_view text, double& value) {
  const std::string copy = to_lower(text);
  const std::string_view body = copy.starts_with('-') ? std::string_view(copy).substr(1) : std::string_view(copy);
  const bool word = body == "inf" || body == "infinity" || body == "nan";
  if (body.empty() || body[0] == '+' || (!word && body.find_first_not_of("0123456789.e+-") != std::string_view::npos)) return std::errc::invalid_argument;
  char* end = nullptr;
  errno = 0;
  const double read = number_in_c(copy.c_str(), &end);
  if (end != copy.c_str() + copy.size()) return std::errc::invalid_argument;
  if (errno == ERANGE && (read == 0 || std::isinf(read))) return std::errc::result_out_of_range;  // not where it is only less exact, near 0
  value = read;
  return {};
}

Result<double> parse_real(std::string_view text, std::string_view where) {
  double value = 0;
  const std::string_view body = !text.empty() && text[0] == '+' ? text.substr(1) : text;
  if (read_real(body, value) != std::errc() || !std::isfinite(value)) return std::unexpected(bad_number(text, where, "a finite number"));
  return value;
}

Result<std::int64_t> parse_count(std::string_view text, std::string_view where) {
  const auto plain = parse_int(text, where);
  if (plain || text.empty()) return plain;
  constexpr std::string_view kUnits = "kmbt";
  constexpr double kLargest = 9007199254740992.0;  // 2^53: beyond it not every whole number is a double
  const std::size_t unit = kUnits.find(lower(text.back()));
  const auto number = parse_real(unit == std::string_view::npos ? text : text.substr(0, text.size() - 1), where);
  const double value = number ? *number * (unit == std::string_view::npos ? 1 : std::pow(1000.0, static_cast<double>(unit + 1))) : 0.5;
  if (std::abs(value) > kLargest || std::abs(value - std::round(value)) > 1e-9 * std::abs(value)) {
    Error error = plain.error();
    error.hint = "give a whole number, such as 1000000000, 1e9 or 1B";
    return std::unexpected(error);
  }
  return static_cast<std::int64_t>(std::llround(value));
}

Result<Bytes> parse_size(std::string_view text, std::string_view where) {
  const std::string_view body = trim(text);
  std::size_t digits = 0;
  while (digits < body.size() && (is_digit(body[digits]) || body[digits] == '.')) ++digits;
  const std::string unit = to_lower(trim(body.substr(digits)));
  struct Unit { std::string_view name; double factor; };
  constexpr double k = 1024;
  static constexpr Unit kUnits[] = {{"", 1}, {"b", 1}, {"kib", k}, {"k", k}, {"kb", 1e3}, {"mib", k * k}, {"m", k * k}, {"mb", 1e6},
                                    {"gib", k * k * k}, {"g", k * k * k}, {"gb", 1e9}, {"tib", k * k * k * k}, {"t", k * k * k * k}, {"tb", 1e12}};
  const auto bad = [&] {
    return fail("bad_size", "'" + std::string(text.substr(0, 60)) + "' is not a size", "write it as 24GiB, 24GB (10^9) or 24576MiB", std::string(where));
  };
  if (digits == 0) return bad();
  const auto value = parse_real(body.substr(0, digits), where);
  const auto found = std::ranges::find(kUnits, unit, &Unit::name);
  if (!value || found == std::end(kUnits)) return bad();
  const double bytes = *value * found->factor;
  if (!(bytes < 9e18)) return bad();
  return Bytes(static_cast<std::int64_t>(std::llround(bytes)));
}

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int change = diagonal + (lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string_view closest(std::string_view word, std::span<const std::string_view> candidates, int max_distance) {
  std::string_view best;
  int best_distance = max_distance + 1;
  if (word.size() > 100) return best;
  for (std::string_view candidate : candidates) {
    const int distance = edit_distance(word, candidate);
    if (distance < best_distance && distance * 2 <= static_cast<int>(std::max(word.size(), candidate.size()))) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view word, std::span<const std::string_view> candidates, std::string_view otherwise) {
  const std::string_view found = closest(word, candidates);
  return found.empty() ? std::string(otherwise) : "did you mean '" + std::string(found) + "'?";
}

std::string dashed(std::string_view name) {
  std::string out(name);
  std::ranges::replace(out, '_', '-');
  return out;
}

std::string tenths(double number) {
  const std::int64_t rounded = std::llround(number * 10);
  return std::to_string(rounded / 10) + "." + std::to_string(rounded % 10);
}

std::string first_ten(std::span<const std::string> names, std::size_t longest) {
  std::string out;
  for (const std::string& name : names.first(std::min<std::size_t>(names.size(), 10))) out += (out.empty() ? "" : ", ") + name.substr(0, longest);
  return out + (names.size() > 10 ? ", ..." : "");
}

}  // namespace dryfit
