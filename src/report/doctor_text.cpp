// The doctor's screen: what was asked for, who held the memory, why, what to change. See doctor.hpp.
#include <fmt/format.h>

#include <algorithm>

#include "doctor/words.hpp"
#include "report/doctor.hpp"
#include "report/screen.hpp"

namespace dryfit {

namespace {

std::string what_failed(const Oom& oom) {
  switch (oom.wording) {
    case Wording::allocator:
      return std::string(oom.backend == Backend::hip ? "HIP" : oom.backend == Backend::xpu ? "XPU" : "CUDA") + " out of memory";
    case Wording::allocator_warning: return "a first attempt to allocate failed (a warning)";
    case Wording::malloc_async: return "CUDA out of memory (cudaMallocAsync)";
    case Wording::mps: return "MPS out of memory";
    case Wording::exabyte: return "an allocation of over an exabyte";
    case Wording::runtime: return std::string(oom.backend == Backend::hip ? "HIP" : oom.backend == Backend::xpu ? "XPU" : "CUDA") + " error: out of memory";
    case Wording::pinned: return "pinned host memory";
    case Wording::cublas:
    case Wording::cudnn:
    case Wording::nccl: return oom.detail + " found no memory";
    case Wording::xla: return oom.backend == Backend::tpu ? "TPU out of memory" : "JAX/XLA out of memory";
    case Wording::tensorflow: return "TensorFlow out of memory";
    case Wording::shared_memory: return "Triton: out of shared memory";
    case Wording::host_allocator: return "host memory ran out";
    case Wording::host_killed: return "the process was killed";
  }
  return "";
}

std::string when(const Failure& f) {
  static constexpr const char* kPhases[] = {"", "at startup", "first step", "second step", "a later step", "evaluation", "sampling", "saving a checkpoint"};
  static constexpr const char* kParts[] = {"", "loading the model", "resuming", "loading data", "forward", "the loss", "backward", "optimizer", "compiling", "a collective"};
  std::string out = kPhases[static_cast<std::size_t>(f.phase)];
  if (f.phase == Phase::train_step) out = f.event.steps_done > 0 ? fmt::format("after {} steps", f.event.steps_done) : "a step after the first (by the prediction)";
  const std::string part = kParts[static_cast<std::size_t>(f.part)];
  if (!part.empty()) out += (out.empty() ? "" : ", ") + part;
  return out;
}

std::string shape_of(const TensorInfo& t) {
  std::string out;
  for (std::uint8_t d = 0; d < t.shape.rank; ++d) out += (d ? ", " : "") + std::to_string(t.shape.dim[d]);
  return out;
}

std::string row(std::string_view name, const std::optional<Bytes>& bytes, std::string_view note, const Style& style, bool strong = false) {
  const std::string line = fmt::format("  {:<14} {:>12}", name, bytes ? exact_text(*bytes) : "?");
  return (strong ? paint(line, "1", style) : line) + (note.empty() ? "" : "   " + wrapped(note, 32, style)) + "\n";
}

std::string asked_note(const Failure& f) {
  if (f.asked) return fmt::format("[{}] {}: the traceback names it", f.asked->shape, f.asked->dtype);
  if (f.matches.empty()) {
    const auto& r = f.event.oom.requested;
    const bool small = r && f.event.oom.wording == Wording::allocator && is_segment_size(*r, {});
    return small ? "a small tensor: the card was simply full" : "";
  }
  const TensorMatch& m = f.matches.front();
  std::string out = fmt::format("{} {} [{}]: {}, {} of {}", m.reachable ? "=" : "the size of", name_of(m.tensor.dtype), shape_of(m.tensor), m.tensor.name(), m.part, m.phase);
  std::vector<std::string> same;
  for (std::size_t i = 1; i < f.matches.size(); ++i) {
    const std::string name = f.matches[i].tensor.role;
    if (name != m.tensor.role && std::ranges::find(same, name) == same.end()) same.push_back(name);
  }
  if (!same.empty()) {
    out += "; of this size too:";
    for (const std::string& s : same) out += " " + s;
  }
  return out;
}

std::string account(const Failure& f, const std::optional<Prediction>& p, const Style& style) {
  const Oom& oom = f.event.oom;
  std::string out;
  if (oom.wording == Wording::shared_memory) {
    if (oom.requested) out += fmt::format("  {:<14} {:>12}   of on-chip shared memory\n", "asked for", fmt::format("{} bytes", oom.requested->bytes.count));
    if (oom.allowed) out += fmt::format("  {:<14} {:>12}\n", "the GPU has", fmt::format("{} bytes", oom.allowed->bytes.count));
    return out.empty() ? out : out + "\n";
  }
  if (oom.requested) out += row("asked for", oom.requested->bytes, asked_note(f), style, true);
  for (const Holder& h : f.holders) out += row(h.name, h.bytes, h.note, style);
  if (oom.total) out += row("card", oom.total->bytes, "as the driver shows it", style);
  if (oom.allowed) out += row("limit", oom.allowed->bytes, "set for this process", style);
  if (p && p->at_request) {
    out += row("predicted", *p->at_request, p->unaccounted ? fmt::format("allocated at that moment; unaccounted {}{}", p->unaccounted->count >= 0 ? "+" : "", exact_text(*p->unaccounted)) : "allocated at that moment", style);
  }
  if (p) out += row("predicted peak", p->process, fmt::format("of the process, {} of it allocated; usable {}: {}", exact_text(p->allocated), exact_text(p->usable), p->verdict == Verdict::fits ? "fits" : p->verdict == Verdict::tight ? "tight" : "won't fit"), style);
  return out.empty() ? out : out + "\n";
}

std::string effect_of(const Fix& fix) {
  std::string out;
  if (fix.process) out += exact_text(*fix.process);
  if (fix.saving && fix.process) out += fmt::format(" ({}{})", fix.saving->count >= 0 ? "-" : "+", exact_text(fix.saving->count >= 0 ? *fix.saving : -*fix.saving));
  else if (fix.saving) out += "saves up to " + exact_text(*fix.saving);
  if (fix.verdict) out += *fix.verdict == Verdict::fits ? ", fits" : *fix.verdict == Verdict::tight ? ", tight" : ", won't fit";
  return out;
}

std::string ladder_text(const Failure& f, bool numbers, const Style& style) {
  if (!numbers) return "\n" + paragraph("then", "a smaller device batch still: 4, 2, 1; shorter sequences: 1024, 512; a smaller model; check for leaks: " + f.ladder.back().command, style);
  std::string out = "\nthe ladder\n";
  for (const Fix& rung : f.ladder) {
    std::string effect = effect_of(rung);
    if (!effect.empty() && rung.identical_training) effect += *rung.identical_training ? ", same training" : ", other training";
    out += fmt::format("  {:<24}  {}\n", rung.change, wrapped(effect.empty() ? rung.note : effect, 28, style));
  }
  return out;
}

std::string others_text(const Failure& f, const std::string& name, const Style& style) {
  std::string out;
  for (std::size_t i = 0; i < f.others.size() && i < 6; ++i) {
    const FailureGroup& g = f.others[i];
    std::string who;
    for (std::size_t r = 0; r < g.ranks.size() && r < 16; ++r) who += (r ? ", " : " on rank ") + std::to_string(g.ranks[r]);
    out += paragraph(i == 0 ? "also" : "", fmt::format("{}:{} {}{}{}", name, g.first_line, g.what, who, g.count > 1 ? fmt::format(" ({} times)", g.count) : ""), style);
  }
  if (f.others.size() > 6) out += paragraph("", fmt::format("and {} more kinds", f.others.size() - 6), style);
  return out;
}

std::string failure_text(const Diagnosis& d, const std::string& name, const Style& style) {
  const Failure& f = *d.failure;
  const Oom& oom = f.event.oom;
  std::string title = what_failed(oom);
  if (oom.device) title += fmt::format(" on GPU {}", *oom.device);
  if (f.event.rank) title += fmt::format(" (rank {})", *f.event.rank);
  if (const std::string moment = when(f); !moment.empty()) title += ", " + moment;
  std::string out = paint(fmt::format("{}:{}", name, f.event.line), "1", style) + "  " + wrapped(title, 2, style) + "\n\n";
  out += account(f, d.prediction, style);
  out += paragraph("cause", fmt::format("{}{}: {}", words_of(f.cause.cause), f.cause.confidence == Confidence::certain ? "" : fmt::format(" ({})", name_of(f.cause.confidence)), f.cause.summary), style);
  for (const std::string& text : f.cause.evidence) out += paragraph("why", text, style);
  for (const std::string& text : f.cause.also) out += paragraph("also", text, style);
  for (const std::string& text : f.cause.not_this) out += paragraph("not", text, style);
  out += others_text(f, name, style);
  if (!style.quiet) {
    for (const std::string& note : d.notes) out += paragraph("note", note, style);
  }
  if (!f.fixes.empty()) out += "\nfixes, best first\n";
  const std::size_t most = style.quiet ? 1 : style.verbose ? f.fixes.size() : 4;
  for (std::size_t i = 0; i < f.fixes.size() && i < most; ++i) out += fix_text(f.fixes[i], i + 1, style);
  if (!style.quiet && !f.ladder.empty()) out += ladder_text(f, d.known.workload.has_value() && d.prediction.has_value(), style);
  if (!d.known.workload && !f.ladder.empty() && !style.quiet) out += fmt::format("\nnext: dryfit doctor {} -- the training command (or: --depth N of nanochat, --model NAME)\n      names the tensor and puts numbers to each fix\n", name == "(stdin)" ? "-" : name);
  return out;
}

constexpr std::size_t kLongestCommand = 4096;  // of a recording may hold anything: no escapes reach the terminal

std::string next_text(const Underuse& u, const Style& style) {
  std::string out;
  if (!u.next.empty()) out += "\nnext\n";
  for (std::size_t i = 0; i < u.next.size(); ++i) {
    out += fmt::format("  {}  {}\n     gain: {}\n", i + 1, wrapped(u.next[i].change, 5, style), wrapped(u.next[i].expected, 5, style));
    if (!u.next[i].command.empty()) out += "     " + paint(printable(u.next[i].command, kLongestCommand), "36", style) + "\n";
  }
  return out;
}

std::string run_name(const Workload& w) {
  const std::string model = w.transformers ? printable(w.transformers->architecture.name, 60) : fmt::format("d{}", w.model.depth);
  return fmt::format("{}, device batch {}", model.empty() ? "the model" : model, w.run.device_batch_size);
}

std::string healthy_text(const Diagnosis& d, const std::string& name, const Style& style) {
  const Underuse& u = *d.underuse;
  std::string title = "no memory failure";
  if (d.run.steps.seen > 0) title += fmt::format("; {} step{}", d.run.steps_done(), d.run.steps_done() == 1 ? "" : "s");
  if (d.known.workload) title += " of " + run_name(*d.known.workload);
  std::string out = paint(name, "1", style) + "  " + wrapped(title, 2, style) + "\n\n";
  const auto line = [&](const char* what, const std::string& value) { out += fmt::format("  {:<14} {}\n", what, value); };
  if (d.run.peak) line("peak", exact_text(*d.run.peak) + " allocated, as nanochat printed");
  if (d.prediction) line("predicted", exact_text(d.prediction->allocated) + " allocated" + (d.prediction->unaccounted ? fmt::format("; unaccounted {}{}", d.prediction->unaccounted->count >= 0 ? "+" : "", exact_text(*d.prediction->unaccounted)) : ""));
  if (u.seen.used) line("card", exact_text(*u.seen.used) + " in use at the highest");
  if (u.headroom) line("headroom", exact_text(*u.headroom));
  if (u.seen.mfu) line("mfu", percent_text(*u.seen.mfu));
  if (u.seen.tokens_per_second) line("speed", fmt::format("{:.0f} tokens/s", *u.seen.tokens_per_second));
  if (u.seen.step_milliseconds) line("step", fmt::format("{:.0f} ms", *u.seen.step_milliseconds));
  out += "\n" + paragraph("verdict", u.summary, style);
  for (const std::string& text : u.why) out += paragraph("why", text, style);
  for (const MemorySeries& s : d.run.memory) {
    if (const auto grown = growth_of(s)) out += paragraph("leak?", fmt::format("'{}' grew by {} over the run and never came back", s.label, exact_text(*grown)), style);
  }
  if (!style.quiet) {
    for (const std::string& note : d.notes) out += paragraph("note", note, style);
  }
  return out + next_text(u, style);
}

const char* words_of(Underuse::Verdict verdict) {
  switch (verdict) {
    case Underuse::Verdict::busy: return "busy";
    case Underuse::Verdict::room_in_memory: return "room in memory";
    case Underuse::Verdict::waiting: return "waits";
    case Underuse::Verdict::throttled: return "throttled";
    case Underuse::Verdict::slow_kernels: return "slow kernels";
    case Underuse::Verdict::unknown: return "unknown";
    case Underuse::Verdict::small_model: return "small model";
    case Underuse::Verdict::pcie: return "slow PCIe link";
    case Underuse::Verdict::other_tenants: return "shared card";
    case Underuse::Verdict::idle: return "idle";
  }
  return "";
}

// A row a GPU; on a narrow screen clocks and power are left to `why`.
std::string gpu_rows(const Live& live, const Style& style) {
  constexpr std::size_t kMost = 16;
  const bool power = style.width >= 60, clocks = style.width >= 76;
  const auto pair = [](const std::optional<double>& now, const std::optional<double>& most, int digits) {
    return now && most ? fmt::format("{:.{}f} / {:.{}f}", *now, digits, *most, digits) : now ? fmt::format("{:.{}f}", *now, digits) : "?";
  };
  const auto row = [&](std::string_view gpu, std::string_view kernels, std::string_view memory, std::string_view watts, std::string_view clock, std::string_view verdict) {
    return fmt::format("  {:>3} {:>8} {:>14}", gpu, kernels, memory) + (power ? fmt::format(" {:>11}", watts) : "") + (clocks ? fmt::format(" {:>12}", clock) : "") + fmt::format("  {}\n", verdict);
  };
  std::string out = row("GPU", "kernels", "memory GiB", "power W", "clock MHz", "verdict");
  for (std::size_t i = 0; i < live.gpus.size() && i < kMost; ++i) {
    const Readings::Gpu& g = live.gpus[i].reading;
    const Observation& s = g.seen;
    const auto size = [](const std::optional<Bytes>& b) { return b ? std::optional(b->gib()) : std::nullopt; };
    out += row(std::to_string(g.index), s.utilization ? percent_text(*s.utilization) : "?", pair(size(s.used), size(s.total), 1), pair(s.power_watts, s.power_limit_watts, 0), pair(s.clock_mhz, s.max_clock_mhz, 0), words_of(live.gpus[i].verdict));
  }
  if (live.gpus.size() > kMost) out += fmt::format("  and {} more\n", live.gpus.size() - kMost);
  return out;
}

std::string live_text(const Diagnosis& d, const std::string& name, const Style& style) {
  const Live& live = *d.live;
  std::string title = live.samples == 1 ? "one reading" : fmt::format("{:.0f} s of readings", live.seconds);
  title += fmt::format(" ({})", printable(live.source, 40));
  if (live.pid) title += fmt::format(", pid {}", *live.pid);
  if (d.known.workload) title += ", " + run_name(*d.known.workload);
  if (!live.gpus.empty()) title += fmt::format(", {} x {}", live.gpus.size(), printable(live.gpus.front().reading.name, 60));
  std::string out = paint(name, "1", style) + "  " + wrapped(title, 2, style) + "\n\n";
  if (d.underuse) {
    const Underuse& u = *d.underuse;
    out += gpu_rows(live, style) + "\n";
    const auto line = [&](const char* what, const std::string& value) { out += fmt::format("  {:<14} {}\n", what, value); };
    if (live.measured) line("measured", exact_text(*live.measured) + " of the job's process, at its highest");
    if (d.prediction) line("predicted", exact_text(d.prediction->process) + (live.unaccounted ? fmt::format("; unaccounted {}{}", live.unaccounted->count >= 0 ? "+" : "", exact_text(*live.unaccounted)) : ""));
    if (u.seen.mfu) line("mfu", percent_text(*u.seen.mfu));
    if (u.seen.tokens_per_second) line("speed", fmt::format("{:.0f} tokens/s", *u.seen.tokens_per_second));
    if (u.seen.step_milliseconds) line("step", fmt::format("{:.0f} ms", *u.seen.step_milliseconds));
    if (live.measured || d.prediction || u.seen.mfu) out += "\n";
    out += paragraph("verdict", u.summary, style);
    for (const std::string& text : u.why) out += paragraph("why", text, style);
  } else {
    out += paragraph("verdict", "nothing trains here: no training process was found, and no GPU has memory in use", style);
  }
  if (!style.quiet) {
    for (const std::string& note : d.notes) out += paragraph("note", printable(note, 400), style);
  }
  if (!d.underuse) return out + (style.quiet ? "" : "hint: start the training first; --pid N names a process that is not found by itself\n");
  return out + next_text(*d.underuse, style);
}

}  // namespace

const char* words_of(Cause cause) {
  switch (cause) {
    case Cause::none: return "no failure";
    case Cause::too_big: return "too big for the card";
    case Cause::fragmentation: return "fragmentation";
    case Cause::other_process: return "another process";
    case Cause::leak: return "memory that grows";
    case Cause::optimizer_state: return "the optimizer's state";
    case Cause::evaluation: return "evaluation";
    case Cause::host_memory: return "host memory";
    case Cause::limit: return "a limit";
    case Cause::windows_spill: return "spill into system memory";
    case Cause::outside_pool: return "a library outside PyTorch's pool";
    case Cause::kernel_limit: return "a kernel's shared memory";
    case Cause::size_bug: return "an impossible size";
  }
  return "";
}

std::string fix_text(const Fix& fix, std::size_t number, const Style& style) {
  std::string facts = effect_of(fix);
  const auto add = [&](const std::string& text) {
    if (!text.empty()) facts += (facts.empty() ? "" : "; ") + text;
  };
  if (fix.identical_training) add(*fix.identical_training ? "same training" : "other training");
  add(fix.step_time_ratio ? fmt::format("step x{:.2f}", *fix.step_time_ratio) : fix.speed);
  if (fix.needs_code_change) add("code change");
  std::string out = fmt::format("  {}  {}\n", number, wrapped(fix.change, 5, style));
  if (!facts.empty()) out += "     " + wrapped(facts, 5, style) + "\n";
  if (!fix.note.empty()) out += "     " + wrapped(fix.note, 5, style) + "\n";
  if (!fix.command.empty()) out += "     " + paint(fix.command, "36", style) + "\n";
  return out;
}

std::string doctor_sources_text(const KnownRun& known) {
  if (!known.workload) return "";
  std::string out;
  for (const std::string& s : known.sources) out += (out.empty() ? "the run: from " : ", ") + s;
  if (!out.empty()) out += "\n";
  for (const Assumption& a : known.workload->assumptions) {
    std::string key = a.key;
    std::ranges::replace(key, '_', '-');
    out += fmt::format("using --{} {} ({})\n", key, printable(a.value, 100), a.source);
  }
  return out;
}

std::string doctor_text(const Diagnosis& d, const std::string& name, const Style& style) {
  const std::string shown = name == "-" ? "(stdin)" : printable(name, 200);
  if (d.live) return live_text(d, shown, style);
  switch (d.finding) {
    case Diagnosis::Finding::failure: return failure_text(d, shown, style);
    case Diagnosis::Finding::healthy: return healthy_text(d, shown, style);
    case Diagnosis::Finding::nothing: break;
  }
  std::string out = fmt::format("{}  no memory failure and no training steps in {} line{}\n", shown, d.lines, d.lines == 1 ? "" : "s");
  if (!style.quiet) out += "hint: give the whole log, or the traceback with its last line; what it should hold: dryfit help doctor\n";
  return out;
}

}  // namespace dryfit
