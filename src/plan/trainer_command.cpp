// See trainer_command.hpp. Source: transformers 5.24 training_args.py; TRL 0.25 trainer/model_config.py and sft_config.py; accelerate 1.12 commands/launch.py.
#include "plan/trainer_command.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"
#include "plan/argument_file.hpp"
#include "plan/rollout_arguments.hpp"
#include "plan/trl_command.hpp"
#include "workload/class_heads.hpp"

namespace dryfit {

namespace {

// Flags of the Trainer that do not move memory on the GPU, and the usual ones of scripts around it.
constexpr std::array<std::string_view, 105> kNoMemory = {
    "output-dir", "overwrite-output-dir", "num-train-epochs", "max-steps", "learning-rate", "lr-scheduler-type", "lr-scheduler-kwargs", "warmup-steps", "warmup-ratio", "optim-args", "weight-decay", "adam-beta1", "adam-beta2", "adam-epsilon",
    "average-tokens-across-devices", "label-smoothing-factor", "tf32", "logging-strategy", "logging-steps", "logging-first-step", "logging-dir", "log-on-each-node", "logging-nan-inf-filter", "include-num-input-tokens-seen", "log-level", "log-level-replica",
    "disable-tqdm", "report-to", "run-name", "project", "eval-delay", "eval-steps", "save-only-model", "save-strategy", "save-steps", "save-on-each-node", "save-total-limit", "save-safetensors", "push-to-hub", "hub-token", "hub-private-repo", "hub-model-id", "hub-strategy",
    "load-best-model-at-end", "metric-for-best-model", "greater-is-better", "ignore-data-skip", "full-determinism", "seed", "data-seed", "accelerator-config", "dataloader-drop-last", "dataloader-num-workers", "dataloader-pin-memory",
    "dataloader-persistent-workers", "dataloader-prefetch-factor", "remove-unused-columns", "label-names", "group-by-length", "length-column-name", "ddp-backend", "ddp-timeout", "ddp-broadcast-buffers", "debug", "skip-memory-metrics", "do-train", "do-predict",
    "resume-from-checkpoint", "local-rank", "dataset-name", "dataset-config-name", "dataset-config", "dataset-text-field", "train-file", "validation-file", "validation-split-percentage", "preprocessing-num-workers", "overwrite-cache", "cache-dir", "tokenizer-name",
    "model-revision", "trust-remote-code", "use-fast-tokenizer", "streaming", "max-train-samples", "token", "lora-alpha", "lora-task-type", "dataset-train-split", "dataset-test-split", "low-cpu-mem-usage", "bnb-4bit-quant-type", "doc-stride", "version-2-with-negative", "n-best-size", "max-answer-length", "null-score-diff-threshold", "max-predict-samples", "text-column-name", "label-column-name", "label-all-tokens", "return-entity-level-metrics", "ignore-mismatched-sizes", "language", "do-lower-case"};

// Arguments that scripts name otherwise; the first is the one that dryfit writes.
constexpr std::array<std::array<std::string_view, 7>, 11> kNames = {{{"model-name-or-path", "model", "model-name", "config-name"},
                                                                    {"per-device-train-batch-size", "per-gpu-train-batch-size"},
                                                                    {"max-length", "block-size", "max-seq-length", "model-max-length", "max-seq-len", "cutoff-len"},
                                                                    {"dtype", "torch-dtype"},
                                                                    {"gradient-checkpointing", "activation-checkpointing"},
                                                                    {"use-liger-kernel", "use-liger"},
                                                                    {"use-peft", "use-lora", "use-peft-lora"},
                                                                    {"load-in-4bit", "use-4bit-quantization"},
                                                                    {"use-bnb-nested-quant", "use-nested-quant"},
                                                                    {"bnb-4bit-quant-storage", "bnb-4bit-quant-storage-dtype"},
                                                                    {"lora-r", "lora-rank"}}};
std::string underscored(std::string_view name) {
  std::string out(name);
  std::ranges::replace(out, '-', '_');
  return out;
}

// Of transformers' examples, those that hand Trainer compute_metrics and preprocess_logits_for_metrics, an argmax, where they evaluate.
bool is_example_with_accuracy(const LaunchLine& launch) {
  constexpr std::array<std::string_view, 3> kExamples = {"run_clm.py", "run_mlm.py", "run_fim.py"};
  return std::ranges::find(kExamples, std::string_view(launch.script).substr(launch.script.find_last_of('/') + 1)) != kExamples.end();
}

constexpr std::array<std::string_view, 8> kSignature = {"per-device-train-batch-size", "model-name-or-path", "gradient-accumulation-steps", "num-train-epochs", "output-dir", "config-name", "gradient-checkpointing", "per-device-eval-batch-size"};

class TrainerReader {
 public:
  TrainerReader(const LaunchLine& launch, std::span<const Argument> filed) : launch_(launch), filed_(filed), out_(before_arguments(launch)) {}

