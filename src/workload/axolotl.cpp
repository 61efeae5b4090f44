// See axolotl.hpp. Source: axolotl-ai-cloud/axolotl of 2026-07-24: utils/schemas/{config,training,peft,enums}.py, utils/config/__init__.py (resolve_dtype, normalize_config),
// loaders/{model,adapter}.py, core/builders/{base,causal}.py.
#include "workload/axolotl.hpp"

#include <algorithm>
#include <array>

namespace dryfit {

namespace {

constexpr std::int64_t kMostCounted = 1 << 22;

// Keys that move no memory on the GPU while training.
constexpr std::string_view kKeysWithoutMemory[] = {
    "base_model_config", "model_type", "tokenizer_type", "tokenizer_config", "tokenizer_use_fast", "tokenizer_legacy", "is_llama_derived_model", "is_mistral_derived_model", "strict", "trust_remote_code", "revision_of_model", "datasets", "test_datasets",
    "dataset_prepared_path", "dataset_processes", "dataset_num_proc", "dataset_keep_in_memory", "dataset_exact_deduplication", "push_dataset_to_hub", "hf_use_auth_token", "shuffle_merged_datasets", "skip_prepare_dataset", "pretraining_dataset",
    "chat_template", "chat_template_jinja", "default_system_message", "eot_tokens", "train_on_inputs", "group_by_length", "excess_length_strategy", "min_sample_len", "pad_to_sequence_len", "sample_packing_group_size", "sample_packing_bin_size", "sample_packing_sequentially",
    "output_dir", "num_epochs", "max_steps", "learning_rate", "lr_scheduler", "lr_scheduler_kwargs", "cosine_min_lr_ratio", "cosine_constant_lr_ratio", "warmup_steps", "warmup_ratio", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "embedding_lr",
    "embedding_lr_scale", "loraplus_lr_ratio", "loraplus_lr_embedding", "lora_alpha", "lora_model_dir", "lora_fan_in_fan_out", "peft_use_rslora", "peft_init_lora_weights", "logging_steps", "log_level", "save_steps", "save_strategy", "save_total_limit", "saves_per_epoch", "save_safetensors", "save_first_step", "save_only_model",
    "resume_from_checkpoint", "auto_resume_from_checkpoints", "early_stopping_patience", "load_best_model_at_end", "metric_for_best_model", "loss_watchdog_threshold", "loss_watchdog_patience", "debug", "seed", "tf32", "gc_steps", "gc_collect_steps", "local_rank", "ddp", "ddp_timeout", "ddp_broadcast_buffers",
    "dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor", "dataloader_drop_last", "use_wandb", "wandb_project", "wandb_entity", "wandb_watch", "wandb_name", "wandb_run_id", "wandb_mode", "wandb_log_model", "use_mlflow", "mlflow_tracking_uri", "mlflow_experiment_name", "mlflow_run_name",
    "hf_mlflow_log_artifacts", "use_comet", "use_tensorboard", "hub_model_id", "hub_strategy", "embeddings_skip_upcast", "low_cpu_mem_usage", "merge_lora", "merge_method", "experimental_skip_move_to_device", "include_tokens_per_second", "include_tkps",
    "remove_unused_columns", "tokenizer_use_mistral_common", "adam_eps", "eta_min", "lr_quadratic_warmup", "streaming_multipack_buffer_size", "use_trackio", "trackio_project_name", "trackio_run_name"};

// What would be another run.
struct OtherRun { std::string_view key, why; };
constexpr std::array kOtherRuns = {
    OtherRun{"rl", "training on preferences or rewards"}, OtherRun{"reward_model", "a reward model"}, OtherRun{"process_reward_model", "a reward model"}, OtherRun{"load_in_8bit", "int8 weights"}, OtherRun{"gptq", "GPTQ's weights"}, OtherRun{"qat", "quantization-aware training"},
    OtherRun{"model_quantization_config", "weights quantized otherwise than in nf4"}, OtherRun{"quantize_moe_experts", "quantized experts"}, OtherRun{"relora", "ReLoRA"}, OtherRun{"fp8", "fp8"}, OtherRun{"activation_offloading", "activations on the host"}, OtherRun{"layer_offloading", "layers on the host"},
    OtherRun{"selective_checkpointing", "selective checkpoints"}, OtherRun{"tensor_parallel_size", "tensor parallelism"}, OtherRun{"context_parallel_size", "context parallelism"}, OtherRun{"sequence_parallel_degree", "context parallelism"}, OtherRun{"expert_parallel_size", "expert parallelism"},
    OtherRun{"dp_replicate_size", "shards in several copies"}, OtherRun{"unfrozen_parameters", "a model that is frozen in part"}, OtherRun{"peft_layers_to_transform", "adapters on some layers"}, OtherRun{"peft_layers_pattern", "adapters on some layers"}, OtherRun{"peft_layer_replication", "layers that stand twice"},
    OtherRun{"peft_trainable_token_indices", "trained rows of the embedding"}, OtherRun{"lora_rank_pattern", "adapters of several ranks"}, OtherRun{"lora_target_parameters", "adapters on experts"}};

// Its fused forward and backward of adapters, on unless the file says otherwise.
constexpr std::string_view kAdapterKernels[] = {"lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel"};

// Sizes of one, false and what is empty ask for nothing.
bool asks_for(const Document* v) {
  if (v == nullptr) return false;
  switch (v->kind) {
    case Document::Kind::boolean: return v->flag;
    case Document::Kind::whole: return v->whole > 1;
    case Document::Kind::text: return !v->text.empty();
    case Document::Kind::list: return !v->items.empty();
    case Document::Kind::map: return !v->fields.empty();
    default: return true;
  }
}

class AxolotlReader {
 public:
  AxolotlReader(const Document& config, std::string_view where, TransformersFlags& flags) : config_(config), where_(where), flags_(flags), f_(config, std::string(where)) {}

