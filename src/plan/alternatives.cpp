// Levers as loops over changed workloads; the two that need a code change are modelled on the program itself.
#include "plan/alternatives.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <iterator>
#include <utility>

#include "memory/timeline.hpp"
#include "passes/optimizer.hpp"
#include "plan/launcher.hpp"
#include "workload/scripts.hpp"

namespace dryfit {

Alternative alternative(std::vector<std::pair<std::string, std::string>> change, const Report& result, bool identical, std::string note) {
  Alternative a;
  a.change = std::move(change);
  a.allocated = result.allocated.bytes;
  a.process = result.process.bytes;
  a.verdict = result.verdict;
  a.identical_training = identical;
  a.note = std::move(note);
  return a;
}

std::optional<Alternative> growing_segments(const Report& report, const Program& program, EstimateOptions options) {
  const bool cuda = report.machine.gpu.vendor == "NVIDIA" || report.machine.gpu.vendor == "unknown";
  if (options.allocator || report.allocator.expandable_segments || !cuda) return std::nullopt;
  options.allocator = report.allocator;
  options.allocator->expandable_segments = true;
  options.alternatives = options.timeline = options.neighbours = false;
  const bool every_step = std::exchange(options.every_step, false);
  const auto saves = [&](const Result<Report>& r) { return r && 100 * (report.process.bytes - r->process.bytes).count > report.machine.usable().count; };
  auto result = estimate_program(report.workload, report.machine, options, program);
  options.every_step = every_step;
  if (every_step && program.steady && saves(result)) result = estimate_program(report.workload, report.machine, options, program);  // grown segments fragment too, as steps go by
  if (!saves(result)) return std::nullopt;
  // of nanochat's runs only those come here whose torch does not act on the name
  Alternative a = alternative({{"PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True"}}, *result, true,
                              report.workload.transformers || report.workload.captured ? "before the command: segments that grow instead of being cut up (not on Windows)" : "before the command: segments that grow, as nanochat means to have them (torch 2.9 does not act on the name it sets)");
  a.step_time_ratio = 1;
  return a;
}

std::optional<Alternative> growing_segments_of(const Report& report, const EstimateOptions& options, const Program* built) {
  if (20 * (report.reserved.bytes - report.allocated.bytes).count <= report.machine.usable().count) return std::nullopt;
  if (built != nullptr) return growing_segments(report, *built, options);
  const auto program = program_for(report.workload, target_of(report.machine), report.workload.run.grad_accum_steps > 1);
  return program ? growing_segments(report, *program, options) : std::nullopt;
}

const Alternative* smallest_change(const Report& r) {
  for (const Alternative& a : r.alternatives) {
    if (a.verdict == Verdict::fits && a.identical_training && !a.needs_code_change) return &a;
  }
  for (const Alternative& a : r.alternatives) {
    if (a.verdict == Verdict::fits && !a.needs_code_change) return &a;
  }
  return nullptr;
}

std::string command_of(const Alternative& a, const Report& report) {
  if (!a.change.empty() && sets_allocator(a.change.front().first)) return change_text(a) + " " + report.command;
  return a.command;
}

std::string change_text(const Alternative& a) {
  std::string out;
  for (const auto& [key, value] : a.change) {
    if (!out.empty()) out += ' ';
    out += key;
    if (!value.empty()) out += is_variable(key) ? "=" : " ";
    out += value;
  }
  return out;
}

bool is_variable(std::string_view key) { return !key.empty() && key.front() >= 'A' && key.front() <= 'Z'; }

namespace {

class Levers {
 public:
  Levers(const Report& report, const Program& program, const EstimateOptions& options) : r_(report), program_(program), given_(options), options_(options) {
    options_.alternatives = options_.timeline = options_.neighbours = false;
    options_.every_step = options.every_step && report.verdict != Verdict::fits;  // what somebody will do instead is played to the end
  }

