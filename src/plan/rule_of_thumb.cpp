// calculate_config of the seed document, operation for operation as Python runs it on doubles. See rule_of_thumb.hpp.
#include "plan/rule_of_thumb.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "base/text.hpp"

namespace dryfit {

namespace {

std::string fixed(double x, int digits) {  // Python's f"{x:.1f}": correctly rounded, as printf
  std::array<char, 400> text{};
  std::snprintf(text.data(), text.size(), "%.*f", digits, x);
  return text.data();
}

// Python's repr of a float: the shortest digits that read back.
std::string repr(double x) {
  std::array<char, 64> text{};
  const bool plain = x == 0 || (std::fabs(x) >= 1e-4 && std::fabs(x) < 1e16);
  const auto end = std::to_chars(text.data(), text.data() + text.size(), x, plain ? std::chars_format::fixed : std::chars_format::scientific).ptr;
  std::string out(text.data(), end);
  if (plain && out.find('.') == std::string::npos) out += ".0";
  return out;
}

std::unexpected<Error> raises(std::string text) {
  return fail("rule_of_thumb_raises", "the rule of thumb raises " + std::move(text), "the engine answers where the rule cannot: dryfit plan", "rule-of-thumb");
}

}  // namespace

Result<RuleOfThumb> rule_of_thumb(std::string_view gpu_memory_gb, std::int64_t depth, std::int64_t seq_len) {
  const auto whole = parse_int(gpu_memory_gb, "--gpu-memory-gb");
  const auto real = parse_real(gpu_memory_gb, "--gpu-memory-gb");
  if (!whole && !real) return std::unexpected(real.error());
  constexpr std::int64_t kLimit = 1'000'000;
  if (std::abs(depth) > kLimit || std::abs(seq_len) > kLimit * 1000) return fail("bad_number", "the depth or sequence length is too large", "use a depth up to 1000000", "--depth");
  RuleOfThumb r;
  r.depth = depth;
  r.gpu_memory_gb = whole ? static_cast<double>(*whole) : *real;
  r.gpu_memory = whole ? std::to_string(*whole) : repr(*real);
  const std::int64_t hidden = depth * 64;
  const auto squared = static_cast<double>(hidden * hidden);
  const double params = static_cast<double>(50257 * hidden) + static_cast<double>(depth) * (static_cast<double>(4 * hidden * hidden) + 0.75 * squared);
  const double model = params * 2 / 1e9, optimizer = params * 8 / 1e9;
  const double available = r.gpu_memory_gb - model - optimizer - 1.0;
  const double per_sample = static_cast<double>(static_cast<__int128>(depth) * hidden * seq_len * 10) / 1e9;
  if (per_sample == 0) return raises("ZeroDivisionError: float division by zero");
  const double ratio = available / per_sample;
  if (!std::isfinite(ratio)) return raises("OverflowError: cannot convert float infinity to integer");
  // int() cuts towards zero; bit_length() is that of the absolute value; 2 ** -1 is 0.5, which the clamp lifts to 1
  const double magnitude = std::trunc(std::fabs(ratio));
  const int bits = magnitude < 1 ? 0 : std::ilogb(magnitude) + 1;
  r.recommended_batch_size = std::max<std::int64_t>(1, bits == 0 ? 0 : std::int64_t{1} << std::min(bits - 1, 6));
  r.safe_batch_size = std::max<std::int64_t>(1, r.recommended_batch_size / 2);
  r.model_params = fixed(params / 1e6, 0) + "M";
  r.model_memory = fixed(model, 1) + "GB";
  r.optimizer_memory = fixed(optimizer, 1) + "GB";
  r.available_for_activations = fixed(available, 1) + "GB";
  r.negative_room = ratio < 0;
  if (r.negative_room) r.note = "there is no room for activations, yet the rule answers: it takes the bit length of a negative number, so less memory gives a larger batch";
  else if (magnitude < 1) r.note = "not one sample fits by its own arithmetic; the rule still answers 1";
  return r;
}

}  // namespace dryfit
