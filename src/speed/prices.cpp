// See prices.hpp.
#include "speed/prices.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/embedded.hpp"
#include "base/text.hpp"

namespace dryfit {

namespace {

constexpr std::array<std::string_view, 7> kColumns = {"gpu", "provider", "gpus", "usd_per_gpu_hour", "kind", "seen", "source"};
constexpr std::size_t kMostLines = 10000;
constexpr double kMostUsd = 1e5;

std::unexpected<Error> bad(std::string_view where, std::size_t line, std::string message) {
  return fail("bad_prices", std::move(message), "a first line gpu,provider,gpus,usd_per_gpu_hour,kind,seen,source; then one price a line: RTX 4090,my cluster,8,0.40", std::string(where) + ":" + std::to_string(line));
}

bool plain(std::string_view text) {
  return text.size() <= 200 && std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; });
}

// The catalogue's name where the card is known: one that is in the file as such costs no search.
std::string catalogue_name(std::string name) {
  if (std::ranges::find(gpu_catalogue(), name, &GpuKind::name) != gpu_catalogue().end()) return name;
  const auto found = find_gpu(name);
  return found ? found->name : name;
}

}  // namespace

Result<std::vector<Price>> read_prices(std::string_view csv, std::string_view where) {
  std::vector<Price> out;
  std::array<std::size_t, kColumns.size()> column{};
  column.fill(std::string_view::npos);
  std::size_t number = 0;
  for (std::string_view line : split(csv, '\n')) {
    if (++number > kMostLines) return bad(where, number, "more than 10000 lines");
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (trim(line).empty() || line.starts_with('#')) continue;
    const auto f = split(line, ',');
    if (column[0] == std::string_view::npos) {
      for (std::size_t c = 0; c < kColumns.size(); ++c) {
        const auto at = std::ranges::find_if(f, [&](std::string_view name) { return to_lower(trim(name)) == kColumns[c]; });
        if (at != f.end()) column[c] = static_cast<std::size_t>(at - f.begin());
      }
      if (column[0] == std::string_view::npos || column[3] == std::string_view::npos) return bad(where, number, "the first line names no columns gpu and usd_per_gpu_hour");
      continue;
    }
    const auto cell = [&](std::size_t c) { return column[c] < f.size() ? std::string(trim(f[column[c]])) : std::string(); };
    if (!plain(line)) return bad(where, number, "the line is too long or has control characters");
    Price p{catalogue_name(cell(0)), cell(1), 1, 0, cell(4).empty() ? "on-demand" : to_lower(cell(4)), cell(5), cell(6)};
    if (p.gpu.empty()) return bad(where, number, "no GPU is named");
    const auto usd = parse_real(cell(3), where);
    if (!usd || !(*usd >= 0) || *usd > kMostUsd) return bad(where, number, "'" + cell(3).substr(0, 40) + "' is no price in dollars an hour");
    p.usd_per_gpu_hour = *usd;
    if (!cell(2).empty()) {
      const auto gpus = parse_int(cell(2), where);
      if (!gpus || *gpus < 1 || *gpus > 1024) return bad(where, number, "'" + cell(2).substr(0, 40) + "' is no number of GPUs");
      p.gpus = *gpus;
    }
    out.push_back(std::move(p));
  }
  if (column[0] == std::string_view::npos) return bad(where, 1, "the file is empty");
  return out;
}

std::span<const Price> known_prices() {
  static const std::vector<Price> prices = read_prices(embedded_prices_csv, "data/prices.csv").value_or(std::vector<Price>());
  return prices;
}

std::optional<Price> price_of(std::span<const Price> prices, const GpuKind& gpu, std::int64_t gpus) {
  const Price* best = nullptr;
  const auto rank = [](const Price& p) { return p.kind == "on-demand" ? 0 : 1; };
  for (const Price& p : prices) {
    if (p.gpu != gpu.name || p.gpus > gpus || gpus % p.gpus != 0) continue;  // a larger instance is paid whole
    if (best != nullptr && (rank(p) > rank(*best) || (rank(p) == rank(*best) && p.usd_per_gpu_hour >= best->usd_per_gpu_hour))) continue;
    best = &p;
  }
  return best != nullptr ? std::optional(*best) : std::nullopt;
}

}  // namespace dryfit