  std::vector<Alternative> all() {
    const Run& run = r_.workload.run;
    const Model& m = r_.workload.model;
    const bool base = run.script == Script::base_train;
    if (auto growing = growing_segments(r_, program_, given_)) out_.push_back(std::move(*growing));
    if (is_distributed_alone(m, run)) {
      change({{"--torchrun", "0"}}, true, "python -m scripts." + std::string(name_of(run.script)) + " in place of torchrun: no process group, so nothing is held for it", [](WorkloadFlags& f) { f.torchrun = false; });
    }
    const auto legal = legal_device_batches(r_.workload);
    const auto smaller = std::ranges::find_if(legal, [&](std::int64_t b) { return b < run.device_batch_size; });
    if (smaller != legal.end()) batch(*smaller);
    const auto larger = std::ranges::find_if(legal.rbegin(), legal.rend(), [&](std::int64_t b) { return b > run.device_batch_size; });
    if (larger != legal.rend()) batch(*larger);
    if (!trains_on_rows(r_.workload) && run.max_seq_len % 2 == 0 && run.max_seq_len >= 512) {
      flag("--max-seq-len", run.max_seq_len / 2, false, "shorter context: another training", [](WorkloadFlags& f, std::int64_t v) { f.max_seq_len = v; });
    }
    if (base && m.depth > 4) flag("--depth", m.depth - (m.depth > 8 ? 4 : 2), false, "a smaller model", [](WorkloadFlags& f, std::int64_t v) { f.depth = v; });
    if (base && m.version.window && m.window_pattern != "L") {
      change({{"--window-pattern", "L"}}, false, "full attention everywhere; faster where FlashAttention 3 is absent", [](WorkloadFlags& f) { f.window_pattern = "L"; });
    }
    if (base && !run.fp8 && m.version.fp8_available && run.compute == Dtype::bf16 && fp8_capable()) {
      change({{"--fp8", ""}}, false, "fp8 matrix products: slightly other numbers", [](WorkloadFlags& f) { f.fp8 = true; });
    }
    if (base && run.compute == Dtype::fp32 && run.compute_major != kNoCuda && usual_compute(m.version, run.compute_major) == Dtype::fp32) {
      change({{"NANOCHAT_DTYPE", "float16"}}, false, "before the command: fp16 with loss scaling, for which this GPU has tensor cores; slightly other numbers", [](WorkloadFlags& f) { f.dtype = "fp16"; });
    }
    flag("--gpus", run.world_size * 2, true, "optimizer state is sharded over more GPUs", [](WorkloadFlags& f, std::int64_t v) { f.gpus = v; });
    avoidable();
    if (run.compile) checkpoints();
    estimate_wanted();
    fitting_batch();
    if (!run.compile) {
      modelled("recompute", "per layer", "activation checkpointing in nanochat/gpt.py: an extra forward pass", 1 + forward_share(), [&](const TensorInfo& t) {
        const bool saved_inside = t.category == Category::activations && t.layer >= 0 && t.batched && std::strcmp(t.role, "x_out") != 0;
        return saved_inside ? 1.0 / static_cast<double>(m.depth) : 1.0;
      });
    }
    return std::move(out_);
  }

 private:
  bool fp8_capable() const { return r_.machine.gpu.compute_major > 8 || (r_.machine.gpu.compute_major == 8 && r_.machine.gpu.compute_minor == 9); }

  // Of the step's time, what the blocks' forward pass takes; a third of the arithmetic where the speed is not known.
  double forward_share() const {
    const auto rates = rates_of(r_.machine.gpu);
    if (!r_.speed || !rates) return 1.0 / 3;
    double forward = 0;
    for (const Work& w : program_.work.micro_step) {
      const std::string_view role = w.role;  // the head and the loss are no block
      forward += w.backward || role == "logits" || role.starts_with("loss") ? 0 : kernel_seconds(w, *rates);
    }
    return forward * static_cast<double>(r_.workload.run.grad_accum_steps) / r_.speed->parts.seconds;
  }

  // Laid out as torch.compile then cuts it. With a checkpoint around the block alone no layer's input is in two checkpoints, and the partitioner saves none of them: backward begins with the
  // whole forward pass (recorded: 6.9 GB at depth 12 where this has 2.5 and none 7.5).
  void checkpoints() {
    Workload by_hand = r_.workload;
    by_hand.run.checkpoints = true;
    const char* note = r_.workload.model.version.lambdas
                           ? "torch.utils.checkpoint (use_reentrant=False) in nanochat/gpt.py around each turn of the loop over blocks, lambdas within: around the block alone nearly nothing is saved"
                           : "torch.utils.checkpoint (use_reentrant=False) in nanochat/gpt.py around each block: an extra forward pass";
    wanted_.push_back({{{"recompute", "per layer"}}, std::move(by_hand), true, note, true});
  }

