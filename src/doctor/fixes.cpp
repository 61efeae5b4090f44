// What to change: for each cause its own remedies first, then the memory levers of the engine, then the seed's ladder with numbers.
// A saving is predicted or empty; it is never guessed.
#include <algorithm>
#include <array>
#include <functional>

#include "base/text.hpp"
#include "doctor/diagnosis.hpp"
#include "doctor/words.hpp"
#include "plan/launch.hpp"
#include "plan/plan.hpp"

namespace dryfit {

namespace {

constexpr std::size_t kMostFixes = 6;

// The flags that give this workload again.
std::optional<WorkloadFlags> flags_of(const Workload& workload) {
  auto pasted = parse_pasted_command(launch_command(workload));
  if (!pasted) return std::nullopt;
  WorkloadFlags f = std::move(pasted->flags);
  f.nanochat = workload.model.version.epoch;
  f.vocab_size = workload.model.vocab;
  f.attention = std::string(name_of(workload.run.attention));
  f.compile = workload.run.optimizer_compiled;
  f.cold_caches = workload.run.cold_caches;
  f.torch = workload.run.torch;
  f.compute_major = workload.run.compute_major;
  return f;
}

// The same of a Hugging Face model: a smaller batch with as much more accumulation, shorter rows.
std::optional<Workload> changed_model(Workload w, const std::vector<std::pair<std::string, std::string>>& change) {
  for (const auto& [key, value] : change) {
    const auto n = parse_int(value, key);
    if (!n) return std::nullopt;
    Run& run = w.run;
    if (key == "--device-batch-size" && run.device_batch_size % *n == 0) {
      run.grad_accum_steps *= run.device_batch_size / *n;
      run.device_batch_size = *n;
    } else if (key == "--max-seq-len" && *n < run.max_seq_len) {
      run.total_batch_size = run.total_batch_size / run.max_seq_len * *n;
      run.max_seq_len = *n;
    } else {
      return std::nullopt;
    }
  }
  return w;
}

std::optional<Workload> changed(const Workload& workload, const std::vector<std::pair<std::string, std::string>>& change) {
  if (workload.transformers) return changed_model(workload, change);
  auto flags = flags_of(workload);
  if (!flags) return std::nullopt;
  bool batch_given = false;
  for (const auto& [key, value] : change) {
    const auto n = parse_int(value, key);
    batch_given = batch_given || key == "--device-batch-size";
    if (key == "--device-batch-size" && n) flags->device_batch_size = *n;
    else if (key == "--max-seq-len" && n) flags->max_seq_len = *n;
    else if (key == "--depth" && n) flags->depth = *n;
    else if (key == "--gpus" && n) flags->gpus = *n;
    else if (key == "--window-pattern") flags->window_pattern = value;
    else if (key == "--fp8") flags->fp8 = true;
    else if (key == "NANOCHAT_DTYPE") flags->dtype = value;
    else return std::nullopt;
  }
  auto w = make_nanochat_workload(*flags);
  if (!w && w.error().code == "illegal_batch" && !batch_given) {  // the new shape needs another batch
    flags->device_batch_size = -1;
    if (const auto one = make_nanochat_workload(*flags)) {
      for (std::int64_t b : legal_device_batches(*one)) {
        if (b <= workload.run.device_batch_size) return *with_device_batch(*one, b);
      }
    }
  }
  return w ? std::optional(*w) : std::nullopt;
}

std::string speed_of(const Alternative& a) {
  if (a.change.empty()) return "";
  const std::string& key = a.change.front().first;
  if (key == "--device-batch-size") return "a little slower: more, smaller micro-steps";
  if (key == "--max-seq-len") return "about the same per token";
  if (key == "--depth") return "faster";
  if (key == "--window-pattern") return "faster without FlashAttention 3, slower with it";
  if (key == "--fp8") return "faster on Hopper, Ada and Blackwell";
  if (key == "--gpus") return "faster, on more GPUs";
  if (key == "NANOCHAT_DTYPE") return "faster: this GPU has tensor cores for fp16 alone";
  if (is_variable(key)) return "no cost";
  if (key == "recompute" || key == "--recompute") return "about a third slower";
  return "about the same";
}

Fix fix_of(const Alternative& a, const Report& report) {
  Fix fix;
  fix.change = change_text(a);
  fix.process = a.process;
  if (a.process) fix.saving = report.process.bytes - *a.process;
  fix.verdict = a.verdict;
  fix.step_time_ratio = a.step_time_ratio;
  fix.speed = speed_of(a);
  fix.identical_training = a.identical_training;
  fix.needs_code_change = a.needs_code_change;
  fix.note = a.note;
  if (!a.change.empty() && is_variable(a.change.front().first)) {
    fix.command = fix.change + " " + report.command;
  } else if (!a.command.empty()) {
    fix.command = a.command;
  } else if (!a.needs_code_change) {
    if (const auto w = changed(report.workload, a.change)) fix.command = shell_join(launch_command(*w));
  }
  return fix;
}

Fix in_words(std::string change, std::string note, std::string command = "") {
  Fix fix;
  fix.change = std::move(change);
  fix.note = std::move(note);
  fix.command = std::move(command);
  return fix;
}

// A rung of the ladder: the run with one thing changed, worked out in full.
std::optional<Fix> rung(const Report& report, const KnownRun& known, std::vector<std::pair<std::string, std::string>> change, bool identical, std::string note) {
  const auto w = changed(report.workload, change);
  if (!w) return std::nullopt;
  EstimateOptions options;
  options.allocator = known.allocator;
  const auto result = estimate(*w, report.machine, options);
  if (!result) return std::nullopt;
  Alternative a;
  a.change = std::move(change);
  a.process = result->process.bytes;
  a.verdict = result->verdict;
  a.identical_training = identical;
  a.note = std::move(note);
  if (w->run.device_batch_size != report.workload.run.device_batch_size && a.change.front().first != "--device-batch-size") a.change.emplace_back("--device-batch-size", std::to_string(w->run.device_batch_size));
  Fix fix = fix_of(a, report);
  fix.command = shell_join(launch_command(*w));
  return fix;
}

// Smaller device batches with the same total, the largest first.
std::vector<std::int64_t> smaller_batches(const Workload& w) {
  std::vector<std::int64_t> out;
  if (!w.transformers) {
    std::ranges::copy_if(legal_device_batches(w), std::back_inserter(out), [&](std::int64_t b) { return b < w.run.device_batch_size; });
    return out;
  }
  for (std::int64_t b = w.run.device_batch_size / 2; b >= 1; --b) {
    if (w.run.device_batch_size % b == 0) out.push_back(b);
  }
  return out;
}

int order_of(const Fix& f) { return (f.verdict ? static_cast<int>(*f.verdict) : 2) * 8 + (f.needs_code_change ? 4 : 0) + (f.identical_training.value_or(true) ? 0 : 2) + (f.change.starts_with("--gpus") ? 1 : 0); }

// The same command with half the batch and twice the accumulation, whatever their flags are called. Empty: it has no such flag.
std::string halved_command(const std::string& command) {
  auto words = shell_split(command);
  if (!words) return "";
  static constexpr std::array<std::string_view, 8> kBatch = {"per-device-train-batch-size", "device-batch-size", "micro-batch-size", "train-micro-batch-size-per-gpu", "train-batch-size", "batch-size", "bs", "batch"};
  static constexpr std::array<std::string_view, 3> kAccumulation = {"gradient-accumulation-steps", "grad-accum-steps", "accumulate-grad-batches"};
  bool done = false;
  for (std::size_t i = 0; i < words->size(); ++i) {
    std::string& word = (*words)[i];
    if (!word.starts_with("--")) continue;
    const std::size_t eq = word.find('=');
    std::string name = word.substr(2, eq == std::string::npos ? eq : eq - 2);
    std::ranges::replace(name, '_', '-');
    const bool batch = std::ranges::find(kBatch, name) != kBatch.end(), accumulation = std::ranges::find(kAccumulation, name) != kAccumulation.end();
    if (!batch && !accumulation) continue;
    if (eq == std::string::npos && i + 1 >= words->size()) continue;
    const auto n = parse_int(eq == std::string::npos ? (*words)[i + 1] : word.substr(eq + 1), "");
    if (!n || *n < 1 || *n > 1'000'000 || (batch && *n < 2)) continue;
    const std::string value = std::to_string(batch ? *n / 2 : *n * 2);
    if (eq == std::string::npos) (*words)[i + 1] = value;
    else word = word.substr(0, eq + 1) + value;
    done = done || batch;
  }
  return done ? shell_join(*words) : "";
}

class Fixes {
 public:
  Fixes(const Failure& failure, const RunLog& run, const KnownRun& known, const std::optional<Report>& report) : f_(failure), run_(run), known_(known), report_(report), oom_(failure.event.oom) {}