  Result<void> read(KeysTold& told) {
    if (f_.error()) return std::unexpected(*f_.error());
    for (std::string_view key : kKeysWithoutMemory) f_.used(key);
    if (auto ok = refuse(); !ok) return ok;
    model_and_batch();
    precision();
    if (auto ok = words(); !ok) return ok;
    if (auto ok = adapters(); !ok) return ok;
    if (auto ok = several_gpus(told); !ok) return ok;
    checkpoints();
    plugins();
    packing();
    if (f_.error()) return std::unexpected(*f_.error());
    if (auto ok = one_dtype(); !ok) return ok;
    f_.tell(told);
    told.assumed.insert(told.assumed.end(), assumed_.begin(), assumed_.end());
    told.unused.insert(told.unused.end(), unused_.begin(), unused_.end());
    return {};
  }

 private:

  Result<void> refuse() {
    for (const OtherRun& r : kOtherRuns) {
      if (asks_for(f_.find(r.key))) return f_.not_laid_out(r.key, r.why, "supervised training is, of the whole model or of LoRA and QLoRA adapters, under DDP, FSDP or DeepSpeed (docs/models.md)");
      f_.used(r.key);
    }
    return {};
  }

  std::int64_t count(std::string_view key, std::int64_t usual) {
    const auto n = f_.whole(key, 1, kMostCounted);
    if (!n) assumed_.push_back(std::string(key) + " " + std::to_string(usual) + " (axolotl's default)");
    return n.value_or(usual);
  }

  void model_and_batch() {
    flags_.model = f_.text("base_model");
    if (!flags_.model) f_.fault("base_model", "is missing", "name the model: base_model: meta-llama/Llama-3.2-1B");
    flags_.device_batch_size = count("micro_batch_size", 1);
    const auto all = f_.whole("batch_size", 1, kMostCounted);
    const auto steps = f_.whole("gradient_accumulation_steps", 1, kMostCounted);
    flags_.grad_accum_steps = steps.value_or(all ? std::max<std::int64_t>(1, *all / *flags_.device_batch_size) : 1);
    flags_.max_seq_len = count("sequence_len", 512);
    flags_.max_grad_norm = f_.real("max_grad_norm", 0, 1e9);
    for (std::string_view key : {"val_set_size", "eval_sample_packing"}) {
      if (const Document* v = config_.find(key); v != nullptr && (v->kind == Document::Kind::boolean ? !v->flag : v->real == 0 && v->kind != Document::Kind::text)) f_.used(key);
    }
    const Document* validates = config_.find("val_set_size");
    if (validates != nullptr && validates->kind != Document::Kind::text && validates->real > 0) {  // core/builders/base.py
      f_.used("val_set_size");
      flags_.evaluates = true;
      flags_.eval_batch_size = f_.whole("eval_batch_size", 1, kMostCounted).value_or(*flags_.device_batch_size);
      flags_.eval_accumulation_steps = flags_.grad_accum_steps;
      for (const char* key : {"evals_per_epoch", "eval_steps", "eval_strategy"}) f_.used(key);
    }
    if (validates == nullptr || (validates->real == 0 && validates->kind != Document::Kind::text)) {
      for (const char* key : {"evals_per_epoch", "eval_steps", "eval_strategy", "eval_table_size", "eval_max_new_tokens", "eval_batch_size"}) f_.used(key);
    }
  }

