// The modules of Megatron-LM's GPTModel on one GPU, op by op on the eager engine: the part of each weight that a tensor-parallel rank holds, the
// layers of one model chunk. Knows modules; buffers, optimizer and pipeline schedule are megatron_step.cpp's.
// Sources: Megatron-LM megatron/core (2026-08: models/gpt/gpt_model.py, transformer/{transformer_layer,attention,mlp}.py, tensor_parallel/,
// fusions/), TransformerEngine transformer_engine/pytorch (module/{linear,layernorm_linear}.py, attention/dot_product_attention/).
// Symbols: S sequence, B micro-batch, D width, F MLP width, V vocabulary, H heads, K groups, h head size; TP, CP; s = S/CP, r = s/TP with
// sequence parallelism, else s.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "passes/eager.hpp"
#include "passes/program.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"

namespace dryfit::eager {

// A parameter of this rank. Its memory is the trainer's: a tensor of its own, or a part of a flat buffer.
struct MegatronWeight {
  Tensor tensor;                        // hollow
  const char* role;
  int layer;
  bool shared_embedding = false;        // the last stage's copy of a tied table: a bucket of its own
  bool expert = false;                  // of experts that have replicas of their own
};

// vocab_parallel_cross_entropy: logits [s, B, V] to a loss of each row. In fp32, subtracted from, exponentiated and divided in place, they are kept as
// probabilities; backward turns them into the gradient in place. The fused kind is compiled: the exponentials are a buffer of their own, copied onto the logits.
Tensor vocab_parallel_cross_entropy(Tape& tape, const Tensor& logits, bool fused);

class MegatronChunk {
 public:
  struct Batch { Tensor tokens, labels, loss_mask, mask, positions; };  // undefined where a stage gets none

  // What a rank has once, whatever its chunks.
  struct Shared {
    Tensor global;                      // Megatron's GlobalMemoryBuffer "mpu": grows to the largest asked for
    std::vector<std::pair<std::array<std::int64_t, 2>, Tensor>> dummy_gradients;  // of accumulation fusion, by shape
    std::int64_t te_workspace = 0;      // bytes of one of TransformerEngine's
    std::vector<Tensor> grouped_workspaces;
    std::int64_t cublas_workspace = 0;  // bytes; torch's cuBLAS handles, one in the thread that goes forward, one in that which goes back
    std::array<Tensor, 2> workspaces;
    bool backward = false;              // which of them runs
  };

  // layers: of this chunk; first, last: whether the embedding and the head are its. Tape and the rest outlive it.
  MegatronChunk(Tape& tape, const Architecture& a, const Training& r, MegatronAttention attention, LayerRange layers, bool first, bool last, Shared& shared);

  const std::vector<MegatronWeight>& weights() const { return weights_; }  // in the order of named_parameters()
  bool first() const { return first_; }
  bool last() const { return last_; }
  Dims hidden_dims() const;             // [r, B, D]: what stages send each other
  // hidden: undefined for the first chunk. Of the last chunk the loss, of others the hidden state.
  Tensor forward(const Batch& batch, const Tensor& hidden);

 private:
  using Gradients = std::vector<Tensor>;
  struct Linear { Tensor weight, bias; };
  struct Norm { Tensor weight, bias; };
  struct Experts { Tensor router, router_bias, shared_gate; std::vector<Linear> up, down; Linear shared_up, shared_down; };
  struct Layer { Norm attention_norm, mlp_norm, q_norm, k_norm; Linear qkv, proj, fc1, fc2, q_down, kv_down, kv_up; std::optional<Experts> experts; };  // of latent attention qkv is the queries' own

  Tensor weight(const char* role, int layer, std::initializer_list<std::int64_t> sizes);
  Norm make_norm(const char* role, int layer, std::int64_t size);
  Linear make_linear(const char* role, int layer, std::int64_t out, std::int64_t in, bool bias);
  void make_attention(Layer& l, int layer);
  void make_layer(int layer);
  Tensor rows(std::int64_t n, std::int64_t width, Dtype d, const char* role);  // [n, B, width]

  Tensor embed(const Batch& batch);
  Tensor layer(std::size_t i, const Tensor& x);
  Tensor block(Tensor x);
  Tensor attention(const Layer& l, const Tensor& x);
  Tensor core_attention(const Tensor& q, const Tensor& k, const Tensor& v);
  Tensor fused(const Tensor& q, const Tensor& k, const Tensor& v);
  Tensor flash(const Tensor& q, const Tensor& k, const Tensor& v);
  Tensor ring(const Tensor& q, const Tensor& k, const Tensor& v);
  Tensor unfused(const Tensor& q, const Tensor& k, const Tensor& v);
  Tensor masked_softmax(const Tensor& scores);
  Tensor rotate(const Tensor& x, const char* role);
  Tensor mlp(const Layer& l, const Tensor& x);
  Tensor activate(const Tensor& x, const Tensor& bias, std::int64_t width);  // width: of the result
  Tensor unfused(const Tensor& x, std::int64_t width, const char* role, const char* product);
  Tensor head(const Tensor& x);
  Tensor loss(const Tensor& logits, const Batch& batch);

