// See transformers_plan.hpp.
#include "report/transformers_plan.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "plan/alternatives.hpp"
#include "report/screen.hpp"
#include "report/speed.hpp"

namespace dryfit {

namespace {

std::string model_line(const HfModel& model) {
  std::int64_t parameters = 0;
  for (const Parameter& p : parameters_of(model.architecture)) parameters += p.count();
  return fmt::format("{}   {} parameters", model.architecture.name, count_text(parameters));
}

// tok/s and MFU; time and cost to the horizon, or what a million tokens cost.
std::string speed_columns(const SpeedEstimate& s, std::int64_t gpus) {
  std::string out = fmt::format("  {:>13} {:>4.0f} %", rate_text(s.tokens_per_second), s.mfu.value_or(0) * 100);
  if (const auto seconds = s.horizon_seconds()) {
    out += fmt::format(" {:>11}", duration_text(*seconds));
    if (const auto usd = s.horizon_usd(gpus)) out += fmt::format(" {:>7}", usd_text(*usd));
  } else if (const auto usd = s.usd_per_million_tokens(gpus)) {
    out += fmt::format("  {:>7}", small_usd_text(*usd));
  }
  return out;
}

std::string speed_titles(const TransformersPlan& plan, std::int64_t gpus) {
  const auto known = std::ranges::find_if(plan.candidates, [](const Candidate& c) { return c.fits && c.report.speed; });
  if (known == plan.candidates.end()) return "";
  const SpeedEstimate& s = *known->report.speed;
  if (s.horizon) return std::string("          tok/s    mfu        time") + (s.price ? "    cost" : "");
  return std::string("          tok/s    mfu") + (s.usd_per_million_tokens(gpus) ? "  $/M tok" : "");
}

// What the columns mean, below them.
std::string speed_note(const Report& r) {
  const SpeedEstimate& s = *r.speed;
  const auto percent = [&](double edge) { return (edge / s.tokens_per_second - 1) * 100; };
  std::string out = s.horizon ? fmt::format("time: {} steps of {} tokens, training steps alone; ", s.horizon->iterations, r.workload.run.total_batch_size) : "speed: of training steps alone; ";
  out += fmt::format("95 % of runs between {:+.0f} and {:+.0f} % of it", percent(s.low), percent(s.high));
  if (s.price) out += "; " + price_text(*s.price);
  return out + "\n";
}

std::string candidate_line(const Candidate& c, bool chosen, bool several, const Style& style) {
  const Report& r = c.report;
  const Training& t = r.workload.transformers->training;
  const double share = r.headroom.gib() / r.machine.usable().gib() * 100;
  std::string out = fmt::format("{} {:<6}  {:<9}", chosen ? (style.ascii ? ">" : "▸") : " ", name_of(c.method), name_of(t.recompute));
  if (several) out += fmt::format("  {:<13}", name_of(t.sharding));
  // a dash takes three bytes, and one place on the screen
  out += c.fits ? fmt::format("  {:>12}", r.workload.run.device_batch_size) : fmt::format("  {:>12}", style.ascii ? "-" : std::string(11, ' ') + "–");
  out += fmt::format(" {}{:>9}  {:>9} {:>4.0f} %", c.at_least ? ">" : " ", gib_text(r.process.bytes), gib_text(r.headroom), share);
  if (c.fits && r.speed) out += speed_columns(*r.speed, r.machine.gpus);
  if (r.verdict == Verdict::tight) out += "  tight";
  return chosen ? paint(out, "1", style) : out;
}

std::string missed_text(const Missed& missed, const OwnCommands& commands) {
  std::string out = fmt::format("{} would fit\n", name_of(missed.method));
  if (missed.change) out += fmt::format("  with {}: peak {} ({})\n", change_text(*missed.change), gib_text(*missed.change->process), missed.change->note);
  else if (!missed.on_host) out += "  with no single change of an argument here\n";
  if (missed.on_host) out += fmt::format("  with {}: peak {} ({})\n", change_text(*missed.on_host), gib_text(*missed.on_host->process), missed.on_host->note);
  if (missed.on_host) out += "    " + missed.on_host->command + "\n";
  if (!missed.rent) return out + "  on none of the priced machines of up to 8 GPUs (data/prices.csv, --prices FILE)\n";
  const Rent& rent = *missed.rent;
  const Machine& m = rent.report.machine;
  out += fmt::format("  on {} x {}, {} an hour{}{}: {} --gpu \"{}\" --gpus {}\n", m.gpus, short_gpu(m.gpu.name), usd_text(rent.usd_per_hour()), rent.price.provider.empty() ? "" : " at " + rent.price.provider,
                     rent.price.kind == "on-demand" ? "" : ", " + rent.price.kind, commands.plan, short_gpu(m.gpu.name), m.gpus);
  return out;
}

// "full", "lora+r"; with recomputation.
std::string column_of(const TableRow::Way& way) { return way.method + (way.recompute == Recompute::full ? "+r" : ""); }

}  // namespace

std::string plan_text(const TransformersPlan& plan, const HfModel& model, const Machine& m, const OwnCommands& commands, const Style& style) {
  std::string out = fmt::format("{} x {}   usable {} of {} each\n", m.gpus, short_gpu(m.gpu.name), gib_text(m.usable()), gib_text(m.total));
  const Run& shape = plan.candidates.front().report.workload.run;
  out += fmt::format("{}, rows of {} tokens\n\n", model_line(model), shape.max_seq_len);
  const bool several = m.gpus > 1;
  out += fmt::format("  method  recompute{}  device batch       peak           headroom{}\n", several ? "  parallel     " : "", speed_titles(plan, m.gpus));
  for (std::size_t i = 0; i < plan.candidates.size(); ++i) out += candidate_line(plan.candidates[i], i == plan.chosen, several, style) + "\n";
  const bool none = std::ranges::any_of(plan.candidates, [](const Candidate& c) { return !c.fits; });
  const bool at_least = std::ranges::any_of(plan.candidates, &Candidate::at_least);
  if (none) out += fmt::format("{}: not even the smallest device batch fits; its peak is shown{}\n", style.ascii ? "-" : "–", at_least ? ", or > weights, gradients and optimizer states alone" : "");
  if (!plan.chosen) {
    out += "\nnothing fits\n";
  } else {
    const Report& best = plan.candidates[*plan.chosen].report;
    const Run& run = best.workload.run;
    out += fmt::format("\nchosen: {}\n{}\n{}\n\n", plan.why, best.speed ? speed_note(best) : "", best.command);
    for (const Alternative& a : best.alternatives) {
      if (a.process && a.verdict == Verdict::fits) out += fmt::format("with {} before it: peak {}, headroom {}\n\n", change_text(a), gib_text(*a.process), gib_text(best.machine.usable() - *a.process));
    }
    const std::int64_t rows = run.device_batch_size * rows_of_sample(best.workload);
    out += fmt::format("{} x {} x {} = {} tokens a micro-step; total {} -> {} accumulation step{}\n", rows, run.max_seq_len, run.world_size, rows * run.max_seq_len * run.world_size, run.total_batch_size, run.grad_accum_steps, run.grad_accum_steps == 1 ? "" : "s");
    if (has_unnamed_script(*best.workload.transformers)) out += "train.py: your script around transformers' Trainer\n";
    out += "\ncheck it: " + commands.check + "\n";
  }
  for (const Missed& missed : plan.missed) out += "\n" + missed_text(missed, commands);
  return out;
}

std::string offers_text(std::span<const Offer> offers, const HfModel& model, const Style& style) {
  if (offers.empty()) return offers_text(offers, style);
  const Report& first = offers.front().report;
  const auto& horizon = first.speed->horizon;
  std::string out = fmt::format("{}, rows of {} tokens{}\n\n", model_line(model), first.workload.run.max_seq_len, horizon ? fmt::format("; {}: {:.3g} B tokens", horizon->rule, horizon->tokens / 1e9) : "");
  const bool days = days_known(offers);
  out += fmt::format("  {:<30}{:<20}{:>10}  method  recompute  parallel  batch{:>15}{}{}\n", "GPUs", "provider", "$/GPU-hour", "tok/s", horizon ? "        time     cost" : "  $/B tok", days ? "  seen" : "");
  for (const Offer& o : offers) {
    const Report& r = o.report;
    const Training& t = r.workload.transformers->training;
    const SpeedEstimate& s = *r.speed;
    out += fmt::format("{} {:<30}{:<20}{:>10.2f}  {:<6}  {:<9}  {:<8} {:>6}{:>15}", o.best ? (style.ascii ? ">" : "▸") : " ", fmt::format("{} x {}", r.machine.gpus, short_gpu(o.price.gpu)).substr(0, 29),
                       (o.price.provider + (o.price.kind == "on-demand" ? "" : " " + o.price.kind)).substr(0, 19), o.price.usd_per_gpu_hour, name_of(method_of(t)), name_of(t.recompute), r.machine.gpus > 1 ? name_of(t.sharding) : "", r.workload.run.device_batch_size, rate_text(s.tokens_per_second));
    if (horizon) out += fmt::format("{:>12}{:>9}", duration_text(*s.horizon_seconds()), usd_text(*s.horizon_usd(r.machine.gpus)));
    else out += fmt::format("{:>9}", usd_text(*s.usd_per_million_tokens(r.machine.gpus) * 1000));
    out += (o.price.seen.empty() ? "" : "  " + o.price.seen) + "\n";
  }
  out += fmt::format("\n{} no other offer of the same method is both faster and cheaper; of the others each price at the number of GPUs that costs least. On each machine plan's choice there:\n"
                     "the fastest way of the first of full, lora, qlora that fits, with its own batch where none is given. Training steps alone.{}\n",
                     style.ascii ? ">" : "▸", prices_note(offers));
  if (!horizon) out += "--max-tokens N: time and cost of so many tokens\n";
  return out;
}

std::string table_text(std::span<const TableRow> rows, const HfModel& model, std::int64_t gpus, const Style& style) {
  const bool speeds = std::ranges::any_of(rows, [](const TableRow& row) { return row.tokens_per_second.has_value(); });
  std::vector<std::string> columns;
  std::string shardings;
  std::size_t widest = 4;
  for (const TableRow& row : rows) {
    widest = std::max(widest, std::min<std::size_t>(28, short_gpu(row.gpu).size()));
    if (std::ranges::find(columns, column_of(*row.way)) != columns.end()) continue;
    columns.push_back(column_of(*row.way));
    if (gpus > 1) shardings += fmt::format("{}{} {}", shardings.empty() ? "; " : ", ", columns.back(), name_of(row.way->sharding));
  }
  std::string out = model_line(model) + "\n\n" + fmt::format("{:<{}} {:>10}", "", widest + 2, "usable");
  for (const std::string& c : columns) out += fmt::format("{:>9}", c);
  for (auto row = rows.begin(); row != rows.end();) {
    const auto end = std::find_if(row, rows.end(), [&](const TableRow& r) { return r.gpu != row->gpu || r.usable != row->usable; });
    out += fmt::format("\n  {:<{}} {:>10}", short_gpu(row->gpu).substr(0, 28), widest, gib_text(row->usable));
    for (const std::string& c : columns) {
      const auto cell = std::find_if(row, end, [&](const TableRow& r) { return column_of(*r.way) == c; });
      out += fmt::format("{:>9}", cell == end ? "" : cell->device_batch_size ? std::to_string(*cell->device_batch_size) : (style.ascii ? "-" : "–"));
    }
    if (speeds) {
      out += fmt::format("\n  {:<{}} {:>10}", "", widest, "");
      for (const std::string& c : columns) {
        const auto cell = std::find_if(row, end, [&](const TableRow& r) { return column_of(*r.way) == c; });
        out += fmt::format("{:>9}", cell != end && cell->tokens_per_second ? short_rate_text(*cell->tokens_per_second) : "");
      }
    }
    row = end;
  }
  out += fmt::format("\n\nlargest device batch that fits{}, {} GPU{}{}; +r: with gradient checkpointing; {} does not fit at 1\n", speeds ? "; below it tokens a second" : "", gpus, gpus == 1 ? "" : "s", shardings, style.ascii ? "-" : "–");
  return out;
}

}  // namespace dryfit
