// One workload on one machine: program, timeline, allocator, ladder of numbers, verdict. The search lives in search.cpp.
#include <algorithm>

#include "base/embedded.hpp"
#include "base/text.hpp"
#include "memory/timeline.hpp"
#include "passes/evaluation.hpp"
#include "passes/optimizer.hpp"
#include "passes/training_program.hpp"
#include "plan/alternatives.hpp"
#include "plan/launch.hpp"
#include "plan/plan.hpp"
#include "speed/nanochat_rules.hpp"

namespace dryfit {

namespace {

AllocatorConfig usual_allocator(const Workload& workload, std::string& note) {
  if (workload.transformers || workload.captured) {
    note = "ordinary segments, PyTorch's default";
    return {};
  }
  // nanochat asks for expandable segments; from E1f on under PYTORCH_ALLOC_CONF alone, a name torch 2.9 does not act on
  const bool new_name = workload.model.version.date >= std::string("2025-12-28");
  AllocatorConfig config;
  config.expandable_segments = !(new_name && workload.run.torch.starts_with("2.9"));
  note = config.expandable_segments ? "expandable_segments:True, as nanochat sets it"
                                    : "ordinary segments: torch 2.9 ignores PYTORCH_ALLOC_CONF, the only name nanochat sets";
  return config;
}

Bytes scaled(Bytes b, double factor) { return Bytes(static_cast<std::int64_t>(static_cast<double>(b.count) * factor)); }

std::string event_text(const Program& program, std::int32_t event) {
  if (event == kNothing) return program.segments.back().part;
  const Segment& s = program.segment_of(event);
  return std::string(s.part) + ": " + program.tensors[static_cast<std::size_t>(program.events[static_cast<std::size_t>(event)].op)].name();
}

void fill_peak(Report& report, const Program& program, const Timeline& timeline) {
  const Segment& s = program.segment_of(timeline.peak_event);
  report.peak_phase = s.phase;
  report.peak_micro_step = s.micro_step;
  report.peak_event = event_text(program, timeline.peak_event);
  std::array<Bytes, kCategories> sums{};
  for (std::int32_t i : live_tensors(program, timeline.peak_event)) {
    const TensorInfo& t = program.tensors[static_cast<std::size_t>(i)];
    report.live.push_back(t);
    sums[static_cast<std::size_t>(t.category)] += Bytes(block_bytes(t.bytes));
  }
  for (int c = 0; c < kCategories; ++c) report.categories.push_back({static_cast<Category>(c), sums[static_cast<std::size_t>(c)]});
}

// Keeps the first and last event of every segment and its largest value, and evenly spaced ones between.
void fill_timeline(Report& report, const Program& program) {
  std::array<Bytes, kCategories> now{};
  std::int64_t live = 0;
  const std::size_t stride = std::max<std::size_t>(1, program.events.size() / 400);
  std::int64_t best = -1;
  for (std::size_t i = 0; i < program.events.size(); ++i) {
    const Event& e = program.events[i];
    const TensorInfo& t = program.tensors[static_cast<std::size_t>(e.tensor)];
    const std::int64_t bytes = e.kind == Event::Kind::alloc ? block_bytes(t.bytes) : -block_bytes(t.bytes);
    live += bytes;
    now[static_cast<std::size_t>(t.category)] += Bytes(bytes);
    const Segment& s = program.segment_of(static_cast<std::int32_t>(i));
    const bool peak = live > best;
    best = std::max(best, live);
    if (i % stride != 0 && !peak && static_cast<std::int32_t>(i) != s.first_event) continue;
    if (peak && !report.timeline.empty() && i % stride != 0 && report.timeline.back().event + 1 == static_cast<std::int64_t>(i) && report.timeline.size() > 1) report.timeline.pop_back();
    report.timeline.push_back({static_cast<std::int64_t>(i), Bytes(live), now, s.phase, s.part, s.micro_step, program.tensors[static_cast<std::size_t>(e.op)].name()});
  }
}

constexpr std::string_view kTraining = "train_step";

// Peaks of phases that err in different ways: by a share of themselves, or by the length of a prompt that is not known.
struct PhasePeaks { Bytes step, core, chat; };
Bytes& peak_of_kind(PhasePeaks& peaks, std::string_view phase) { return phase == "core_evaluation" ? peaks.core : phase == "chat_evaluation" ? peaks.chat : peaks.step; }

PhasePeaks worst_of(const Timeline& timeline, const ReservedResult* simulated) {
  PhasePeaks worst;
  for (std::size_t i = 0; i < timeline.phases.size(); ++i) {
    Bytes& most = peak_of_kind(worst, timeline.phases[i].phase);
    most = std::max(most, simulated != nullptr ? simulated->by_phase[i].allocated : timeline.phases[i].allocated);
  }
  return worst;
}

// How the allocated peak is bracketed besides the error of the passes.
struct Bracket {
  ErrorBand band;
  Bytes rows;  // chat_rl: what at the peak grows with the length of a row
  Bytes copies = Bytes(0);  // that may stand beside it: of what Inductor pads where that is quicker
};

// The allocated peak with its interval. The step errs by a share of itself; CORE by the length of its longest prompt, which depends on the
// user's tokenizer; ChatCORE by that of MMLU's longest questions; a step of chat_rl by what was generated.
Estimate with_interval(const Workload& workload, Attention attention, const PhasePeaks& peaks, const Bracket& bracket) {
  const Run& run = workload.run;
  Bytes low = peaks.step, high = peaks.step;
  if (run.script == Script::chat_rl) {
    const RolloutTokens tokens = rollout_tokens(run);
    const auto moved = [&](std::int64_t to) { return scaled(bracket.rows, static_cast<double>(to - tokens.middle) / static_cast<double>(tokens.middle)); };
    low += moved(tokens.low);
    high += moved(tokens.high);
  }
  Estimate out{std::max({peaks.step, peaks.core, peaks.chat}), scaled(low, 1 - bracket.band.below), scaled(high, 1 + bracket.band.above) + bracket.copies, Provenance::modelled};
  const auto widen = [&](Bytes at_middle, Bytes short_one, Bytes middle, Bytes long_one) {
    out.low = std::max(out.low, at_middle - middle + short_one);
    out.high = std::max(out.high, at_middle - middle + long_one);
  };
  if (peaks.core != Bytes(0)) {
    const CorePrompts prompts = core_prompts(run);
    const auto peak = [&](std::int64_t length) { return peak_of(core_forward(workload, attention, prompts.choices, std::min(length, 10 * run.max_seq_len))); };
    widen(peaks.core, peak(prompts.low), peak(prompts.middle), peak(prompts.high));
  }
  if (peaks.chat != Bytes(0)) {
    const ChatPrompts prompts = chat_prompts(workload);
    const auto peak = [&](std::int64_t length) { return peak_of(chat_forward(workload, attention, prompts.rows, length)); };
    widen(peaks.chat, peak(prompts.low), peak(prompts.middle), peak(prompts.high));
  }
  return out;
}

// Whether a limited simulation went through with the training steps undisturbed: evaluations may flush the cache, they are rare.
bool trains_undisturbed(const ReservedResult& limited, const Timeline& timeline) {
  if (limited.out_of_memory) return false;
  for (std::size_t i = 0; i < limited.by_phase.size(); ++i) {
    if (timeline.phases[i].phase == kTraining && limited.by_phase[i].retries > 0) return false;
  }
  return true;
}

// What splitting leaves in the cache may grow with the peak: the interval of reserved is that of allocated, with the cache on top.
void fill_ladder(Report& report, const Timeline& timeline, const ReservedResult& simulated, const Bracket& bracket, const OutsideEstimate& learned) {
  const OutsideMemory& outside = learned.memory;
  const PhasePeaks worst = worst_of(timeline, &simulated);
  report.allocated = with_interval(report.workload, report.attention, worst, bracket);
  const Bytes cached = simulated.peak.reserved - simulated.peak.allocated;
  report.reserved = {simulated.peak.reserved, std::max(report.allocated.low, simulated.peak.reserved - cached), report.allocated.high + cached + cached, Provenance::modelled};
  report.context = outside.middle;
  report.process = {simulated.peak.reserved + outside.middle, report.reserved.low + outside.low, report.reserved.high + outside.high, learned.provenance};
}

// On a card without end. A cache that grows by a token at a time (rollouts) leaves segments of every size behind there; then on the smallest card that goes through, which gives them back.
ReservedResult on_enough(const Workload& w, const Program& program, const AllocatorConfig& allocator, Bytes allocated, std::int64_t steps) {
  if (w.transformers && w.transformers->training.rollouts) {
    for (const double room : {1.0, 1.05, 1.1, 1.2, 1.35, 1.5, 2.0}) {
      ReservedResult limited = simulate_reserved(program, allocator, scaled(allocated, room), {}, steps);
      if (!limited.out_of_memory) return limited;
    }
  }
  return simulate_reserved(program, allocator, std::nullopt, {}, steps);
}

// The verdict, and the simulation whose figures the report shows. `fits`: the events run through with the whole interval taken off
// the card, and training never has to give cached segments back. `tight`: they run through with the middle of it. Where they do, the
// figures are those of a cache that ends where the card does; where they do not, those of a card without end.
ReservedResult judge(Report& report, const Program& program, const Timeline& timeline, const Bracket& bracket, const OutsideEstimate& outside, bool only_fits, std::int64_t steps) {
  const Bytes usable = report.machine.usable(), room = usable - outside.memory.middle;
  const PhasePeaks tensors = worst_of(timeline, nullptr);
  const Estimate sum = with_interval(report.workload, report.attention, tensors, bracket);
  const Bytes brink = most_that_may_fit(report.machine, outside.memory) - (sum.high - sum.bytes);
  ReservedResult simulated;
  if (sum.bytes <= brink) simulated = simulate_reserved(program, report.allocator, brink, kTraining, steps);
  if (sum.bytes <= brink && trains_undisturbed(simulated, timeline)) {
    report.verdict = Verdict::fits;
    if (simulated.peak.retries > 0) simulated = simulate_reserved(program, report.allocator, room, {}, steps);  // what it will show: the cache ends where the card does
    fill_ladder(report, timeline, simulated, bracket, outside);
    report.reserved.high = std::min(report.reserved.high, room);
    report.process.high = std::min(report.process.high, usable);
    return simulated;
  }
  report.verdict = Verdict::wont_fit;
  if (!only_fits) simulated = on_enough(report.workload, program, report.allocator, timeline.peak, steps);
  else simulated.by_phase.resize(timeline.phases.size());
  fill_ladder(report, timeline, simulated, bracket, outside);
  if (only_fits) return simulated;
  if (report.process.bytes <= usable) report.verdict = Verdict::tight;
  if (report.process.bytes <= usable || report.allocated.bytes >= room) return simulated;
  ReservedResult limited = simulate_reserved(program, report.allocator, room, {}, steps);
  if (limited.out_of_memory) return simulated;
  report.verdict = Verdict::tight;
  fill_ladder(report, timeline, limited, bracket, outside);
  return limited;
}

// What of this run on this machine a nanochat user should know.
void warn_of_nanochat(Report& report) {
  const Workload& workload = report.workload;
  const Machine& machine = report.machine;
  if (report.attention == Attention::math && workload.run.compile) report.warnings.push_back("math attention is modelled coarsely");
  const bool sliding = std::ranges::any_of(workload.model.windows, [&](std::int64_t w) { return w < workload.run.max_seq_len; });
  if (workload.model.version.flash_attention3_ampere && machine.gpu.compute_major >= 10 && workload.run.compute == Dtype::bf16) {
    report.warnings.push_back("nanochat since 2026-07-03 loads a FlashAttention 3 that this GPU cannot run and stops with \"no kernel image is available\" (its issue 820): take its pull request 853, or run `pip uninstall kernels`; then it runs as laid out here");
  }
  const std::string& vendor = machine.gpu.vendor;
  if (vendor == "Apple") report.warnings.push_back("this GPU trains through MPS, which allocates otherwise and shares the memory with the system: laid out is what a CUDA GPU of that memory would take");
  if (vendor == "Intel") report.warnings.push_back("nanochat trains on CUDA, MPS or the CPU, and not on this GPU: laid out is what a CUDA GPU of its memory would take");
  if (vendor == "NVIDIA" && machine.gpu.compute_major > 0 && machine.gpu.compute_major < 7 && workload.run.optimizer_compiled) {
    report.warnings.push_back("torch.compile stops on this GPU: Triton needs compute capability 7.0 (torch/_inductor/scheduler.py); TORCH_COMPILE_DISABLE=1 before the command trains without (--compile 0)");
  }
  if (!workload.model.version.sdpa_fallback && report.attention != Attention::fa3) {
    report.warnings.push_back("nanochat " + workload.model.version.epoch + " has no attention beside FlashAttention 3 and stops on this GPU: --nanochat E4 or later goes on without");
  }
  if (is_distributed_alone(workload.model, workload.run)) {
    report.warnings.push_back("started by torchrun, one GPU runs nanochat's distributed optimizers, and what their collectives hold comes on top; python -m scripts." + std::string(name_of(workload.run.script)) + " needs less");
  }
  if (sliding && report.attention != Attention::fa3) report.warnings.push_back("this GPU has no FlashAttention 3: sliding windows run through masks, slowly; --window-pattern L is better");
  if (workload.run.compute == Dtype::bf16 && usual_compute(workload.model.version, machine.gpu.compute_major) == Dtype::fp32) {
    report.warnings.push_back("GPUs below compute capability 8.0 have no bf16 of their own, and this nanochat takes fp32 there unless told otherwise: leave --dtype out");
  }
  if (meets(workload, RunPhase::core_evaluation) && core_prompts(workload.run).middle > 10 * workload.run.max_seq_len) {
    report.warnings.push_back("CORE evaluation has prompts longer than 10 x --max-seq-len, where nanochat stops with an assertion: give --core-metric-every -1");
  }
}

// A captured run was laid out by PyTorch, on a GPU that may be another than this one.
void warn_of_capture(Report& report) {
  const CapturedRun& run = *report.workload.captured;
  const GpuKind& gpu = report.machine.gpu;
  if (run.compute_major > 0 && gpu.compute_major > 0 && (run.compute_major != gpu.compute_major || run.compute_minor != gpu.compute_minor)) {
    report.warnings.push_back("captured on a GPU of compute capability " + std::to_string(run.compute_major) + "." + std::to_string(run.compute_minor) + ": PyTorch may choose other attention kernels on this one; capture it with --gpu as well");
  }
  if (run.compile == "eager") report.warnings.push_back("torch.compile was traced op by op: what it fuses or recomputes is counted as if it were not, usually more memory than there will be");
  if (run.steps < 2) report.warnings.push_back("fewer than two optimizer steps were captured: a steady step may hold more, as the optimizer's state is there from its beginning");
  for (const std::string& note : run.notes) report.warnings.push_back(note);
  report.warnings.push_back("the interval of captured runs is 5 % by convention, not from residuals");
}

bool is_compiled_model(const Workload& w) { return w.transformers && w.transformers->training.framework == Framework::transformers && w.transformers->training.compile; }
// GPT-NeoX under autocast: three of its recordings are 0.2 to 5.4 % off (docs/oracle.md).
bool is_compiled_neox(const Workload& w) { return is_compiled_model(w) && w.transformers->architecture.family == Family::gpt_neox && w.transformers->training.mixed != MixedPrecision::none; }
bool is_compiled_mixture(const Workload& w) { return is_compiled_model(w) && w.transformers->architecture.moe; }
// Inductor times on the GPU whether padding a product's sizes to 16 bytes pays (fx_passes/pad_mm.py): what both products of the logits' gradient copy where it does; 0 where there is
// nothing to pad.
Bytes padded_copies(const Workload& w) {
  if (!is_compiled_model(w)) return Bytes(0);
  const Training& t = w.transformers->training;
  const std::int64_t vocab = w.transformers->architecture.vocab, size = size_of(t.mixed == MixedPrecision::none ? t.weights : Dtype::bf16);
  return vocab % (16 / size) == 0 ? Bytes(0) : Bytes(2 * t.device_batch_size * t.seq_len * round_up(vocab, 8) * size);
}
bool is_trainer_on_several(const Workload& w) { return w.transformers && w.transformers->training.framework == Framework::transformers && w.run.world_size > 1; }

OutsideEstimate outside_memory_of(const Workload& w, const Machine& machine, const EstimateOptions& options) { return outside_estimate(options.calibration, machine.gpu, w.run.world_size, w.run.torch); }

// How much of a report is asked for: all of one that fits, and of another the verdict; all of it.
enum class Detail : std::uint8_t { if_fits, all };

// What is known before anything is laid out.
Report begin_report(const Workload& workload, const Machine& machine, const EstimateOptions& options, const OutsideEstimate& outside) {
  Report report;
  report.workload = workload;
  report.machine = machine;
  report.assumptions = workload.assumptions;
  report.warnings = workload.warnings;
  if (!machine.gpu.note.empty()) report.warnings.insert(report.warnings.begin(), machine.gpu.note);
  report.attention = resolve_attention(workload, target_of(machine));
  if (workload.captured) warn_of_capture(report);
  else if (!workload.transformers) warn_of_nanochat(report);
  else if (is_trainer_on_several(workload)) report.warnings.push_back("the interval of transformers runs on several GPUs is 5 % by convention, not from residuals: the measured runs of which everything is known are of one GPU (docs/accuracy.md)");
  else if (is_compiled_neox(workload)) report.warnings.push_back("the interval of compiled GPT-NeoX under autocast is 6 % by convention: 29 of 32 recordings of PyTorch agree, three are up to 5.4 % off (docs/oracle.md)");
  else if (is_compiled_mixture(workload)) report.warnings.push_back("the interval of compiled mixtures is 5 % by convention, not from residuals: recordings of PyTorch agree, none was measured on a GPU yet (docs/accuracy.md)");
  if (padded_copies(workload) > Bytes(0)) {
    report.warnings.push_back("Inductor times on your GPU whether to pad a vocabulary of " + std::to_string(workload.transformers->architecture.vocab) + " that its products dislike, here it does not: where it does, backward holds up to two more copies of the logits' gradient, which the interval takes in (docs/models.md)");
  }
  report.allocator = options.allocator ? *options.allocator : usual_allocator(workload, report.alloc_conf_note);
  if (options.allocator) report.alloc_conf_note = "as given";
  if (!outside.note.empty()) report.machine.notes.push_back(outside.note);
  report.command = workload.captured ? workload.captured->script : shell_join(launch_command(workload));
  return report;
}

void put(Report& report, const StaticBytes& fixed) { report.weights = fixed.weights, report.gradients = fixed.gradients, report.optimizer = fixed.optimizer; }

// Optimizer steps of this run of the script, where it matters how many there are; as many as come between two evaluations where nothing says how long it trains.
std::int64_t steps_to_play(const Workload& workload, const Program& program) {
  if (!program.steady) return 0;
  const auto horizon = horizon_of(workload);
  return horizon ? std::max<std::int64_t>(0, horizon->iterations - std::max<std::int64_t>(0, workload.run.resume_from_step)) : program.steady->between;
}

constexpr double kBarely = 0.1;  // of a card left over: less is looked at twice

Report fill_report(const Workload& workload, const Machine& machine, const EstimateOptions& options, const Program& program, Detail detail) {
  const OutsideEstimate outside = outside_memory_of(workload, machine, options);
  Report report = begin_report(workload, machine, options, outside);
  const Timeline timeline = run_timeline(program);
  const PhasePeak* step = nullptr;  // the highest phase whose prompts are known
  for (const PhasePeak& p : timeline.phases) {
    if (p.phase != "core_evaluation" && p.phase != "chat_evaluation" && (step == nullptr || p.allocated > step->allocated)) step = &p;
  }
  Bracket bracket{error_band(workload, event_text(program, step->event) != "backward: logits"), Bytes(0)};
  if (workload.run.script == Script::chat_rl && step->event != kNothing) {
    for (std::int32_t i : live_tensors(program, step->event)) {
      const TensorInfo& t = program.tensors[static_cast<std::size_t>(i)];
      if (t.batched) bracket.rows += Bytes(t.bytes);
    }
  }

  bracket.copies = padded_copies(workload);
  const Bytes barely = scaled(machine.usable(), kBarely);
  const ReservedResult reserved = judge(report, program, timeline, bracket, outside, detail != Detail::all, options.every_step ? steps_to_play(workload, program) : 0);
  if (report.verdict == Verdict::fits && machine.usable() - report.process.bytes < barely) {
    if (const auto filled = without_timings(program)) {  // the second run of a command must fit as the first does
      Report second = fill_report(workload, machine, options, *filled, detail);
      if (second.verdict != Verdict::fits) {
        second.warnings.push_back("it fits while torch.compile's caches are empty, and no longer once they know its kernels: cached memory lies elsewhere then");
        return second;
      }
    }
  }
  if (detail == Detail::if_fits && report.verdict != Verdict::fits) return report;
  for (std::size_t i = 0; i < timeline.phases.size(); ++i) {
    if (timeline.phases[i].phase == kTraining && reserved.by_phase[i].retries > 0) report.warnings.push_back("every step runs out of room and gives cached memory back to the GPU to go on: it takes longer than is said here");
  }
  report.headroom = machine.usable() - report.process.bytes;
  put(report, program.fixed ? *program.fixed : workload.captured ? static_bytes(program) : static_bytes(workload));
  fill_peak(report, program, timeline);
  report.categories[static_cast<std::size_t>(Category::context)].at_peak = outside.memory.middle;
  report.categories[static_cast<std::size_t>(Category::fragmentation)].at_peak = reserved.peak.reserved - timeline.peak;
  for (std::size_t i = 0; i < timeline.phases.size(); ++i) {
    const PhasePeak& p = timeline.phases[i];
    report.phases.push_back({p.phase, reserved.by_phase[i].allocated, reserved.by_phase[i].reserved, event_text(program, p.event), p.provenance});
  }
  report.speed = estimate_speed(workload, machine, program.work, {options.calibration, options.prices});
  return report;
}

// chat_sft has no --fp8 and inherits the device batch: what fits thanks to fp8 may not fit there.
void warn_of_fine_tuning(Report& report, const EstimateOptions& options) {
  const Workload& base = report.workload;
  if (!base.run.fp8 || base.run.script != Script::base_train || base.model.version.sft != NanochatVersion::Sft::inherits || report.verdict == Verdict::wont_fit) return;
  Workload sft = base;
  sft.run.script = Script::chat_sft;
  sft.run.fp8 = false;
  sft.run.resume_from_step = -1;
  const bool accumulates = sft.run.grad_accum_steps > 1;
  const Report there = fill_report(sft, report.machine, options, build_program(sft, target_of(report.machine), accumulates), Detail::if_fits);
  if (there.verdict == Verdict::fits) return;
  report.warnings.push_back("chat_sft would not fit as it inherits --device-batch-size " + std::to_string(base.run.device_batch_size) + " and has no --fp8: give it a smaller one; see --script chat_sft");
}

}  // namespace

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::fits: return "fits";
    case Verdict::tight: return "tight";
    case Verdict::wont_fit: return "wont_fit";
  }
  return "";
}