  // resolve_dtype: what the weights are loaded in; training_args.bf16 and fp16: autocast around them. "auto" is bf16, as on every GPU from Ampere on.
  void precision() {
    const Document* v = f_.find("bf16");
    const bool word = v != nullptr && v->kind == Document::Kind::text;
    if (word && v->text != "auto" && v->text != "full") f_.fault("bf16", "is " + shown(*v), "it should be true, false, auto or full");
    const bool fp16 = f_.yes("fp16").value_or(false), float16 = f_.yes("float16").value_or(false), bfloat16 = f_.yes("bfloat16").value_or(false);
    const bool full = word && v->text == "full";
    if (v == nullptr && !f_.is_null("bf16") && !fp16) assumed_.push_back("bf16 auto (axolotl's default)");
    const bool automatic = v == nullptr ? !f_.is_null("bf16") : word && v->text == "auto";
    const bool bf16 = full || (automatic ? !fp16 : v != nullptr && !word && f_.yes("bf16").value_or(false));
    flags_.weights = bf16 || bfloat16 ? Dtype::bf16 : fp16 || float16 ? Dtype::fp16 : Dtype::fp32;
    if (!full && (bf16 || bfloat16)) flags_.mixed = MixedPrecision::bf16;
    else if (fp16 && !bf16) flags_.mixed = MixedPrecision::fp16;
  }

  Result<void> words() {
    if (const auto name = f_.text("optimizer")) {
      const auto kind = optimizer_of(*name, f_.place("optimizer"));
      if (!kind) return std::unexpected(kind.error());
      if (*kind == OptimizerKind::muon) return fail("unsupported_training", f_.place("optimizer") + ": axolotl's own Muon is not laid out yet, torch's is", "use another optimizer; near to it is what dryfit check --optimizer muon says of the same model", f_.place("optimizer"));
      flags_.optimizer = *kind;
      if (copies_to_decay(*kind)) flags_.weight_decay = f_.real("weight_decay", 0, 1e9);
    }
    struct Older { std::string_view flag, code; };
    std::string code = f_.text("attn_implementation").value_or(""), key = "attn_implementation";
    for (const Older& o : {Older{"xformers_attention", "xformers"}, Older{"sage_attention", "sage"}, Older{"flex_attention", "flex_attention"}, Older{"flash_attention", "flash_attention_2"}, Older{"sdp_attention", "sdpa"}, Older{"eager_attention", "eager"}}) {
      const bool on = f_.yes(o.flag).value_or(false);
      if (!on) f_.used(o.flag);
      if (on && code.empty()) code = o.code, key = o.flag;
    }
    if (code.empty()) return {};
    const auto attention = attention_code_of(code, f_.place(key));
    if (!attention) return std::unexpected(attention.error());
    flags_.attention = *attention;
    return {};
  }

