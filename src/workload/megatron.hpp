// A Megatron-LM run (pretrain_gpt.py): what of its arguments moves memory, as values; the layer layout over pipeline stages. No machine, no bytes.
// Names are Megatron's own. Source: NVIDIA/Megatron-LM megatron/training/arguments.py, megatron/core/transformer/transformer_config.py (2026-08).
// Symbols: W GPUs, TP tensor, PP pipeline, CP context, EP expert, ETP expert tensor parallel size, DP = W/(TP*PP*CP).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.hpp"
#include "base/result.hpp"

namespace dryfit {

// TransformerEngine's attention: automatic is cuDNN's fused kernel from Hopper on, FlashAttention 2 before it.
enum class MegatronAttention : std::uint8_t { automatic, fused, flash, unfused };

// --recompute-granularity: full layers, or chosen modules of each.
enum class MegatronRecompute : std::uint8_t { none, selective, uniform, block };

// --moe-token-dispatcher-type: every rank gets all tokens of the ranks that share the experts, or those of its own experts.
enum class MegatronDispatcher : std::uint8_t { allgather, alltoall };

// --moe-router-score-function.
enum class MegatronScore : std::uint8_t { softmax, other };

struct MegatronRun;

// How the layers that are mixtures run; what they are, and which, is Architecture's. --moe-...
struct MegatronExperts {
  std::int64_t parallel = 1, tensor = 1;  // EP; ETP, which is TP where the command says nothing
  MegatronDispatcher dispatcher = MegatronDispatcher::allgather;
  bool grouped = false;                 // one product of TransformerEngine's for all experts of a rank
  bool permute_fusion = false, router_fusion = false;
  bool pad_to_capacity = false;
  std::optional<Dtype> router_dtype;    // none: that of the weights
  bool sinkhorn = false;
  int balancing_losses = 0;             // kinds of them whose coefficient is not 0
  MegatronScore score = MegatronScore::softmax;
  bool softmax_first = false, scaled = false, expert_bias = false, z_loss = false, jitter = false;
  bool shared_overlap = false;          // shared experts run beside the dispatcher
  bool recompute_layer = false, recompute_activation = false, recompute_shared = false;  // --recompute-modules moe, moe_act, shared_experts

  bool own_replicas(const MegatronRun& run) const;  // experts' gradients go over ranks of their own, in buffers of their own
};

struct MegatronRun {
  std::int64_t tensor = 1, pipeline = 1, context = 1;  // TP, PP, CP
  std::int64_t virtual_stages = 1;      // model chunks of a pipeline stage; 1: not interleaved
  std::optional<std::int64_t> first_layers, last_layers;  // of the first and the last stage, where they are not like the others
  bool embedding_counts = false, loss_counts = false;     // as a layer of the first and the last chunk
  std::int64_t group_size = 0;          // --microbatch-group-size-per-virtual-pipeline-stage; 0: PP
  bool sequence_parallel = false;
  bool distributed_optimizer = false;
  std::int64_t optimizer_instances = 1; // --num-distributed-optimizer-instances
  bool overlap_grad_reduce = false;     // gradients leave in buckets
  std::optional<std::int64_t> ddp_bucket_size;
  bool high_bandwidth_padding = false;  // --ddp-pad-buckets-for-high-nccl-busbw
  bool grads_in_fp32 = false;           // --accumulate-allreduce-grads-in-fp32; with --bf16 always
  bool accumulation_fusion = true;      // weight gradients are added to the buffer by the product itself
  bool transformer_engine = true;       // --transformer-impl
  MegatronAttention attention = MegatronAttention::automatic;
  bool bias_activation_fusion = true, bias_dropout_fusion = true, masked_softmax_fusion = true;
  bool yarn = false, rope_fusion = false;  // of latent attention
  bool cross_entropy_fusion = false;    // --cross-entropy-loss-fusion, the native kind
  bool deterministic = false;
  bool mask_in_loader = true;           // --no-create-attention-mask-in-dataloader switches it off
  MegatronRecompute recompute = MegatronRecompute::none;
  std::int64_t recompute_layers = 1;    // uniform: layers of one checkpoint; block: how many of a chunk are checkpointed
  bool recompute_attention = false, recompute_mlp = false;  // selective: "core_attn", "mlp"
  Dtype exp_avg = Dtype::fp32, exp_avg_sq = Dtype::fp32, main_params = Dtype::fp32;
  MegatronExperts experts;
  std::optional<std::int64_t> stage;    // the pipeline stage looked at; none: the one that needs most

  std::int64_t group() const { return group_size > 0 ? group_size : pipeline; }  // micro-batches that pass a chunk before the next chunk's turn
  std::int64_t model_parallel() const { return tensor * pipeline * context; }
  std::int64_t expert_model_parallel() const { return experts.tensor * experts.parallel * pipeline; }
};

inline bool MegatronExperts::own_replicas(const MegatronRun& run) const { return parallel > 1 || tensor != run.tensor; }

// Layers of one chunk: [first, first + count). Chunk c of stage s holds the part s + c*PP of PP*chunks.
struct LayerRange { std::int64_t first = 0, count = 0; };
// Errors: "bad_value", where layers do not divide as asked.
Result<void> check_layers(const MegatronRun& run, std::int64_t layers);
LayerRange layers_of(const MegatronRun& run, std::int64_t layers, std::int64_t stage, std::int64_t chunk);

// Forward passes before the first backward pass of a stage, in chunks: (PP-1-s), or interleaved 2(PP-1-s) + (chunks-1)*group.
std::int64_t warmup_passes(const MegatronRun& run, std::int64_t micro_batches, std::int64_t stage);

// Which micro-batch and chunk the k-th forward pass of a stage takes; backward passes take chunks from the last to the first.
struct Pass { std::int64_t micro_batch = 0, chunk = 0; };
std::vector<Pass> schedule_of(const MegatronRun& run, std::int64_t micro_batches);

// Which layers are mixtures, of --moe-layer-freq: "2" is every second from the first, "([0]+[1]*3)" a list as Python writes it. Errors: "bad_value".
Result<std::vector<bool>> expert_layers_of(const std::string& text, std::int64_t layers, const std::string& where);

}  // namespace dryfit
