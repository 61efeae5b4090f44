// See underuse.hpp. Thresholds are where a person would start to ask, and are told in docs/doctor.md; gains are given where the
// observation itself holds them, or as what the model of speed says.
#include "doctor/underuse.hpp"

#include <algorithm>
#include <cmath>

#include "doctor/log.hpp"
#include "doctor/words.hpp"
#include "plan/launch.hpp"
#include "plan/plan.hpp"

namespace dryfit {

namespace {

constexpr double kRoom = 0.7;        // of the usable memory: below, there is room worth a thought
constexpr double kWaiting = 0.7;     // share of time with a kernel running
constexpr double kStalled = 0.1;     // share of time lost in long steps
constexpr double kGoodMfu = 0.4, kPoorMfu = 0.2;
constexpr double kSlowClock = 0.8, kAtLimit = 0.95;

class Judge {
 public:
  Judge(const Observation& seen, const std::optional<Workload>& workload, const std::optional<Machine>& machine) : s_(seen), workload_(workload), machine_(machine) {
    out_.seen = seen;
    if (workload) out_.device_batch = workload->run.device_batch_size;
  }

  Underuse judge() {
    memory();
    if (s_.utilization) why("a kernel ran " + percent_text(*s_.utilization) + " of the time");
    if (s_.mfu) why("model FLOPs utilisation " + percent_text(*s_.mfu) + " of the card's bf16 peak");
    if (throttled()) verdict(Underuse::Verdict::throttled, "the GPU works all the time at a lowered clock");
    else if (waiting()) verdict(Underuse::Verdict::waiting, "the GPU waits: data loading, the host, or other ranks are slower than it");
    else if (s_.mfu && *s_.mfu >= kGoodMfu) verdict(Underuse::Verdict::busy, "the GPU is well used" + std::string(has_room() ? "; there is memory to spare, which by itself is no loss" : ""));
    else if (has_room()) verdict(Underuse::Verdict::room_in_memory, "memory is left: larger micro-steps fit");
    else if (s_.mfu && *s_.mfu < kPoorMfu) verdict(Underuse::Verdict::slow_kernels, "memory is used, the arithmetic units are not: the kernels are slow ones for this card");
    else if (s_.mfu || s_.utilization || fraction_) verdict(Underuse::Verdict::busy, "nothing here says that the GPU is under-used");
    else verdict(Underuse::Verdict::unknown, "neither memory nor speed were seen: nothing to judge by");
    advise();
    return std::move(out_);
  }

 private:
  void why(std::string text) { out_.why.push_back(std::move(text)); }
  void verdict(Underuse::Verdict v, std::string summary) {
    out_.verdict = v;
    out_.summary = std::move(summary);
  }

  void memory() {
    const auto used = s_.used ? s_.used : s_.allocated_peak;
    std::optional<Bytes> usable = s_.total;
    if (machine_) usable = machine_->usable();
    if (!used || !usable || *usable <= Bytes(0)) return;
    fraction_ = static_cast<double>(used->count) / static_cast<double>(usable->count);
    out_.headroom = *usable - *used;
    why(said(s_.used ? "memory: " : "memory that PyTorch counted: ", *used, " of ", *usable, " usable, ", percent_text(*fraction_)));
  }

  bool has_room() const { return fraction_ && *fraction_ < kRoom; }

  bool throttled() {
    if (!s_.clock_mhz || !s_.max_clock_mhz || *s_.max_clock_mhz <= 0) return false;
    const bool slow = *s_.clock_mhz < kSlowClock * *s_.max_clock_mhz && s_.utilization.value_or(1) >= kWaiting;
    if (!slow) return false;
    const bool at_limit = s_.power_watts && s_.power_limit_watts && *s_.power_watts >= kAtLimit * *s_.power_limit_watts;
    why(said("clock ", std::llround(*s_.clock_mhz), " of ", std::llround(*s_.max_clock_mhz), " MHz", at_limit ? ", at its power limit" : ""));
    out_.next.push_back({at_limit ? "raise the power limit, if the card and its cooling allow" : "look for heat: nvidia-smi -q -d PERFORMANCE names what slows the clock", "unknown: not every kernel is bound by the clock", "nvidia-smi -q -d PERFORMANCE,POWER"});
    return true;
  }

  bool waiting() {
    const bool stalls = s_.stalled_share && *s_.stalled_share > kStalled;
    if (stalls) {
      out_.gain = *s_.stalled_share / (1 - *s_.stalled_share);
      why(percent_text(*s_.stalled_share) + " of the time went into steps over 1.5 times the usual length");
    }
    const bool idle = s_.utilization && *s_.utilization < kWaiting;
    if (!stalls && !idle) return false;
    out_.next.push_back({"find what it waits for: data loading first (more workers, local disk), then slow ranks", out_.gain ? "+" + percent_text(*out_.gain) + " tokens/s without the long steps" : "unknown: the observation does not tell how long each wait is", ""});
    return true;
  }