  std::vector<Fix> all() {
    switch (f_.cause.cause) {
      case Cause::none:
      case Cause::too_big: levers(); break;
      case Cause::optimizer_state:
        levers();
        if (!report_) add(in_words("an optimizer with less state", "8-bit AdamW keeps 2 bytes a parameter instead of 8; training is slightly different"));
        break;
      case Cause::fragmentation:
        unsplit();
        levers();
        break;
      case Cause::other_process:
        tenants();
        levers();
        break;
      case Cause::leak: leak(); break;
      case Cause::evaluation:
        evaluation();
        levers();
        break;
      case Cause::host_memory: host(); break;
      case Cause::limit: limit(); break;
      case Cause::windows_spill:
        levers();
        spill();
        break;
      case Cause::outside_pool:
        outside();
        levers();
        break;
      case Cause::kernel_limit: kernel(); break;
      case Cause::size_bug:
        add(in_words("find the shape", "the traceback's last lines name the call: look for an uninitialised length, a negative index, or a product that overflows", run_.command.empty() ? "" : "CUDA_LAUNCH_BLOCKING=1 " + run_.command));
        break;
    }
    // where a little more would have done, the cheapest remedy belongs in the list, not at its head
    const bool memory = f_.cause.cause == Cause::too_big || f_.cause.cause == Cause::optimizer_state || f_.cause.cause == Cause::leak || f_.cause.cause == Cause::evaluation;
    if (memory && f_.cause.idle_would_do) {
      std::vector<Fix> rest = std::move(out_);
      out_.clear();
      unsplit();
      rest.insert(rest.begin() + std::min<std::ptrdiff_t>(1, std::ssize(rest)), out_.begin(), out_.end());
      out_ = std::move(rest);
    }
    if (out_.size() > kMostFixes) out_.resize(kMostFixes);
    return std::move(out_);
  }

