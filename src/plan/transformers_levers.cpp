// What would change a transformers run: the Trainer's own arguments, each estimated as the run itself is. See alternatives.hpp.
#include <algorithm>
#include <functional>

#include "plan/alternatives.hpp"
#include "plan/batch_search.hpp"
#include "workload/transformers.hpp"

namespace dryfit {

namespace {

using Change = std::vector<std::pair<std::string, std::string>>;

class TransformersLevers {
 public:
  TransformersLevers(const Report& report, const Program& program, const EstimateOptions& options) : r_(report), program_(program), options_(options) { options_.alternatives = options_.timeline = false; }

  std::vector<Alternative> all() {
    const Run& run = r_.workload.run;
    const Training t = training_of(*r_.workload.transformers, run);
    if (auto growing = growing_segments(r_, program_, options_)) out_.push_back(std::move(*growing));
    if (t.framework == Framework::megatron) {
      megatron(run, t.megatron);
      return std::move(out_);
    }
    if (t.evaluation && r_.peak_phase == "validation") smaller_evaluation(t.evaluation->batch_size);
    const bool needs_two = t.preference && t.preference->of_others();  // KTO compares with other answers of the batch
    if (run.device_batch_size % 2 == 0 && !(needs_two && run.device_batch_size == 2)) batch(run.device_batch_size / 2, run.grad_accum_steps * 2);
    fitting_batch();
    if (run.grad_accum_steps % 2 == 0) batch(run.device_batch_size * 2, run.grad_accum_steps / 2);
    const std::optional<Lever> checkpoints = recomputes(t), shares = shares_out(t, run);
    if (checkpoints) add(*checkpoints);
    if (t.preference && t.preference->in_tiles() && !t.preference->precomputed) {
      Preference computed = *t.preference;
      computed.precomputed = true;
      add({{"--script", std::string(name_of(computed))}}, true, t.lora ? "precompute_ref_log_probs: no forward pass of the reference in training" : "precompute_ref_log_probs: no reference model in training", std::nullopt, [](Workload& w) { w.transformers->training.preference->precomputed = true; });
    }
    const bool caches = t.use_cache && t.recompute == Recompute::none;
    if (caches) add({{"--no-cache", ""}}, true, "model.config.use_cache = False: no keys and values kept", std::nullopt, [](Workload& w) { w.transformers->training.use_cache = false; });
    if (t.compile && caches) {
      add({{"--no-cache", ""}, {"--recompute", "full"}}, true, "gradient checkpointing, compiled: each block runs forward once more", 4.0 / 3, [](Workload& w) {
        w.transformers->training.use_cache = false;
        w.transformers->training.recompute = Recompute::full;
      });
    }
    if (t.compile && t.recompute == Recompute::none) {
      add({{"--compile", "0"}, {"--recompute", "full"}}, true, "gradient checkpointing in place of torch.compile", std::nullopt, [](Workload& w) {
        w.transformers->training.compile = w.run.compile = false;
        w.transformers->training.recompute = Recompute::full;
      });
    }
    if (t.compile && t.quantized) {
      add({{"--compile", "0"}}, true, "no torch.compile: 4-bit weights are whole only while they are read", std::nullopt, [](Workload& w) { w.transformers->training.compile = w.run.compile = false; });
      std::erase_if(out_, [&](const Alternative& a) { return a.change.size() == 1 && a.change.front().first == "--compile" && a.allocated >= r_.allocated.bytes; });
    }
    if (!t.liger.any() && t.framework == Framework::transformers && t.sharding != Sharding::zero3 && has_liger_kernels(r_.workload.transformers->architecture) && !r_.workload.transformers->architecture.classifies()) {
      add({{"--liger", "1"}}, true, t.head != HeadLoss::logits ? "Liger-Kernel: norms and activations in place" : "Liger-Kernel: the loss in parts, norms and activations in place", std::nullopt, [](Workload& w) {
        Training& with = w.transformers->training;
        with.liger = LigerParts::all();
        if (with.head == HeadLoss::logits) with.head = HeadLoss::liger;
      });
    }
    if (!t.compile && t.framework == Framework::transformers) {
      add({{"--compile", "1"}}, true, "torch.compile: fused kernels keep less; the first step waits for the compiler", std::nullopt, [](Workload& w) { w.transformers->training.compile = w.run.compile = true; });
    }
    if (t.framework != Framework::torchtitan && (t.optimizer == OptimizerKind::adamw || t.optimizer == OptimizerKind::adamw_fused)) {
      add({{"--optimizer", "adamw_8bit"}}, false, "8-bit moments: slightly other numbers", std::nullopt, [](Workload& w) { w.transformers->training.optimizer = OptimizerKind::adamw_8bit; });
    }
    if (t.rollouts) rollouts(*t.rollouts, t);
    else if (run.max_seq_len % 2 == 0 && run.max_seq_len >= 256) {
      add({{"--max-seq-len", std::to_string(run.max_seq_len / 2)}}, false, "shorter context: another training", std::nullopt, [](Workload& w) {
        w.run.max_seq_len /= 2;
        w.run.total_batch_size /= 2;
      });
    }
    if (shares) add(*shares);
    const auto everything = shares_all(t);
    if (everything) add(*everything);
    if (!t.lora && t.framework == Framework::transformers) {
      add({{"--lora-rank", "16"}}, false, "adapters on the projections peft chooses: another training", std::nullopt, [](Workload& w) {
        w.transformers->training.lora.emplace();
        w.transformers->training.lora->rank = 16;
        w.transformers->training.flat.adapters_apart = is_fsdp1(w.transformers->training.sharding);
      });
    }
    together(checkpoints, everything ? everything : shares);
    return std::move(out_);
  }