  // A peak in a phase that a flag switches off.
  void avoidable() {
    const bool off = r_.workload.model.version.minus_one_switches_off;
    if (r_.peak_phase == "core_evaluation") {
      change({{"--core-metric-every", "-1"}}, true, "no CORE evaluation, whose prompts make this peak; scripts.base_eval can do it later", [](WorkloadFlags& f) { f.core_metric_every = -1; });
    }
    if (r_.peak_phase == "sampling" && off) {
      change({{"--sample-every", "-1"}}, true, "no sampling, whose caches and prompts make this peak", [](WorkloadFlags& f) { f.sample_every = -1; });
    }
    if (r_.peak_phase == "validation" && off && r_.workload.run.script != Script::chat_sft) {
      change({{"--eval-every", "-1"}}, true, "no validation, which makes this peak", [](WorkloadFlags& f) { f.eval_every = -1; });
    }
    if (r_.peak_phase == "chat_evaluation" && r_.workload.model.version.sft == NanochatVersion::Sft::inherits) {
      change({{"--chatcore-every", "-1"}}, true, "no ChatCORE, whose questions make this peak; scripts.chat_eval can do it later with a smaller batch", [](WorkloadFlags& f) { f.chatcore_every = -1; });
    }
    if (r_.peak_phase == "resume") {
      change({{"--resume-from-step", "-1"}}, false, "from the beginning: a resumed run holds the weights twice for a moment", [](WorkloadFlags& f) { f.resume_from_step = -1; });
    }
  }

  void add(std::vector<std::pair<std::string, std::string>> change, const Result<Workload>& workload, bool identical, std::string note) {
    if (workload) wanted_.push_back({std::move(change), *workload, identical, std::move(note)});
  }

  // What was added, estimated side by side.
  void estimate_wanted() {
    std::vector<std::optional<Report>> reports(wanted_.size());
    go_over(options_.loop, wanted_.size(), [&](std::size_t i) {
      if (auto result = estimate(wanted_[i].workload, r_.machine, options_)) reports[i] = std::move(*result);
      return true;
    });
    for (std::size_t i = 0; i < wanted_.size(); ++i) {
      if (!reports[i]) continue;
      out_.push_back(alternative(std::move(wanted_[i].change), *reports[i], wanted_[i].identical, std::move(wanted_[i].note)));
      if (reports[i]->speed && r_.speed) out_.back().step_time_ratio = reports[i]->speed->parts.seconds / r_.speed->parts.seconds;
      if (!wanted_[i].needs_code) out_.back().command = reports[i]->command;
      if (!wanted_[i].needs_code) continue;
      out_.back().needs_code_change = true;
      out_.back().step_time_ratio = 1 + forward_share();
    }
    wanted_.clear();
  }

  void batch(std::int64_t b) {
    const auto w = with_device_batch(r_.workload, b);
    if (!w) return;
    add({{"--device-batch-size", std::to_string(b)}}, w, true,
        "same total batch: accumulation " + std::to_string(r_.workload.run.grad_accum_steps) + " -> " + std::to_string(w->run.grad_accum_steps));
  }

  // Where the next smaller batch is still too much: the largest that fits, said after it.
  void fitting_batch() {
    const auto is_batch = [](const Alternative& a) { return a.change.size() == 1 && a.change.front().first == "--device-batch-size"; };
    if (r_.verdict == Verdict::fits || std::ranges::any_of(out_, [&](const Alternative& a) { return is_batch(a) && a.verdict == Verdict::fits; })) return;
    const auto largest = largest_device_batch(r_.workload, r_.machine, options_);
    const auto beside = std::ranges::find_if(out_, is_batch);
    if (!largest || !*largest || **largest >= r_.workload.run.device_batch_size || beside == out_.end()) return;
    std::vector<Alternative> after(std::make_move_iterator(beside + 1), std::make_move_iterator(out_.end()));
    out_.erase(beside + 1, out_.end());
    batch(**largest);
    estimate_wanted();
    std::ranges::move(after, std::back_inserter(out_));
  }

