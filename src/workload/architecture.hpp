// Architecture: one transformer as its Hugging Face config.json describes it, as plain values; and its parameters, by the names
// and in the order of transformers' named_parameters(). Nothing of the training (training.hpp), no bytes of activations.
// Symbols: L layers, D model width, H heads, K KV heads, h head size, F MLP width, V vocabulary, E experts.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.hpp"
#include "workload/parameter.hpp"

namespace dryfit {

// The modelling code of transformers a model runs through: what named_parameters() calls things and how a block is written.
enum class Family : std::uint8_t {
  gpt2, gpt_neox, llama, mistral, mixtral, qwen2, qwen3, qwen2_moe, qwen3_moe, gemma, gemma2, gemma3, phi, phi3, olmo, olmo2, olmo3, olmoe,
  smollm3, granite, seed_oss, arcee, starcoder2, exaone4, gpt_oss,
  deepseek_v2, deepseek_v3, bert, roberta, distilbert,
  megatron,  // Megatron-LM's GPTModel: no modelling code of transformers
};
std::string_view name_of(Family family);  // transformers' model_type: "gpt_neox"

enum class NormKind : std::uint8_t {
  layer_norm,         // weight, and a bias when norm_bias
  rms_norm,           // weight * x_hat, the product in the input's dtype after an fp32 x_hat (LlamaRMSNorm)
  rms_norm_plus_one,  // (1 + weight) * x_hat in fp32, then converted (GemmaRMSNorm)
  non_parametric,     // OLMo 1: layer norm in fp32 with neither weight nor bias
};

enum class NormPlacement : std::uint8_t {
  pre,       // x + f(norm(x))
  post,      // norm(x + f(x)): BERT; a norm after the embeddings, none before the head's own
  output,    // x + norm(f(x)): OLMo 2, EXAONE 4
  sandwich,  // x + norm(f(norm(x))): Gemma 2 and 3
};

// How transformers computes it, not only what: gelu_new is a chain of seven eager ops, gelu_tanh one kernel.
enum class Activation : std::uint8_t { gelu, gelu_new, gelu_fast, gelu_tanh, quick_gelu, silu, relu, relu_squared };
std::string_view name_of(Activation activation);  // as in config.json: "gelu_pytorch_tanh"
std::optional<Activation> activation_of(std::string_view name);  // "swish" and "gelu_python" too

enum class Position : std::uint8_t { none, learned, rotary };
enum class QkNorm : std::uint8_t { none, per_head, full };  // over h (Qwen 3, Gemma 3) or over all heads at once, H*h (OLMo 2, OLMoE)
enum class RouterKind : std::uint8_t {
  softmax_topk,          // softmax over E in fp32, then the k largest
  softmax_group_topk,    // DeepSeek-V2: the best groups first (`groups`, `top_groups`)
  sigmoid_group_topk,    // DeepSeek-V3: sigmoid, a correction bias (buffer) for the choice, groups
  topk_softmax,          // gpt-oss: the k largest, softmax over them in the logits' dtype
};

// What the class that is built ends in: words (ForCausalLM, ForMaskedLM, LMHeadModel), or classes of texts, of tokens, of where an answer begins and ends
// (ForSequenceClassification, ForTokenClassification, ForQuestionAnswering).
enum class HeadKind : std::uint8_t { words, sequences, tokens, answers };

struct MixtureOfExperts {
  std::int64_t experts = 0;             // E, routed
  std::int64_t top_k = 0;               // experts a token visits
  std::int64_t expert_ffn = 0;          // width of one routed expert (gated: gate, up, down)
  std::int64_t shared_ffn = 0;          // width of the shared expert(s) taken together; 0: none
  bool shared_gate = false;             // Qwen 2 MoE: sigmoid(Linear(D, 1)) on the shared expert's output
  bool normalize_top_k = false;         // weights of the chosen experts divided by their sum
  RouterKind router = RouterKind::softmax_topk;
  std::int64_t groups = 1, top_groups = 1;
  std::vector<bool> layers;             // one per layer: whether its MLP is a mixture
  bool stacked = false;                 // gpt-oss: experts of a layer in two tensors with biases, gate and up interleaved, and a router with one
  bool aux_loss = false;                // output_router_logits: keeps the routers' logits of all layers for the loss
  std::optional<double> capacity_factor;  // none: dropless, as everywhere in transformers; else at most ceil(tokens*k/E*factor) an expert
};

// Multi-head latent attention. Shapes: q: [D -> q_lora_rank -> H*(nope+rope)], or [D -> H*(nope+rope)] when q_lora_rank is 0;
// kv: [D -> kv_lora_rank + rope] (rope part shared by all heads), [kv_lora_rank -> H*(nope+value)]; out: [H*value -> D].
struct LatentAttention {
  std::int64_t q_lora_rank = 0, kv_lora_rank = 0, nope_head_dim = 0, rope_head_dim = 0, value_head_dim = 0;
};

// Encoders only (BERT and its kin).
struct Encoder {
  std::int64_t token_types = 0;         // 0: no token type embedding
  bool pooler = false;                  // the loaded class has one: BERT's, of texts
};

struct Architecture {
  Family family = Family::llama;
  std::string model_type;               // as in the file
  std::string class_name;               // the class that is built: "LlamaForCausalLM"
  std::string name;                     // preset, file or directory it came from; may be empty
  std::string repository;               // what a training script is given, "meta-llama/Llama-3.1-8B"; empty: the name
  const std::string& given_to_scripts() const { return repository.empty() ? name : repository; }