 private:
  // A change of arguments that leaves the training as it is.
  struct Lever {
    Change change;
    const char* note;
    std::optional<double> step_time;
    std::function<void(Workload&)> edit;
  };

  static std::optional<Lever> recomputes(const Training& t) {
    if (t.recompute != Recompute::none) return std::nullopt;
    return Lever{{{"--recompute", "full"}}, "gradient checkpointing: each block runs forward once more", 4.0 / 3, [](Workload& w) { w.transformers->training.recompute = Recompute::full; }};
  }

  static Lever sharded(Sharding how, const char* note) {
    return {{{"--parallel", std::string(name_of(how))}}, note, std::nullopt, [how](Workload& w) { w.transformers->training.sharding = how; }};
  }

  // What is shared out next, where that is not yet everything; and everything.
  static std::optional<Lever> shares_out(const Training& t, const Run& run) {
    switch (t.sharding) {
      case Sharding::ddp: return t.lora ? std::nullopt : std::optional(sharded(Sharding::fsdp2, "weights, gradients and states shared out over the GPUs, gathered block by block"));
      case Sharding::fsdp1_grad_op: return sharded(Sharding::fsdp1, "blocks given back after forward and gathered again in backward");
      case Sharding::zero0: return run.world_size == 1 ? std::nullopt : std::optional(sharded(Sharding::zero1, "fp32 weights and states shared out over the GPUs"));
      case Sharding::zero1: return sharded(Sharding::zero2, "gradients shared out over the GPUs too");
      case Sharding::fsdp2: return !t.has_reference_model() || run.world_size == 1 ? std::nullopt : std::optional(sharded(Sharding::fsdp1, "the reference model gathered block by block, too"));
      default: return std::nullopt;
    }
  }
  static std::optional<Lever> shares_all(const Training& t) {
    if (t.sharding == Sharding::zero1 || t.sharding == Sharding::zero2) return sharded(Sharding::zero3, "weights shared out over the GPUs too, gathered module by module");
    if (t.sharding == Sharding::ddp && t.has_reference_model()) return sharded(Sharding::zero3, "weights of both models, gradients and states shared out over the GPUs, gathered module by module");
    return std::nullopt;
  }

  // Where no single change leaves the training as it is and fits: what does so together, at the largest batch that divides the present one.
  void together(const std::optional<Lever>& checkpoints, const std::optional<Lever>& shares) {
    if (r_.verdict == Verdict::fits || std::ranges::any_of(out_, [](const Alternative& a) { return a.identical_training && !a.needs_code_change && a.verdict == Verdict::fits; })) return;
    std::vector<std::vector<const Lever*>> ways;
    if (checkpoints) ways.push_back({&*checkpoints});
    if (shares) ways.push_back({&*shares});
    if (checkpoints && shares) ways.push_back({&*shares, &*checkpoints});
    for (const auto& way : ways) {
      if (fits_together(way)) return;
    }
  }