  Result<TrainerCommand> read() {
    f().gpus = launch_.gpus;
    if (is_of_preferences(trainer_)) f().preference.emplace();
    if (trainer_ == TrlTrainer::kto) f().preference->trainer = Preference::Trainer::kto;
    if (trainer_ == TrlTrainer::reward) {
      f().preference->trainer = Preference::Trainer::reward;
      f().task = HeadKind::sequences, f().labels = 1, f().saves_head = false;
      out_.told.assumed.emplace_back("num_labels 1 (RewardTrainer)");
    }
    if (trainer_ == TrlTrainer::grpo) f().rollouts.emplace();
    for (const auto& [name, value] : launch_.options) {
      if (const auto ok = launcher_option(name, value); !ok) return std::unexpected(ok.error());
    }
    if (f().deepspeed && !f().sharding && !out_.deepspeed_file && !out_.accelerate_file) f().sharding = Sharding::zero2;  // accelerate's default; a file says its own
    std::vector<Argument> all(filed_.begin(), filed_.end());  // the command's own come later and win
    const auto file = argument_file(launch_);
    const bool leads = leads_with_file(launch_), named_file = file && !leads;
    f().users.script = trl_ ? std::vector<std::string>{"-m", std::string(module_of(trainer_))} : launch_.module ? std::vector<std::string>{"-m", launch_.script} : std::vector<std::string>{launch_.script};
    if (named_file) f().users.kept = {"--config", *file};
    if (LaunchLine rest = launch_; !leads || rest.arguments.size() > 1) {
      if (leads) rest.arguments.erase(rest.arguments.begin());
      for (Argument& a : arguments_of(rest, out_.ignored)) {
        if (!file || a.name != "config") all.push_back(std::move(a));
      }
    }
    if (const auto other = other_training(launch_, all)) return std::unexpected(*other);
    for (const Argument& a : all) {
      const auto used = argument(a);
      if (!used) return std::unexpected(used.error());
      keep(a, *used, named_file);
      const bool filed = !a.file.empty(), moves = !still_ && std::ranges::find(kNoMemory, a.name) == kNoMemory.end();
      if (*used) filed ? out_.told.used.push_back(key(a)) : out_.understood.push_back(shown(a));
      else if (const auto about = unclear_about(a)) out_.unclear.push_back({place_of(a), *about});
      else if (moves) filed ? out_.told.unused.push_back(key(a)) : out_.ignored.push_back("--" + a.name.substr(0, 60));
    }
    if (by_trainer_ || f().flat) flat().backward_prefetch = by_trainer_ ? config_prefetch_ : launch_prefetch_;
    if (by_trainer_) flat().loads_on_host = config_on_host_;
    if (fsdp2_) take_fsdp2(f());
    f().fsdp_unsaid = by_trainer_ && !fsdp_said_;
    if (!f().preference && !f().rollouts && (flattens_ || (packs_ && !wrapped_))) f().packed = true;  // SFTTrainer.padding_free; DPOTrainer falls back from it
    if (trl_ && !f().padded) f().padded = f().preference || f().rollouts || (!packs_ && !flattens_);
    if (trl_ && *f().padded) out_.told.assumed.emplace_back("rows that are filled up to the longest of each batch (TRL, which does not pack unless told)");
    if (f().evaluates && !loss_only_ && is_example_with_accuracy(launch_)) f().eval_keeps = EvaluationRun::Keeps::choices;
    if (class_script_ != nullptr) apply_class_script(*class_script_, classes_said_, f(), out_.told.assumed);
    if (trl_) apply_trl_defaults(said_, f(), out_.told.assumed);
    if (f().preference && f().preference->of_others() && f().device_batch_size == 1) return fail("bad_value", "KTO of one answer at a time, which TRL refuses: what it compares with are other answers of the batch", "use --per_device_train_batch_size 2, or --loss_type apo_zero_unpaired", "--per_device_train_batch_size");
    if (lora_ && !adapters_ && !trl_ && !lora_place_.empty()) out_.unclear.push_back({lora_place_, Unclear::adapters});  // TRL's own script leaves it alone
    if (lora_ && adapters_.value_or(false)) f().lora = *lora_;
    else if (f().quantized) return fail("bad_command", "--load_in_4bit without --use_peft: 4-bit weights cannot be trained", "add --use_peft", "--load_in_4bit");
    if (trl_ && f().quantized && !f().quant_storage) f().quant_storage = Dtype::uint8;  // ModelConfig's
    if (trl_ && f().lora && f().quantized) f().lora->dtype = Dtype::bf16, f().lora->upcast_rest = false;  // SFTTrainer and DPOTrainer, in place of peft's preparation
    return std::move(out_);
  }

