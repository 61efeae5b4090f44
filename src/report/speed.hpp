// Speed, time and money as text: the line of check, the section of explain, the offers of plan.
#pragma once

#include <span>
#include <string>

#include "plan/plan.hpp"
#include "report/text.hpp"

namespace dryfit {

std::string rate_text(double tokens_per_second);  // "1.07 M tok/s", "38.1 k tok/s"
std::string short_rate_text(double tokens_per_second);  // "1.07 M", "38.1 k"
std::string usd_text(double usd);                 // "$48", "$0.35"
std::string small_usd_text(double usd);           // "$0.42", "$0.0130"
std::string cost_text(const SpeedEstimate& speed, std::int64_t gpus);  // to its horizon, else "$0.42 a million tokens"; empty where no price is known
std::string speed_line(const Report& report);     // one line without its end; empty: no speed is known
std::string speed_section(const Report& report, const Style& style);  // of explain
std::string price_text(const Price& price);       // "$2.29 a GPU-hour at Verda, day not known"
bool days_known(std::span<const Offer> offers);   // of one price at least
std::string prices_note(std::span<const Offer> offers);  // a sentence with a space before it; empty where they are the user's own
std::string offers_text(std::span<const Offer> offers, const Style& style);

}  // namespace dryfit
