// See underuse.hpp. Thresholds are where a person would start to ask, and are told in docs/doctor.md; gains are given where the
// observation itself holds them or bounds them, or as what the model of speed says.
#include "doctor/underuse.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "doctor/log.hpp"
#include "doctor/words.hpp"
#include "machine/sample.hpp"
#include "plan/launch.hpp"
#include "plan/plan.hpp"
#include "workload/data_loader.hpp"

namespace dryfit {

namespace {

constexpr double kRoom = 0.7;        // of the usable memory: below, there is room worth a thought
constexpr double kIdle = 0.02;       // share of time with a kernel running: below, nothing trains at all
constexpr double kWaiting = 0.7;     // and below this it waits
constexpr double kStalled = 0.1;     // share of time lost in long steps
constexpr double kGoodMfu = 0.4, kPoorMfu = 0.2;
constexpr double kSlowClock = 0.8, kAtLimit = 0.95;
constexpr double kTenant = 0.1;      // of the card's memory, held by others
constexpr double kSlowLink = 0.5;    // of the link's best rate
constexpr double kLowPower = 0.5;    // of the limit, while kernels run all the time
constexpr double kBusyHost = 0.9, kIdleHost = 0.5;  // cores
constexpr double kLoader = 0.3;      // of a step, in the data loader
constexpr std::uint64_t kSlowdown = static_cast<std::uint64_t>(Throttle::hardware_slowdown) | static_cast<std::uint64_t>(Throttle::thermal) | static_cast<std::uint64_t>(Throttle::hardware_thermal) | static_cast<std::uint64_t>(Throttle::power_brake);

// Bytes a second of one PCIe lane, of generations 1 to 6: transfers a second times the line code (8b/10b, 128b/130b, 242/256 flits).
double lane_rate(int generation) {
  static constexpr std::array kRates = {0.25e9, 0.5e9, 0.9846e9, 1.9692e9, 3.9385e9, 7.5625e9};
  return kRates[static_cast<std::size_t>(std::clamp(generation, 1, 6) - 1)];
}

bool has(std::uint64_t bits, Throttle reason) { return (bits & static_cast<std::uint64_t>(reason)) != 0; }

class UseJudge {
 public:
  UseJudge(const Observation& seen, const std::optional<Workload>& workload, const std::optional<Machine>& machine) : s_(seen), workload_(workload), machine_(machine) {
    out_.seen = seen;
    if (workload) out_.device_batch = workload->run.device_batch_size;
  }

  Underuse judge() {
    memory();
    find_largest_batch();
    if (s_.utilization) why("a kernel ran " + percent_text(*s_.utilization) + " of the time");
    if (s_.power_watts && s_.power_limit_watts && *s_.power_limit_watts > 0) why(said("power ", std::llround(*s_.power_watts), " of ", std::llround(*s_.power_limit_watts), " W"));
    if (s_.mfu) why("model FLOPs utilisation " + percent_text(*s_.mfu) + " of the card's bf16 peak");
    const bool slow_link = link(), tenants = shared(), good = s_.mfu && *s_.mfu >= kGoodMfu;
    if (idle()) verdict(Underuse::Verdict::idle, "no kernel runs: the job is starting (compiling takes minutes), works on the host, or hangs");
    else if (throttled()) verdict(Underuse::Verdict::throttled, "the GPU works all the time at a lowered clock");
    else if (waiting()) verdict(Underuse::Verdict::waiting, "the GPU waits: data loading, the host, or other ranks are slower than it");
    else if (good) verdict(Underuse::Verdict::busy, "the GPU is well used" + std::string(has_room() ? "; there is memory to spare, which by itself is no loss" : ""));
    else if (tenants) other_tenants();
    else if (slow_link && s_.ranks > 1) verdict(Underuse::Verdict::pcie, "the link of this GPU runs below what it can: gradients and parameters of all ranks pass over it, unless NVLink joins the cards");
    else if (has_room() && whole_batch_fits()) verdict(Underuse::Verdict::small_model, "the largest legal device batch is in use and memory is left: the model is small for this card");
    else if (has_room()) verdict(Underuse::Verdict::room_in_memory, "memory is left: larger micro-steps fit");
    else if (slow_kernels()) verdict(Underuse::Verdict::slow_kernels, "memory is used, the arithmetic units are not: the kernels are slow ones for this card");
    else if (s_.mfu || s_.utilization || fraction_) verdict(Underuse::Verdict::busy, "nothing here says that the GPU is under-used");
    else verdict(Underuse::Verdict::unknown, "neither memory nor speed were seen: nothing to judge by");
    advise(slow_link, tenants);
    return std::move(out_);
  }