 private:
  TransformersFlags& f() { return out_.flags; }

  // What the command is written anew from: names, and the arguments that the Training does not say. stays: a file that the command goes on naming.
  void keep(const Argument& a, bool used, bool stays) {
    for (const auto& names : kNames) {
      if (std::find(names.begin() + 1, names.end(), a.name) != names.end()) f().users.spelled.emplace_back(underscored(names[0]), underscored(a.name));
    }
    const bool launchers = trl_ && (a.name == "num-processes" || a.name == "accelerate-config" || a.name == "config-file");
    constexpr std::array kSaysMore = {"do-eval", "eval-strategy", "evaluation-strategy", "eval-on-start", "eval-accumulation-steps", "max-eval-samples", "prediction-loss-only", "per-device-eval-batch-size", "per-gpu-eval-batch-size", "task-name", "pad-to-max-length", "lora-dropout", "lora-task-type", "loss-type", "packing", "packing-strategy", "padding-free", "num-generations", "max-prompt-length", "steps-per-generation", "generation-batch-size", "num-iterations", "beta", "temperature", "repetition-penalty", "top-p", "top-k", "min-p", "use-vllm", "vllm-mode", "vllm-gpu-memory-utilization", "vllm-importance-sampling-correction", "disable-dropout"};
    const bool written = (used && std::ranges::find(kSaysMore, a.name) == kSaysMore.end()) || a.name == "max-steps";
    if (launchers || written || (stays && !a.file.empty())) return;
    f().users.kept.push_back("--" + underscored(a.name));
    f().users.kept.insert(f().users.kept.end(), a.values.begin(), a.values.end());
  }
  FlatShardConfig& flat() {  // once the command says anything of FSDP, all of it is the command's
    if (!f().flat) f().flat.emplace();
    return *f().flat;
  }
  static std::string key(const Argument& a) { return place_of(a).substr(a.file.size() + 2); }  // as the file writes it
  static std::string shown(const Argument& a) {
    std::string out = "--" + a.name;
    for (const std::string& v : a.values) out += " " + v.substr(0, 60);
    return out;
  }
  static std::string value(const Argument& a) { return a.values.empty() ? "" : a.values[0]; }
  Lora& lora() {
    if (!lora_) {
      lora_.emplace();
      if (trl_) lora_->rank = 16, lora_->dropout = 0.05;  // ModelConfig's
    }
    return *lora_;
  }

  Result<bool> yes(const Argument& a) const {
    const std::string v = to_lower(value(a));
    if (v.empty() || v == "true" || v == "1" || v == "yes") return true;
    if (v == "false" || v == "0" || v == "no") return false;
    return fail("bad_value", place_of(a) + " " + v.substr(0, 40) + " is neither True nor False", "write True or False", place_of(a));
  }
  Result<bool> whole(const Argument& a, std::optional<std::int64_t>& out) const {
    const auto n = parse_int(value(a), place_of(a));
    if (!n) return std::unexpected(n.error());
    if (*n < 1) return fail("bad_value", place_of(a) + " " + value(a) + " is out of range", "use a number from 1 on", place_of(a));
    out = *n;
    return true;
  }
  template <class Value>
  static Result<bool> put(std::optional<Value>& out, const Result<Value>& read) {
    if (!read) return std::unexpected(read.error());
    out = *read;
    return true;
  }
  Result<bool> when(const Argument& a, auto set) const {
    const auto on = yes(a);
    if (!on) return on;
    set(*on);
    return true;
  }

