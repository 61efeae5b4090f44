// A user's price list of any bytes: values or an error with a place, never a crash.
#include <cstdlib>

#include "speed/prices.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto prices = dryfit::read_prices(std::string_view(reinterpret_cast<const char*>(data), size), "prices");
  if (!prices) {
    if (prices.error().message.empty() || prices.error().hint.empty() || prices.error().where.empty()) std::abort();
    return 0;
  }
  for (const dryfit::Price& p : *prices) {
    if (p.gpu.empty() || p.gpus < 1 || !(p.usd_per_gpu_hour >= 0)) std::abort();
  }
  return 0;
}
