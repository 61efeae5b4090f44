// Workload = Model + Run: what will be trained and how, as values. No machine, no bytes of activations.
// Symbols: B device batch, T sequence length, L layers, D model width, H heads, K KV heads, h head size, V vocabulary, W GPUs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/dtype.hpp"
#include "base/result.hpp"
#include "workload/architecture.hpp"
#include "workload/captured.hpp"
#include "workload/parameter.hpp"
#include "workload/training.hpp"
#include "workload/workspaces.hpp"

namespace dryfit {

constexpr int kNoCuda = 1;  // in place of a compute capability: nanochat finds no CUDA, and computes as on the oldest GPUs

enum class Attention { automatic, fa3, flash, efficient, math, cudnn };
std::string_view name_of(Attention attention);
// The kernel that SDPA takes with a mask, where it takes `kind` without: the flash one has none.
constexpr Attention with_mask(Attention kind) { return kind == Attention::flash ? Attention::efficient : kind; }

// Behaviour of nanochat at one moment of its history, as far as memory is concerned. facts: docs/nanochat-versions.md
struct NanochatVersion {
  std::string epoch;    // "E1", "E1b", ... "E7": the newest row at or before the commit
  std::string commit;   // short hash of the first commit with this behaviour
  std::string date;     // ISO date of that commit
  std::int64_t default_vocab = 32768;
  int vocab_multiple = 64;            // vocabulary padded to a multiple of this; 1 = not padded
  bool shape_flags = true;            // E2: --aspect-ratio, --head-dim, and heads chosen to divide the width; before: 64, and ceil(D/128) heads, which must divide it
  bool model_dim_rounded_up = true;   // E4b: D = ceil(depth*aspect/head_dim)*head_dim; before: heads chosen to divide depth*aspect
  bool autocast = false;              // before E5: bf16 autocast around fp32 Linear weights; after: weight.to(x.dtype) in forward
  bool float_before_softcap = true;   // E1d
  bool flash_attention3 = true;       // E3: FA3 on Hopper; SDPA elsewhere
  bool flash_attention3_ampere = false;  // E7: FA3 on Ampere and Ada too, and loaded on Blackwell, which cannot run it (pull request 540, issue 820)
  bool sdpa_fallback = true;          // E4: before, whatever GPU is not FlashAttention 3's cannot train from E3 on
  bool mask_each_layer = false;       // E4 to E4d: SDPA's masks begin with torch.tril, which the compiler does not share between layers
  bool window = true;                 // E3: window_pattern
  enum class ShortWindow { half, third128, quarter128 } short_window = ShortWindow::quarter128;
  bool lambdas = true;                // E3: resid_lambdas, x0_lambdas (keeps x0)
  bool value_embeds = true;           // E4: ceil(L/2) tables
  int ve_gate_channels = 12;          // 32 before E5b
  bool smear_backout = true;          // E6
  bool sharper_attention() const { return smear_backout || ve_gate_channels == 12; }  // E5b: q and k times a constant
  bool grad_clip = false;             // until E2b
  enum class Optimizer { torch_adamw_muon, muon_per_param, muon_stacked_by_group, muon_all_groups } optimizer = Optimizer::muon_all_groups;
  // torch_adamw_muon: E1..E3b (DistAdamW + DistMuon lists on N GPUs, fused torch AdamW + per-parameter Muon on one);
  // muon_stacked_by_group: E3c..E6 (one GPU: a shape group at a time); muon_all_groups: E7 (one GPU: all groups kept to the end)
  bool muon_in_compute = true;        // E6b (c0dbf1f, the day before): Muon iterates in fp32 where nanochat does not compute in bf16; before always in bf16
  bool loader_gpu_buffer = true;      // E4d: persistent 2*B*T int64 on the GPU
  enum class Loader { one_by_one, queue, best_fit } loader = Loader::best_fit;  // how tokens become rows; queue: from 2025-10-21 on (bb71c64; with E1b here), best_fit: E3b (43c29dd)
  bool climbmix = true;               // from 2026-03-04 on (324e69c, with E5 here); before FineWeb-Edu
  bool tables_cast_at_init = true;    // from 2025-10-21 on (33e8a27): embedding tables are made in fp32 and cast once filled
  bool resumes = true;                // E1c: --resume-from-step, --save-every
  bool minus_one_switches_off = true; // E2: --eval-every -1, --sample-every -1 (2026-01-05)
  enum class Sft { rows, packed, inherits } sft = Sft::inherits;
  // rows: eager, a few conversations padded to the longest, after mid_train; packed (E4e): compiled, B x T; inherits (E4h): batch and length
  // of the base run, its optimizer state, ChatCORE
  enum class Cache { grown, bf16, compute } kv_cache = Cache::compute;  // sampling's; before E3 made by the first key, E7: in the compute dtype
  bool fp8_available = true;          // E4f
  bool fp8_swapped_on_gpu = false;    // before E6b: evaluations in bf16 replace each fp8 Linear by one that is made on the GPU (pull request 616)
  bool auto_total_batch = true;       // E4g: --total-batch-size default -1
  bool flags_with_dashes = true;      // E3b
  std::int64_t default_total_batch = -1;
  double default_data_ratio = 12;
  std::int64_t default_eval_tokens = 80LL * 524288;
  std::string default_window_pattern = "SSSL";
  std::string torch = "2.9.1";        // the torch version this nanochat pins
};

struct Model {
  NanochatVersion version;
  std::int64_t depth = 0;             // L
  std::int64_t aspect_ratio = 64;
  std::int64_t width = 0;             // D
  std::int64_t heads = 0;             // H
  std::int64_t kv_heads = 0;          // K
  std::int64_t head_dim = 0;          // h
  std::int64_t ffn = 0;               // F = 4 D
  std::int64_t vocab = 0;             // V as the tokenizer has it
  std::int64_t padded_vocab = 0;
  std::int64_t sequence_len = 0;      // the context it is made for: rotary tables hold 10 times as many
  std::string window_pattern;
  std::vector<std::int64_t> windows;  // one per layer, tokens to the left; == T: full attention
  std::vector<Parameter> parameters;  // in nanochat's model.parameters() order
  std::int64_t param_count() const;
  std::int64_t param_count(ParamGroup group) const;
};

// nanochat's training scripts; mid_train existed until 2026-01-31.
enum class Script { base_train, mid_train, chat_sft, chat_rl };
std::string_view name_of(Script script);

// The stretches of a run that use memory in their own way, in the order they are met.
enum class RunPhase { load, resume, rollout, validation, first_step, train_step, core_evaluation, chat_evaluation, sampling, checkpoint };
constexpr int kPhases = 10;
std::string_view name_of(RunPhase phase);

struct Run {
  Script script = Script::base_train;
  std::int64_t device_batch_size = 32;  // B
  std::int64_t max_seq_len = 2048;      // T
  std::int64_t total_batch_size = 0;    // tokens per optimizer step, resolved (never -1)
  std::int64_t world_size = 1;          // W
  bool torchrun = false;                // started by it: there is a process group, of one GPU too
  std::int64_t grad_accum_steps = 1;    // total / (B*T*W)
  Dtype compute = Dtype::bf16;          // COMPUTE_DTYPE
  bool checkpoints = false;             // nanochat changed by hand: each layer, with its lambdas and value embedding, in torch.utils.checkpoint(use_reentrant=False)
  int compute_major = 0;                // of the GPU it runs on; 0: not told, 8 or newer
  bool fp8 = false;
  bool compile = true;
  bool cold_caches = true;              // torch.compile's on disk know none of the run's kernels: it times those it can choose among
  bool optimizer_compiled = true;       // its own functions; not under TORCH_COMPILE_DISABLE=1, which a model that no script compiles can run under too
  Attention attention = Attention::automatic;  // automatic: by version and GPU
  std::string torch;                    // "2.9.1"
  ProductWorkspaces workspaces;         // as the command's environment sizes them; nanochat's
  std::int64_t core_metric_every = 2000;         // steps between CORE evaluations; below 1: none
  std::int64_t core_metric_max_per_task = 500;   // examples of each task; below 1: all
  // what decides which phases the run meets, in steps; below 1: never
  std::int64_t eval_every = 250, sample_every = 2000, save_every = -1, chatcore_every = 200;
  std::int64_t resume_from_step = -1;            // -1: from the beginning
  bool load_optimizer = true;                    // chat_sft: begin with the base run's optimizer state
  std::int64_t num_samples = 16, max_new_tokens = 256, examples_per_step = 16;  // chat_rl
  std::optional<std::vector<RunPhase>> only;        // --phases: the others are left out
};

// A value that was not given, and where it came from.
struct Assumption {
  std::string key;     // "max_seq_len"
  std::string value;   // "2048"
  std::string source;  // "nanochat default"
};

// A transformers model and how it is trained. What both kinds of workload have in common stands in Model and Run too (layers as depth, shapes,
// parameters; batch, length, GPUs, accumulation): Run is what a search changes.
struct TransformersRun {
  Architecture architecture;
  Training training;
  std::optional<std::int64_t> total_batch_size = {};  // tokens a step that were asked for: accumulation then follows the device batch
  UsersCommand users = {};
  bool knows_rows = false;              // whether they are filled up was said, by a flag or by the program that makes them
};
// Whether the loop around the model is a script of the user's that nobody named: of it only the Trainer's arguments are known.
inline bool has_unnamed_script(const TransformersRun& run) { return run.training.framework == Framework::transformers && run.training.head != HeadLoss::trl && !run.training.preference && (run.users.script.empty() || run.users.is("train.py") || run.users.by_file()); }
// The training with batch, length, GPUs and accumulation of the Run.
Training training_of(const TransformersRun& transformers, const Run& run);

struct Workload {
  Model model;
  Run run;
  std::optional<TransformersRun> transformers;
  std::optional<CapturedRun> captured;  // neither: nanochat
  std::vector<Assumption> assumptions;
  std::vector<std::string> warnings;
  // Flags that do not move memory but belong to the command (--run=..., --num-iterations=...), kept for round trips.
  std::vector<std::string> passthrough;
  std::vector<std::string> left_out;  // the same of a fork's flags, word by word as they were written: what they do is not laid out
};

// GPUs that hold one copy of the model between them and take the same sequences; 1 but for Megatron-LM's runs.
inline std::int64_t model_parallel_of(const Workload& w) { return w.transformers && w.transformers->training.framework == Framework::megatron ? w.transformers->training.megatron.model_parallel() : 1; }

// Sequences of a forward pass for each of the device batch: two of a pair.
inline std::int64_t rows_of_sample(const Workload& w) { return w.transformers && w.transformers->training.preference ? w.transformers->training.preference->rows() : 1; }

// What the user gave, before defaults: nanochat's own flags. Empty optional = not given; -1 = "work it out".
struct WorkloadFlags {
  std::optional<std::int64_t> depth, aspect_ratio, head_dim, vocab_size, device_batch_size, total_batch_size, max_seq_len, gpus, core_metric_every,
      core_metric_max_per_task, eval_every, sample_every, save_every, chatcore_every, resume_from_step, num_samples, max_new_tokens, examples_per_step;
  std::optional<std::string> window_pattern, nanochat, dtype, attention, torch, script, phases;
  std::optional<bool> fp8, compile, cold_caches, load_optimizer, torchrun;
  Variables workspaces;  // sizes_workspaces
  std::vector<std::string> passthrough;
  std::vector<std::string> written;   // a pasted command's flags as they stand there ("--device_batch_size"), which tell the version where `nanochat` does not
  std::vector<std::string> left_out;  // a pasted command's flags that nanochat does not have and the values behind them, word by word
  int compute_major = 0;  // compute capability of the GPU it will run on, which decides nanochat's dtype; 0: not told, 8 or newer; kNoCuda
};

// Resolves flags to a workload for W GPUs. device_batch_size -1 is left to the search: it becomes 1 here.
// Errors: "missing_depth", "bad_value", "illegal_batch" (with the legal values in the hint), "unknown_version", ...
Result<Workload> make_nanochat_workload(const WorkloadFlags& flags);

// What nanochat computes in unless it is told otherwise: bf16; since E5, which has no autocast, fp32 on GPUs below compute capability 8.0 (nanochat/common.py).
Dtype usual_compute(const NanochatVersion& version, int compute_major);

// The same workload with another device batch: total batch held, accumulation recomputed. A transformers run of which no total is asked for
// holds its accumulation instead, as its arguments do, and the total follows.
// Errors: "illegal_batch" when B*T*W does not divide the total.
Result<Workload> with_device_batch(const Workload& workload, std::int64_t device_batch_size);

// Whether a run of this workload meets a phase, by the rules of its script at its version. The last step always evaluates what is on.
bool meets(const Workload& workload, RunPhase phase);

// Tokens of the longest rollout of chat_rl's prompts (GSM8K, with the tokens around them) and what is generated after them.
struct RolloutTokens { std::int64_t low, middle, high; };
RolloutTokens rollout_tokens(const Run& run);

// All known versions, oldest first; find by epoch ("E5", "E3b"), commit prefix (>= 4 hex digits known to the table), or ISO date.
const std::vector<NanochatVersion>& nanochat_versions();
Result<NanochatVersion> find_nanochat_version(std::string_view text);

// Device batches, largest first: powers of two up to 512 that divide the total. Of transformers any number up to 4096, or any that divides the total asked for.
std::vector<std::int64_t> legal_device_batches(const Workload& workload);

}  // namespace dryfit