  // Whether the argument moves memory and was used.
  Result<bool> argument(const Argument& a) {
    const std::string& n = a.name;
    const std::string flag = place_of(a);
    if (n == "model-name-or-path" || n == "model" || n == "model-name" || n == "config-name") {
      f().model = value(a);
      return true;
    }
    if (n == "per-device-train-batch-size" || n == "per-gpu-train-batch-size") return whole(a, f().device_batch_size);
    if (n == "gradient-accumulation-steps") return whole(a, f().grad_accum_steps);
    if (n == "block-size" || n == "max-seq-length" || n == "max-length" || n == "model-max-length" || n == "max-seq-len" || n == "cutoff-len") return whole(a, f().max_seq_len);
    if (trl_ && n == "num-processes") return whole(a, f().gpus);
    if (trl_ && (n == "accelerate-config" || n == "config-file")) {
      out_.accelerate_file = value(a);
      return true;
    }
    if (f().preference) {
      if (auto used = preference(a); !used || *used) return used;
    }
    still_ = false;
    if (f().rollouts) {
      const auto read = read_rollout_argument(a, *f().rollouts);
      if (!read) return std::unexpected(read.error());
      still_ = read->known && !read->moves;
      if (read->known) return read->moves;
    }
    if (class_script_ != nullptr) {
      if (n == "pad-to-max-length") return when(a, [&](bool on) { classes_said_.fills = on; });
      if (n == "dataset-name") classes_said_.dataset = value(a);
      if (n == "task-name") classes_said_.task = value(a);
      if (n == "task-name") return true;
    }
    if (trl_ && n == "loss-type") return value(a) == "nll" || value(a) == "chunked_nll" || value(a) == "dft";  // all from tiles
    if (n == "bf16" || n == "fp16") {
      said_.bf16 = said_.bf16 || n == "bf16";
      const MixedPrecision kind = n == "bf16" ? MixedPrecision::bf16 : MixedPrecision::fp16;
      return when(a, [&](bool on) { if (on) f().mixed = kind; else if (f().mixed == kind) f().mixed.reset(); });
    }
    if (n == "torch-dtype" || n == "dtype") {
      said_.dtype = true;
      return value(a) == "auto" ? Result<bool>(true) : put(f().weights, weights_dtype_of(value(a), flag));
    }
    if (n == "use-flash-attn" || n == "use-flash-attention-2") return when(a, [&](bool on) { if (on) f().attention = AttentionCode::flash_attention_2; });
    if (n == "use-reentrant") return when(a, [&](bool on) { f().reentrant = on; });
    if (n == "attn-implementation") return put(f().attention, attention_code_of(value(a), flag));
    if (n == "optim") return put(f().optimizer, optimizer_of(value(a), flag));
    if (n == "gradient-checkpointing" || n == "activation-checkpointing") return when(a, [&](bool on) { f().recompute = on ? Recompute::full : Recompute::none; });
    if (n == "gradient-checkpointing-kwargs") return checkpointing(a);
    if (n == "use-liger-kernel" || n == "use-liger") return when(a, [&](bool on) { f().liger = on; });
    if (n == "use-cache") return when(a, [&](bool on) { f().use_cache = on; });  // since transformers 5
    if (n == "packing") return when(a, [&](bool on) { packs_ = on; });
    if (n == "padding-free") return when(a, [&](bool on) { flattens_ = on; });
    if (n == "packing-strategy") {
      wrapped_ = value(a) == "wrapped";
      return true;
    }
    if (n == "torch-compile") return when(a, [&](bool on) { f().compile = on; });
    if (n == "torch-compile-backend" && value(a) == "inductor") {  // either word turns it on (TrainingArguments.__post_init__)
      f().compile = f().compile.value_or(true);
      return true;
    }
    if (n == "torch-compile-mode" || n == "torch-compile-backend") return fail("unsupported_training", place_of(a) + " " + value(a).substr(0, 40) + ": torch.compile but in its default mode, by Inductor, is not laid out", "write --torch_compile True for that", place_of(a));
    if (n == "do-eval") return when(a, [&](bool on) { f().evaluates = f().evaluates || on; });
    if (n == "eval-strategy" || n == "evaluation-strategy") {
      f().evaluates = f().evaluates || (value(a) != "no" && value(a) != "False");
      return true;
    }
    if (n == "eval-on-start") return when(a, [&](bool on) { f().eval_on_start = on, f().evaluates = f().evaluates || on; });
    if (n == "eval-accumulation-steps") return whole(a, f().eval_accumulation_steps);
    if (n == "max-eval-samples") return whole(a, f().eval_samples);
    if (n == "prediction-loss-only") return when(a, [&](bool on) { loss_only_ = on; });
    if (n == "per-device-eval-batch-size" || n == "per-gpu-eval-batch-size") return whole(a, f().eval_batch_size);
    if (n == "max-steps") {  // moves no memory: read, and told with its like; -1 is the Trainer's "by epochs"
      const auto steps = parse_int(value(a), flag);
      if (!steps) return std::unexpected(steps.error());
      if (*steps > 0) f().max_steps = *steps;
    }
    if (n == "weight-decay") {  // its own optimizers decay in place; read all the same, and told with its like
      if (const auto read = put(f().weight_decay, parse_real(value(a), flag)); !read) return read;
    }
    if (n == "label-smoothing-factor") {  // LabelSmoother takes the loss in place of the model: of logits in their own dtype, negated log-probabilities of all of them, their sums
      const auto factor = parse_real(value(a), flag);
      if (!factor) return std::unexpected(factor.error());
      if (*factor > 0) return fail("unsupported_training", flag + " " + value(a) + ": a smoothed loss, which keeps log-probabilities of all logits twice, is not laid out yet", "leave it out: the rest of the run is", flag);
    }
    if (n == "max-grad-norm") return put(f().max_grad_norm, parse_real(value(a), flag));
    if (n == "deepspeed") {
      out_.deepspeed_file = value(a);
      f().deepspeed = true;
      return true;
    }
    if (n == "fsdp") return fsdp(a);
    if (n == "fsdp-config") return fsdp_config(a);
    if (n == "ddp-find-unused-parameters") return when(a, [&](bool on) { f().ddp_find_unused = on; });
    return adapters(a);
  }

