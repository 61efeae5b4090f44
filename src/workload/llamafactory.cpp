// See llamafactory.hpp. Source: hiyouga/LLaMA-Factory 0.9.5: hparams/{model,finetuning,data,training}_args.py and parser.py, model/{adapter,patcher,loader}.py, model/model_utils/{checkpointing,attention,quantization,liger_kernel}.py, train/{dpo,rm}.
#include "workload/llamafactory.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"

namespace dryfit {

namespace {

constexpr std::int64_t kMostNamed = 1 << 22;

// Keys that move no memory on the GPU while training a text model.
constexpr std::string_view kFactoryQuiet[] = {
    "do_train", "do_predict", "trust_remote_code", "cache_dir", "use_fast_tokenizer", "split_special_tokens", "model_revision", "low_cpu_mem_usage", "rope_scaling", "infer_backend", "infer_dtype", "offload_folder", "use_kv_cache", "hf_hub_token", "ms_hub_token", "om_hub_token", "print_param_status",
    "quantization_type", "lora_alpha", "loraplus_lr_ratio", "loraplus_lr_embedding", "use_rslora", "create_new_adapter", "adapter_name_or_path", "adapter_folder", "pissa_init", "pissa_iter", "pissa_convert", "train_from_scratch", "moe_aux_loss_coef",
    "template", "dataset", "eval_dataset", "dataset_dir", "media_dir", "train_on_prompt", "mask_history", "streaming", "buffer_size", "mix_strategy", "interleave_probs", "overwrite_cache", "preprocessing_batch_size", "preprocessing_num_workers", "max_samples", "eval_num_beams",
    "ignore_pad_token_for_loss", "tool_format", "default_system", "enable_thinking", "preserve_thinking", "tokenized_path", "data_shared_file_system", "packing", "freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model", "image_max_pixels", "image_min_pixels", "video_max_pixels", "video_min_pixels",
    "video_fps", "video_maxlen", "disable_shuffling", "early_stopping_steps", "plot_loss", "include_effective_tokens_per_second", "use_swanlab", "swanlab_project", "swanlab_run_name", "swanlab_mode", "ray_num_workers", "ray_run_name", "ray_storage_path",
    "output_dir", "overwrite_output_dir", "logging_dir", "logging_steps", "logging_strategy", "logging_first_step", "log_level", "save_steps", "save_strategy", "save_total_limit", "save_only_model", "save_safetensors", "report_to", "run_name", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs",
    "warmup_ratio", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "num_train_epochs", "tf32", "seed", "data_seed", "ddp_timeout", "ddp_backend", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_drop_last", "dataloader_prefetch_factor", "dataloader_persistent_workers",
    "resume_from_checkpoint", "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "group_by_length", "remove_unused_columns", "include_num_input_tokens_seen", "push_to_hub", "hub_model_id", "hub_strategy", "disable_tqdm", "gradient_checkpointing", "gradient_checkpointing_kwargs", "max_steps", "local_rank"};

// What would be another run.
struct FactoryOther { std::string_view key, why; };
constexpr std::array kFactoryOthers = {
    FactoryOther{"use_unsloth", "unsloth's model"}, FactoryOther{"use_unsloth_gc", "checkpoints kept on the host"}, FactoryOther{"shift_attn", "shifted attention (LongLoRA)"}, FactoryOther{"mixture_of_depths", "mixture of depths"}, FactoryOther{"use_galore", "GaLore"}, FactoryOther{"use_apollo", "APOLLO"},
    FactoryOther{"use_badam", "BAdam"}, FactoryOther{"use_adam_mini", "Adam-mini"}, FactoryOther{"use_muon", "its own Muon"}, FactoryOther{"use_llama_pro", "LLaMA Pro's blocks"}, FactoryOther{"use_kt", "KTransformers"}, FactoryOther{"use_hyper_parallel", "HyperParallel"}, FactoryOther{"fp8", "fp8"},
    FactoryOther{"upcast_lmhead_output", "logits that are cast to fp32 by a hook"}, FactoryOther{"use_dft_loss", "another loss"}, FactoryOther{"use_asft_loss", "another loss"}, FactoryOther{"use_eaft_loss", "another loss"}};

class FactoryReader {
 public:
  FactoryReader(const Document& arguments, std::string_view where, TransformersFlags& flags) : arguments_(arguments), flags_(flags), f_(arguments, std::string(where)) {}

  Result<void> read(KeysTold& told) {
    if (f_.error()) return std::unexpected(*f_.error());
    for (std::string_view key : kFactoryQuiet) f_.used(key);
    if (auto ok = refuse(); !ok) return ok;
    model_and_batch();
    if (auto ok = precision(); !ok) return ok;
    if (auto ok = pairs(); !ok) return ok;
    if (auto ok = words(); !ok) return ok;
    if (auto ok = adapters(); !ok) return ok;
    several_gpus();
    checkpoints();
    liger();
    if (f_.error()) return std::unexpected(*f_.error());
    f_.tell(told);
    told.assumed.insert(told.assumed.end(), assumed_.begin(), assumed_.end());
    return {};
  }

 private:
  static bool on(const Document* v) {
    if (v == nullptr) return false;
    if (v->kind == Document::Kind::boolean) return v->flag;
    return v->kind != Document::Kind::text || (!v->text.empty() && to_lower(v->text) != "false" && to_lower(v->text) != "none");
  }
  void assume(const std::string& what) { assumed_.push_back(what + " (LLaMA-Factory's default)"); }

  Result<void> refuse() {
    constexpr std::string_view kHint = "its stages pt and sft are, of the whole model or of LoRA and QLoRA adapters, under DDP, FSDP or DeepSpeed, dpo under DDP, and rm on one GPU (docs/models.md)";
    stage_ = f_.text("stage").value_or("sft");
    if (stage_ != "sft" && stage_ != "pt" && stage_ != "dpo" && stage_ != "rm") return f_.not_laid_out("stage", "\"" + stage_.substr(0, 40) + "\"" + (stage_ == "kto" ? ", training on preferences" : stage_ == "ppo" ? ", training on rollouts" : ""), std::string(kHint));
    for (const FactoryOther& o : kFactoryOthers) {
      if (on(f_.find(o.key))) return f_.not_laid_out(o.key, o.why, std::string(kHint));
      f_.used(o.key);
    }
    return {};
  }

  bool of_pairs() const { return stage_ == "dpo" || stage_ == "rm"; }

  // CustomDPOTrainer and PairwiseTrainer. The reference is loaded in what the model computes in (create_ref_model).
  Result<void> pairs() {
    const std::string loss = f_.text("pref_loss").value_or("sigmoid");
    for (const char* key : {"pref_beta", "pref_ftx", "pref_bco_weight", "dpo_label_smoothing", "simpo_gamma"}) f_.used(key);
    for (const char* key : {"ref_model", "ref_model_adapters", "ref_model_quantization_bit", "ld_alpha"}) {
      if (stage_ == "dpo" && on(f_.find(key))) return f_.not_laid_out(key, key == std::string_view("ld_alpha") ? "LD-DPO, with masks of what the answers share" : "another model as the reference", "leave it out: the model itself is the reference");
      f_.used(key);
    }
    if (!of_pairs()) return {};
    if (f_.yes("enable_liger_kernel").value_or(false)) return f_.not_laid_out("enable_liger_kernel", "Liger-Kernel in stage " + stage_, "leave it out: the rest of the run is");
    if (!names("additional_target").empty()) return f_.not_laid_out("additional_target", "modules to save in stage " + stage_, "leave it out: the rest of the run is");
    Preference& p = flags_.preference.emplace();
    p.trainer = stage_ == "rm" ? Preference::Trainer::factory_rm : Preference::Trainer::factory_dpo;
    p.reference = pure_ || flags_.mixed == MixedPrecision::bf16 ? std::optional(Dtype::bf16) : flags_.mixed == MixedPrecision::fp16 ? std::optional(Dtype::fp16) : std::nullopt;
    if (stage_ == "rm") return {};
    if (f_.find("pref_loss") == nullptr) assume("pref_loss sigmoid");
    if (loss == "orpo") p.loss = Preference::Loss::orpo;
    else if (loss == "simpo") p.loss = Preference::Loss::simpo;
    else if (loss == "kto_pair") return f_.not_laid_out("pref_loss", "\"kto_pair\", which the TRL it comes with has no more", "sigmoid, hinge, ipo, orpo and simpo are");
    else if (loss != "sigmoid" && loss != "hinge" && loss != "ipo") f_.fault("pref_loss", "is \"" + loss.substr(0, 40) + "\"", "sigmoid, hinge, ipo, orpo and simpo are described");
    return {};
  }

  void model_and_batch() {
    flags_.model = f_.text("model_name_or_path");
    if (!flags_.model) f_.fault("model_name_or_path", "is missing", "name the model: model_name_or_path: meta-llama/Llama-3.1-8B");
    flags_.device_batch_size = f_.whole("per_device_train_batch_size", 1, kMostNamed);
    flags_.grad_accum_steps = f_.whole("gradient_accumulation_steps", 1, kMostNamed);
    flags_.max_seq_len = f_.whole("cutoff_len", 1, kMostNamed);
    if (!flags_.max_seq_len) flags_.max_seq_len = 2048, assume("cutoff_len 2048");
    flags_.max_grad_norm = f_.real("max_grad_norm", 0, 1e9);
    const bool neat = on(f_.find("neat_packing"));
    if (!neat) f_.used("neat_packing");
    else f_.left("neat_packing");  // a mask of its own
    flags_.padded = of_pairs() || (stage_ == "sft" && !on(f_.find("packing")) && !neat);  // its collator fills rows up to the longest
    const Document* validates = f_.find("val_size");  // without rows to validate on it stops where it is told to
    flags_.evaluates = on(arguments_.find("eval_dataset")) || (validates != nullptr && validates->real > 0);
    flags_.eval_batch_size = f_.whole("per_device_eval_batch_size", 1, kMostNamed);
    flags_.eval_accumulation_steps = f_.whole("eval_accumulation_steps", 1, kMostNamed);
    flags_.eval_on_start = f_.yes("eval_on_start").value_or(false);
    if (f_.yes("compute_accuracy").value_or(false)) flags_.eval_keeps = EvaluationRun::Keeps::choices;  // eval_logit_processor
    for (const char* key : {"do_eval", "eval_strategy", "evaluation_strategy", "eval_steps"}) f_.used(key);
    if (!on(arguments_.find("predict_with_generate"))) f_.used("predict_with_generate");
  }

  // parser.py: what the model is loaded in; autocast is the Trainer's.
  Result<void> precision() {
    const bool bf16 = f_.yes("bf16").value_or(false), fp16 = f_.yes("fp16").value_or(false);
    pure_ = f_.yes("pure_bf16").value_or(false);
    if (bf16) flags_.mixed = MixedPrecision::bf16;
    else if (fp16) flags_.mixed = MixedPrecision::fp16;
    if (bf16 || pure_) flags_.weights = Dtype::bf16;
    else if (fp16) flags_.weights = Dtype::fp16;
    return {};
  }

  Result<void> words() {
    if (const auto name = f_.text("optim")) {
      const auto kind = optimizer_of(*name, f_.place("optim"));
      if (!kind) return std::unexpected(kind.error());
      flags_.optimizer = *kind;
    }
    const std::string code = f_.text("flash_attn").value_or("auto");
    if (code == "disabled") flags_.attention = AttentionCode::eager;
    else if (code == "sdpa") flags_.attention = AttentionCode::sdpa;
    else if (code == "fa2") flags_.attention = AttentionCode::flash_attention_2;
    else if (code == "fa3") flags_.attention = AttentionCode::flash_attention_3;
    else if (code != "auto") f_.fault("flash_attn", "is \"" + code.substr(0, 40) + "\"", "auto, disabled, sdpa, fa2 and fa3 are described");
    flags_.compile = on(f_.find("torch_compile"));
    return {};
  }

  // names with commas between, or a list
  std::vector<std::string> names(std::string_view key) {
    std::vector<std::string> out;
    const Document* v = f_.find(key);
    if (v != nullptr && v->kind == Document::Kind::list) return f_.texts(key, 256);
    const std::string text = f_.text(key).value_or("");
    for (std::string_view one : split(text, ',')) {
      if (!trim(one).empty()) out.emplace_back(trim(one));
    }
    return out;
  }

  // init_adapter: what trains is in fp32, but in pure bf16 and where DeepSpeed makes its own; of 4-bit weights peft's preparation is left out.
  Result<void> adapters() {
    const std::string type = f_.text("finetuning_type").value_or("lora");
    if (f_.find("finetuning_type") == nullptr) assume("finetuning_type lora");
    const auto bits = f_.whole("quantization_bit", 1, 8);
    if (type == "freeze" || type == "oft") return f_.not_laid_out("finetuning_type", "\"" + type + "\"", "full and lora are described");
    if (type != "full" && type != "lora") f_.fault("finetuning_type", "is \"" + type.substr(0, 40) + "\"", "full and lora are described");
    if (bits && type == "full") f_.fault("quantization_bit", "stands beside finetuning_type full, which LLaMA-Factory refuses", "write finetuning_type: lora");
    if (type == "full") {
      for (const auto& [key, value] : arguments_.fields) {
        if (key.starts_with("lora_")) f_.used(key);
      }
      if (!pure_ && !on(arguments_.find("deepspeed"))) flags_.weights = Dtype::fp32;
      return {};
    }
    if (bits) {
      const std::string method = f_.text("quantization_method").value_or("bnb");
      if (*bits != 4) return f_.not_laid_out("quantization_bit", std::to_string(*bits) + " bits", "4 are");
      if (method != "bnb" && method != "bitsandbytes") return f_.not_laid_out("quantization_method", "\"" + method.substr(0, 40) + "\"", "bnb is");
      flags_.quantized = true;
      flags_.double_quantized = f_.yes("double_quantization").value_or(true);
      flags_.quant_storage = flags_.weights;
    } else {
      f_.used("quantization_method"), f_.used("double_quantization");
    }
    Lora lora;
    lora.upcast_rest = false;
    lora.rank = f_.whole("lora_rank", 1, 65536).value_or(8);
    if (f_.find("lora_rank") == nullptr) assume("lora_rank 8");
    lora.dropout = f_.real("lora_dropout", 0, 1).value_or(0);
    lora.targets = names("lora_target");
    if (lora.targets.empty()) assume("lora_target all");
    if (lora.targets.empty() || (lora.targets.size() == 1 && lora.targets[0] == "all")) lora.targets = {"all-linear"};
    lora.saved_modules = names("additional_target");
    lora.dora = f_.yes("use_dora").value_or(false);
    flags_.lora = lora;
    return {};
  }

  void several_gpus() {
    const auto finds = f_.yes("ddp_find_unused_parameters");
    if (finds || flags_.lora) flags_.ddp_find_unused = finds.value_or(false);
    if (const Document* deepspeed = f_.find("deepspeed"); on(deepspeed)) {
      if (deepspeed->kind != Document::Kind::text && deepspeed->kind != Document::Kind::map) f_.fault("deepspeed", "is " + shown(*deepspeed), "name DeepSpeed's JSON file");
      flags_.deepspeed = true;
      flags_.deepspeed_file = deepspeed->kind == Document::Kind::text ? deepspeed->text : json_text(*deepspeed);
    }
    for (const char* key : {"fsdp", "fsdp_config"}) {
      const Document* v = f_.find(key);
      if (v != nullptr && (v->kind == Document::Kind::list ? !v->items.empty() : v->kind == Document::Kind::map ? !v->fields.empty() : on(v))) f_.fault(key, "is read of accelerate's file alone", "start it as accelerate launch --config_file FSDP.yaml src/train.py FILE");
    }
  }

  // prepare_model_for_training; the launcher of FSDP2 makes them of the newer form, which its caller knows.
  void checkpoints() {
    const bool off = f_.yes("disable_gradient_checkpointing").value_or(false);
    flags_.recompute = off ? Recompute::none : Recompute::full;
    if (arguments_.find("disable_gradient_checkpointing") == nullptr) assume("checkpoints");
    flags_.reentrant = f_.yes("use_reentrant_gc").value_or(true);
  }

  void liger() {
    if (!f_.yes("enable_liger_kernel").value_or(false)) return;
    flags_.liger_parts = LigerParts{true, true, true, true};
    flags_.head = HeadLoss::liger;
  }

  const Document& arguments_;
  TransformersFlags& flags_;
  Fields f_;
  bool pure_ = false;
  std::string stage_;
  std::vector<std::string> assumed_;
};

}  // namespace

Result<void> apply_llamafactory(const Document& arguments, std::string_view where, TransformersFlags& flags, KeysTold& told) { return FactoryReader(arguments, where, flags).read(told); }

}  // namespace dryfit