  bool fits_together(const std::vector<const Lever*>& way) {
    const Run& run = r_.workload.run;
    Lever all{{}, way.back()->note, std::nullopt, {}};
    for (const Lever* one : way) {
      all.change.insert(all.change.end(), one->change.begin(), one->change.end());
      if (one->step_time) all.step_time = one->step_time;
    }
    const auto at = [&](std::int64_t b) {
      Lever l = all;
      if (b != run.device_batch_size) l.note = "same sequences a step", l.change.insert(l.change.end(), {{"--device-batch-size", std::to_string(b)}, {"--grad-accum-steps", std::to_string(run.grad_accum_steps * run.device_batch_size / b)}});
      l.edit = [&, b](Workload& w) {
        for (const Lever* one : way) one->edit(w);
        w.run.grad_accum_steps *= w.run.device_batch_size / b;
        w.run.device_batch_size = b;
      };
      return l;
    };
    const auto fits = [&](std::int64_t b) {
      const auto report = changed(at(b).edit);
      return report && report->verdict == Verdict::fits;
    };
    if (!fits(1)) return false;
    std::int64_t b = run.device_batch_size;
    while (b > 1 && (run.device_batch_size % b != 0 || !fits(b))) --b;
    add(at(b));
    return true;
  }

  // Megatron-LM's own arguments. The global batch stays, so accumulation follows the micro-batch.
  void megatron(const Run& run, const MegatronRun& m) {
    const auto micro = [&](std::int64_t b, std::int64_t steps) {
      add({{"--micro-batch-size", std::to_string(b)}}, true, "same sequences a step", std::nullopt, [=](Workload& w) { w.run.device_batch_size = b, w.run.grad_accum_steps = steps; });
    };
    if (run.device_batch_size % 2 == 0) micro(run.device_batch_size / 2, run.grad_accum_steps * 2);
    if (run.grad_accum_steps % 2 == 0) micro(run.device_batch_size * 2, run.grad_accum_steps / 2);
    const auto flag = [&](const char* name, bool MegatronRun::*field, const char* note) {
      add({{name, ""}}, true, note, std::nullopt, [=](Workload& w) { w.transformers->training.megatron.*field = true; });
    };
    if (m.recompute == MegatronRecompute::none && !m.recompute_attention && m.attention == MegatronAttention::unfused) flag("--recompute-activations", &MegatronRun::recompute_attention, "scores of the attention computed again in backward");
    if (m.recompute == MegatronRecompute::none) {
      add({{"--recompute-granularity", "full"}, {"--recompute-method", "uniform"}, {"--recompute-num-layers", "1"}}, true, "each layer runs forward once more", 4.0 / 3, [](Workload& w) {
        w.transformers->training.recompute = Recompute::full;
        w.transformers->training.megatron.recompute = MegatronRecompute::uniform;
      });
    }
    if (!m.distributed_optimizer && run.world_size > m.tensor * m.pipeline) flag("--use-distributed-optimizer", &MegatronRun::distributed_optimizer, "optimizer states shared out over the replicas");
    if (!m.sequence_parallel && m.tensor > 1) flag("--sequence-parallel", &MegatronRun::sequence_parallel, "norms and dropout shared out over the tensor-parallel ranks");
    if (!m.cross_entropy_fusion) return;
    add({{"--cross-entropy-loss-fusion", "off"}}, true, "the loss works on the logits in place", std::nullopt, [](Workload& w) { w.transformers->training.megatron.cross_entropy_fusion = false; });
  }

  // Where half the batch is still too much: the largest that fits and gives as many sequences a step.
  void fitting_batch() {
    const Run& run = r_.workload.run;
    if (r_.verdict == Verdict::fits || (run.device_batch_size % 2 == 0 && !out_.empty() && out_.back().verdict == Verdict::fits)) return;
    Workload w = r_.workload;
    w.transformers->total_batch_size = run.total_batch_size;
    auto found = search_device_batch(w, r_.machine, options_);
    if (found && found->fits) found = confirm_device_batch(std::move(*found), r_.machine, options_);
    if (!found || !found->fits) return;
    const Run& its = found->report.workload.run;
    if (its.device_batch_size < run.device_batch_size) batch(its.device_batch_size, its.grad_accum_steps);
  }