  // DPOConfig's, KTOConfig's and RewardConfig's own. What of it is no number of one a pair: their losses differ in those alone.
  Result<bool> preference(const Argument& a) {
    const std::string& n = a.name;
    const std::string who = trainer_ == TrlTrainer::kto ? "KTO" : trainer_ == TrlTrainer::reward ? "a reward model" : "DPO";
    const auto unsupported = [&](std::string what) { return fail("unsupported_training", place_of(a) + ": " + std::move(what) + " is not laid out yet", "leave it out: the rest of the run is", place_of(a)); };
    const auto asks = [&] { return value(a).empty() || yes(a).value_or(true); };
    if (n == "activation-offloading" && asks()) return unsupported("activations on the host");
    if (n == "use-liger-kernel" && asks()) return unsupported("Liger-Kernel beside " + who);
    if (n == "disable-dropout" && !asks()) return unsupported(who + " with the model's dropout");
    if (trainer_ == TrlTrainer::reward) {
      if (n == "lora-task-type") f().saves_head = value(a) == "SEQ_CLS";
      return n == "lora-task-type" || n == "center-rewards-coefficient";
    }
    if (n == "precompute-ref-log-probs") return when(a, [&](bool on) { f().preference->precomputed = on; });
    if (n == "precompute-ref-batch-size") return unsupported("a batch of its own for the reference's pass over the data");
    if (n == "sync-ref-model" && asks()) return unsupported("a reference that follows the model");
    if (n == "lora-modules-to-save") return unsupported(who + " with modules to save");
    if (trainer_ == TrlTrainer::dpo && n == "ld-alpha") return unsupported("LD-DPO, with masks of what the answers share,");
    if (trainer_ == TrlTrainer::dpo && n == "use-weighting" && asks()) return unsupported("WPO's weights of the pairs");
    if (n != "loss-type") return false;
    if (trainer_ == TrlTrainer::kto) {
      if (value(a) != "kto" && value(a) != "apo_zero_unpaired") return fail("bad_value", place_of(a) + " " + value(a).substr(0, 40) + " is none of KTOTrainer's", "kto and apo_zero_unpaired are", place_of(a));
      if (value(a) == "apo_zero_unpaired") f().preference->loss = Preference::Loss::unpaired;
      return true;
    }
    constexpr std::array<std::string_view, 14> kOfNumbers = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop"};
    for (const std::string& type : a.values) {
      if (std::ranges::find(kOfNumbers, type) == kOfNumbers.end()) return fail("unsupported_training", place_of(a) + " " + type.substr(0, 40) + " is not laid out", "sigmoid, hinge, ipo, robust and their like are", place_of(a));
    }
    return true;
  }

