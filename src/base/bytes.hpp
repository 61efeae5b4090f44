// Bytes: a signed 64-bit quantity of memory. Sums saturate instead of wrapping, so an absurd
// workload reads as "does not fit", never as a small or negative number.
#pragma once

#include <compare>
#include <cstdint>
#include <limits>

namespace dryfit {

struct Bytes {
  std::int64_t count = 0;

  constexpr Bytes() = default;
  constexpr explicit Bytes(std::int64_t n) : count(n) {}
  friend constexpr auto operator<=>(Bytes, Bytes) = default;

  static constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  static constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();

  friend constexpr Bytes operator+(Bytes a, Bytes b) {
    std::int64_t out = 0;
    if (__builtin_add_overflow(a.count, b.count, &out)) return Bytes(a.count > 0 ? kMax : kMin);
    return Bytes(out);
  }
  friend constexpr Bytes operator-(Bytes a, Bytes b) {
    std::int64_t out = 0;
    if (__builtin_sub_overflow(a.count, b.count, &out)) return Bytes(a.count >= 0 ? kMax : kMin);
    return Bytes(out);
  }
  friend constexpr Bytes operator*(Bytes a, std::int64_t n) {
    std::int64_t out = 0;
    if (__builtin_mul_overflow(a.count, n, &out)) return Bytes((a.count < 0) == (n < 0) ? kMax : kMin);
    return Bytes(out);
  }
  friend constexpr Bytes operator-(Bytes a) { return Bytes(0) - a; }
  constexpr Bytes& operator+=(Bytes b) { return *this = *this + b; }
  constexpr Bytes& operator-=(Bytes b) { return *this = *this - b; }

  constexpr double mib() const { return static_cast<double>(count) / (1 << 20); }
  constexpr double gib() const { return static_cast<double>(count) / (1 << 30); }
};

constexpr Bytes kib(std::int64_t n) { return Bytes(1024) * n; }
constexpr Bytes mib(std::int64_t n) { return Bytes(1 << 20) * n; }
constexpr Bytes gib(std::int64_t n) { return Bytes(1 << 30) * n; }

// Smallest multiple of `unit` that is >= n; n >= 0, unit > 0.
constexpr std::int64_t round_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }
constexpr std::int64_t ceil_div(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit; }

}  // namespace dryfit
