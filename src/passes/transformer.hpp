// A Hugging Face model's forward pass on the eager engine: transformers' modelling code, op by op, with the lifetimes of its local names.
// Knows an Architecture and how it is fine-tuned; no loop, no optimizer, no GPU.
// Source: transformers 4.57, models/*/modeling_*.py; peft 0.21, tuners/lora/layer.py.
#pragma once

#include <algorithm>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "passes/eager.hpp"
#include "passes/fused_head.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"

namespace dryfit::eager {

// What of transformers' model the training decides, resolved for a machine.
struct ForwardOptions {
  Attention attention = Attention::flash;  // SDPA's choice for an unmasked causal call
  Attention wide_attention = Attention::efficient;  // the same of fp32 heads, as beside 4-bit weights, whatever the model's dtype
  bool eager_attention = false;            // attn_implementation="eager"
  bool use_cache = false;                  // a DynamicCache is filled while training: keys and values are copied
  std::int64_t shards = 1;                 // FSDP2: weights are gathered from so many, their storage padded to a multiple of rows; empty at first
  bool flat = false;                       // ZeRO: what trains has no memory of its own, it lies in flat groups
  bool gathered = false;                   // ZeRO-3, FSDP1: nothing has
  bool leaf_units = false;                 // FSDP1: adapters' matrices are units of their own
  enum class Loading : std::uint8_t { stays, on_host, whole } loading = Loading::stays;  // FSDP: 4-bit weights are here as a whole while each is quantized, or until the model is loaded
  Dtype adapters = Dtype::fp32;            // of LoRA's matrices; peft keeps them in fp32 beside 16-bit weights, DeepSpeed casts all
  std::int64_t memory = 0;                 // of the GPU, in bytes; 0: unknown
  int multiprocessors = 132;               // of the GPU; Liger's kernels and compiled functions ask for it
  bool fuses_products = true;              // products add onto sums of either width: compute capability 8.0 or newer
};

// What a sharding strategy does around the modules it treats as units: a block by its layer, the model itself as -1, and where it carves them out its
// embedding and its tail, of the last norm and the head; from kLeaf on single matrices. Returns what the unit's code, or the caller, gets instead; a model's input may be undefined.
struct UnitHooks {
  static constexpr int kModel = -1, kEmbedding = -2, kTail = -3, kLeaf = 1 << 20;
  std::function<Tensor(int unit, const Tensor& x)> before, after;
  struct Named { Dtype now, in_graph; };
  std::function<Named(int unit)> dtype = nullptr;    // of a single matrix as its module names it now, and as it did in the run whose graph backward follows
  std::function<Tensor(const Tensor& weight)> whole = nullptr;  // of a unit that is asked for its weight and never runs: a copy of it, gathered
  std::function<void(int unit)> before_again = nullptr;  // the unit's output has its gradient, and then the block runs again
  bool wrap = false;                       // units are modules around the blocks: a checkpoint lies within, whatever its form
  bool carves = false;                     // embedding and tail are units of their own
};

// The same around every module that transformers calls, as a hook on each would see it: who it is, and the weights it owns itself. after returns what
// the caller gets, before what the module gets. again: of a checkpointed block (the newer form) that runs again, whose ops keep what they save by
// detach(). before_backward: the module's output has its gradient, in a graph that is not kept (such a block's first run).
struct ModuleHooks {
  using Who = const void*;
  std::function<Tensor(Who who, std::span<const Tensor> own, const Tensor& x)> before;
  std::function<Tensor(Who who, std::span<const Tensor> all, const Tensor& x)> before_leaf;  // of a module that is hooked as one, with all weights within it
  std::function<Tensor(Who who, const Tensor& y, bool again)> after;
  std::function<void(Who who)> before_backward;
  std::function<void(Who who, const Tensor& weight)> takes;  // the module that runs asks another for its weight
};

// Whether DeepSpeed's ZeRO-3 takes a mixture of experts for one module (deepspeed/runtime/zero/leaf_module_config.py, since 0.18).
bool is_leaf_mixture(const Architecture& architecture);

// Whether its attention repeats keys and values for all heads whatever runs it, in code of transformers 4 from before enable_gqa: Qwen2MoeSdpaAttention, OlmoeSdpaAttention. (Not OLMoE's for FlashAttention.)
bool repeats_keys_itself(const Architecture& architecture, const Training& training);

// Rows of each expert, whose tokens are taken to be shared evenly.
std::int64_t rows_of_expert(const Architecture& architecture, std::int64_t tokens);

// Whether a model that ends in classes is laid out as it is trained.
Result<void> classes_are_described(const Architecture& architecture, const Training& training);

class Transformer {
 public:
  // Allocates the parameters and buffers on the tape, as loading does.
  Transformer(Tape& tape, const Architecture& architecture, const Training& training, ForwardOptions options);