  Result<bool> checkpointing(const Argument& a) {
    const std::string text = to_lower(value(a));
    if (text.find("use_reentrant") == std::string::npos) return false;
    f().reentrant = text.find("true") != std::string::npos;
    return true;
  }

  // {"version": 2}: TrainingArguments' own words, when they stand in the command; a file is not read.
  Result<bool> fsdp_config(const Argument& a) {
    std::string text;
    for (const std::string& v : a.values) text += v;
    std::erase_if(text, [](char c) { return c == ' ' || c == '"' || c == '\''; });
    text = to_lower(text);
    if (!text.starts_with("{")) return false;
    const auto says = [&](std::string_view words) { return text.find(words) != std::string::npos; };
    fsdp2_ = fsdp2_ || says("version:2");
    fsdp_said_ = says("version:");
    config_prefetch_ = says("backward_prefetch:backward_pre") ? FlatShardConfig::Prefetch::pre : says("backward_prefetch:backward_post") ? FlatShardConfig::Prefetch::post : FlatShardConfig::Prefetch::none;
    flat().forward_prefetch = says("forward_prefetch:true");
    flat().original_parameters = !says("use_orig_params:false");
    config_on_host_ = says("cpu_ram_efficient_loading:true");
    if (text.find("reshard_after_forward:false") != std::string::npos) f().reshard_after_forward = false;
    return true;
  }

  // "full_shard auto_wrap offload". Trainer asks for no prefetching unless its fsdp_config does.
  Result<bool> fsdp(const Argument& a) {
    f().wrap_blocks = false;
    by_trainer_ = true;
    for (const std::string& words : a.values) {
      for (std::string_view w : split(words, ' ')) {
        if (w == "auto_wrap") f().wrap_blocks = true;
        if (w == "full_shard" || w == "true" || w == "True") f().sharding = Sharding::fsdp1;
        else if (w == "shard_grad_op") f().sharding = Sharding::fsdp1_grad_op;
        else if (w == "no_shard") f().sharding = Sharding::ddp;
        else if (w == "offload") f().offload_parameters = f().offload_optimizer = true;
        else if (w != "auto_wrap" && !w.empty()) return fail("bad_value", "--fsdp " + std::string(w.substr(0, 40)) + " is not described", "full_shard, shard_grad_op, no_shard, auto_wrap and offload are", place_of(a));
      }
    }
    return true;
  }