  // The flags that give the present workload, with the total held where it can be.
  WorkloadFlags flags() const {
    const Model& m = r_.workload.model;
    const Run& run = r_.workload.run;
    WorkloadFlags f;
    f.nanochat = m.version.epoch;
    f.depth = m.depth;
    f.aspect_ratio = m.aspect_ratio;
    f.head_dim = m.head_dim;
    f.vocab_size = m.vocab;
    f.device_batch_size = run.device_batch_size;
    f.script = std::string(name_of(run.script));
    const bool rows = trains_on_rows(r_.workload);  // as long as they come, not as the flags say
    if (!rows) f.total_batch_size = run.total_batch_size;
    f.max_seq_len = m.sequence_len;
    f.gpus = run.world_size;
    f.torchrun = run.torchrun;
    if (m.version.window) f.window_pattern = m.window_pattern;
    f.compute_major = run.compute_major;
    if (!m.version.autocast) f.dtype = std::string(name_of(run.compute));
    f.attention = std::string(name_of(run.attention));
    f.torch = run.torch;
    f.workspaces = run.workspaces.given;
    f.fp8 = run.fp8;
    f.compile = run.optimizer_compiled;
    f.cold_caches = run.cold_caches;
    f.core_metric_every = run.core_metric_every;
    f.core_metric_max_per_task = run.core_metric_max_per_task;
    f.eval_every = run.eval_every;
    f.sample_every = run.sample_every;
    f.save_every = run.save_every;
    f.chatcore_every = run.chatcore_every;
    f.resume_from_step = run.resume_from_step;
    f.load_optimizer = run.load_optimizer;
    if (rows) f.examples_per_step = run.examples_per_step;
    if (run.script == Script::chat_rl) f.num_samples = run.num_samples, f.max_new_tokens = run.max_new_tokens;
    if (run.only) f.phases = phases_text(run);
    f.left_out = r_.workload.left_out;
    f.passthrough = r_.workload.passthrough;  // how long it trains, of which the steps that are played follow
    return f;
  }

  void change(std::vector<std::pair<std::string, std::string>> what, bool identical, std::string note, const std::function<void(WorkloadFlags&)>& edit) {
    WorkloadFlags f = flags();
    edit(f);
    auto w = make_nanochat_workload(f);
    if (!w && w.error().code == "illegal_batch") {  // the new shape needs another batch: the largest that divides the total
      f.device_batch_size = -1;
      if (const auto one = make_nanochat_workload(f)) {
        for (std::int64_t b : legal_device_batches(*one)) {
          if (b > r_.workload.run.device_batch_size) continue;
          f.device_batch_size = b;
          what.emplace_back("--device-batch-size", std::to_string(b));
          w = make_nanochat_workload(f);
          break;
        }
      }
    }
    add(std::move(what), w, identical, std::move(note));
  }

  void flag(const char* name, std::int64_t value, bool identical, std::string note, void (*edit)(WorkloadFlags&, std::int64_t)) {
    change({{name, std::to_string(value)}}, identical, std::move(note), [&](WorkloadFlags& f) { edit(f, value); });
  }

  void modelled(const char* lever, const char* how, std::string note, double step_time, const std::function<double(const TensorInfo&)>& factor) {
    Program changed = program_;
    for (TensorInfo& t : changed.tensors) t.bytes = static_cast<std::int64_t>(static_cast<double>(t.bytes) * factor(t));
    const Bytes peak = run_timeline(changed).peak;
    Alternative a;
    a.change = {{lever, how}};
    a.allocated = peak;
    a.process = peak + (r_.process.bytes - r_.allocated.bytes);
    a.verdict = *a.process <= r_.machine.usable() ? (static_cast<double>(a.process->count) * 1.05 <= static_cast<double>(r_.machine.usable().count) ? Verdict::fits : Verdict::tight) : Verdict::wont_fit;
    a.step_time_ratio = step_time;
    a.identical_training = true;
    a.needs_code_change = true;
    a.note = std::move(note);
    out_.push_back(std::move(a));
  }

  const Report& r_;
  const Program& program_;
  const EstimateOptions& given_;
  EstimateOptions options_;
  struct Wanted { std::vector<std::pair<std::string, std::string>> change; Workload workload; bool identical; std::string note; bool needs_code = false; };
  std::vector<Wanted> wanted_;
  std::vector<Alternative> out_;
};

}  // namespace

std::vector<Alternative> find_alternatives(const Report& report, const Program& program, const EstimateOptions& options) {
  if (report.workload.captured) {  // its events are as they are: only how they are laid into segments can change
    auto growing = growing_segments(report, program, options);
    return growing ? std::vector<Alternative>{std::move(*growing)} : std::vector<Alternative>{};
  }
  if (report.workload.transformers) return transformers_alternatives(report, program, options);
  return Levers(report, program, options).all();
}

}  // namespace dryfit