  // embeddings: in place of ids, where adapters make them; computed: log-probabilities that a reference has of rows, where they were before;
  // types: of which text a token is; ends: where answers end, whose beginnings are the labels; others: of KTO, ids, mask and completions of answers to other prompts; liked: which of its rows are
  struct Batch { Tensor ids, mask, labels, embeddings; std::array<Tensor, 2> computed = {}; Tensor types = {}, ends = {}; std::array<Tensor, 3> others = {}; Tensor liked = {}; };
  // What transformers' examples bring a head of classes of so many rows. labelled: an answer's evaluation has no labels.
  static Batch batch_of_classes(Tape& tape, const Architecture& architecture, std::int64_t rows, std::int64_t length, bool labelled = true);
  struct Outputs {
    Tensor loss, logits;           // Liger: no logits; of answers the beginnings'
    std::vector<Tensor> chunks;    // LitGPT: the logits in parts of the length
    std::vector<Tensor> cache;     // past_key_values
    Tensor end_logits = {};        // of answers
  };
  Outputs forward(const Batch& batch);
  // TRL's fused head on it, of all positions but a row's last: no loss of the labels is taken.
  FusedOutput scores(const Batch& batch, FusedAsked asked);
  // All logits, of a batch without labels, [B, T, V].
  Tensor logits(const Batch& batch);
  // What a head of one class says of each row, [B, 1]; TRL's value head of each token, [B, T], beside all logits and their loss.
  Tensor rewards(const Batch& batch);
  struct Values { Tensor logits, loss, values; };
  Values values(const Batch& batch);
  // One of these without gradients and checkpoints, while the graph of another call is still to run backward; plain: and without adapters (peft's disable_adapter).
  template <typename Call>
  auto without_graph(bool plain, Call call) {
    const NoGrad inside(t_);
    const auto kept = std::tuple(std::move(mask_), std::move(local_mask_), std::move(positions_), std::move(input_), std::move(rotary_), std::move(local_rotary_));  // checkpoints still have them
    as_reference_ = true, plain_ = plain;
    auto out = call();
    as_reference_ = plain_ = false;
    std::tie(mask_, local_mask_, positions_, input_, rotary_, local_rotary_) = kept;
    return out;
  }
  FusedOutput scores_as_reference(const Batch& batch, FusedAsked asked) { return without_graph(true, [&] { return scores(batch, asked); }); }
  // generate(): one pass over tokens [B, n] that come after those of the passes before, with a cache of all their keys and values. Logits of each row's last token, [B, 1, V].
  // fills: prompts differ in length, so that a mask says where they begin.
  Tensor next_logits(const Tensor& ids, bool fills);
  void grow_cache();               // as a pass over one token leaves it, without the pass
  void forget_cache() { cache_.clear(), seen_ = 0; }
  void around_units(UnitHooks hooks) { hooks_ = std::move(hooks); }
  void around_modules(ModuleHooks hooks) { modules_ = std::move(hooks); }
  void forget_whole() { whole_.clear(); }  // ForwardOptions::Loading::whole: once units have their shards
  void finish(bool graph_stays = false);  // after backward: what recomputed blocks were given goes; graph_stays: not yet what adapters behind checkpoints have a gradient pass through, which its own node names

  // Parameters in named_parameters() order with what is needed to train them.
  struct Weight { Tensor tensor; const char* role; int layer; bool trains; int leaf = 0; };  // leaf: its unit, where it is one of its own (UnitHooks::kLeaf)
  bool adapts(const Parameter& p) const;  // whether a LoRA adapter stands beside this weight; its matrices follow it, or its bias, in weights()
  const std::vector<Weight>& weights() const { return weights_; }
  const std::vector<Tensor>& buffers() const { return buffers_; }
  std::int64_t buffer_bytes() const;  // tables and masks that belong to modules
  std::int64_t frozen_bytes() const { return frozen_bytes_; }  // 4-bit weights with their scales, which weights() leaves out