 private:
  void why(std::string text) { out_.why.push_back(std::move(text)); }
  void next(std::string change, std::string expected, std::string command = "") { out_.next.push_back({std::move(change), std::move(expected), std::move(command)}); }
  void verdict(Underuse::Verdict v, std::string summary) {
    out_.verdict = v;
    out_.summary = std::move(summary);
  }
  std::string py_spy(const char* what) const { return s_.host_pid ? said("py-spy ", what, " --pid ", *s_.host_pid) : ""; }
  // "at most +43 % tokens/s, ..."
  std::string at_most(double gain, std::string_view condition) {
    gain = std::max(0.0, gain);  // a reading just beyond its maximum is at it
    out_.gain_at_most = gain;
    return "at most +" + percent_text(gain) + " tokens/s, " + std::string(condition);
  }

  // The job's own memory over what it may have. What is predicted and still to come counts as used.
  void memory() {
    auto used = s_.used ? s_.used : s_.allocated_peak;
    std::optional<Bytes> usable = s_.total;
    if (machine_) usable = machine_->usable();
    if (!used || !usable || *usable <= Bytes(0)) return;
    if (s_.used && s_.others && machine_) used = std::max(Bytes(0), *s_.used - *s_.others);  // usable() is without them
    why(said(s_.used ? "memory: " : "memory that PyTorch counted: ", *used, " of ", *usable, " usable, ", percent_text(static_cast<double>(used->count) / static_cast<double>(usable->count))));
    if (s_.predicted && *s_.predicted > *used) {
      used = s_.predicted;
      why(said("its peak is predicted to be ", *used));
    }
    fraction_ = static_cast<double>(used->count) / static_cast<double>(usable->count);
    out_.headroom = *usable - *used;
  }

  bool has_room() const { return fraction_ && *fraction_ < kRoom; }
  bool mostly_busy() const { return s_.utilization.value_or(1) >= kWaiting; }

  void find_largest_batch() {
    if (!has_room() || !workload_ || !machine_) return;
    const auto best = largest_device_batch(*workload_, *machine_);
    if (best && *best) out_.largest_device_batch = **best;
  }
  bool whole_batch_fits() const { return out_.largest_device_batch && *out_.largest_device_batch <= workload_->run.device_batch_size; }

  bool idle() {
    if (!s_.utilization || *s_.utilization >= kIdle || s_.mfu) return false;
    next("wait for the first step lines, or see where it stands", "none by itself", py_spy("dump"));
    return true;
  }

  bool throttled() {
    const std::uint64_t bits = s_.throttle.value_or(0);
    const bool clocks = s_.clock_mhz && s_.max_clock_mhz && *s_.max_clock_mhz > 0 && *s_.clock_mhz > 0;
    const bool slow = clocks && *s_.clock_mhz < kSlowClock * *s_.max_clock_mhz;
    const bool at_limit = has(bits, Throttle::power_cap) || (s_.power_watts && s_.power_limit_watts && *s_.power_watts >= kAtLimit * *s_.power_limit_watts);
    if (clocks && (slow || bits != 0)) why(said("clock ", std::llround(*s_.clock_mhz), " of ", std::llround(*s_.max_clock_mhz), " MHz", slow && at_limit ? ", at its power limit" : "", reasons(bits)));
    if (!mostly_busy() || !(slow || (bits & kSlowdown) != 0)) return false;
    const std::string gain = clocks ? at_most(*s_.max_clock_mhz / *s_.clock_mhz - 1, "were every kernel bound by the clock") : "unknown: the clock is not told";
    const std::uint64_t hot = static_cast<std::uint64_t>(Throttle::thermal) | static_cast<std::uint64_t>(Throttle::hardware_thermal);
    if ((bits & hot) != 0) next("cool it: air flow, dust, fan curve, room; or a lower power limit that it can hold", gain, "nvidia-smi -q -d TEMPERATURE,PERFORMANCE");
    else if (has(bits, Throttle::power_brake) || has(bits, Throttle::hardware_slowdown)) next("look at the power supply and its cables: the board itself slows the card down", gain, "nvidia-smi -q -d PERFORMANCE,POWER");
    else if (has(bits, Throttle::application_clocks)) next("give the clocks back: somebody fixed them", gain, "sudo nvidia-smi --reset-gpu-clocks && sudo nvidia-smi --reset-applications-clocks");
    else if (has(bits, Throttle::sync_boost)) next("leave the sync boost group: the slowest card of it sets the clock", gain, "nvidia-smi -q -d PERFORMANCE");
    else if (at_limit) next("raise the power limit, if the card and its cooling allow", gain, "nvidia-smi -q -d PERFORMANCE,POWER");
    else next("look for heat: nvidia-smi -q -d PERFORMANCE names what slows the clock", gain, "nvidia-smi -q -d PERFORMANCE,POWER");
    return true;
  }

