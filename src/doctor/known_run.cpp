// See known_run.hpp.
#include "doctor/known_run.hpp"

#include <algorithm>
#include <cmath>

#include "base/text.hpp"
#include "plan/launch.hpp"
#include "workload/nanochat_flags.hpp"

namespace dryfit {

namespace {

// Flags of the command in the log, if it is one dryfit can read.
void from_command(const RunLog& run, WorkloadFlags& flags, std::optional<std::string>& conf, KnownRun& out) {
  if (run.command.empty()) return;
  const auto words = shell_split(run.command);
  const auto pasted = words ? parse_pasted_command(*words, PasteOptions{{}, {}, true}) : Result<PastedCommand>(std::unexpected(words.error()));
  const std::string where = "the training command (line " + std::to_string(run.command_line) + ")";
  if (!pasted) {
    if (run.nanochat || run.command.find("nanochat") != std::string::npos || run.command.find(" scripts.") != std::string::npos) out.notes.push_back(where + " could not be used: " + pasted.error().message);
    return;
  }
  flags = pasted->flags;
  conf = pasted->alloc_conf;
  out.sources.push_back(where);
}

// A width of D over L layers: nanochat's default of 64 per layer where that gives D, else the quotient.
std::optional<std::int64_t> aspect_of(std::int64_t width, std::int64_t layers, std::int64_t head_dim) {
  if (round_up(64 * layers, head_dim) == width) return 64;
  if (width % layers == 0) return width / layers;
  for (std::int64_t aspect = width / layers; aspect > 0 && aspect > width / layers - 4; --aspect) {
    if (round_up(aspect * layers, head_dim) == width) return aspect;
  }
  return std::nullopt;
}

void from_print(const RunLog& run, WorkloadFlags& flags, KnownRun& out) {
  const auto set = [](std::optional<std::int64_t>& field, const std::optional<std::int64_t>& value) {
    if (value) field = value;
  };
  for (const auto& [key, field] : {std::pair{"depth", &WorkloadFlags::depth}, std::pair{"device_batch_size", &WorkloadFlags::device_batch_size}, std::pair{"total_batch_size", &WorkloadFlags::total_batch_size}, std::pair{"max_seq_len", &WorkloadFlags::max_seq_len}}) {
    if (const auto it = run.overridden.find(key); it != run.overridden.end()) flags.*field = it->second;
  }
  set(flags.depth, run.layers);
  set(flags.vocab_size, run.vocab);
  set(flags.device_batch_size, run.device_batch);
  set(flags.max_seq_len, run.seq_len);
  set(flags.total_batch_size, run.total_batch);
  if (run.all_tokens && run.rank_tokens && *run.rank_tokens > 0 && *run.all_tokens % *run.rank_tokens == 0) flags.gpus = *run.all_tokens / *run.rank_tokens;
  else if (run.total_batch && run.rank_tokens && run.grad_accum && *run.rank_tokens > 0 && *run.grad_accum > 0 && *run.total_batch % *run.rank_tokens == 0 && *run.total_batch / *run.rank_tokens % *run.grad_accum == 0) flags.gpus = *run.total_batch / *run.rank_tokens / *run.grad_accum;
  else set(flags.gpus, run.ranks);
  if (run.width && run.layers && run.heads && *run.heads > 0 && *run.layers > 0 && *run.width % *run.heads == 0) {
    const std::int64_t head_dim = *run.width / *run.heads;
    if (head_dim % 8 == 0) {
      flags.head_dim = head_dim;
      flags.aspect_ratio = aspect_of(*run.width, *run.layers, head_dim);
    }
  }
  if (!run.window_pattern.empty()) flags.window_pattern = run.window_pattern;
  if (run.fp8) flags.fp8 = true;
  if (run.flash3) flags.attention = "fa3";
  else if (run.sdpa) flags.attention = "flash";  // its layers with windows fall to the efficient kernel one by one
  for (const auto& [torch, dtype] : {std::pair{"torch.bfloat16", "bf16"}, std::pair{"torch.float16", "fp16"}, std::pair{"torch.float32", "fp32"}}) {
    if (run.dtype == torch) flags.dtype = dtype;
  }
  if (run.layers || run.device_batch || !run.overridden.empty()) out.sources.push_back("what nanochat printed of itself");
}

// The version: its command's flags and what it prints of itself bound the dates, its number of parameters decides. Empty: the newest known will do.
std::optional<std::string> version_of(const RunLog& run, const WorkloadFlags& flags) {
  const bool by_command = version_by_flags(flags).as_written;
  const auto possible = [&](const NanochatVersion& v) {
    if (by_command && !has_written(v, flags)) return false;
    if (!run.overridden.empty() && v.date >= "2026-01-04") return false;       // configurator.py
    if (run.layers && run.json_config != (v.date >= "2026-02-05")) return false;
    if (!run.dtype.empty() && v.date < "2026-03-04") return false;
    return !(run.dtype.empty() && !run.gpu.empty() && v.date >= "2026-03-04");  // it prints the dtype right after the GPU
  };
  const auto& versions = nanochat_versions();
  std::optional<std::string> newest;
  for (auto v = versions.rbegin(); v != versions.rend(); ++v) {
    if (!possible(*v)) continue;
    if (!newest) newest = v->epoch;
    if (!run.parameters) break;
    WorkloadFlags f = flags;
    f.nanochat = v->epoch;
    f.device_batch_size = f.total_batch_size = std::nullopt;
    f.gpus = 1;
    f.fp8.reset();
    if (!v->window) f.window_pattern.reset();
    if (v->autocast) f.dtype.reset();
    const auto w = make_nanochat_workload(f);
    if (w && w->model.param_count() == *run.parameters) return v->epoch;
  }
  return newest && *newest != versions.back().epoch ? newest : std::nullopt;
}

template <class T>
void prefer(std::optional<T>& field, const std::optional<T>& given) {
  if (given) field = given;
}

void from_user(const WorkloadFlags& given, WorkloadFlags& flags) {
  for (auto field : {&WorkloadFlags::depth, &WorkloadFlags::aspect_ratio, &WorkloadFlags::head_dim, &WorkloadFlags::vocab_size, &WorkloadFlags::device_batch_size, &WorkloadFlags::total_batch_size, &WorkloadFlags::max_seq_len, &WorkloadFlags::gpus}) prefer(flags.*field, given.*field);
  for (auto field : {&WorkloadFlags::window_pattern, &WorkloadFlags::nanochat, &WorkloadFlags::dtype, &WorkloadFlags::attention, &WorkloadFlags::torch}) prefer(flags.*field, given.*field);
  for (auto field : {&WorkloadFlags::fp8, &WorkloadFlags::compile, &WorkloadFlags::torchrun}) prefer(flags.*field, given.*field);
  if (!given.workspaces.empty()) flags.workspaces = given.workspaces;
  if (!given.passthrough.empty()) flags.passthrough = given.passthrough;
}

// The card whose capacity, as CUDA shows it, is nearest; of NVIDIA's Hopper where FlashAttention 3 ran.
const GpuKind* nearest_card(Bytes capacity, Backend backend, bool hopper) {
  const GpuKind* best = nullptr;
  double least = 0.02 * static_cast<double>(capacity.count);
  for (const GpuKind& g : gpu_catalogue()) {
    if ((backend == Backend::hip) != (g.vendor == "AMD") || g.unified || (hopper && g.compute_major != 9)) continue;
    const double off = std::min(std::fabs(static_cast<double>((g.total - g.driver_reserve - capacity).count)), std::fabs(static_cast<double>((g.total - capacity).count)));
    if (off < least) best = &g, least = off;
  }
  return best;
}

void find_machine(const RunLog& run, const OomEvent* event, const Given& given, KnownRun& out) {
  MachineFlags flags = given.machine;
  if (given.here && !flags.gpu && !flags.memory) {
    out.machine = given.here;
    return;
  }
  const Bytes capacity = event == nullptr || !event->oom.total ? Bytes(0) : event->oom.total->bytes;  // 0: not told
  if (!flags.gpu && !run.gpu.empty() && find_gpu(run.gpu)) {
    flags.gpu = run.gpu;
    out.sources.push_back("the GPU that nanochat printed");
  }
  if (!flags.gpu && !flags.memory && capacity > Bytes(0)) {
    if (const GpuKind* card = nearest_card(capacity, event->oom.backend, run.flash3)) {
      flags.gpu = card->name;
      if (out.workload) out.notes.push_back("the card is taken as " + card->name + " by its memory; --gpu names another");
    } else {
      flags.memory = capacity;
    }
  }
  if (!flags.gpu && !flags.memory) return;
  flags.gpus = given.machine.gpus ? given.machine.gpus : out.workload ? std::optional(out.workload->run.world_size) : std::nullopt;
  auto machine = machine_from_flags(flags);
  if (!machine) {
    out.notes.push_back(machine.error().message);
    return;
  }
  if (capacity == Bytes(0) && !machine->gpu.note.empty()) out.notes.push_back(machine->gpu.note);
  if (capacity > mib(256) && !given.machine.memory) {  // what CUDA showed goes before any table
    machine->total = capacity;
    machine->driver_reserve = Bytes(0);
  }
  if (machine->usable() > Bytes(0)) out.machine = *machine;
}

void read_allocator(const std::optional<std::string>& conf, KnownRun& out) {
  if (out.allocator || !conf) return;
  if (const auto parsed = parse_alloc_conf(*conf)) out.allocator = *parsed;
  else out.notes.push_back("allocator settings not used: " + parsed.error().message);
}

}  // namespace

KnownRun known_run(const RunLog& run, const OomEvent* event, const Given& given) {
  KnownRun out;
  if (given.model) {
    out.workload = given.model;
    out.allocator = given.allocator;
    out.sources.push_back(given.model_source);
    read_allocator(run.alloc_conf.empty() ? std::nullopt : std::optional(run.alloc_conf), out);
    find_machine(run, event, given, out);
    return out;
  }
  WorkloadFlags flags;
  std::optional<std::string> conf;
  from_command(run, flags, conf, out);
  from_print(run, flags, out);
  if (given.running) {
    from_user(*given.running, flags);
    if (given.running->depth) out.sources.push_back(given.running_source);
  }
  from_user(given.flags, flags);
  if (given.flags.depth) out.sources.insert(out.sources.begin(), "the flags given");
  out.allocator = given.allocator;
  if (!run.alloc_conf.empty()) conf = run.alloc_conf;
  read_allocator(conf, out);
  if (!flags.gpus && given.here) flags.gpus = given.here->gpus;
  if (flags.depth) {
    if (!flags.nanochat) flags.nanochat = version_of(run, flags);
    if (const auto version = find_nanochat_version(flags.nanochat.value_or("newest"))) {
      if (!version->window && !given.flags.window_pattern) flags.window_pattern.reset();
      if (version->autocast && !given.flags.dtype) flags.dtype.reset();
    }
    auto workload = make_nanochat_workload(flags);
    if (workload) out.workload = std::move(*workload);
    else out.problem = workload.error();
    if (out.problem) out.notes.push_back("the run could not be laid out: " + out.problem->message + "; " + out.problem->hint);
  }
  find_machine(run, event, given, out);
  if (out.machine && out.workload && !flags.dtype && usual_compute(out.workload->model.version, out.machine->gpu.compute_major) != out.workload->run.compute) {
    flags.compute_major = out.machine->gpu.compute_major;
    if (auto workload = make_nanochat_workload(flags)) out.workload = std::move(*workload);
    out.notes.push_back("taken as fp32: nanochat falls back to it below compute capability 8.0");
  }
  return out;
}

}  // namespace dryfit