  Tensor norm(const Tensor& x, const Norm& w, const char* role);
  Tensor column(const Tensor& x, const Norm& before, const Linear& w, bool adds_bias, const char* role);
  Tensor row(const Tensor& x, const Linear& w, const char* role);
  Tensor norm_linear(const Tensor& x, const Norm& n, const Linear& w, bool adds_bias, const char* role);
  Tensor own_linear(const Tensor& x, const Tensor& w, const Tensor& bias, bool gathers, const char* role);
  Tensor to_rank(const Tensor& whole, const char* role);
  Tensor add_dropped(const Tensor& x, const Tensor& bias, const Tensor& residual, const char* role);
  Tensor weight_gradient(const Tensor& weight, const char* role);
  void global_buffer(std::int64_t elements);
  void product_workspace();             // before a product of torch
  Tensor checkpointed(const Tensor& q, const Tensor& k, const Tensor& v);

  // -- latent attention (megatron_latent.cpp)
  void make_latent_attention(Layer& l, int layer);
  Tensor latent_attention(const Layer& l, const Tensor& x);
  std::array<Tensor, 3> latent_heads(const Layer& l, const Tensor& x);  // query, key, value
  Tensor duplicated(const Tensor& x, const Linear& w, const char* role);
  Tensor raised(const Tensor& x, const Norm& before, const Linear& w, const char* role);
  Tensor rotated(const Tensor& x, const char* role);

  // -- mixtures (megatron_experts.cpp)
  struct Routing { Tensor probs, map; };
  Experts make_experts(int layer);
  Tensor mixture(std::size_t i, const Tensor& x);
  std::int64_t tokens() const;
  std::int64_t sent_rows() const;
  Tensor table(const char* role, std::int64_t rows, std::int64_t width, Dtype d);
  Tensor list(const char* role, std::int64_t n, Dtype d);
  Tensor router_logits(const Experts& e, const Tensor& x);
  Tensor routing_map();
  Routing sinkhorn(const Tensor& logits);
  Routing top_k(const Tensor& logits);
  Tensor with_balancing_loss(const Tensor& probs, const Tensor& logits);
  Routing route(const Experts& e, const Tensor& x);
  Tensor to_experts(const Tensor& x, const Tensor& order, std::int64_t to);
  Tensor from_experts(const Tensor& x, const Tensor& order, std::int64_t to);
  void add_rows(const Tensor& rows);
  Tensor exchanged(const Tensor& x, std::int64_t to, std::int64_t ranks, const char* role);
  Tensor sorted(const Tensor& x, const char* role);
  Tensor gathered_mixture(const Experts& e, const Tensor& x, Routing r, std::vector<Tensor>& held);
  Tensor exchanged_mixture(const Experts& e, const Tensor& x, Routing r, std::vector<Tensor>& held, const std::function<void(int)>& beside);
  Tensor expert_product(const Tensor& x, std::span<const Linear> experts, const char* role);
  Tensor weighed(const Tensor& given, const Tensor& bias, const Tensor& weights);
  Tensor down(const Tensor& up, const Tensor& bias, const Tensor& weights, std::span<const Linear> experts);
  Tensor run_experts(const Experts& e, const Tensor& x, const Tensor& weights);
  void grouped_workspaces();
  Tensor shared_up(const Experts& e, const Tensor& x);
  Tensor shared_down(const Experts& e, const Tensor& active, const Tensor& x);
  Tensor gathering_linear(const Tensor& x, const Linear& w, const char* role);

  bool sequence_parallel() const { return m_.sequence_parallel && m_.tensor > 1; }
  std::int64_t full_rows() const { return r_.seq_len / m_.context; }
  std::int64_t rank_rows() const { return sequence_parallel() ? full_rows() / m_.tensor : full_rows(); }
  std::int64_t heads() const { return a_.heads / m_.tensor; }
  std::int64_t groups() const { return std::max<std::int64_t>(1, a_.kv_heads / m_.tensor); }
  std::int64_t vocabulary() const { return a_.vocab / m_.tensor; }
  Dtype dtype() const { return r_.weights; }

  Tape& t_;
  const Architecture& a_;
  const Training& r_;
  const MegatronRun& m_;
  MegatronAttention attention_;         // resolved
  LayerRange range_;
  bool first_, last_;
  Shared& shared_;
  std::vector<MegatronWeight> weights_;
  Tensor word_embeddings_, position_embeddings_, output_;
  Norm final_norm_;
  std::vector<Layer> layers_;
  std::vector<std::vector<Tensor>> held_;  // by layer: what its dispatcher names until it is called again
  Tensor rotary_;                       // cached by RotaryEmbedding
  std::vector<Tensor> rotaries_;        // of latent attention's layers
};

}  // namespace dryfit::eager
