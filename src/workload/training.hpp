// Training: how an Architecture is trained with transformers, as values. Nothing of its shapes (architecture.hpp), none of the machine.
// Names and defaults are transformers.TrainingArguments' where it has them.
// Symbols: B device batch, T sequence length, W GPUs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.hpp"
#include "workload/megatron.hpp"
#include "workload/workspaces.hpp"

namespace dryfit {

// TrainingArguments.optim; state a parameter: adamw 2 numbers in the parameter's dtype, 8-bit 2 bytes and scales, adafactor rows + columns.
enum class OptimizerKind : std::uint8_t { adamw, adamw_fused, adamw_8bit, paged_adamw_8bit, paged_adamw, adafactor, sgd, sgd_momentum,
  lion,          // its paper's own code, the package lion-pytorch
  lion_32bit, lion_8bit, paged_lion, paged_lion_8bit, ademamix, ademamix_8bit, paged_ademamix, paged_ademamix_8bit, rmsprop_bnb, rmsprop_bnb_8bit,  // bitsandbytes'
  rmsprop, adagrad,
  adamw_loop,    // foreach=False
  muon };        // torch.optim.Muon of the matrices of blocks, AdamW of all else

// An optimizer of bitsandbytes, which updates in place. moments: states a weight, in bytes with scales, or in fp32; paged: larger ones lie in managed memory, which PyTorch does not count.
struct BitsandbytesOptimizer { int moments; bool in_8_bits, paged; };
constexpr std::optional<BitsandbytesOptimizer> of_bitsandbytes(OptimizerKind k) {
  switch (k) {
    case OptimizerKind::adamw_8bit: return BitsandbytesOptimizer{2, true, false};
    case OptimizerKind::paged_adamw: return BitsandbytesOptimizer{2, false, true};
    case OptimizerKind::paged_adamw_8bit: return BitsandbytesOptimizer{2, true, true};
    case OptimizerKind::lion_32bit: return BitsandbytesOptimizer{1, false, false};
    case OptimizerKind::lion_8bit: return BitsandbytesOptimizer{1, true, false};
    case OptimizerKind::paged_lion: return BitsandbytesOptimizer{1, false, true};
    case OptimizerKind::paged_lion_8bit: return BitsandbytesOptimizer{1, true, true};
    case OptimizerKind::ademamix: return BitsandbytesOptimizer{3, false, false};
    case OptimizerKind::ademamix_8bit: return BitsandbytesOptimizer{3, true, false};
    case OptimizerKind::paged_ademamix: return BitsandbytesOptimizer{3, false, true};
    case OptimizerKind::paged_ademamix_8bit: return BitsandbytesOptimizer{3, true, true};
    case OptimizerKind::rmsprop_bnb: return BitsandbytesOptimizer{1, false, false};
    case OptimizerKind::rmsprop_bnb_8bit: return BitsandbytesOptimizer{1, true, false};
    default: return std::nullopt;
  }
}
std::string_view name_of(OptimizerKind kind);  // as in --optim: "adamw_torch_fused"
// Whether it adds weight decay to a copy of the gradients; AdamW's kind decays the weights in place.
constexpr bool copies_to_decay(OptimizerKind k) { return k == OptimizerKind::sgd || k == OptimizerKind::rmsprop || k == OptimizerKind::adagrad; }
// Whether --optim has a word for it; another one a script hands to Trainer as `optimizers`.
constexpr bool has_word_in_trainer(OptimizerKind k) { return k != OptimizerKind::adamw_loop && k != OptimizerKind::sgd_momentum && k != OptimizerKind::muon && k != OptimizerKind::lion; }

enum class MixedPrecision : std::uint8_t { none, bf16, fp16 };  // --bf16, --fp16: autocast around the forward pass
constexpr std::optional<Dtype> half_of(MixedPrecision mixed) { return mixed == MixedPrecision::none ? std::nullopt : std::optional(mixed == MixedPrecision::bf16 ? Dtype::bf16 : Dtype::fp16); }
enum class Recompute : std::uint8_t { none, full };             // --gradient_checkpointing: each block's input is kept, the rest computed again
constexpr std::string_view name_of(Recompute recompute) { return recompute == Recompute::full ? "full" : "none"; }
enum class AttentionCode : std::uint8_t { eager, sdpa, flash_attention_2, flash_attention_3 };  // attn_implementation
std::string_view name_of(AttentionCode code);
constexpr bool is_flash(AttentionCode code) { return code == AttentionCode::flash_attention_2 || code == AttentionCode::flash_attention_3; }  // a library of Dao-AILab's
enum class Sharding : std::uint8_t { none, ddp, zero0, zero1, zero2, zero3, fsdp1, fsdp1_grad_op, fsdp2 };  // over W GPUs
std::string_view name_of(Sharding sharding);
constexpr bool is_fsdp1(Sharding s) { return s == Sharding::fsdp1 || s == Sharding::fsdp1_grad_op; }  // FullyShardedDataParallel
constexpr bool gathers_weights(Sharding s) { return s == Sharding::zero3 || s == Sharding::fsdp2 || is_fsdp1(s); }  // a module's are there as a whole only while it runs
constexpr bool is_zero(Sharding s) { return s == Sharding::zero1 || s == Sharding::zero2 || s == Sharding::zero3; }  // whose optimizer's states are shared out
constexpr bool is_deepspeed(Sharding s) { return s == Sharding::zero0 || is_zero(s); }                           // run by its engine
constexpr Sharding zero_stage(std::int64_t stage) { return stage == 0 ? Sharding::zero0 : stage == 1 ? Sharding::zero1 : stage == 2 ? Sharding::zero2 : Sharding::zero3; }  // as DeepSpeed numbers them, 0 to 3

struct Lora {
  std::int64_t rank = 8;
  double dropout = 0;
  std::vector<std::string> targets;     // names of Linear modules, "q_proj"; empty: peft's default for the family; "all-linear"
  std::vector<std::string> saved_modules;  // modules_to_save: trained in full beside the adapters
  enum class Biases : std::uint8_t { none, lora_only, all } biases = Biases::none;  // that train too: of adapted modules, of all
  std::optional<Dtype> dtype;           // of the matrices; not given: fp32, or what the sharding makes of them
  bool upcast_rest = true;              // prepare_model_for_kbit_training: what is not in 4 bits becomes fp32
  bool dora = false;                    // weight-decomposed: a magnitude for each output, and the weight's own norm every time
  bool saves(std::string_view module) const;  // whether one of saved_modules is the end of its name, or of a module's around it
  std::int64_t virtual_tokens = 0;      // prompt tuning in place of matrices: rank is 0, so many embeddings stand before every row
};

// Parts of a model that Liger-Kernel replaces; its loss is a HeadLoss.
struct LigerParts {
  bool rotary = false, norms = false, gated = false;
  bool in_classes = false;              // before the model is made, as axolotl does: norms of heads too
  bool heads_of_qwen3 = true;           // on a model that is there already too, since 0.8.5
  static LigerParts all() { return {true, true, true, false}; }
  bool any() const { return rotary || norms || gated; }
};

// How the loss is taken of what the last norm gives: from all logits; by Liger-Kernel, in parts, with gradients in forward; by TRL, from tiles; by
// cut_cross_entropy, whose logits never leave a kernel.
enum class HeadLoss : std::uint8_t { logits, liger, trl, cut };

// axolotl's autograd functions in place of peft's layers, where all projections of one kind have LoRA's two matrices.
struct AdapterKernels {
  bool mlp = false, qkv = false, o = false;
  bool any() const { return mlp || qkv || o; }
};

// DeepSpeed's zero_optimization, what of it moves memory; counts are elements. Defaults: runtime/zero/config.py (0.18.2).
struct ZeroConfig {
  std::int64_t reduce_bucket_size = 500'000'000;
  std::optional<bool> overlap_comm;     // not given: with stage 3 only
  bool contiguous_gradients = true, reduce_scatter = true, round_robin_gradients = false;
  std::int64_t sub_group_size = 1'000'000'000;
  std::int64_t prefetch_bucket_size = 50'000'000, param_persistence_threshold = 100'000, model_persistence_threshold = INT64_MAX;
  std::int64_t max_live_parameters = 1'000'000'000, max_reuse_distance = 1'000'000'000;
  bool split_groups = true;             // Trainer's optimizer: what decays apart from what does not; false: the optimizer is the file's
  std::optional<std::int64_t> rank;     // not given: the one that holds most
};

// Training on answers of which some are liked more than others. A batch of B pairs is 2 B rows, of the answers chosen and rejected; KTO's is B answers. What a reference says of them is compared:
// a copy of the model, or, beside adapters, the model without them.
struct Preference {
  bool precomputed = false;             // --precompute_ref_log_probs: what it says of the rows lies in the batch
  std::optional<ZeroConfig> zero = {};  // of the reference's engine, made before the trainer fills in what its file leaves to it ("auto"); not given: as the model's
  enum class Trainer : std::uint8_t { dpo, kto, reward, factory_dpo, factory_rm } trainer = Trainer::dpo;  // TRL's, LLaMA-Factory's
  enum class Loss : std::uint8_t { compared, orpo, simpo, unpaired } loss = Loss::compared;  // the middle two know no reference; unpaired: KTO's apo_zero_unpaired, without other answers
  std::optional<Dtype> reference = {};  // what the reference is loaded in; not given: as the model is
  bool of_factory() const { return trainer == Trainer::factory_dpo || trainer == Trainer::factory_rm; }
  bool of_rewards() const { return trainer == Trainer::reward || trainer == Trainer::factory_rm; }  // a model that ends in one number
  bool in_tiles() const { return trainer == Trainer::dpo || trainer == Trainer::kto; }               // by TRL's head
  bool asks_reference() const { return !precomputed && !of_rewards() && loss != Loss::orpo && loss != Loss::simpo; }
  bool of_others() const { return trainer == Trainer::kto && loss == Loss::compared; }                // KTO: answers to other prompts of the batch, too
  std::int64_t rows() const { return trainer == Trainer::kto ? 1 : 2; }                               // of a sample
};
std::string_view name_of(const Preference& preference);  // "dpo-precomputed"
std::optional<Preference> preference_of(std::string_view name);  // TRL's, as in --script; none by that name

// TRL's GRPOTrainer: the model writes completions itself, several of each prompt, and learns from those that a function rewards. A row is a prompt and the longest completion.
struct Rollouts {
  std::int64_t completion = 512;        // tokens of the longest, --max_completion_length; the rest of a row is its prompt
  std::int64_t generations = 8;         // completions of a prompt
  std::int64_t steps = 1;               // micro-steps whose completions are written at once
  std::optional<std::int64_t> told_steps, batch;  // what says how many: --steps_per_generation, or --generation_batch_size, of all GPUs; neither: as many as are accumulated
  std::int64_t iterations = 1;          // how often they are trained on
  bool reference = false;               // --beta is not 0: a copy of the model, or, beside adapters, the model without them
  bool by_vllm = false;                 // vLLM writes: elsewhere, a server (--vllm_mode), or on this GPU, of whose memory it takes a share (--vllm_gpu_memory_utilization)
  bool elsewhere = false;
  double share = 0.3;
  bool corrected = true;                // by what vLLM said of its tokens (--vllm_importance_sampling_correction)
  bool scales_logits = false, penalizes = false;  // --temperature, --repetition_penalty: not 1
  bool cuts_most = false, cuts_sum = false, cuts_least = false;  // --top_k, --top_p, --min_p
  bool drops_out = true;                // --disable_dropout: not
  bool alike = false;                   // all completions that are written at once are of one prompt, or of prompts as long
  void resolve(std::int64_t device_batch, std::int64_t world_size, std::int64_t accumulated);  // steps and alike
  std::int64_t every() const { return steps * iterations; }  // micro-steps
};

// FullyShardedDataParallel's own arguments, what of them moves memory. Defaults: torch's, but for use_orig_params, which accelerate and Lightning set.
struct FlatShardConfig {
  enum class Prefetch : std::uint8_t { none, pre, post };
  Prefetch backward_prefetch = Prefetch::pre;  // when in backward the next unit is gathered
  bool forward_prefetch = false;
  bool original_parameters = true;      // use_orig_params
  bool no_sync = true;                  // micro-steps before the last keep whole gradients; false: each is reduced
  std::optional<Dtype> reduced;         // reduce_dtype; not given: what computes
  bool adapters_apart = false;          // peft's fsdp_auto_wrap_policy, which Trainer sets: a unit of every matrix that trains, within its block's
  bool loads_on_host = true;            // cpu_ram_efficient_loading: weights in 4 bits go back to the host until their unit is shared out
  std::int64_t rank = 0;                // shards are of one size; where parameters are cut differs
};

// Whose code the model, its adapters and its loop are.
enum class Framework : std::uint8_t { transformers, litgpt, megatron, torchtune, torchtitan };
std::string_view name_of(Framework framework);  // as in --framework

// LitGPT's training scripts, one loop each.
enum class LitgptScript : std::uint8_t { pretrain, full, lora, adapter, adapter_v2 };
std::string_view name_of(LitgptScript script);  // as LitGPT's command: "finetune_lora"

struct LitgptRun {
  LitgptScript script = LitgptScript::pretrain;
  std::int32_t date = 20240927;         // of its code, yyyymmdd: what of it changed is in passes/litgpt.cpp
  std::int64_t prompt_length = 10, prompt_start = 2;  // LLaMA-Adapter: rows of a prompt, the first layer that has one
};

// torchtune's recipes of supervised fine-tuning.
enum class TorchtuneRecipe : std::uint8_t { full_single_device, lora_single_device, full_distributed, lora_distributed };
std::string_view name_of(TorchtuneRecipe recipe);  // as tune run's: "lora_finetune_single_device"

struct TorchtuneRun {
  TorchtuneRecipe recipe = TorchtuneRecipe::full_single_device;
  std::string config;                   // as the command names it, and its key=value words over it, one a line
  std::int32_t date = 20250407;         // of its code, yyyymmdd (v0.6.1): what of it changed is here and in passes/torchtune.cpp
  static constexpr std::int32_t kTurnsKeysFirst = 20240916;  // #1558: before they are repeated for all heads
  static constexpr std::int32_t kNormOfTorch = 20241125;     // #2054
  std::int64_t output_chunks = 8;       // CEWithChunkedOutputLoss: parts of the length; 0: torch.nn.CrossEntropyLoss
  enum class Packing : std::uint8_t { none, mask, flex } packing = Packing::none;  // several texts in a row: a boolean mask [B, T, T], or flex attention's blocks
  bool optimizer_in_backward = false;   // a step for each parameter as soon as its gradient is there
  bool offload_activations = false;     // what blocks were given lies on the host
  bool embedding_apart = false, head_apart = false;  // custom_sharded_layers: units of fully_shard of their own
  std::int64_t positions = 0;           // rows of the rotary table; 0: the model's
  bool layer_tables = false;            // every layer has a table of its own, as most builders with adapters make them
};

// torchtitan's trainer, what of its configuration is not said elsewhere.
struct TorchtitanRun {
  std::string config;                   // as the command names it, and its --section.key=value words over it, one a line
  std::int32_t date = 20260220;         // of its code, yyyymmdd (v0.2.2): what of it changed is here and in passes/torchtitan.cpp
  static constexpr std::int32_t kAsksForCudnn = 20250514; // #1196: of attention's kernels first
  static constexpr std::int32_t kWrapsEnds = 20250728;    // #1094: before, embedding, last norm and head are the model's own, and the last block stays gathered
  static constexpr std::int32_t kSharesKeys = 20260127;  // #2259: attention takes keys of fewer heads; before they are repeated for all
  enum class Selective : std::uint8_t { none, layers, ops } selective = Selective::none;  // activation_checkpoint.mode = "selective", where not everything runs again
  std::int64_t every = 2;               // of layers: every so many; 0: all
  bool early_stop = false;
  bool reshards_head = false;           // parallelism.fsdp_reshard_after_forward = "always"
  bool compile_blocks = false, compile_loss = false;
  bool wraps_ends() const { return date >= kWrapsEnds; }
};

// Trainer's evaluation between steps.
struct EvaluationRun {
  std::int64_t batch_size = 8;          // per_device_eval_batch_size
  enum class Keeps : std::uint8_t { loss, choices, logits } keeps = Keeps::loss;  // of each batch until the end: with compute_metrics, run_clm.py's argmax over logits, or all of them
  std::optional<std::int64_t> accumulation;  // eval_accumulation_steps: batches after which it goes to the host
  std::optional<std::int64_t> batches;  // of the evaluation set; not given: two are laid out
  bool on_start = false;                // before the first step too
};

struct Training {
  Framework framework = Framework::transformers;
  LitgptRun litgpt;                     // of Framework::litgpt
  MegatronRun megatron;                 // of Framework::megatron
  TorchtuneRun torchtune;               // of Framework::torchtune
  TorchtitanRun torchtitan;             // of Framework::torchtitan
  std::int64_t device_batch_size = 8;   // B, --per_device_train_batch_size
  std::int64_t seq_len = 0;             // T, resolved
  std::int64_t grad_accum_steps = 1;
  std::int64_t world_size = 1;          // W
  Dtype weights = Dtype::fp32;          // dtype the model is loaded in
  MixedPrecision mixed = MixedPrecision::none;
  AttentionCode attention = AttentionCode::sdpa;
  bool compile = false;                 // --torch_compile
  bool cold_caches = true;              // torch.compile's on disk know none of the run's kernels: it times those it can choose among
  LigerParts liger;                     // of a model that Liger-Kernel knows
  HeadLoss head = HeadLoss::logits;
  std::optional<Preference> preference; // DPO and KTO: HeadLoss::trl
  std::optional<Rollouts> rollouts;     // HeadLoss::trl
  OptimizerKind optimizer = OptimizerKind::adamw_fused;
  Recompute recompute = Recompute::none;
  bool reentrant = true;                // torch.utils.checkpoint's older form, transformers 4's default
  bool use_cache = false;               // a key-value cache is filled while training, unless it checkpoints: config.json's use_cache
  bool packed = false;                  // texts of a batch one after the other in a single row of B*T, told apart by their positions; no padding mask
  bool filled = false;                  // padded, to a length of its own: a single row has a mask too
  bool padded = false;                  // rows of a batch are filled up to the longest, so that SDPA gets a mask [B, 1, T, T] instead of is_causal; a single one is not
  bool converts_outputs = false;        // accelerate's convert_outputs_to_fp32, around a forward pass under autocast: logits in 16 bits are copied in fp32 as it ends
  bool holds_batches = false;           // Trainer's list of a step's batches: they stay until the next step's are there
  bool holds_outputs = false;           // a loop of one's own that names the model's outputs: logits live until the next forward pass is done; Trainer drops them
  std::int64_t loss_chunk = 128;        // LitGPT: tokens whose loss is taken at once; 0: all
  Sharding sharding = Sharding::none;
  std::optional<bool> ddp_find_unused;  // --ddp_find_unused_parameters; not given: unless the model is checkpointed
  bool wrap_blocks = true;              // FSDP: every block is a unit (auto_wrap); false: the model is the only one
  bool reshard_after_forward = true;    // FSDP2: units give their gathered weights back between forward and backward
  FlatShardConfig flat;                 // of fsdp1, fsdp1_grad_op
  bool offload_optimizer = false, offload_parameters = false;  // to the host
  ZeroConfig zero;                      // of zero1, zero2, zero3
  std::optional<Lora> lora;
  AdapterKernels adapter_kernels;
  bool quantized = false;               // the frozen weights of Linear modules in 4 bits (nf4, blocks of 64)
  bool double_quantized = false;
  double max_grad_norm = 1.0;           // 0: no clipping
  double weight_decay = 0;              // of matrices and embeddings; moves memory where copies_to_decay
  std::optional<std::int64_t> max_steps, max_tokens;  // how long it trains, as far as the user says
  bool dropout = true;                  // the model is in training mode
  std::optional<EvaluationRun> evaluation;
  bool ema = false;                     // torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn: a copy of the model, on the GPU, updated after each step
  std::string torch = "2.9.1";
  std::string transformers = "4.57.1";
  ProductWorkspaces workspaces;         // as the command's environment sizes them
  std::int64_t rows() const { return preference ? preference->rows() * device_batch_size : device_batch_size; }  // of a forward pass
  // That FlashAttention's kernels of varying lengths get in a pass of so many rows; 0: they are not asked.
  std::int64_t sequences(std::int64_t of_rows) const { return is_flash(attention) && (packed || (padded && (of_rows > 1 || filled))) ? of_rows : 0; }
  bool has_reference_model() const { return ((preference && preference->asks_reference()) || (rollouts && rollouts->reference)) && !lora; }  // beside the one that trains
  bool is_transformers_5() const;       // or newer
  // Whether passes lay its evaluation out: of transformers' models that nothing compiles, not of preferences, on GPUs that each have all weights. False without one.
  bool lays_out_evaluation() const;
  Dtype stored() const;                 // of weights that are not in 4 bits: beside those that are peft raises them to fp32 (prepare_model_for_kbit_training)
};

// Which of the two --fsdp of transformers' Trainer means where its fsdp_config does not say: the second since 5.10, which wraps every block whether told to or not.
bool trainer_takes_fsdp2(std::string_view transformers);

// What a pasted command of a script around the Trainer says beside the Training: what is written anew from it.
struct UsersCommand {
  std::vector<std::string> script;      // {"run_clm.py"}, {"-m", "my.train"}; empty: no command was pasted
  std::vector<std::pair<std::string, std::string>> spelled;  // arguments that have several names: dryfit's, and the script's
  std::vector<std::string> kept;        // arguments that the Training does not say
  bool says_dtype = true;               // whether the weights' dtype is among its arguments
  bool is(std::string_view name) const { return !script.empty() && script.back() == name; }
  bool by_file() const { return is("axolotl.cli.train") || is("llamafactory"); }  // a program that its own file tells what to do
  bool cuts_one_text() const;           // scripts of transformers' examples that cut one long text into rows
};

}  // namespace dryfit