void warn_of_filled_rows(Report& report, const EstimateOptions& options) {
  if (!report.workload.transformers || report.workload.transformers->knows_rows || report.verdict == Verdict::wont_fit) return;
  const Training& t = report.workload.transformers->training;
  if (t.framework != Framework::transformers || t.attention == AttentionCode::eager || t.packed || t.compile || report.workload.run.device_batch_size == 1) return;
  Workload filled = report.workload;
  filled.transformers->training.padded = true;
  const auto program = program_for(filled, target_of(report.machine), filled.run.grad_accum_steps > 1);
  if (!program) return;
  const Report there = fill_report(filled, report.machine, options, *program, Detail::if_fits);
  constexpr double kMatters = 0.01;  // of the GPU
  const bool fits = there.verdict != Verdict::wont_fit;
  if (fits && there.process.bytes < report.process.bytes + scaled(report.machine.usable(), kMatters)) return;
  report.warnings.push_back("rows are taken to be full. Where shorter ones are filled up to the longest, as fine-tuning on texts does, " + std::string(is_flash(t.attention) ? "FlashAttention gets copies of what is no filling" : "attention gets a mask") + ", and it " + (fits ? "takes " + tenths(there.process.bytes.gib()) + " GiB" : std::string("does not fit")) + ": --padded 1 (0: they are full)");
}

