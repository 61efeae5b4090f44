// The screens of check, plan, table, list and errors. explain has its own file.
#include "report/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/text.hpp"
#include "plan/alternatives.hpp"
#include "report/screen.hpp"
#include "report/speed.hpp"

namespace dryfit {

std::string short_gpu(std::string_view name) {
  std::string out(name);
  for (std::string_view drop : {"NVIDIA GeForce ", "NVIDIA ", "AMD Instinct ", "AMD "}) {
    if (out.starts_with(drop)) {
      out = out.substr(drop.size());
      break;
    }
  }
  return out;
}

std::string gib_text(Bytes b) {
  if (std::llabs(b.count) < (std::int64_t{1} << 30)) return fmt::format("{:.0f} MiB", b.mib());
  return fmt::format("{:.1f} GiB", b.gib());
}

std::string count_text(std::int64_t n) {
  if (n >= 1'000'000'000) return fmt::format("{:.2f} B", static_cast<double>(n) / 1e9);
  return fmt::format("{:.0f} M", static_cast<double>(n) / 1e6);
}

std::string check_text(const Report& r, const Style& style) {
  const Bytes usable = r.machine.usable();
  const Bytes band = r.process.high - r.process.bytes;
  std::string word = r.verdict == Verdict::fits ? paint("fits", "32;1", style) : r.verdict == Verdict::tight ? paint("tight", "33;1", style) : paint("won't fit", "31;1", style);
  std::string out = fmt::format("{}: peak {} of {} usable, {} {} (up to {} more is possible)\n", word, gib_text(r.process.bytes), gib_text(usable),
                                r.headroom >= Bytes(0) ? "to spare" : "over by", gib_text(r.headroom >= Bytes(0) ? r.headroom : -r.headroom), gib_text(band));
  if (style.quiet) return out;
  out += fmt::format("  torch.cuda.max_memory_allocated: {:.2f} MiB, at {} of {}\n", r.allocated.bytes.mib(), r.peak_event, r.peak_phase);
  if (r.speed && r.verdict != Verdict::wont_fit) out += "  speed: " + speed_line(r) + "\n";
  if (r.verdict != Verdict::fits) {
    if (const Alternative* a = smallest_change(r)) out += fmt::format("  smallest change: {}  -> {} ({})\n", change_text(*a), gib_text(*a->process), a->note);
    else if (r.workload.captured) out += "  make the batch smaller, or checkpoint activations, and capture it again\n";
    else out += r.workload.transformers ? "  no change of arguments that was tried makes it fit: use a smaller model or a larger GPU (dryfit plan)\n" : "  no single change of a flag makes it fit: use a smaller depth or a larger GPU (dryfit plan)\n";
  }
  return out;
}

std::string assumptions_text(const Report& r) {
  std::string out;
  for (const Assumption& a : r.assumptions) {
    std::string key = a.key;
    std::ranges::replace(key, '_', '-');
    out += fmt::format("using --{} {} ({})\n", key, a.value, a.source);
  }
  for (const std::string& n : r.machine.notes) {
    if (std::ranges::find(r.warnings, n) == r.warnings.end()) out += "note: " + n + "\n";
  }
  for (const std::string& w : r.warnings) out += "warning: " + w + "\n";
  return out;
}

std::string plan_text(const PlanResult& plan, const Machine& m, const Style& style) {
  std::string out = fmt::format("{} x {}   usable {} of {} each\n\n", m.gpus, short_gpu(m.gpu.name), gib_text(m.usable()), gib_text(m.total));
  if (plan.plans.empty()) {
    out += plan.why + "\n\n" + check_text(*plan.closest, style);
    const Alternative* change = smallest_change(*plan.closest);
    const std::string command = change != nullptr ? command_of(*change, *plan.closest) : "";
    return command.empty() ? out : out + "\n" + command + "\n";
  }
  const bool speeds = std::ranges::any_of(plan.plans, [](const Report& r) { return r.speed.has_value(); });
  const bool money = std::ranges::any_of(plan.plans, [](const Report& r) { return r.speed && r.speed->horizon_usd(r.machine.gpus); });
  out += fmt::format("  depth   params  device batch  accum       peak             headroom{}{}\n", speeds ? "         tok/s        time" : "", money ? "    cost" : "");
  for (std::size_t i = 0; i < plan.plans.size(); ++i) {
    const Report& r = plan.plans[i];
    const Run& run = r.workload.run;
    const double share = r.headroom.gib() / m.usable().gib() * 100;
    std::string line = fmt::format("{} {:>5} {:>8}  {:>12}  {:>5}  {:>9}  {:>9} {:>3.0f} %{}", i == plan.chosen ? (style.ascii ? ">" : "▸") : " ", r.workload.model.depth, count_text(r.workload.model.param_count()),
                                         run.device_batch_size, run.grad_accum_steps, gib_text(r.process.bytes), gib_text(r.headroom), share, r.verdict == Verdict::tight ? "  tight" : "");
    if (r.speed) line += fmt::format(" {:>13} {:>11}", rate_text(r.speed->tokens_per_second), r.speed->horizon ? duration_text(*r.speed->horizon_seconds()) : "");
    if (const auto usd = r.speed ? r.speed->horizon_usd(m.gpus) : std::nullopt) line += fmt::format(" {:>7}", usd_text(*usd));
    out += (i == plan.chosen ? paint(line, "1", style) : line) + "\n";
  }
  const Report& best = plan.plans[plan.chosen];
  out += fmt::format("\nchosen: {}\n", plan.why);
  if (best.speed && best.speed->horizon) {
    out += fmt::format("time: to {}, training steps alone; 95 % of runs between {:+.0f} and {:+.0f} % of the speed", best.speed->horizon->rule, (best.speed->low / best.speed->tokens_per_second - 1) * 100, (best.speed->high / best.speed->tokens_per_second - 1) * 100);
    if (best.speed->price) out += "; " + price_text(*best.speed->price);
    out += "\n";
  }
  out += "\n";
  out += best.command + "\n\n";
  for (const Alternative& a : best.alternatives) {
    if (a.process && a.verdict == Verdict::fits) out += fmt::format("with {} before it: peak {}, headroom {}\n\n", change_text(a), gib_text(*a.process), gib_text(best.machine.usable() - *a.process));
  }
  if (m.gpus > 8) out += "for several machines: --emit torchrun, slurm, kubernetes, trainjob, skypilot or ray\n\n";
  const Run& run = best.workload.run;
  out += fmt::format("{} x {} x {} = {} tokens a micro-step; total {} -> {} accumulation step{}\n", run.device_batch_size, run.max_seq_len, run.world_size, run.device_batch_size * run.max_seq_len * run.world_size, run.total_batch_size, run.grad_accum_steps, run.grad_accum_steps == 1 ? "" : "s");
  return out;
}

std::string table_text(std::span<const TableRow> rows, std::int64_t gpus, const Style& style) {
  std::vector<std::int64_t> depths;
  for (const TableRow& row : rows) {
    if (std::ranges::find(depths, row.depth) == depths.end()) depths.push_back(row.depth);
  }
  std::size_t widest = 4;
  for (const TableRow& row : rows) widest = std::max(widest, std::min<std::size_t>(28, short_gpu(row.gpu).size()));
  std::string out = fmt::format("{:<{}} {:>10}", "", widest + 2, "usable");
  for (std::int64_t d : depths) out += fmt::format("{:>6}", fmt::format("d{}", d));
  out += "\n";
  std::string last;
  Bytes last_usable;
  for (const TableRow& row : rows) {
    if (row.gpu != last || row.usable != last_usable) {
      out += fmt::format("{}  {:<{}} {:>10}", last.empty() ? "" : "\n", short_gpu(row.gpu).substr(0, 28), widest, gib_text(row.usable));
      last = row.gpu;
      last_usable = row.usable;
    }
    out += fmt::format("{:>6}", row.device_batch_size ? std::to_string(*row.device_batch_size) : (style.ascii ? "-" : "–"));
  }
  out += fmt::format("\n\nlargest device batch that fits, {} GPU{}; {} does not fit at 1\n", gpus, gpus == 1 ? "" : "s", style.ascii ? "-" : "–");
  return out;
}

std::string table_csv(std::span<const TableRow> rows) {
  const bool ways = std::ranges::any_of(rows, [](const TableRow& row) { return row.way.has_value(); });
  std::string out = fmt::format("gpu,usable_bytes,depth,device_batch_size,allocated_bytes{}\n", ways ? ",method,recompute,shard,tokens_per_second" : "");
  for (const TableRow& row : rows) {
    out += fmt::format("{},{},{},{},{}", row.gpu, row.usable.count, row.depth, row.device_batch_size ? std::to_string(*row.device_batch_size) : "", row.allocated ? std::to_string(row.allocated->count) : "");
    if (row.way) out += fmt::format(",{},{},{},{}", row.way->method, name_of(row.way->recompute), name_of(row.way->sharding), row.tokens_per_second ? fmt::format("{:.0f}", *row.tokens_per_second) : "");
    out += "\n";
  }
  return out;
}

std::string rule_text(const RuleOfThumb& r, std::optional<std::int64_t> engine, const Style&) {
  std::string out = fmt::format("rule of thumb for {} GB, depth {} (the seed's calculate_config, to the letter)\n\n", r.gpu_memory, r.depth);
  out += fmt::format("  gpu_memory                 {}\n  depth                      {}\n  model_params               {}\n  model_memory               {}\n  optimizer_memory           {}\n"
                     "  available_for_activations  {}\n  recommended_batch_size     {}\n  safe_batch_size            {}\n\n",
                     r.gpu_memory, r.depth, r.model_params, r.model_memory, r.optimizer_memory, r.available_for_activations, r.recommended_batch_size, r.safe_batch_size);
  if (!r.note.empty()) out += "note: " + r.note + "\n";
  out += fmt::format("the engine says: {}\n", engine ? fmt::format("device batch {} is the largest that fits", *engine) : "no device batch fits");
  out += "why they differ: the rule takes a vocabulary of 50257 (nanochat: 32768 and value embeddings), grouped KV heads\n"
         "(nanochat: none), bf16 weights and AdamW everywhere (fp32 masters, Muon), 10 bytes per activation (about 40),\n"
         "and leaves out gradients and logits.\n";
  return out;
}

std::string models_text(std::span<const Workload> models) {
  std::string out = "depth  width  heads    params  matrices  lm_head      wte  value emb    weights  auto total\n";
  for (const Workload& w : models) {
    const Model& m = w.model;
    Bytes weights;
    for (const Parameter& p : m.parameters) weights += p.bytes();
    out += fmt::format("{:>5}  {:>5}  {:>5}  {:>8}  {:>8}  {:>7}  {:>7}  {:>9}  {:>9}  {:>10}\n", m.depth, m.width, m.heads, count_text(m.param_count()), count_text(m.param_count(ParamGroup::transformer_matrices)),
                       count_text(m.param_count(ParamGroup::lm_head)), count_text(m.param_count(ParamGroup::wte)), count_text(m.param_count(ParamGroup::value_embeds)), gib_text(weights), w.run.total_batch_size);
  }
  return out;
}

std::string versions_text() {
  std::string out = "epoch  since       commit   what is different for memory\n";
  for (const NanochatVersion& v : nanochat_versions()) {
    std::string what = v.autocast ? "autocast" : "explicit casts";
    what += v.flash_attention3_ampere ? ", FA3 (Ampere and Ada too)" : v.flash_attention3 ? ", FA3" : ", SDPA";
    if (v.window) what += ", windows";
    if (v.value_embeds) what += ", value embeddings";
    if (v.smear_backout) what += ", smear and backout";
    if (v.fp8_available) what += ", fp8";
    out += fmt::format("{:<5}  {}  {}  V {}, {}\n", v.epoch, v.date, v.commit, v.default_vocab, what);
  }
  return out;
}

std::string gpus_text(std::string_view filter) {
  std::string out = fmt::format("{:<44} {:>11} {:>11}  {}\n", "name", "total", "usable", "capability");
  const std::string wanted = to_lower(filter);
  for (const GpuKind& g : gpu_catalogue()) {
    if (!wanted.empty() && to_lower(g.name).find(wanted) == std::string::npos) continue;
    out += fmt::format("{:<44} {:>11} {:>11}  {}\n", g.name, gib_text(g.total), gib_text(g.total - g.driver_reserve), g.compute_major ? fmt::format("{}.{}", g.compute_major, g.compute_minor) : "-");
  }
  return out;
}

std::string error_text(const Error& e, const Style& style) {
  return fmt::format("{} {}{}\n{}  {}\n", paint("error:", "31;1", style), e.message, e.where.empty() || e.message.find(e.where) != std::string::npos ? "" : " (" + e.where + ")", paint("hint:", "36", style), e.hint);
}

}  // namespace dryfit
