// PYTORCH_ALLOC_CONF, read as PyTorch reads it: key:value pairs, brackets for lists. Unknown keys are errors with a suggestion.
#include <algorithm>
#include <array>
#include <bit>

#include "base/text.hpp"
#include "memory/allocator.hpp"

namespace dryfit {

namespace {

constexpr std::string_view kWhere = "--alloc-conf";

std::unexpected<Error> bad(std::string message, std::string hint) { return fail("bad_alloc_conf", std::move(message), std::move(hint), std::string(kWhere)); }

// Splits at commas outside brackets.
std::vector<std::string_view> pairs_of(std::string_view text) {
  std::vector<std::string_view> out;
  int depth = 0;
  std::size_t start = 0;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] == '[') ++depth;
    if (i < text.size() && text[i] == ']') --depth;
    if (i == text.size() || (text[i] == ',' && depth <= 0)) {
      if (const auto part = trim(text.substr(start, i - start)); !part.empty()) out.push_back(part);
      start = i + 1;
    }
  }
  return out;
}

Result<bool> parse_bool(std::string_view value, std::string_view key) {
  if (value == "True") return true;
  if (value == "False") return false;
  return bad("'" + std::string(key) + ":" + std::string(value.substr(0, 30)) + "' is neither True nor False", "write " + std::string(key) + ":True");
}

Result<Bytes> parse_mb(std::string_view value, std::string_view key, std::int64_t least) {
  const auto n = parse_int(value, kWhere);
  if (!n || *n < least || *n > (std::int64_t{1} << 24)) return bad("'" + std::string(key) + "' needs a number of MiB of at least " + std::to_string(least), "write " + std::string(key) + ":128");
  return mib(*n);
}

Result<std::vector<std::int64_t>> parse_divisions(std::string_view value) {
  std::vector<std::int64_t> out(16, 0);
  const auto division = [](std::string_view text) -> Result<std::int64_t> {
    const auto n = parse_int(trim(text), kWhere);
    if (!n || *n < 0 || (*n > 0 && !std::has_single_bit(static_cast<std::uint64_t>(*n)))) return bad("roundup_power2_divisions needs powers of two", "write roundup_power2_divisions:4");
    return *n;
  };
  if (!value.starts_with('[')) {
    const auto n = division(value);
    if (!n) return std::unexpected(n.error());
    std::ranges::fill(out, *n);
    return out;
  }
  if (!value.ends_with(']')) return bad("roundup_power2_divisions has no closing bracket", "write roundup_power2_divisions:[256:1,>:8]");
  bool first = true;
  std::size_t last = 0;
  for (std::string_view item : pairs_of(value.substr(1, value.size() - 2))) {
    const std::size_t colon = item.find(':');
    if (colon == std::string_view::npos) return bad("roundup_power2_divisions needs size:divisions pairs", "write roundup_power2_divisions:[256:1,>:8]");
    const auto n = division(item.substr(colon + 1));
    if (!n) return std::unexpected(n.error());
    const std::string_view key = trim(item.substr(0, colon));
    if (key == ">") {
      std::fill(out.begin() + static_cast<std::ptrdiff_t>(last), out.end(), *n);
      continue;
    }
    const auto size = parse_int(key, kWhere);
    if (!size || *size < 1 || !std::has_single_bit(static_cast<std::uint64_t>(*size))) return bad("roundup_power2_divisions sizes are powers of two, in MiB", "write roundup_power2_divisions:[256:1,>:8]");
    const auto index = static_cast<std::size_t>(std::min(static_cast<int>(std::bit_width(static_cast<std::uint64_t>(*size))) - 1, 15));
    if (first) std::fill(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(index), *n);
    out[index] = *n;
    last = index;
    first = false;
  }
  return out;
}

Result<void> apply(AllocatorConfig& config, std::string_view key, std::string_view value) {
  if (key == "expandable_segments") {
    const auto on = parse_bool(value, key);
    if (!on) return std::unexpected(on.error());
    config.expandable_segments = *on;
  } else if (key == "max_split_size_mb" || key == "max_non_split_rounding_mb" || key == "large_segment_size_mb") {
    const auto size = parse_mb(value, key, 20);
    if (!size) return std::unexpected(size.error());
    if (key == "max_split_size_mb") config.max_split_size = *size;
    else (key == "large_segment_size_mb" ? config.large_segment_size : config.max_non_split_rounding) = *size;
  } else if (key == "garbage_collection_threshold" || key == "per_process_memory_fraction") {
    const auto x = parse_real(value, kWhere);
    if (!x || !(*x > 0 && *x <= 1)) return bad("'" + std::string(key) + "' is a fraction between 0 and 1", "write " + std::string(key) + ":0.8");
    if (key == "garbage_collection_threshold") config.garbage_collection_threshold = *x;
    else config.memory_fraction = *x;
  } else if (key == "roundup_power2_divisions") {
    const auto divisions = parse_divisions(value);
    if (!divisions) return std::unexpected(divisions.error());
    config.roundup_power2_divisions = *divisions;
  } else if (key == "backend") {
    if (value != "native") return bad("backend '" + std::string(value.substr(0, 30)) + "' is not simulated", "use backend:native, PyTorch's default");
  } else if (!key.starts_with("pinned_") && key != "release_lock_on_cudamalloc" && key != "graph_capture_record_stream_reuse") {
    static constexpr std::array<std::string_view, 8> kKeys = {"expandable_segments", "max_split_size_mb", "max_non_split_rounding_mb", "large_segment_size_mb",
                                                              "garbage_collection_threshold", "per_process_memory_fraction", "roundup_power2_divisions", "backend"};
    return bad("unknown allocator setting '" + std::string(key.substr(0, 40)) + "'", did_you_mean(key, kKeys, "see PyTorch's page on memory management for the names"));
  }
  return {};
}

}  // namespace

Result<AllocatorConfig> parse_alloc_conf(std::string_view text) {
  AllocatorConfig config;
  for (std::string_view pair : pairs_of(text)) {
    const std::size_t colon = pair.find(':');
    if (colon == std::string_view::npos) return bad("'" + std::string(pair.substr(0, 40)) + "' is not key:value", "write expandable_segments:True");
    if (const auto ok = apply(config, trim(pair.substr(0, colon)), trim(pair.substr(colon + 1))); !ok) return std::unexpected(ok.error());
  }
  return config;
}

}  // namespace dryfit