 private:
  void add(Fix fix) { out_.push_back(std::move(fix)); }
  std::string command() const { return !run_.command.empty() ? run_.command : report_ ? report_->command : std::string(); }

  void levers() {
    if (!report_) return generic();
    std::vector<Fix> found;
    const auto smaller = smaller_batches(report_->workload);
    for (std::int64_t b : smaller) {  // the largest that fits
      const std::vector<std::pair<std::string, std::string>> change{{"--device-batch-size", std::to_string(b)}};
      const auto w = changed(report_->workload, change);
      auto fix = rung(*report_, known_, change, true, w ? said("same total batch: accumulation ", report_->workload.run.grad_accum_steps, " -> ", w->run.grad_accum_steps) : std::string());
      if (!fix || *fix->process >= report_->process.bytes) continue;  // of a few rows a smaller batch can lie worse in the pool
      if (fix->verdict == Verdict::fits || b == smaller.back()) {
        found.push_back(std::move(*fix));
        break;
      }
    }
    for (const Alternative& a : report_->alternatives) {
      if (!a.process || *a.process >= report_->process.bytes || a.change.front().first == "--device-batch-size") continue;
      found.push_back(fix_of(a, *report_));
    }
    // a run that fits by its prediction failed by what the prediction does not know: what saves most comes first
    if (report_->verdict == Verdict::fits) std::ranges::stable_sort(found, std::greater{}, [](const Fix& x) { return x.saving->count; });
    std::ranges::stable_sort(found, {}, order_of);
    const bool any = std::ranges::any_of(found, [](const Fix& x) { return x.verdict != Verdict::wont_fit; });
    if (!any && report_->workload.transformers && !report_->command.empty()) add(in_words("several changes at once", "no single one makes it fit: batch, recomputation, method and sharding chosen together", "dryfit plan --gpu \"" + report_->machine.gpu.name + "\" -- " + report_->command));
    for (Fix& fix : found) {
      if (!any || fix.verdict != Verdict::wont_fit) add(std::move(fix));
    }
  }

