// See sample.hpp.
#include "machine/sample.hpp"

#include <array>

namespace dryfit {

namespace {

constexpr std::array kAll = {Throttle::idle, Throttle::application_clocks, Throttle::power_cap, Throttle::hardware_slowdown, Throttle::sync_boost,
                             Throttle::thermal, Throttle::hardware_thermal, Throttle::power_brake, Throttle::display};

}  // namespace

std::string_view name_of(Throttle reason) {
  switch (reason) {
    case Throttle::idle: return "idle";
    case Throttle::application_clocks: return "application_clocks";
    case Throttle::power_cap: return "power_cap";
    case Throttle::hardware_slowdown: return "hardware_slowdown";
    case Throttle::sync_boost: return "sync_boost";
    case Throttle::thermal: return "thermal";
    case Throttle::hardware_thermal: return "hardware_thermal";
    case Throttle::power_brake: return "power_brake";
    case Throttle::display: return "display";
  }
  return "";
}

std::vector<std::string_view> throttle_names(std::uint64_t reasons) {
  std::vector<std::string_view> out;
  for (Throttle t : kAll) {
    if ((reasons & static_cast<std::uint64_t>(t)) != 0) out.push_back(name_of(t));
  }
  return out;
}

}  // namespace dryfit
