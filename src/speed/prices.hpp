// Prices: what a GPU costs by the hour. The embedded list is data/prices.csv (illustrative, each row with its source and the day it was
// read); a user's own file replaces it. No network.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "machine/machine.hpp"

namespace dryfit {

struct Price {
  std::string gpu;                   // the catalogue's name, or as given where the card is not known
  std::string provider;
  std::int64_t gpus = 1;             // GPUs of one instance: the price is for so many or fewer instances of it
  double usd_per_gpu_hour = 0;
  std::string kind;                  // "on-demand", "spot", "marketplace"
  std::string seen;                  // ISO date; empty: not known
  std::string source;
  friend bool operator==(const Price&, const Price&) = default;
};

// Columns by name in the first line: gpu, usd_per_gpu_hour; provider, gpus, kind, seen, source may be left out.
// Errors: "bad_prices" with the line. where: the file's name.
Result<std::vector<Price>> read_prices(std::string_view csv, std::string_view where);
std::span<const Price> known_prices();

// The cheapest on-demand price of this card for that many GPUs; else the cheapest of any kind.
std::optional<Price> price_of(std::span<const Price> prices, const GpuKind& gpu, std::int64_t gpus);

}  // namespace dryfit
