// A transformers training run from what the user gave: flags of dryfit, or a pasted command of the Trainer, with their configuration files.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/document.hpp"
#include "workload/rollouts.hpp"
#include "workload/hf_config.hpp"
#include "workload/training.hpp"

namespace dryfit {

constexpr std::string_view kNewestTransformers = "5.17.0";  // that runs were measured with

// Empty: not given. Values as they were written are resolved by make_training.
struct TransformersFlags {
  std::optional<std::string> torch;        // its version: "2.11.0"
  std::optional<std::string> transformers;  // its version: "4.57.1"; not given: kNewestTransformers
  std::optional<std::string> model;     // name of a shipped model, repository, or a folder or file
  std::optional<std::int64_t> device_batch_size, grad_accum_steps, max_seq_len, gpus;
  std::optional<std::int64_t> total_batch_size;  // tokens a step, in place of grad_accum_steps
  std::optional<std::int64_t> max_steps, max_tokens;  // how long it trains; no memory follows
  std::optional<Framework> framework;
  std::optional<Dtype> weights;         // dtype the model is loaded in
  std::optional<MixedPrecision> mixed;
  std::optional<AttentionCode> attention;
  std::optional<OptimizerKind> optimizer;
  std::optional<Recompute> recompute;
  std::optional<bool> reentrant, compile, cold_caches, use_cache, packed, padded, filled, ema;  // filled: rows to a length of the script's, a single one too
  std::optional<bool> liger;            // all of Liger-Kernel's parts, and its loss where `head` says no other
  std::optional<LigerParts> liger_parts;  // or some of them
  std::optional<HeadLoss> head;
  std::optional<Preference> preference;
  std::optional<RolloutFlags> rollouts;  // TRL's GRPOTrainer
  std::optional<HeadKind> task;         // what the script's model ends in; not given: what config.json names
  std::optional<std::int64_t> labels;   // num_labels that the script gives it
  std::optional<bool> saves_head;       // of classes, beside adapters: whether peft's task trains it in full; not given: it does
  std::optional<AdapterKernels> adapter_kernels;
  std::optional<Sharding> sharding;
  std::optional<bool> ddp_find_unused, wrap_blocks, reshard_after_forward;
  bool fsdp_unsaid = false;             // Trainer's --fsdp without a version in its fsdp_config
  std::optional<bool> offload_optimizer, offload_parameters;
  bool offload = false;                 // --offload: as much of them as the sharding can keep on the host
  std::optional<FlatShardConfig> flat;  // FSDP1's own arguments, as its launcher leaves them
  bool deepspeed = false;               // the engine of DeepSpeed: 16-bit weights with fp32 masters instead of autocast
  std::optional<std::string> deepspeed_file;  // that an accelerate configuration names: to be read after it
  std::optional<ZeroConfig> zero;       // fields of zero_optimization; those that wait for the model's width ("auto"):
  bool auto_reduce_bucket = false, auto_prefetch_bucket = false, auto_persistence = false;
  std::optional<double> max_grad_norm, weight_decay;
  bool evaluates = false;               // while or after it trains, by so many rows at once; not given: 8, TrainingArguments'
  std::optional<std::int64_t> eval_batch_size;
  std::optional<std::int64_t> eval_accumulation_steps, eval_samples;  // --eval_accumulation_steps; rows of the evaluation set, all GPUs together
  std::optional<EvaluationRun::Keeps> eval_keeps;  // not given: loss
  bool eval_on_start = false;
  std::optional<Lora> lora;
  bool quantized = false, double_quantized = false;  // frozen weights in 4 bits
  std::optional<Dtype> quant_storage;   // bnb_4bit_quant_storage: what those are packed into
  bool all_weights = false;             // --lora-rank 0: no adapters, whatever a search would try
  std::optional<LitgptScript> litgpt_script;
  std::optional<TorchtuneRun> torchtune;
  std::optional<TorchtitanRun> torchtitan;
  std::optional<Document> described;    // a config.json, in place of model: of a shape that no catalogue has
  UsersCommand users;                   // of a pasted command of the Trainer
  Variables workspaces;                 // sizes_workspaces
};

Result<OptimizerKind> optimizer_of(std::string_view text, std::string_view where);  // --optim's words
Result<Dtype> weights_dtype_of(std::string_view text, std::string_view where);      // "bfloat16", "bf16", "torch.float32", ...
Result<Framework> framework_of(std::string_view text, std::string_view where);      // "transformers", "litgpt"
Result<LitgptScript> litgpt_script_of(std::string_view text, std::string_view where);  // "finetune_lora"
Result<TorchtuneRecipe> torchtune_recipe_of(std::string_view text, std::string_view where);  // "lora_finetune_single_device"
Result<Sharding> sharding_of(std::string_view text, std::string_view where);        // "zero3", "fsdp1"
// Whether a mixture's experts run as transformers 5 runs them by default, all together on sorted rows, and are laid out so: an eager run, adapters
// on attention alone. Elsewhere they are laid out as transformers 4 runs them, one after another.
bool groups_experts(const Architecture& architecture, const Training& training);
bool has_liger_kernels(const Architecture& architecture);                           // whether Liger-Kernel replaces anything of the model
Result<FlatShardConfig::Prefetch> backward_prefetch_of(std::string_view text, std::string_view where);  // "BACKWARD_PRE"; case does not matter
Result<AttentionCode> attention_code_of(std::string_view text, std::string_view where);

struct TrainingPlan { Training training; std::vector<Assumption> assumptions; };

// Flags over TrainingArguments' defaults (transformers 5). Errors: "bad_value" with the flag and its range.
Result<TrainingPlan> make_training(const HfModel& model, const TransformersFlags& flags);

// The whole workload: make_training, and what a search and a report need of it.
Result<Workload> make_transformers_workload(const HfModel& model, const TransformersFlags& flags);

// A DeepSpeed configuration over flags: ZeRO stage and its fields, offloading, precision, micro-batch, accumulation, clipping, optimizer. "auto" leaves
// what the flags say; of bucket sizes and thresholds it is what Trainer makes of it, by the model's width. Told are the keys that were used, and those that move memory and are not modelled or are not read. where: names the file.
Result<void> apply_deepspeed(const Document& config, std::string_view where, TransformersFlags& flags, KeysTold& told);

// The section fsdp_config of an accelerate or axolotl file, whose keys may begin with fsdp_ or not.
Result<void> apply_fsdp(const Document& section, std::string_view where, TransformersFlags& flags, KeysTold& told);

// An accelerate configuration (config.yaml): processes, precision, FSDP or DeepSpeed and its fields.
Result<void> apply_accelerate(const Document& config, std::string_view where, TransformersFlags& flags, KeysTold& told);

}  // namespace dryfit