  // Half the rows, and half again while evaluation still makes the peak.
  void smaller_evaluation(std::int64_t rows) {
    static const std::string kArgument = "--per_device_eval_batch_size";
    for (rows /= 2; rows > 0; rows /= 2) {
      Workload w = r_.workload;
      w.transformers->training.evaluation->batch_size = rows;
      const auto result = estimate(w, r_.machine, options_);
      if (!result || (result->peak_phase == "validation" && result->verdict != Verdict::fits && rows > 1)) continue;
      add({{kArgument, std::to_string(rows)}}, true, "fewer rows of an evaluation at a time", std::nullopt, [&](Workload& with) {
        with.transformers->training.evaluation->batch_size = rows;
        std::vector<std::string>& kept = with.transformers->users.kept;
        const auto said = std::ranges::find(kept, kArgument);
        if (said != kept.end() && said + 1 != kept.end()) *(said + 1) = std::to_string(rows);
        else kept.insert(kept.end(), {kArgument, std::to_string(rows)});
      });
      return;
    }
  }

  // What GRPO writes, and in which dtype; the prompts stay.
  void rollouts(const Rollouts& g, const Training& t) {
    const auto keep = [](Workload& w, std::initializer_list<std::string> words) { w.transformers->users.kept.insert(w.transformers->users.kept.end(), words); };
    if (const std::int64_t less = g.completion / 2; g.completion % 2 == 0 && g.completion >= 128) {
      add({{"--max_completion_length", std::to_string(less)}}, false, "shorter completions: another training", std::nullopt, [=](Workload& w) {
        w.run.total_batch_size = w.run.total_batch_size / w.run.max_seq_len * (w.run.max_seq_len - less);
        w.run.max_seq_len -= less;
        w.transformers->training.rollouts->completion = less;
      });
    }
    if (t.lora && !t.quantized && t.weights == Dtype::fp32 && t.mixed != MixedPrecision::fp16) {
      add({{"--dtype", "bfloat16"}}, false, "frozen weights in 16 bits, which write in 16 bits too: other numbers", std::nullopt, [](Workload& w) {
        w.transformers->training.weights = Dtype::bf16;
        w.transformers->users.says_dtype = true;
        for (Parameter& p : w.model.parameters) p.dtype = Dtype::bf16;
      });
    }
    if (r_.peak_phase != "rollout") return;
    if (g.steps > 1 && g.steps % 2 == 0 && !g.told_steps && !g.batch) {
      const std::string steps = std::to_string(g.steps / 2);
      add({{"--steps_per_generation", steps}}, false, "fewer completions are written at once, twice a step", std::nullopt, [=](Workload& w) {
        w.transformers->training.rollouts->told_steps = g.steps / 2;
        keep(w, {"--steps_per_generation", steps});
      });
    }
    if (g.by_vllm) return;
    add({{"--use_vllm", "True"}, {"--vllm_mode", "server"}}, false, "a server of vLLM's writes, on another GPU: trl vllm-serve", std::nullopt, [=](Workload& w) {
      w.transformers->training.rollouts->by_vllm = w.transformers->training.rollouts->elsewhere = true;
      keep(w, {"--use_vllm", "True", "--vllm_mode", "server"});
    });
  }

  void batch(std::int64_t b, std::int64_t steps) {
    add({{"--device-batch-size", std::to_string(b)}, {"--grad-accum-steps", std::to_string(steps)}}, true, "same sequences a step", std::nullopt, [=](Workload& w) {
      w.run.device_batch_size = b;
      w.run.grad_accum_steps = steps;
    });
  }

  Result<Report> changed(const std::function<void(Workload&)>& edit) const {
    Workload w = r_.workload;
    edit(w);
    return estimate(w, r_.machine, options_);
  }

  void add(const Lever& l) { add(l.change, true, l.note, l.step_time, l.edit); }

  // A change the engine does not describe for this run is left out.
  void add(Change change, bool identical, std::string note, std::optional<double> step_time, const std::function<void(Workload&)>& edit) {
    const auto result = changed(edit);
    if (!result) return;
    const bool no_argument = change.front().first == "--no-cache";
    out_.push_back(alternative(std::move(change), *result, identical, std::move(note)));
    out_.back().needs_code_change = no_argument;
    if (!no_argument) out_.back().command = result->command;
    out_.back().step_time_ratio = step_time;
  }

  const Report& r_;
  const Program& program_;
  EstimateOptions options_;
  std::vector<Alternative> out_;
};

}  // namespace

std::vector<Alternative> transformers_alternatives(const Report& report, const Program& program, const EstimateOptions& options) { return TransformersLevers(report, program, options).all(); }

}  // namespace dryfit
