// explain: the ladder of numbers, categories with a bar, largest tensors, phases, levers; the timeline as text and as SVG.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "report/chart.hpp"
#include "report/speed.hpp"
#include "report/text.hpp"

namespace dryfit {

namespace {

constexpr const char* kMeaning[] = {"", "", "", "", "", "cuBLAS workspaces, data, scratch", "held by un-waited NCCL works", "CUDA context, kernels, NCCL (outside PyTorch's count)", "cached and not in use: splitting, rounding, what evaluations leave"};

// "d20", "llama-3.1-8b"; the name a user gave may hold anything.
std::string model_name(const Workload& w) {
  if (!w.transformers && !w.captured) return "d" + std::to_string(w.model.depth);
  std::string out;
  for (char c : w.captured ? w.captured->script : w.transformers->architecture.name.empty() ? w.transformers->architecture.model_type : w.transformers->architecture.name) {
    if (static_cast<unsigned char>(c) >= 32 && c != '<' && c != '>' && c != '&') out += c;
  }
  return out.substr(0, 60);
}

std::string bar(const Report& r, const Style& style) {
  const int room = std::clamp(style.width - 26, 20, 72);
  const double usable = std::max(1.0, static_cast<double>(std::max(r.machine.usable(), r.process.bytes).count));
  std::string out;
  double position = 0;
  int drawn = 0;
  for (const CategoryBytes& c : r.categories) {
    const Look look = look_of(c.category);
    position += static_cast<double>(c.at_peak.count) / usable * room;
    const int upto = std::min(room, static_cast<int>(std::lround(position)));
    if (upto <= drawn) continue;
    const auto n = static_cast<std::size_t>(upto - drawn);
    if (style.colour && !style.ascii) {
      out += fmt::format("\x1b[{}m", look.colour);
      for (std::size_t i = 0; i < n; ++i) out += "█";
      out += "\x1b[0m";
    } else {
      out += std::string(n, look.letter);
    }
    drawn = upto;
  }
  for (; drawn < room; ++drawn) out += style.ascii ? "." : "·";
  return out;
}

std::string levers(const Report& r) {
  std::string out = "\n  what would change it\n";
  for (const Alternative& a : r.alternatives) {
    const std::string difference = a.process ? fmt::format("{}{}", *a.process >= r.process.bytes ? "+" : "-", gib_text(*a.process >= r.process.bytes ? *a.process - r.process.bytes : r.process.bytes - *a.process)) : "?";
    const char* verdict = !a.verdict ? "" : *a.verdict == Verdict::fits ? "fits" : *a.verdict == Verdict::tight ? "tight" : "won't fit";
    out += fmt::format("    {:<32} {:>10}  {:<9}  {}{}{}\n", change_text(a), difference, verdict, a.identical_training ? "same training" : "other training",
                       a.step_time_ratio && std::fabs(*a.step_time_ratio - 1) > 0.005 ? fmt::format(", step x{:.2f}", *a.step_time_ratio) : "", a.needs_code_change ? ", code change" : "");
    out += fmt::format("        {}\n", a.note);
  }
  return out;
}

// Tensors of one role in different layers are one row.
std::string largest(const Report& r, std::size_t most) {
  struct Row { std::int64_t bytes = 0; int count = 0; const TensorInfo* first = nullptr; };
  std::map<std::string, Row> rows;
  for (const TensorInfo& t : r.live) {
    Row& row = rows[std::string(t.role) + "/" + std::string(name_of(t.dtype)) + "/" + std::string(name_of(t.category))];
    row.bytes += t.bytes;
    ++row.count;
    if (row.first == nullptr) row.first = &t;
  }
  std::vector<Row> sorted;
  for (const auto& [key, row] : rows) sorted.push_back(row);
  std::ranges::stable_sort(sorted, std::greater<>{}, &Row::bytes);
  std::string out = "\n  largest at the peak\n";
  for (std::size_t i = 0; i < sorted.size() && i < most; ++i) {
    const TensorInfo& t = *sorted[i].first;
    std::string shape;
    for (std::uint8_t d = 0; d < t.shape.rank; ++d) shape += (d ? "x" : "") + std::to_string(t.shape.dim[d]);
    out += fmt::format("    {:>10}  {:<24} {:>4} x {:<28} {}\n", gib_text(Bytes(sorted[i].bytes)), t.role, sorted[i].count, shape + " " + std::string(name_of(t.dtype)), name_of(t.category));
  }
  return out;
}

std::string accumulation(const Report& r) {
  const Run& run = r.workload.run;
  const std::int64_t together = model_parallel_of(r.workload), replicas = run.world_size / together, rows = run.device_batch_size * rows_of_sample(r.workload), tokens = rows * run.max_seq_len * replicas;
  const std::string takers = together == 1 ? fmt::format("{} GPU{}", replicas, replicas == 1 ? "" : "s") : fmt::format("{} x {} GPUs that share a model", replicas, together);
  return fmt::format("\n  gradient accumulation\n    {} sequences x {} tokens x {} = {} tokens a micro-step\n    {} / {} = {} micro-step{} before the optimizer steps; memory stays as it is, training too\n", rows, run.max_seq_len, takers, tokens,
                     run.total_batch_size, tokens, run.grad_accum_steps, run.grad_accum_steps == 1 ? "" : "s");
}

// What is trained, where, and whether it fits.
std::string headline(const Report& r) {
  const Run& run = r.workload.run;
  const char* verdict = r.verdict == Verdict::fits ? "FITS" : r.verdict == Verdict::tight ? "TIGHT" : "WON'T FIT";
  const std::string who = fmt::format("{} | {} params | {} x {} | ", model_name(r.workload), count_text(r.workload.captured ? r.workload.captured->parameters : r.workload.model.param_count()), r.machine.gpus, r.machine.gpu.name);
  if (r.workload.captured) return who + fmt::format("captured under torch {}{} | accum {}    {}\n\n", run.torch, r.workload.captured->compile == "graphs" ? ", Inductor's graphs" : "", run.grad_accum_steps, verdict);
  return who + fmt::format("{}{} | device batch {} x {} | accum {}    {}\n\n", name_of(run.compute), run.fp8 ? " + fp8" : "", run.device_batch_size, run.max_seq_len, run.grad_accum_steps, verdict);
}

}  // namespace

std::string explain_text(const Report& r, const Style& style) {
  std::string out = headline(r);
  out += "  " + bar(r, style) + "| " + gib_text(r.machine.usable()) + " usable\n\n";
  const double peak = std::max(1.0, static_cast<double>(r.process.bytes.count));
  for (const CategoryBytes& c : r.categories) {
    const auto i = static_cast<std::size_t>(c.category);
    if (c.at_peak == Bytes(0)) continue;
    const bool strategy = (r.workload.transformers || r.workload.captured) && c.category == Category::communication;
    out += fmt::format("  {} {:<14} {:>10}  {:>3.0f} %  {}\n", look_of(c.category).letter, name_of(c.category), gib_text(c.at_peak), static_cast<double>(c.at_peak.count) / peak * 100, strategy ? "buckets and buffers of collectives" : kMeaning[i]);
  }
  out += fmt::format("\n  at: {} of {}, micro-step {}\n\n", r.peak_event, r.peak_phase, r.peak_micro_step);
  out += "  the ladder\n";
  out += fmt::format("    allocated  {:>10}   {:.2f} MiB: torch.cuda.max_memory_allocated (95 %: {} to {})\n", gib_text(r.allocated.bytes), r.allocated.bytes.mib(), gib_text(r.allocated.low), gib_text(r.allocated.high));
  out += fmt::format("    reserved   {:>10}   torch.cuda.max_memory_reserved; {}\n", gib_text(r.reserved.bytes), r.alloc_conf_note);
  out += fmt::format("    process    {:>10}   + {} of context (95 %: {} to {})\n", gib_text(r.process.bytes), gib_text(r.context), gib_text(r.process.low), gib_text(r.process.high));
  out += fmt::format("    usable     {:>10}   {} - {} driver - {} others\n", gib_text(r.machine.usable()), gib_text(r.machine.total), gib_text(r.machine.driver_reserve), gib_text(r.machine.used_by_others + r.machine.user_reserve));
  out += fmt::format("    headroom   {:>10}   usable = process + headroom\n", gib_text(r.headroom));
  out += fmt::format("\n  kept all the time: weights {}, optimizer {}; gradients {} once the first micro-step is done\n", gib_text(r.weights), gib_text(r.optimizer), gib_text(r.gradients));
  out += "\n  phases\n";
  for (const PhaseResult& p : r.phases) out += fmt::format("    {:<15} {:>10} allocated, {:>10} reserved   {}\n", p.name, gib_text(p.allocated), gib_text(p.reserved), p.event);
  out += largest(r, style.verbose ? 40 : 8);
  if (!r.workload.captured) out += accumulation(r);
  out += speed_section(r, style);
  if (!r.alternatives.empty()) out += levers(r);
  out += std::string(r.workload.transformers && has_unnamed_script(*r.workload.transformers) ? "\n  command (train.py: your script around the Trainer)\n    " : "\n  command\n    ") + r.command + "\n";
  return out;
}

std::string timeline_text(const Report& r, const Style& style) {
  if (r.timeline.empty()) return "";
  const int rows = std::clamp(style.width - 50, 20, 60);
  const double top = std::max(1.0, static_cast<double>(r.allocated.bytes.count));
  std::string out = "\n  memory over the run (allocated)\n";
  std::string last;
  const std::size_t stride = std::max<std::size_t>(1, r.timeline.size() / 60);
  for (std::size_t i = 0; i < r.timeline.size(); ++i) {
    const TimelinePoint& p = r.timeline[i];
    const std::string where = p.phase + " " + p.part + (p.micro_step > 0 ? " " + std::to_string(p.micro_step) : "");
    const bool at_peak = p.allocated == r.allocated.bytes;
    if (i % stride != 0 && where == last && !at_peak) continue;
    const auto n = static_cast<std::size_t>(std::lround(static_cast<double>(p.allocated.count) / top * rows));
    out += fmt::format("  {:<26} {:>9} {}{}\n", where == last ? "" : where.substr(0, 26), gib_text(p.allocated), std::string(n, '#'), at_peak ? " <- peak" : "");
    last = where;
  }
  return out;
}

std::string timeline_svg(const Report& r) {
  Chart chart;
  const std::string batch = r.workload.captured ? "" : fmt::format(", device batch {}", r.workload.run.device_batch_size);
  chart.title = fmt::format("{}{}: allocated memory over the run, peak {:.2f} MiB", model_name(r.workload), batch, r.allocated.bytes.mib());
  chart.most = std::max(static_cast<double>(r.machine.usable().count), static_cast<double>(r.allocated.bytes.count)) * 1.05;
  chart.last_x = r.timeline.empty() ? 1 : std::max<double>(1, static_cast<double>(r.timeline.back().event));
  for (const TimelinePoint& p : r.timeline) chart.x.push_back(static_cast<double>(p.event));
  for (std::size_t c = 0; c < kCategories; ++c) {
    Chart::Area area{std::string(name_of(static_cast<Category>(c))), look_of(static_cast<Category>(c)).hex, {}};
    for (const TimelinePoint& p : r.timeline) area.bytes.push_back(static_cast<double>(p.by_category[c].count));
    chart.areas.push_back(std::move(area));
  }
  chart.lines.push_back({static_cast<double>(r.machine.usable().count), gib_text(r.machine.usable()) + " usable"});
  return chart_svg(chart);
}

}  // namespace dryfit