  // Linear4bit with double quantization, unless bnb_config_kwargs says otherwise; norms, embeddings and head go back to the weights' dtype after prepare_model_for_kbit_training.
  Result<void> adapters() {
    const std::string adapter = f_.text("adapter").value_or("");
    const bool four = f_.yes("load_in_4bit").value_or(false);
    if (adapter.empty()) {
      if (four) return fail("bad_config", f_.place("load_in_4bit") + " without an adapter: 4-bit weights cannot be trained", "add adapter: qlora", f_.place("load_in_4bit"));
      for (const auto& [key, value] : config_.fields) {
        if (key.starts_with("lora_") || key.starts_with("peft_")) f_.used(key);
      }
      return {};
    }
    if (adapter != "lora" && adapter != "qlora") return f_.not_laid_out("adapter", "\"" + adapter.substr(0, 40) + "\"", "lora and qlora are described");
    if ((adapter == "qlora") != four) return fail("bad_config", f_.place("adapter") + " is " + adapter + (four ? " beside load_in_4bit, which is qlora's" : ", which axolotl takes with load_in_4bit alone"), four ? "write adapter: qlora" : "add load_in_4bit: true", f_.place("adapter"));
    flags_.quantized = flags_.double_quantized = four;
    if (four) flags_.quant_storage = Dtype::bf16;  // whatever the model's
    if (const Document* bnb = f_.map("bnb_config_kwargs"); bnb != nullptr && four) {
      if (const Document* twice = bnb->find("bnb_4bit_use_double_quant"); twice != nullptr && bnb->fields.size() == 1) flags_.double_quantized = asks_for(twice);
      else f_.left("bnb_config_kwargs");
    }
    Lora lora;
    lora.upcast_rest = false;
    lora.rank = f_.needed("lora_r", 1, 65536);
    lora.dropout = f_.real("lora_dropout", 0, 1).value_or(0);
    const bool linear = f_.yes("lora_target_linear").value_or(false);
    const Document* named = f_.find("lora_target_modules");
    if (linear) lora.targets.emplace_back("all-linear");
    else if (named != nullptr && named->kind == Document::Kind::text) lora.targets.push_back(named->text);
    else lora.targets = f_.texts("lora_target_modules", 256);
    if (linear && named != nullptr) f_.left("lora_target_modules");
    if (lora.targets.empty()) f_.fault("lora_target_modules", "names nothing to adapt", "add lora_target_linear: true, or name modules such as q_proj");
    lora.saved_modules = f_.texts("lora_modules_to_save", 256);
    lora.dora = f_.yes("peft_use_dora").value_or(false);
    if (!f_.yes("peft_autocast_adapter_dtype").value_or(true)) return f_.not_laid_out("peft_autocast_adapter_dtype", "adapters in 16 bits", "leave it out: peft keeps them in fp32");
    flags_.lora = lora;
    adapter_kernels();
    return {};
  }

  // check_auto_enable_lora_kernels: where the file names none, all are on, but under FSDP1.
  void adapter_kernels() {
    const auto on = [&](std::string_view key) { return f_.yes(key).value_or(false); };
    const bool said = std::ranges::any_of(kAdapterKernels, [&](std::string_view key) { return config_.find(key) != nullptr; });
    const Document *section = config_.find("fsdp_config"), *version = config_.find("fsdp_version");
    const bool fsdp1 = asks_for(section) && (version == nullptr || version->whole != 2);
    const bool automatic = !said && !on("trust_remote_code") && !fsdp1;
    if (flags_.lora->dora) {  // its kernels of DoRA are not laid out: peft's layers are
      for (std::string_view key : kAdapterKernels) on(key) ? f_.left(key) : f_.used(key);
      if (automatic) unused_.emplace_back("lora_*_kernel, which are on unless set to false");
      return;
    }
    flags_.adapter_kernels = AdapterKernels{automatic || on("lora_mlp_kernel"), automatic || on("lora_qkv_kernel"), automatic || on("lora_o_kernel")};
    if (automatic) assumed_.push_back("lora_mlp_kernel, lora_qkv_kernel, lora_o_kernel true (axolotl's default)");
    f_.used("lora_embedding_kernel");
  }

  // DDP looks for no unused parameters unless told to.
  Result<void> several_gpus(KeysTold& told) {
    flags_.ddp_find_unused = f_.yes("ddp_find_unused_parameters").value_or(false);
    if (const Document* deepspeed = f_.find("deepspeed"); asks_for(deepspeed)) {
      if (deepspeed->kind != Document::Kind::text && deepspeed->kind != Document::Kind::map) f_.fault("deepspeed", "is " + shown(*deepspeed), "name DeepSpeed's JSON file");
      flags_.deepspeed = true;
      flags_.deepspeed_file = deepspeed->kind == Document::Kind::text ? deepspeed->text : json_text(*deepspeed);
    }
    const Document* fsdp = f_.find("fsdp");
    const Document* section = f_.map("fsdp_config");
    const auto version = f_.whole("fsdp_version", 1, 2);
    if (!asks_for(fsdp) && !asks_for(section)) return {};
    Document full;
    full.kind = Document::Kind::map;
    if (section != nullptr) full = *section;
    for (const char* key : {"fsdp_limit_all_gathers", "limit_all_gathers"}) {  // FSDP's default
      if (asks_for(full.find(key))) std::erase_if(full.fields, [&](const Document::Field& field) { return field.first == key; });
    }
    if (version && full.find("fsdp_version") == nullptr && full.find("version") == nullptr) full.at("fsdp_version") = *config_.find("fsdp_version");
    if (auto ok = apply_fsdp(full, where_, flags_, told); !ok) return ok;
    for (const std::string& word : fsdp != nullptr && fsdp->kind == Document::Kind::list ? f_.texts("fsdp", 16) : std::vector<std::string>()) {
      if (word == "auto_wrap") flags_.wrap_blocks = true;
      else if (word == "shard_grad_op" && flags_.sharding == Sharding::fsdp1) flags_.sharding = Sharding::fsdp1_grad_op;
      else if (word == "offload") flags_.offload_parameters = flags_.offload_optimizer = true;
      else if (word != "full_shard" && word != "shard_grad_op") f_.fault("fsdp", "holds \"" + word.substr(0, 40) + "\"", "full_shard, shard_grad_op, auto_wrap and offload are described");
    }
    return {};
  }