  Result<bool> adapters(const Argument& a) {
    const std::string& n = a.name;
    if (lora_place_.empty() && n.starts_with("lora-") && n != "lora-bias") lora_place_ = place_of(a);
    if (n == "use-peft" || n == "use-lora" || n == "use-peft-lora") return when(a, [&](bool on) { adapters_ = on; if (on) lora(); });
    if (n == "lora-r" || n == "lora-rank") {
      std::optional<std::int64_t> rank;
      const auto ok = whole(a, rank);
      if (ok) lora().rank = *rank;
      return ok;
    }
    if (n == "lora-dropout") {
      const auto p = parse_real(value(a), place_of(a));
      if (!p) return std::unexpected(p.error());
      lora().dropout = *p;
      return true;
    }
    if (n == "lora-target-modules" || n == "lora-modules-to-save") {
      auto& list = n == "lora-target-modules" ? lora().targets : lora().saved_modules;
      list.clear();
      for (const std::string& v : a.values) {
        for (std::string_view one : split(v, ',')) {
          if (!trim(one).empty()) list.emplace_back(trim(one));
        }
      }
      return true;
    }
    if (n == "num-virtual-tokens") {
      std::optional<std::int64_t> tokens;
      const auto ok = whole(a, tokens);
      if (ok) lora().virtual_tokens = *tokens, lora().rank = 0, adapters_ = adapters_.value_or(true);
      return ok;
    }
    if (n == "lora-bias") {
      const std::string kind = value(a);
      if (kind != "none" && kind != "all" && kind != "lora_only") return fail("bad_value", place_of(a) + " is " + kind.substr(0, 40), "use none, all or lora_only", place_of(a));
      if (kind != "none" || lora_) lora().biases = kind == "all" ? Lora::Biases::all : kind == "none" ? Lora::Biases::none : Lora::Biases::lora_only;
      return true;
    }
    if (n == "load-in-4bit" || n == "use-4bit-quantization") return when(a, [&](bool on) { f().quantized = on; });
    if (n == "use-bnb-nested-quant" || n == "use-nested-quant") return when(a, [&](bool on) { f().double_quantized = on; });
    if (n == "bnb-4bit-quant-storage-dtype" && value(a) != "uint8" && !f().weights) {  // peft's examples/sft/utils.py loads the model in a floating one
      if (const auto read = put(f().weights, weights_dtype_of(value(a), place_of(a))); !read) return read;
    }
    if (n == "bnb-4bit-quant-storage" || n == "bnb-4bit-quant-storage-dtype") return value(a) == "uint8" ? put(f().quant_storage, Result<Dtype>(Dtype::uint8)) : put(f().quant_storage, weights_dtype_of(value(a), place_of(a)));
    if (n == "use-dora") return when(a, [&](bool on) { if (on || lora_) lora().dora = on; });
    return false;
  }

  Result<void> launcher_option(const std::string& name, const std::string& value) {
    if (name == "config-file") {
      out_.accelerate_file = value;
    } else if (name == "mixed-precision" && (value == "bf16" || value == "fp16")) {
      f().mixed = value == "bf16" ? MixedPrecision::bf16 : MixedPrecision::fp16;
    } else if (name == "use-deepspeed") {
      f().deepspeed = true;
    } else if (name == "zero-stage" && value.size() == 1 && value[0] >= '0' && value[0] <= '3') {
      f().sharding = zero_stage(value[0] - '0');
    } else if ((name == "offload-optimizer-device" || name == "offload-param-device") && (value == "cpu" || value == "nvme" || value == "none")) {
      (name == "offload-param-device" ? f().offload_parameters : f().offload_optimizer) = value != "none";
    } else if (name == "gradient-clipping") {
      const auto norm = parse_real(value, "--" + name);
      if (!norm) return std::unexpected(norm.error());
      f().max_grad_norm = *norm;
    } else if (name == "deepspeed-config-file") {
      out_.deepspeed_file = value;
    } else if (name == "use-fsdp") {
      if (!f().sharding) f().sharding = Sharding::fsdp1;
      if (!f().wrap_blocks) f().wrap_blocks = false;  // the launcher's default is NO_WRAP
      flat();
    } else if (name == "fsdp-auto-wrap-policy" && (value == "TRANSFORMER_BASED_WRAP" || value == "NO_WRAP")) {
      f().wrap_blocks = value == "TRANSFORMER_BASED_WRAP";
    } else if (name == "fsdp-backward-prefetch") {
      const auto prefetch = backward_prefetch_of(value, "--" + name);
      if (!prefetch) return std::unexpected(prefetch.error());
      launch_prefetch_ = *prefetch;
      flat();
    } else if ((name == "fsdp-forward-prefetch" || name == "fsdp-use-orig-params" || name == "fsdp-offload-params" || name == "fsdp-activation-checkpointing") && (value == "true" || value == "false")) {
      const bool on = value == "true";
      if (name == "fsdp-forward-prefetch") flat().forward_prefetch = on;
      else if (name == "fsdp-use-orig-params") flat().original_parameters = on;
      else if (name == "fsdp-offload-params") f().offload_parameters = f().offload_optimizer = on;
      else if (on) f().recompute = Recompute::full;
    } else if (name == "fsdp-state-dict-type" || name == "fsdp-cpu-ram-efficient-loading" || name == "fsdp-sync-module-states" || name == "fsdp-transformer-layer-cls-to-wrap") {
      return {};
    } else if (name == "fsdp-version" && (value == "1" || value == "2")) {
      fsdp2_ = value == "2";
    } else if (name == "fsdp-reshard-after-forward" && (value == "true" || value == "false")) {
      f().reshard_after_forward = value == "true";
    } else if ((name == "fsdp-sharding-strategy" || name == "fsdp-reshard-after-forward") && (value == "FULL_SHARD" || value == "1" || value == "SHARD_GRAD_OP" || value == "2")) {
      f().sharding = value == "FULL_SHARD" || value == "1" ? Sharding::fsdp1 : Sharding::fsdp1_grad_op;
    } else if (name == "gradient-accumulation-steps") {
      const auto n = parse_int(value, "--" + name);
      if (!n) return std::unexpected(n.error());
      f().grad_accum_steps = *n;
    } else if (name == "multi-gpu" || name == "num-machines" || name == "machine-rank" || name == "main-process-port" || name == "main-process-ip" || name == "master-port" || name == "num-cpu-threads-per-process") {
      return {};
    } else if (const Argument own{name, {value}, {}}; const auto about = unclear_about(own)) {
      out_.unclear.push_back({place_of(own), *about});
      return {};
    } else {
      out_.ignored.push_back("--" + name.substr(0, 60));
      return {};
    }
    out_.understood.push_back("--" + name + (value.empty() ? "" : " " + value.substr(0, 60)));
    return {};
  }