  static std::string reasons(std::uint64_t bits) {
    std::string out;
    for (std::string_view name : throttle_names(bits & ~static_cast<std::uint64_t>(Throttle::idle))) out += (out.empty() ? "; the driver names " : ", ") + std::string(name);
    return out;
  }

  bool waiting() {
    const bool stalls = s_.stalled_share && *s_.stalled_share > kStalled;
    if (stalls) {
      out_.gain = *s_.stalled_share / (1 - *s_.stalled_share);
      why(percent_text(*s_.stalled_share) + " of the time went into steps over 1.5 times the usual length");
    }
    const bool waits = s_.utilization && *s_.utilization < kWaiting;
    if (!stalls && !waits) return false;
    const std::string gain = out_.gain ? "+" + percent_text(*out_.gain) + " tokens/s without the long steps" : *s_.utilization >= kIdle ? at_most(1 / *s_.utilization - 1, "were it never to wait") : "unknown: the observation does not tell how long each wait is";
    if (s_.host_cores) why(said("its busiest process uses ", cores_text(*s_.host_cores), " of the host"));
    if (data_loader()) {
      const bool one_by_one = workload_->model.version.loader == NanochatVersion::Loader::one_by_one;
      if (one_by_one) next("nanochat of 2025-10-21 or later: until then its data loader put tokens into the batch one by one", gain);
      else next("a host with faster cores: nanochat reads, tokenizes and packs text in the process that launches the kernels", gain, py_spy("top"));
    } else if (s_.host_cores && *s_.host_cores >= kBusyHost && waits) {
      next("take work off the host process, which is busy itself: torch.compile on, tokenizing in workers, a larger device batch for fewer launches", gain, py_spy("top"));
    } else if (s_.host_cores && *s_.host_cores < kIdleHost && waits) {
      next("find what the host waits for, since its processes idle too: a slow disk or network under the data, or another rank", gain, py_spy("dump"));
    } else {
      next("find what it waits for: data loading first (more workers, local disk), then slow ranks", gain);
    }
    return true;
  }

  // Whether nanochat's own data loader is a good part of a step.
  bool data_loader() {
    if (!workload_ || !s_.step_milliseconds) return false;
    const double took = loader_seconds(*workload_) * 1e3 * static_cast<double>(workload_->run.grad_accum_steps);
    if (took < kLoader * *s_.step_milliseconds) return false;
    why(said("nanochat's data loader takes about ", std::llround(took), " ms of the host in each step of ", std::llround(*s_.step_milliseconds), " ms"));
    return true;
  }

  static std::string cores_text(double cores) {
    const std::int64_t tenths = std::llround(cores * 10);
    return said(tenths / 10, ".", tenths % 10, tenths == 10 ? " core" : " cores");
  }

  // Whether the link runs at half its rate or less. Told beside any verdict; it decides only where ranks talk over it.
  bool link() {
    if (!s_.pcie_width || !s_.pcie_width_max || *s_.pcie_width < 1 || *s_.pcie_width_max < 1) return false;
    const int generation = s_.pcie_generation.value_or(1), best = s_.pcie_generation ? s_.pcie_generation_max.value_or(generation) : generation;
    const double share = lane_rate(generation) * *s_.pcie_width / (lane_rate(best) * *s_.pcie_width_max);
    if (share > kSlowLink || !mostly_busy()) return false;  // an idle link drops its generation by itself
    why(said("PCIe link: generation ", generation, " x", *s_.pcie_width, " of generation ", best, " x", *s_.pcie_width_max, ", ", percent_text(share), " of its rate"));
    return true;
  }

  bool shared() {
    if (s_.other_processes == 0) return false;
    why(said(s_.other_processes, s_.other_processes == 1 ? " other process" : " other processes", " on this card", s_.others && *s_.others > Bytes(0) ? " hold" + std::string(s_.other_processes == 1 ? "s " : " ") + exact_text(*s_.others) : ""));
    const Bytes card = s_.total.value_or(machine_ ? machine_->total : Bytes(0));
    return s_.others && card > Bytes(0) && static_cast<double>(s_.others->count) >= kTenant * static_cast<double>(card.count);
  }

  void other_tenants() { verdict(Underuse::Verdict::other_tenants, said("others share this card: they hold ", *s_.others, ", and each kernel of theirs takes time from the job")); }

  bool slow_kernels() {
    if (s_.mfu) return *s_.mfu < kPoorMfu;
    if (!s_.utilization || *s_.utilization < kWaiting || !s_.power_watts || !s_.power_limit_watts || *s_.power_limit_watts <= 0 || *s_.power_watts >= kLowPower * *s_.power_limit_watts) return false;
    why("kernels run all the time and draw little power: small ones, memory-bound ones, or ranks that wait for each other");
    return true;
  }