  void generic() {
    const bool gpu = oom_.backend != Backend::host;
    if (!gpu) return;
    Fix half = in_words("half the device batch, twice the accumulation", "activations and logits halve; weights, gradients and optimizer state stay. dryfit predicts how much: add the training command after --, or --depth N (nanochat), or --model NAME", halved_command(run_.command));
    half.identical_training = true;
    half.speed = "a little slower: more, smaller micro-steps";
    add(std::move(half));
    if (oom_.wording == Wording::xla) add(in_words("XLA_PYTHON_CLIENT_PREALLOCATE=false", "JAX then takes what it needs and not three quarters of the card: matters where others use it too", run_.command.empty() ? "" : "XLA_PYTHON_CLIENT_PREALLOCATE=false " + run_.command));
    if (oom_.wording == Wording::mps) add(in_words("PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0", "no limit of PyTorch's own: macOS then swaps, and may stop responding", run_.command.empty() ? "" : "PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 " + run_.command));
    const char* how = "model.gradient_checkpointing_enable() in Hugging Face models, torch.utils.checkpoint elsewhere";
    if (oom_.wording == Wording::xla) how = "jax.checkpoint around each block";
    if (oom_.wording == Wording::tensorflow) how = "tf.recompute_grad around each block";
    Fix recompute = in_words("recompute activations in the backward pass", how);
    recompute.identical_training = true;
    recompute.needs_code_change = true;
    recompute.step_time_ratio = 4.0 / 3;
    recompute.speed = "about a third slower";
    add(std::move(recompute));
    Fix shorter = in_words("shorter sequences", "activations and logits fall in proportion");
    shorter.identical_training = false;
    shorter.speed = "about the same per token";
    add(std::move(shorter));
  }

  // Fragmentation: segments that can grow, where this PyTorch has them.
  void unsplit() {
    const bool on = known_.allocator && known_.allocator->expandable_segments;
    const bool ancient = oom_.torch.starts_with("1.3") || oom_.torch == "1.4 to 1.9", old = oom_.torch == "1.10 to 2.0";
    if (ancient) {
      add(in_words("a newer PyTorch", "before 1.10 the allocator cannot be told to avoid this: fewer different sizes help, such as padding to one length"));
      return;
    }
    if (on) {
      add(in_words("fewer different sizes", "expandable segments are on already: pad batches to one length, and let go of large tensors before larger ones are made"));
      return;
    }
    const std::string setting = old ? "max_split_size_mb:128" : "expandable_segments:True";
    const std::string name = oom_.backend == Backend::hip ? "PYTORCH_HIP_ALLOC_CONF" : "PYTORCH_CUDA_ALLOC_CONF";
    Fix fix = in_words(name + "=" + setting, "the same tensors, in segments that grow instead of pieces (not on Windows)", command().empty() ? "" : name + "=" + setting + " " + command());
    if (old) fix.note = "blocks over 128 MiB are no longer cut; expandable segments need PyTorch 2.1";
    if (report_ && run_.nanochat && report_->workload.run.torch.starts_with("2.9")) fix.note += "; nanochat sets PYTORCH_ALLOC_CONF, a name that torch 2.9 is reported to ignore";
    if (oom_.idle) fix.saving = oom_.idle->bytes;
    fix.speed = "no cost";
    fix.identical_training = true;
    if (oom_.idle) fix.note += "; saving: at most what lies idle";
    add(std::move(fix));
  }