  void checkpoints() {
    const Document* v = f_.find("gradient_checkpointing");
    if (v != nullptr && v->kind == Document::Kind::text) f_.fault("gradient_checkpointing", "is " + shown(*v) + ", which keeps activations on the host", "true and false are described");
    else if (v != nullptr && f_.yes("gradient_checkpointing").value_or(false)) flags_.recompute = Recompute::full;
    flags_.reentrant = false;
    if (const Document* how = f_.map("gradient_checkpointing_kwargs")) flags_.reentrant = asks_for(how->find("use_reentrant"));
    const Document* compiles = f_.find("torch_compile");
    flags_.compile = asks_for(compiles);
    if (!*flags_.compile) f_.used("torch_compile");
  }

  // Liger-Kernel's plugin has a switch for each part, and puts them into the model's classes; cut_cross_entropy's is on where it is named.
  void plugins() {
    const auto named = f_.texts("plugins", 32);
    const auto has = [&](std::string_view end) { return std::ranges::any_of(named, [&](const std::string& p) { return p.ends_with(end); }); };
    if (std::ranges::any_of(named, [](const std::string& p) { return !p.ends_with("LigerPlugin") && !p.ends_with("CutCrossEntropyPlugin"); })) f_.left("plugins");
    if (has("LigerPlugin")) {
      const auto on = [&](std::string_view key) { return f_.yes(key).value_or(false); };
      const LigerParts parts{on("liger_rope"), on("liger_rms_norm"), on("liger_glu_activation") || on("liger_swiglu"), true};
      f_.used("liger_layer_norm");  // of no family here
      if (parts.any()) flags_.liger_parts = parts;
      if (on("liger_fused_linear_cross_entropy")) flags_.head = HeadLoss::liger;
    }
    if (!has("CutCrossEntropyPlugin")) return;
    if (!f_.yes("cut_cross_entropy").value_or(true)) return;
    if (flags_.head == HeadLoss::liger) f_.fault("cut_cross_entropy", "stands beside liger_fused_linear_cross_entropy, which takes the loss too", "leave one of them out");
    flags_.head = HeadLoss::cut;
  }

  // Multipack: with FlashAttention the texts of a micro-batch are one row; with SDPA rows stay rows, and its kernel of varying lengths needs no mask.
  void packing() {
    const bool packs = f_.yes("sample_packing").value_or(false);
    const bool rows = f_.yes("multipack_real_batches").value_or(!flags_.attention || !is_flash(*flags_.attention));
    flags_.packed = packs && !rows;
    flags_.padded = !packs;
  }

  // _configure_embedding_dtypes: embeddings, head and norms become fp32, and go back where there are adapters, FSDP, a fused attention or cut cross-entropy; DeepSpeed casts them.
  Result<void> one_dtype() {
    const bool back = flags_.lora || asks_for(config_.find("fsdp")) || asks_for(config_.find("fsdp_config")) || flags_.deepspeed || flags_.head == HeadLoss::cut;
    if (back || flags_.weights == Dtype::fp32 || (flags_.attention && is_flash(*flags_.attention))) return {};
    return fail("unsupported_training", f_.place("attn_implementation") + ": axolotl keeps embeddings, head and norms in fp32 when it trains a whole model without flash attention, not laid out yet", "use attn_implementation: flash_attention_2, for which it casts them back", f_.place("attn_implementation"));
  }

  const Document& config_;
  std::string_view where_;
  TransformersFlags& flags_;
  Fields f_;
  std::vector<std::string> assumed_, unused_;
};

}  // namespace

Result<void> apply_axolotl(const Document& config, std::string_view where, TransformersFlags& flags, KeysTold& told) { return AxolotlReader(config, where, flags).read(told); }

}  // namespace dryfit