 private:
  friend struct OperatorsOf;       // tools/accuracy: parts of it alone
  struct Adapter { Tensor a, b, magnitude; char self = 0, dropout = 0; int leaf = 0; };  // magnitude: DoRA's; leaf: the unit of a, before b's
  struct Linear {
    Tensor weight, bias;
    Tensor packed;                 // QLoRA: 4-bit values; weight then only says the shape
    Dims shape;
    bool conv1d = false;
    std::optional<Adapter> lora;
  };
  struct Block {
    std::unordered_map<std::string, Linear> linear;
    std::unordered_map<std::string, std::pair<Tensor, Tensor>> norm;
    // modules without weights: their addresses are who they are
    char attention = 0, mixture = 0, experts = 0, attention_dropout = 0, dropout = 0, rotary = 0;
    struct Mlp { char self = 0, activation = 0; } mlp, shared;
    std::vector<Mlp> expert;
  };
  using Who = ModuleHooks::Who;
  struct GatedRoles { const char *gate, *up, *act, *product, *down; };

  std::vector<Parameter> registered() const;
  void load();
  Tensor as_loaded(Dims d);
  void load_quantized(const std::vector<Parameter>& parameters);
  bool is_quantized(const Parameter& p) const;
  void place(const Parameter& p);
  void expert_weights(const Parameter& p);
  void warm_up(const std::vector<Parameter>& parameters);
  void load_whole(const std::vector<Parameter>& parameters);
  std::int64_t packed_elements(std::int64_t count) const;
  void quantize(Linear& l, const char* name, std::int64_t count, int layer);
  void share_out(Linear& l, const char* name, std::int64_t count, int layer);
  void add_adapters();
  void add_value_head();
  Tensor make(const char* role, Dims d, Dtype dtype, bool trains);
  Tensor weight_of(const char* role, const Parameter& p);
  bool trains(const Parameter& p) const;
  bool is_saved_module(const Parameter& p) const;
  bool is_target(std::string_view module) const;
  Tensor project(const Linear& l, const Tensor& x, const char* role);
  Tensor product(const Linear& l, const Tensor& x, const char* role);
  Tensor adapted(Tensor result, const Linear& l, const Tensor& x, const char* role);
  Tensor adapted_dora(const Tensor& result, const Linear& l, const Tensor& x, const char* role);
  Tensor decomposed(const Linear& l, const Tensor& x, Tensor base);
  Tensor whole_weight(const Linear& l);
  Tensor low_rank(const Tensor& weight, const Tensor& x, const char* role, int leaf = 0, std::optional<Dtype> in_memory = std::nullopt);
  Tensor into_adapter(const Linear& l, Tensor& x, bool casts, std::optional<Dtype>& in_memory);
  void begin_units_again(std::int64_t layer);
  static bool all_adapted(std::initializer_list<const Linear*> linears);
  Tensor kernel_weight(const Linear& l);
  Tensor kernel_product(const Linear& l, const Tensor& x, const Tensor& dropped, const char* role);
  struct AdapterGradients { Tensor low, a, b; };
  AdapterGradients kernel_gradients(const Tensor& a, const Tensor& b, const Tensor& rows, const Tensor& g);
  Tensor kernel_input_gradient(std::span<const Linear* const> linears, std::span<const Tensor> g, const char* role);
  std::vector<Tensor> kernel_projections(std::span<const Linear* const> linears, const Tensor& x, const char* role);
  Tensor kernel_mlp(const Linear& gate, const Linear& up, const Linear& down, const Tensor& x, const GatedRoles& roles);
  Tensor into(Who who, std::initializer_list<Tensor> own, const Tensor& x);
  Tensor out_of(Who who, const Tensor& y);
  void begin_again(std::int64_t layer);
  Tensor drop(Who who, const Tensor& x, double p, const char* role);
  Tensor lookup(const char* table, const Tensor& ids);
  Tensor norm(const Tensor& x, const std::pair<Tensor, Tensor>& w, const char* role, bool of_heads = false);
  Tensor normed(const Tensor& x, const std::pair<Tensor, Tensor>& w, const char* role, bool of_heads);
  Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, const char* role);
  Tensor rotated_part(const Tensor& x, const Tensor& cos, const Tensor& sin, const char* role);
  Tensor joined(const Tensor& part, const Tensor& x, const char* role);
  std::pair<Tensor, Tensor> rotary_tables(Dtype like);
  bool fp32_rotary() const { return a_.family == Family::olmo || a_.family == Family::olmo2 || a_.family == Family::olmo3; }
  bool has_local_rotary() const { return a_.family == Family::gemma3 || a_.family == Family::olmo3; }  // tables of their own for layers with a window
  // Whether there are tables for layers with a window (local), or for the others: transformers 5 makes none for a kind that no layer is of.
  bool has_rotary(bool local) const;
  bool scales_in_embedding() const { return a_.family == Family::gemma3; }  // Gemma3TextScaledWordEmbedding: the module's output is scaled
  bool norms_turned_heads() const { return a_.qk_norm == QkNorm::per_head && (a_.family == Family::gemma3 || a_.family == Family::phi || a_.family == Family::exaone4); }  // [B, H, T, h], once queries, keys and values are all there
  double dropped_after_branches() const { return a_.family == Family::phi3 && r_.dropout ? a_.residual_dropout : 0; }  // Phi3DecoderLayer: what comes out of a branch keeps its name beside
  bool drops_in_branches() const { return a_.family == Family::seed_oss || a_.family == Family::starcoder2; }  // attention and MLP end in a dropout
  Tensor for_all_heads(const Tensor& x);
  Tensor repeat_kv(const Tensor& x, const char* role);
  Tensor run_attention(std::int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v);
  Tensor attend_unfilled(Attention kind, const Tensor& given_q, const Tensor& given_k, const Tensor& given_v, double dropout);
  Tensor sink_attention(std::int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v);
  const Tensor& mask_of(std::int64_t layer) const;
  std::array<Tensor, 3> clip(std::array<Tensor, 3> of);
  Tensor rotate_halves(const Tensor& x, const Tensor& cos, const Tensor& sin, const char* role);
  Tensor composite_attention(const Tensor& q, const Tensor& k, const Tensor& v, double dropout);
  Tensor attention(std::int64_t layer, const Tensor& x);
  Tensor attend(std::int64_t layer, const Tensor& x);
  Tensor attended(std::int64_t layer, const Tensor& q, Tensor k, Tensor v);
  std::pair<Tensor, Tensor> over_heads(const std::pair<Tensor, Tensor>& tables);
  Tensor attend_latent(std::int64_t layer, const Tensor& x);
  Tensor from_pairs(const Tensor& x, const char* role);
  Tensor rotate_complex(const Tensor& x, const char* role);
  Tensor activate(const Tensor& x, const char* role);
  Tensor activate(const Block::Mlp& mlp, const Tensor& x, const char* role);
  Tensor gated(const Block& block, const Block::Mlp& mlp, const std::string& name, const Tensor& x, const GatedRoles& roles);
  Tensor mlp(const Block& block, const Block::Mlp& mlp, const std::string& name, const Tensor& x);
  Tensor fed(const Block& block, const Block::Mlp& mlp, const std::string& name, const Tensor& x);
  Tensor mixture(const Block& block, const Tensor& x);
  Tensor routed(const Block& block, const Tensor& x);
  Tensor stacked_mixture(const Block& block, const Tensor& x);
  Tensor stacked_experts(const Block& block, const Tensor& x, const Tensor& scores);
  Tensor sorted_mixture(const Block& block, const Tensor& x);
  Tensor softmax_choice(const Block& block, Tensor logits, Tensor& selected);
  Tensor sigmoid_choice(const Block& block, Tensor logits, Tensor& selected);
  Tensor choice(const Block& block, const Tensor& x, Tensor& logits, Tensor& selected);
  Tensor grouped_mixture(const Block& block, const Tensor& x);
  Tensor grouped_experts(const Block& block, const Tensor& x, const Tensor& selected, const Tensor& weights);
  Tensor gate_of_experts(const Tensor& both);
  Tensor corrected_mixture(const Block& block, const Tensor& x);
  std::int64_t expert_rows() const { return rows_of_expert(a_, N); }
  Tensor into_mixture(const Block& block, const Tensor& x);
  Tensor expert(const Block& block, std::int64_t index, const Tensor& x);
  Tensor router_logits(const Block& block, const Tensor& x);
  Tensor best(const Tensor& x, Dims d, Tensor& indices);
  Tensor in_best_groups(const Tensor& scores, const Tensor& of_groups);
  Tensor feed_forward(std::int64_t layer, const Tensor& x);
  Tensor post_norm_block(std::int64_t layer, const Tensor& x);
  Tensor parallel_block(std::int64_t layer, const Tensor& x);
  Tensor output_norm_block(std::int64_t layer, const Tensor& x);
  Tensor pre_norm_block(std::int64_t layer, const Tensor& x);
  Tensor add_branch(const Tensor& residual, const Tensor& h, const char* role);
  Tensor block(std::int64_t layer, const Tensor& x);
  Tensor enter(std::int64_t unit, const Tensor& x);
  Tensor leave(std::int64_t unit, const Tensor& y);
  bool meets(std::int64_t unit) const;
  Tensor unit(std::int64_t layer, const Tensor& x);
  Tensor recomputed(std::int64_t layer, const Tensor& x);
  std::vector<Tensor*> given_last(std::int64_t layer);
  bool checkpoints() const { return r_.recompute == Recompute::full && !as_reference_; }
  bool norm_in_tail() const;
  Tensor body(const Batch& batch);
  void begin(const Batch& batch);
  Tensor end(Tensor out);
  Tensor rows_for_head(const Batch& batch);
  bool asks_tail() const;
  FusedOutput fused_output(const Tensor& rows, FusedAsked asked);
  Tensor embed(const Batch& batch, Tensor& x);
  Batch prompted(const Batch& batch);
  Tensor causal_mask(Dtype d, std::int64_t keys);
  std::int64_t keys_of(std::int64_t window) const { return !generates_ ? T : window > 0 ? std::min(seen_ + T, window - 1 + T) : seen_ + T; }  // that queries meet in a layer with a window, 0: without
  std::int64_t window_of(std::int64_t layer) const { return a_.windows.empty() ? 0 : a_.windows[static_cast<std::size_t>(layer)]; }
  void join_cache(std::int64_t layer, Tensor& k, Tensor& v);
  void make_masks(Dtype d);
  bool makes_mask_of_none() const;
  Tensor bert_embeddings(Tensor words, const Tensor& given_types);
  bool takes_mask(std::int64_t window) const;
  bool fills_cache() const;
  bool fills_rows() const { return generates_ ? fills_prompts_ : r_.padded && (B > 1 || r_.filled); }  // to the longest of several, or to a length
  Tensor head(const Tensor& x);
  Tensor shifted(Tensor& padded);
  Tensor head_loss(const Tensor& x, const Tensor& labels);
  Tensor liger_head(const Tensor& x);
  Tensor loss_of(const Tensor& logits, const Tensor& labels);
  void classify(const Tensor& x, const Batch& batch, Outputs& out);
  Tensor class_logits(Tensor& h);
  Tensor of_last_tokens(const Tensor& logits);
  void classify_answers(const Tensor& x, const Batch& batch, Outputs& out);