  void tenants() {
    Fix look = in_words("see who holds the card", "then stop what is yours, or choose a free GPU: CUDA_VISIBLE_DEVICES=1", "nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv");
    if (oom_.backend == Backend::hip) look.command = "rocm-smi --showpids";
    Bytes held;
    for (const Holder& h : f_.holders) {
      if (h.name.starts_with("process ") || h.name == "the rest" || h.name == "not named") held += h.bytes.value_or(Bytes(0));
    }
    if (held > Bytes(0)) look.saving = held;
    add(std::move(look));
    if (report_) add(in_words("plan around it", "dryfit leaves free what you reserve", "dryfit plan --gpu \"" + report_->machine.gpu.name + "\" --reserve " + std::to_string((held.count >> 20) + 1) + "MiB " + (report_->workload.transformers ? "-- " + report_->command : "--depth " + std::to_string(report_->workload.model.depth))));
  }

  void leak() {
    add(in_words("find what stays", "usual suspects: losses summed without .item(), outputs kept in a list, graphs kept by retain_graph=True, caches of evaluation"));
    add(in_words("record who allocates", "call torch.cuda.memory._record_memory_history() at the start and torch.cuda.memory._dump_snapshot(\"snapshot.pickle\") after a few dozen steps", "dryfit doctor snapshot.pickle"));
    add(in_words("watch it grow", "a healthy run is flat from its second step on", "nvidia-smi --query-gpu=memory.used,memory.total --format=csv -l 1"));
    if (!run_.nanochat) add(in_words("if batches differ in length: run the longest first", "a run that survives its longest batch survives the others"));
  }

  void evaluation() {
    if (run_.nanochat || (report_ && !report_->workload.transformers)) {
      const std::string base = command();
      const bool underscores = base.find("_batch_size") != std::string::npos;
      const auto flag = [&](std::string text) {
        if (underscores) std::replace(text.begin() + 2, text.end(), '-', '_');
        return text;
      };
      Fix core = in_words(flag("--core-metric-every=-1"), "the CORE metric runs without compile, on its own batch, whatever --device-batch-size says: leave it to scripts.base_eval", base.empty() ? "" : base + " " + flag("--core-metric-every=-1"));
      core.identical_training = true;
      core.speed = "no cost";
      add(std::move(core));
      return;
    }
    Fix no_grad = in_words("evaluate under torch.no_grad(), with a smaller evaluation batch", "its batch is often larger than the training one (Hugging Face: --per_device_eval_batch_size, --eval_accumulation_steps)");
    no_grad.identical_training = true;
    no_grad.needs_code_change = true;
    add(std::move(no_grad));
  }

  void host() {
    if (oom_.detail == "shm") {
      add(in_words("more shared memory for the container", "or fewer DataLoader workers", "docker run --shm-size=8g ..."));
      return;
    }
    if (oom_.wording == Wording::pinned) add(in_words("DataLoader(pin_memory=False)", "or let the process lock more memory: ulimit -l unlimited"));
    add(in_words("fewer DataLoader workers, smaller prefetch", "each worker copies what the dataset object holds"));
    add(in_words("see what the host has", "the kernel names the process it killed and what it held", "free -g; dmesg -T | grep -i -E 'killed process|oom'"));
    if (oom_.detail == "cgroup") add(in_words("a higher memory limit for the container or job", "docker run --memory=..., resources.limits.memory, sbatch --mem=..."));
    add(in_words("load checkpoints with mmap=True", "torch.load(path, mmap=True, map_location=\"cpu\") does not copy the file into memory; with several ranks each loads its own copy"));
  }

  void limit() {
    if (oom_.allowed) {
      Fix raise = in_words("raise or remove the limit", "set_per_process_memory_fraction in the program, or per_process_memory_fraction in PYTORCH_CUDA_ALLOC_CONF");
      raise.speed = "no cost";
      raise.identical_training = true;
      if (oom_.total) raise.saving = std::max(Bytes(0), oom_.total->bytes - oom_.allowed->bytes);
      raise.note += raise.saving ? "; saving: what the card has beyond it" : "";
      add(std::move(raise));
    }
    if (oom_.backend == Backend::cuda && !oom_.allowed) add(in_words("Windows: a larger page file; Linux: look at ulimit -v and the container's limits", "CUDA reserves host memory behind what it gives out"));
    if (oom_.backend == Backend::hip) add(in_words("more memory for the GPU in the BIOS, or a newer driver", "integrated GPUs report memory shared with the host as free"));
    if (oom_.backend == Backend::xpu) add(in_words("split tensors over 4 GiB", "chunk the loss or the batch"));
    levers();
  }