  // The batch that fills the card; the seed's other two steps: a deeper model, the data loader.
  void advise() {
    if (has_room() && workload_ && machine_) larger_batch();
    else if (has_room()) out_.next.push_back({"a larger device batch, with as many fewer accumulation steps", "unknown: it depends on how full the kernels are", ""});
    if (out_.verdict == Underuse::Verdict::slow_kernels) {
      const bool masks = workload_ && machine_ && std::ranges::any_of(workload_->model.windows, [&](std::int64_t w) { return w < workload_->run.max_seq_len; }) && resolve_attention(*workload_, target_of(*machine_)) != Attention::fa3;
      if (masks) out_.next.push_back({"--window-pattern L", "unknown, often large: without FlashAttention 3 sliding windows run through masks", with_window()});
      else out_.next.push_back({"profile one step: torch.profiler, or nsys", "unknown", ""});
    }
    if (has_room() && machine_) out_.next.push_back({"a deeper model", "none in tokens/s: the memory goes into a larger model", "dryfit plan --gpu \"" + machine_->gpu.name + "\"" + (machine_->gpus > 1 ? " --gpus " + std::to_string(machine_->gpus) : "")});
    if (out_.verdict == Underuse::Verdict::room_in_memory && !s_.utilization) out_.next.push_back({"see whether the GPU waits for data", "unknown: a log does not show it", "nvidia-smi --query-gpu=utilization.gpu,memory.used,power.draw,clocks.sm --format=csv -l 1"});
  }

  void larger_batch() {
    const auto best = largest_device_batch(*workload_, *machine_);
    if (!best || !*best) return;
    out_.largest_device_batch = **best;
    const std::int64_t now = workload_->run.device_batch_size;
    if (**best <= now) {
      const bool whole = workload_->run.grad_accum_steps == 1;
      out_.next.push_back({said("device batch ", now, whole ? " is the whole batch already" : " is the largest legal one that fits"), whole ? "a larger --total-batch-size is another training" : "none", ""});
      return;
    }
    const auto larger = with_device_batch(*workload_, **best);
    if (!larger) return;
    const StepWork work = build_program(*workload_, target_of(*machine_), workload_->run.grad_accum_steps > 1).work;
    const auto slow = estimate_speed(*workload_, *machine_, work), fast = estimate_speed(*larger, *machine_, at_batch(work, **best));
    std::string expected = slow && fast ? "+" + percent_text(std::max(0.0, slow->parts.seconds / fast->parts.seconds - 1)) + " tokens/s as modelled: " : std::string("unknown: ");
    expected += said(workload_->run.grad_accum_steps, " -> ", larger->run.grad_accum_steps, " micro-steps a step, training identical");
    if (s_.mfu) expected += "; the card's peak bounds it at +" + percent_text(1 / *s_.mfu - 1);
    out_.next.push_back({said("--device-batch-size ", **best), expected, shell_join(launch_command(*larger))});
  }

  std::string with_window() const {
    Workload w = *workload_;
    w.model.window_pattern = "L";
    return shell_join(launch_command(w));
  }

  const Observation& s_;
  const std::optional<Workload>& workload_;
  const std::optional<Machine>& machine_;
  std::optional<double> fraction_;
  Underuse out_;
};

}  // namespace

std::string_view name_of(Underuse::Verdict verdict) {
  static constexpr std::string_view kNames[] = {"busy", "room_in_memory", "waiting", "throttled", "slow_kernels", "unknown"};
  return kNames[static_cast<std::size_t>(verdict)];
}

Underuse diagnose_underuse(const Observation& seen, const std::optional<Workload>& workload, const std::optional<Machine>& machine) { return Judge(seen, workload, machine).judge(); }

Observation observation_of(const RunLog& run, const std::optional<Machine>& machine) {
  Observation o;
  for (const MemorySeries& m : run.memory) {
    if (!m.label.starts_with("nvidia-smi") || m.used.count() == 0) continue;
    const Bytes most(static_cast<std::int64_t>(m.used.largest()));
    if (!o.used || most > *o.used) o.used = most, o.total = m.total;
  }
  if (run.peak) o.allocated_peak = run.peak;
  if (machine) o.total = machine->total;
  o.mfu = run.steps.mfu.median();
  o.tokens_per_second = run.steps.tokens_per_second.median();
  o.step_milliseconds = run.steps.milliseconds.median();
  if (run.steps.total_ms > 0 && run.steps.milliseconds.count() >= 16) o.stalled_share = run.steps.stalled_ms / run.steps.total_ms;
  return o;
}

}  // namespace dryfit