  Tape& t_;
  const Architecture& a_;
  const Training& r_;
  ForwardOptions o_;
  UnitHooks hooks_;
  ModuleHooks modules_;
  Who stop_ = nullptr;             // the module in which a block that runs again stops, for everything saved is there
  bool again_ = false, stopped_ = false, inside_leaf_ = false;
  bool as_reference_ = false;      // nothing is recorded
  bool wants_input_gradient_;      // enable_input_require_grads: its hook is there without checkpoints too; since transformers 5 of whole models
  bool plain_ = false;             // adapters are off
  bool has_value_head() const { return r_.preference && r_.preference->trainer == Preference::Trainer::factory_rm; }
  std::pair<Tensor, Tensor> value_head_;  // weight [1, D] and bias, in fp32
  std::vector<Tensor> hidden_;     // what blocks were given, where a model hands it out (output_hidden_states)
  bool groups_ = false;            // experts of a layer are two tensors, and run together
  std::vector<Weight> weights_;
  std::vector<Tensor> buffers_, whole_;
  std::vector<Block> blocks_;
  Block outer_;                    // what stands outside the blocks
  std::unordered_map<std::string, Tensor> tables_;  // embeddings
  std::pair<Tensor, Tensor> rotary_, local_rotary_;
  Tensor mask_, local_mask_, positions_, input_, prompt_;  // local: of layers with a window
  Tensor returned_;                // of an encoder's layer before, likewise
  Tensor intermediate_;            // of an encoder's MLP, which its layer's local keeps until its norm is done
  Tensor held_;                    // attention weights, which a decoder layer's local keeps until it returns
  std::vector<Tensor> cache_;      // keys and values, layer by layer
  bool generates_ = false, fills_prompts_ = false;
  std::int64_t seen_ = 0;          // tokens of a row that the cache has, while it generates
  std::int64_t B = 0, T = 0, N = 0, frozen_bytes_ = 0;
};

}  // namespace dryfit::eager
