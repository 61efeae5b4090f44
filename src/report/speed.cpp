// See speed.hpp.
#include "report/speed.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "report/screen.hpp"

namespace dryfit {

namespace {

std::string seconds_text(double s) { return s < 1 ? fmt::format("{:.1f} ms", s * 1e3) : fmt::format("{:.2f} s", s); }

}  // namespace

std::string price_text(const Price& p) {
  // a price of one's own need not say when it was seen
  const std::string seen = !p.seen.empty() ? ", seen " + p.seen : p.source.empty() ? "" : ", day not known";
  return fmt::format("${:.2f} a GPU-hour{}{}{}", p.usd_per_gpu_hour, p.provider.empty() ? "" : " at " + p.provider, p.kind == "on-demand" ? "" : ", " + p.kind, seen);
}

bool days_known(std::span<const Offer> offers) {
  return std::ranges::any_of(offers, [](const Offer& o) { return !o.price.seen.empty(); });
}

std::string prices_note(std::span<const Offer> offers) {
  const bool examples = std::ranges::all_of(offers, [](const Offer& o) { return std::ranges::find(known_prices(), o.price) != known_prices().end(); });
  return examples ? " Prices are examples (no day: not known) with their sources in data/prices.csv; --prices FILE takes yours" : "";
}

std::string short_rate_text(double r) { return r >= 1e6 ? fmt::format("{:.2f} M", r / 1e6) : r >= 1e3 ? fmt::format("{:.1f} k", r / 1e3) : fmt::format("{:.0f}", r); }
std::string rate_text(double r) { return short_rate_text(r) + " tok/s"; }

std::string usd_text(double usd) { return usd >= 10 ? fmt::format("${:.0f}", usd) : fmt::format("${:.2f}", usd); }

std::string small_usd_text(double usd) { return fmt::format("${:.{}f}", usd, usd < 0.1 ? 4 : 2); }

std::string speed_line(const Report& r) {
  if (!r.speed) return "";
  const SpeedEstimate& s = *r.speed;
  std::string out = fmt::format("{} ({} to {}), step {}", rate_text(s.tokens_per_second), rate_text(s.low), rate_text(s.high), seconds_text(s.step_seconds));
  if (s.mfu) out += fmt::format(", mfu {:.0f} %", *s.mfu * 100);
  if (const auto seconds = s.horizon_seconds()) out += fmt::format("; {}: {}", s.horizon->rule, duration_text(*seconds));
  if (const std::string cost = cost_text(s, r.machine.gpus); !cost.empty()) out += ", " + cost;
  return out;
}

std::string cost_text(const SpeedEstimate& s, std::int64_t gpus) {
  if (const auto usd = s.horizon_usd(gpus)) return usd_text(*usd);
  const auto usd = s.usd_per_million_tokens(gpus);
  return usd ? small_usd_text(*usd) + " a million tokens" : "";
}

std::string speed_section(const Report& r, const Style& style) {
  if (!r.speed) return std::string("\n  speed\n    ") + (r.workload.captured ? "not derived for captured runs" : r.workload.transformers && r.workload.transformers->training.rollouts ? "not derived for rollouts, whose time is that of writing" : "not known for this GPU" + std::string(r.workload.transformers && r.workload.transformers->training.framework == Framework::megatron ? ", and not derived for Megatron-LM's runs" : ", or for more GPUs than one node joins")) + "\n";
  const SpeedEstimate& s = *r.speed;
  std::string out = "\n  speed\n    " + speed_line(r) + "\n";
  if (s.provenance == Provenance::calibrated) out += fmt::format("    learned from runs here; the model says {}\n", seconds_text(s.parts.seconds));
  if (!s.horizon && s.price) out += "    " + price_text(*s.price) + "\n";
  if (s.horizon) out += fmt::format("    {} steps of {} tokens; training steps alone, without evaluations and compilation{}\n", s.horizon->iterations, r.workload.run.total_batch_size, s.price ? "; " + price_text(*s.price) : "");
  if (s.parts.loading > 0.05 * s.parts.seconds) {
    out += fmt::format("    the GPU waits {:.0f} % of the step for nanochat's data loader (each rank reads, tokenizes and packs its own text): the host's CPU decides\n", s.parts.loading / s.parts.seconds * 100);
  }
  if (!style.verbose) return out;
  const auto line = [&](std::string_view name, double seconds) {
    if (seconds > 0) out += fmt::format("      {:<14} {:>10}  {:>3.0f} %\n", name, seconds_text(seconds), seconds / s.parts.seconds * 100);
  };
  for (int k = 0; k < kWorkKinds; ++k) line(name_of(static_cast<WorkKind>(k)), s.parts.by_kind[static_cast<std::size_t>(k)]);
  line("host launches", s.parts.waiting);
  line("data loader", s.parts.loading);
  out += fmt::format("      {:<14} {:>10}  no implementation is faster\n", "roofline", seconds_text(s.parts.roofline));
  return out;
}

std::string offers_text(std::span<const Offer> offers, const Style& style) {
  if (offers.empty()) return "no priced GPU is known to fit this and to have a speed; give prices with --prices FILE\n";
  const Report& first = offers.front().report;
  const bool days = days_known(offers);
  std::string out = fmt::format("d{}, {}: {:.2f} B tokens\n\n  GPUs                               provider           $/GPU-hour  batch        tok/s        time     cost{}\n", first.workload.model.depth, first.speed->horizon->rule, first.speed->horizon->tokens / 1e9, days ? "  seen" : "");
  for (const Offer& o : offers) {
    const SpeedEstimate& s = *o.report.speed;
    out += fmt::format("{} {:<34} {:<20} {:>8.2f} {:>6} {:>12} {:>11} {:>8}{}\n", o.best ? (style.ascii ? ">" : "▸") : " ", fmt::format("{} x {}", o.price.gpus, short_gpu(o.price.gpu)).substr(0, 34), (o.price.provider + (o.price.kind == "on-demand" ? "" : " " + o.price.kind)).substr(0, 20),
                       o.price.usd_per_gpu_hour, o.report.workload.run.device_batch_size, rate_text(s.tokens_per_second), duration_text(*s.horizon_seconds()), usd_text(*s.horizon_usd(o.price.gpus)), o.price.seen.empty() ? "" : "  " + o.price.seen);
  }
  out += fmt::format("\n{} no other offer is both faster and cheaper. Training steps alone.{}\n", style.ascii ? ">" : "▸", prices_note(offers));
  return out;
}

}  // namespace dryfit