  std::int64_t layers = 0, width = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0, max_positions = 0;

  NormKind norm = NormKind::rms_norm;
  bool norm_bias = false;               // layer_norm only
  double norm_eps = 1e-5;
  NormPlacement norm_placement = NormPlacement::pre;
  bool embedding_norm = false;          // BERT: norm after the embeddings
  bool final_norm = true;               // norm before the head

  Activation activation = Activation::silu;
  bool gated_mlp = true;                // down(act(gate(x)) * up(x)); else down(act(up(x)))
  bool fused_gate_up = false;           // one Linear [D -> 2F] (Phi-3)
  bool fused_qkv = false;               // one Linear: GPT-2's c_attn, NeoX' query_key_value, Phi-3's qkv_proj
  bool conv1d = false;                  // GPT-2: weights stored [in, out], addmm
  bool qkv_bias = false, out_bias = false, mlp_bias = false, head_bias = false;  // out: attention's output projection
  std::optional<double> clip_qkv;       // OLMo: clamp of q, k, v

  Position position = Position::rotary;
  std::int64_t rotary_dims = 0;         // of each head, <= h; 0 unless rotary
  std::vector<bool> unrotated;          // one per layer, or none: layers whose heads are not turned (SmolLM 3, EXAONE 4)
  std::int64_t position_rows = 0;       // rows of the learned table; 0 unless learned
  bool parallel_residual = false;       // x + attn(norm(x)) + mlp(norm'(x))
  bool shared_parallel_norm = false;    // Phi: both branches read one norm
  QkNorm qk_norm = QkNorm::none;

  std::vector<std::int64_t> windows;    // one per layer: tokens a query may look back on, itself included; 0: all
  bool windows_by_layer = false;        // the class makes one mask for layers with a window and one for those without; else one for all
  bool sinks = false;                   // gpt-oss: a score a head that no value belongs to; attention is then eager
  std::optional<double> attention_softcap, logit_softcap;  // Gemma 2: tanh(x / c) * c; attention then runs eagerly or in flash
  std::optional<double> attention_scale;  // where it is not 1/sqrt(h)
  std::optional<double> embedding_scale;  // Gemma: embeddings * sqrt(D); Granite's multiplier
  bool scales_branches = false, scales_logits = false;  // Granite: what a block adds to the stream, and the logits, times a number
  bool use_cache = true;                // a forward pass fills a key-value cache, in training too, unless it checkpoints
  bool tied_head = false;               // the head reads the embedding's weight: one parameter, listed where it comes first
  bool tied_words = false;              // what tied_head is where the head is of words

  HeadKind head = HeadKind::words;
  std::int64_t classes = 0;             // C, that the head tells apart; 0 of words; of texts 1 is a number (regression)
  std::int64_t labels = 2;              // that the file names: num_labels, or its id2label; transformers' default
  std::array<double, 4> head_dropouts{};  // of heads of classes, by their kind
  bool classifies() const { return head != HeadKind::words; }

  double embedding_dropout = 0, residual_dropout = 0, attention_dropout = 0;
  bool causal = true;                   // false: encoders
  std::optional<MixtureOfExperts> moe;
  std::optional<LatentAttention> latent;
  std::optional<Encoder> encoder;
  std::optional<Dtype> dtype;           // "dtype" or "torch_dtype" of the file

  std::vector<std::string> notes;       // what a reader should be told: parts of the file that are left out, and why

  bool turns_heads(std::int64_t layer) const { return position == Position::rotary && (unrotated.empty() || !unrotated[static_cast<std::size_t>(layer)]); }
  bool is_moe_layer(std::int64_t layer) const { return moe && moe->layers[static_cast<std::size_t>(layer)]; }
};

// Every trainable tensor of transformers' class, once (a tied head is not listed again), by name and in the order of named_parameters()
// of transformers 5 (experts of a layer stacked in one tensor). dtype: the file's, fp32 where it has none. Groups: wte the
// embeddings, lm_head the untied head (and what stands between the last norm and it), scalars every vector (norms, biases), transformer_matrices the rest.
// Precondition: an Architecture as architecture_from (hf_config.hpp) returns it: its numbers are bounded, so no count overflows.
std::vector<Parameter> parameters_of(const Architecture& architecture);

// Of `all` parameters those that a token meets: all but the experts it does not visit.
std::int64_t active_of(const Architecture& architecture, std::int64_t all);

}  // namespace dryfit
