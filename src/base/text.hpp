// Small pure helpers on text: numbers read strictly, sizes with units, "did you mean".
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/bytes.hpp"
#include "base/result.hpp"

namespace dryfit {

// Whole decimal number, optional sign, optional single underscores between digits (as Python's int()); nothing else around it.
// Errors: "bad_number" with `where` as given.
Result<std::int64_t> parse_int(std::string_view text, std::string_view where);
// The same, or as people write many: "1e9", "1.5B", "500M", "10k" (powers of 1000). Errors: "bad_number".
Result<std::int64_t> parse_count(std::string_view text, std::string_view where);
// What std::from_chars reads of the whole text as a double (libc++ has that from 20 on); value is untouched unless {} is given.
std::errc read_real(std::string_view text, double& value);
// Finite decimal number ("0.85", "1e3"); NaN, infinities and overflow are errors ("bad_number").
Result<double> parse_real(std::string_view text, std::string_view where);
// "80GiB", "24GB" (10^9), "24g" and "24G" (GiB), "512MiB", "24576M", plain number = bytes. Must be >= 0 and finite ("bad_size").
Result<Bytes> parse_size(std::string_view text, std::string_view where);

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
std::string_view trim(std::string_view text);
// Whether a version ("2.11.0+cu130") is this one or newer; what is no version is not.
bool version_from(std::string_view version, int major, int minor);
std::string to_lower(std::string_view text);
std::string dashed(std::string_view name);  // "nproc_per_node" -> "nproc-per-node"
std::string tenths(double number);          // not negative: "12.3"
std::vector<std::string_view> split(std::string_view text, char separator);
template <std::same_as<std::string> Temporary>
std::vector<std::string_view> split(Temporary&& text, char separator) = delete;  // the parts would outlive it

// Levenshtein distance with unit costs, case-insensitive.
int edit_distance(std::string_view a, std::string_view b);
// The candidate closest to `word`, or empty when none is within max_distance (default: at most 3 and less than half the word).
std::string_view closest(std::string_view word, std::span<const std::string_view> candidates, int max_distance = 3);
// "did you mean 'h100'?" or `otherwise` when nothing is close.
std::string did_you_mean(std::string_view word, std::span<const std::string_view> candidates, std::string_view otherwise);
// "a, b, c": the first ten, each cut to `longest` bytes; ", ..." when there are more.
std::string first_ten(std::span<const std::string> names, std::size_t longest);

}  // namespace dryfit