  void spill() {
    Fix off = in_words("NVIDIA control panel: CUDA - Sysmem Fallback Policy: Prefer No Sysmem Fallback", "it then fails at the card's own limit instead of crawling beyond it (driver 546.01 and newer)");
    off.speed = "many times faster than spilling";
    off.identical_training = true;
    add(std::move(off));
  }

  void outside() {
    if (oom_.wording == Wording::nccl) add(in_words("NCCL_MAX_NCHANNELS=8, or a smaller NCCL_BUFFSIZE", "buffers grow with the channels; fewer process groups help most", command().empty() ? "" : "NCCL_MAX_NCHANNELS=8 " + command()));
    Fix leave = in_words("leave libraries some room: torch.cuda.set_per_process_memory_fraction(0.95)", "PyTorch's pool then flushes its cache before it takes the last of the card");
    leave.identical_training = true;
    leave.needs_code_change = true;
    leave.speed = "no cost, unless the cache is flushed often";
    add(std::move(leave));
    add(in_words("see whether the card is full", "these errors have other causes too", "nvidia-smi"));
  }

  void kernel() {
    add(in_words("smaller blocks or fewer stages for this kernel", "BLOCK_M, BLOCK_N and num_stages in its configuration; for autotuned kernels a Triton that knows this GPU"));
    add(in_words("another kernel", "torch.compile: TORCHINDUCTOR_MAX_AUTOTUNE=0; attention: another backend. A smaller batch does not help"));
  }

  const Failure& f_;
  const RunLog& run_;
  const KnownRun& known_;
  const std::optional<Report>& report_;
  const Oom& oom_;
  std::vector<Fix> out_;
};

Fix leak_rung(const RunLog& run) {
  Fix fix = in_words("check for leaks", "no memory readings in this log", "nvidia-smi --query-gpu=memory.used,memory.total --format=csv -l 1");
  for (const MemorySeries& s : run.memory) {
    const auto grown = growth_of(s);
    fix.note = grown ? said("'", s.label, "' grew by ", *grown, " over ", s.used.count(), " readings") : said("'", s.label, "' stayed level over ", s.used.count(), " readings, at most ", Bytes(static_cast<std::int64_t>(s.used.largest())));
    if (grown) break;
  }
  return fix;
}

}  // namespace

std::vector<Fix> find_fixes(const Failure& failure, const RunLog& run, const KnownRun& known, const std::optional<Report>& report) { return Fixes(failure, run, known, report).all(); }

std::vector<Fix> find_ladder(const RunLog& run, const KnownRun& known, const std::optional<Report>& report) {
  std::vector<Fix> out;
  if (report) {
    const Workload& w = report->workload;
    const auto add = [&](const char* flag, std::int64_t value, bool identical, std::string note) {
      if (auto r = rung(*report, known, {{flag, std::to_string(value)}}, identical, std::move(note))) out.push_back(std::move(*r));
    };
    for (std::int64_t b : smaller_batches(w)) add("--device-batch-size", b, true, "same training");
    if (w.run.max_seq_len > 1024) add("--max-seq-len", 1024, false, "shorter context");
    if (w.run.max_seq_len > 512) add("--max-seq-len", 512, false, "shorter context");
    if (w.transformers) out.push_back(in_words("a smaller model", "for experiments"));
    else if (w.model.depth > 12) add("--depth", 12, false, "a smaller model, for experiments");
    else if (w.model.depth > 4) add("--depth", 4, false, "a smaller model, for experiments");
  } else {
    out.push_back(in_words("a smaller device batch: half, then 4, 2, 1", "same training with as much more accumulation", halved_command(run.command)));
    out.push_back(in_words("shorter sequences: 1024, 512", "another training"));
    out.push_back(in_words("a smaller model", "for experiments"));
  }
  out.push_back(leak_rung(run));
  return out;
}

}  // namespace dryfit