ErrorBand error_band(const Workload& workload, bool late_peak) {
  if (is_compiled_neox(workload)) return {0.06, 0.06};
  if (is_trainer_on_several(workload) || is_compiled_mixture(workload) || workload.run.checkpoints) return {0.05, 0.05};
  const std::string_view family = workload.captured ? "captured" : workload.transformers ? name_of(workload.transformers->training.framework) : !workload.run.compile ? "eager" : workload.run.fp8 ? "fp8" : late_peak ? "late_backward" : "bf16";
  for (std::string_view line : split(embedded_intervals_csv, '\n')) {
    const auto fields = split(line, ',');
    if (fields.size() < 3 || fields[0] != family) continue;
    return {parse_real(fields[1], "").value_or(0.05), parse_real(fields[2], "").value_or(0.05)};
  }
  return {0.05, 0.05};
}

Bytes most_that_may_fit(const Machine& machine, const OutsideMemory& outside) {
  // no measured row has reserved bytes at the brink: a share of the card is kept back for what fragments otherwise than simulated
  constexpr double kBrink = 0.02;
  return machine.usable() - outside.high - scaled(machine.usable(), kBrink);
}

Bytes most_that_may_fit(const Workload& workload, const Machine& machine, const EstimateOptions& options) { return most_that_may_fit(machine, outside_memory_of(workload, machine, options).memory); }