  const LaunchLine& launch_;
  std::span<const Argument> filed_;
  TrainerCommand out_;
  const TrlTrainer trainer_ = trl_trainer(launch_);
  const bool trl_ = trainer_ != TrlTrainer::none;
  TrlSaid said_;
  std::optional<Lora> lora_;
  bool packs_ = false, flattens_ = false, wrapped_ = false;  // TRL's packing
  bool loss_only_ = false;                                   // --prediction_loss_only
  bool still_ = false;                                       // the argument that was read moves no memory
  const ClassScript* class_script_ = launch_.module ? nullptr : class_script(launch_.script);
  ClassScriptSaid classes_said_;
  std::optional<bool> adapters_;         // --use_peft and its like
  std::string lora_place_;               // what of adapters is said first
  bool fsdp2_ = false, fsdp_said_ = false, by_trainer_ = false, config_on_host_ = false;  // --fsdp: Trainer's own words, over the launcher's
  FlatShardConfig::Prefetch config_prefetch_ = FlatShardConfig::Prefetch::none, launch_prefetch_ = FlatShardConfig::Prefetch::none;
};

}  // namespace

void take_fsdp2(TransformersFlags& flags) {
  if (flags.sharding == Sharding::fsdp1_grad_op) flags.reshard_after_forward = false;
  flags.sharding = Sharding::fsdp2;
}

TrainerCommand before_arguments(const LaunchLine& launch) {
  TrainerCommand out;
  out.understood = launch.understood;
  out.ignored = launch.ignored;
  for (const auto& [key, value] : launch.environment) {
    if (sets_allocator(key)) out.alloc_conf = value;
    else if (sizes_workspaces(key)) out.flags.workspaces.emplace_back(key, value);
    else if (key != "CUDA_VISIBLE_DEVICES") out.ignored.push_back(key);
  }
  return out;
}

bool is_trainer_command(const LaunchLine& launch) {
  return argument_file(launch) || is_trl(launch) || std::ranges::any_of(launch.arguments, [](const std::string& w) {
    return w.starts_with("--") && std::ranges::find(kSignature, dashed(w.substr(2, std::min(w.find('='), w.size()) - 2))) != kSignature.end();
  });
}

Result<TrainerCommand> read_trainer_command(const LaunchLine& launch, std::span<const Argument> filed) {
  const auto trainers = [](const Argument& a) { return std::ranges::find(kSignature, a.name) != kSignature.end(); };
  std::vector<std::string> stray;
  if (!filed.empty() && !is_trl(launch) && std::ranges::none_of(filed, trainers) && std::ranges::none_of(arguments_of(launch, stray), trainers)) {
    return fail("unsupported_script", filed[0].file + " has none of the Trainer's arguments", "dryfit reads argument files of scripts around transformers' Trainer: per_device_train_batch_size and its like", filed[0].file);
  }
  return TrainerReader(launch, filed).read();
}

}  // namespace dryfit