  // The batch that fills the card; the seed's other two steps: a deeper model, the data loader.
  void advise(bool slow_link, bool tenants) {
    const Underuse::Verdict v = out_.verdict;
    if (v == Underuse::Verdict::idle) return;
    if (tenants) next("end what else runs on this card, or take another card", "unknown: the driver does not tell how much time the others take", "nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv");
    if (slow_link) next("seat the card in a slot with all lanes, without a riser; see what the board gives the slot", s_.ranks > 1 ? "unknown: it depends on how much of a step is spent in collectives" : "little for one GPU: tokens are small", "nvidia-smi topo -m");
    if (has_room() && workload_ && machine_) larger_batch();
    else if (has_room()) next("a larger device batch, with as many fewer accumulation steps", "unknown: it depends on how full the kernels are");
    if (v == Underuse::Verdict::slow_kernels) {
      const bool masks = workload_ && machine_ && std::ranges::any_of(workload_->model.windows, [&](std::int64_t w) { return w < workload_->run.max_seq_len; }) && resolve_attention(*workload_, target_of(*machine_)) != Attention::fa3;
      if (masks) next("--window-pattern L", "unknown, often large: without FlashAttention 3 sliding windows run through masks", with_window());
      else next("profile one step: torch.profiler, or nsys", "unknown");
    }
    if (has_room() && machine_) next("a deeper model", "none in tokens/s: the memory goes into a larger model", "dryfit plan --gpu \"" + machine_->gpu.name + "\"" + (machine_->gpus > 1 ? " --gpus " + std::to_string(machine_->gpus) : ""));
    if (v == Underuse::Verdict::room_in_memory && !s_.utilization) next("see whether the GPU waits for data", "unknown: a log does not show it", "dryfit doctor --live");
  }

  void larger_batch() {
    if (!out_.largest_device_batch) return;
    const std::int64_t now = workload_->run.device_batch_size, best = *out_.largest_device_batch;
    if (best <= now) {
      const bool whole = workload_->run.grad_accum_steps == 1;
      next(said("device batch ", now, whole ? " is the whole batch already" : " is the largest legal one that fits"), whole ? "a larger --total-batch-size is another training" : "none");
      return;
    }
    const auto larger = with_device_batch(*workload_, best);
    if (!larger) return;
    const StepWork work = build_program(*workload_, target_of(*machine_), workload_->run.grad_accum_steps > 1).work;
    const auto slow = estimate_speed(*workload_, *machine_, work), fast = estimate_speed(*larger, *machine_, at_batch(work, best));
    std::string expected = slow && fast ? "+" + percent_text(std::max(0.0, slow->parts.seconds / fast->parts.seconds - 1)) + " tokens/s as modelled: " : std::string("unknown: ");
    expected += said(workload_->run.grad_accum_steps, " -> ", larger->run.grad_accum_steps, " micro-steps a step, training identical");
    if (s_.mfu && *s_.mfu > 0) {
      const double bound = std::max(0.0, 1 / *s_.mfu - 1);
      expected += "; the card's peak bounds it at +" + percent_text(bound);
      if (out_.verdict == Underuse::Verdict::room_in_memory) out_.gain_at_most = bound;
    }
    next(said("--device-batch-size ", best), expected, shell_join(launch_command(*larger)));
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
  static constexpr std::string_view kNames[] = {"busy", "room_in_memory", "waiting", "throttled", "slow_kernels", "unknown", "small_model", "pcie", "other_tenants", "idle"};
  return kNames[static_cast<std::size_t>(verdict)];
}

Underuse diagnose_underuse(const Observation& seen, const std::optional<Workload>& workload, const std::optional<Machine>& machine) { return UseJudge(seen, workload, machine).judge(); }

// Ranks wait for each other within kernels, so a slow one leaves the others busy: what is wrong with one card goes before what is the same on all.
std::size_t worst_of(std::span<const Underuse> judged) {
  using V = Underuse::Verdict;
  static constexpr std::array kOrder = {V::throttled, V::idle, V::waiting, V::other_tenants, V::pcie, V::slow_kernels, V::room_in_memory, V::small_model, V::busy, V::unknown};
  const auto place = [](const Underuse& u) { return std::ranges::find(kOrder, u.verdict) - kOrder.begin(); };
  const auto speed = [](const Underuse& u) { return u.gain_at_most.value_or(0); };
  std::size_t worst = 0;
  for (std::size_t i = 1; i < judged.size(); ++i) {
    const auto a = place(judged[i]), b = place(judged[worst]);
    if (a < b || (a == b && speed(judged[i]) > speed(judged[worst]))) worst = i;
  }
  return worst;
}

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