Target target_of(const Machine& machine) {
  Target t{machine.gpu.compute_major, machine.gpu.compute_minor, machine.gpu.bf16_tflops.value_or(0)};
  t.memory = machine.usable().count;
  if (const auto l2 = machine.gpu.l2_mib) t.l2_cache = static_cast<std::int64_t>(*l2 * (1 << 20));
  if (const auto rates = rates_of(machine.gpu)) t.multiprocessors = rates->sms;
  return t;
}

Result<Report> estimate(const Workload& workload, const Machine& machine, const EstimateOptions& options) {
  const auto program = program_for(workload, target_of(machine), workload.run.grad_accum_steps > 1);
  if (!program) return std::unexpected(program.error());
  return estimate_program(workload, machine, options, *program);
}

Result<Report> estimate_program(const Workload& workload, const Machine& machine, const EstimateOptions& options, const Program& program) {
  Report report = fill_report(workload, machine, options, program, Detail::all);
  if (options.neighbours) warn_of_fine_tuning(report, options), warn_of_filled_rows(report, options);
  if (options.timeline) fill_timeline(report, program);
  if (options.alternatives) report.alternatives = find_alternatives(report, program, options);
  return report;
}

Result<Report> estimate_if_it_fits(const Workload& workload, const Machine& machine, const EstimateOptions& options, const Program& program) {
  return fill_report(workload, machine, options, program, Detail::if_fits);
}

Result<Outlook> outlook_of(const Workload& workload, const Machine& machine, const EstimateOptions& options) {
  const Training& t = workload.transformers->training;
  if (t.framework == Framework::megatron || t.torchtune.optimizer_in_backward) return Outlook{};
  if (auto ok = is_laid_out(workload.transformers->architecture, training_of(*workload.transformers, workload.run), target_of(machine)); !ok) return std::unexpected(ok.error());
  Outlook outlook{static_bytes(workload), {}};
  const StaticBytes& fixed = *outlook.fixed;
  const Bytes sum = fixed.weights + fixed.gradients + fixed.optimizer;
  const OutsideEstimate outside = outside_memory_of(workload, machine, options);
  if (sum + outside.memory.middle <= machine.usable()) return outlook;
  Report& report = outlook.hopeless.emplace(begin_report(workload, machine, options, outside));
  put(report, fixed);
  report.verdict = Verdict::wont_fit;
  report.allocated = report.reserved = {sum, sum, sum, Provenance::exact};
  report.context = outside.memory.middle;
  report.process = {sum + outside.memory.middle, sum + outside.memory.low, sum + outside.memory.high, outside.provenance};
  report.headroom = machine.usable() - report.process.bytes;
  return outlook;
}

}  // namespace dryfit
