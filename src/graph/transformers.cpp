// Llama and its kin as a graph, in the order their forward() runs. Source: transformers 4.57, models/llama/modeling_llama.py and those made from it.
// B device batch, T length, D width, H heads, K KV heads, h head size, R rotary dimensions, V vocabulary.
#include "graph/transformers.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <unordered_map>

#include "workload/workload.hpp"

namespace dryfit {

namespace {

class TransformerWriter {
 public:
  TransformerWriter(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, Graph& graph) : a_(a), r_(r), adapted_(adapted), g_(graph), b_(graph), parameters_(parameters_of(a)), with_cache_(r.use_cache && r.recompute == Recompute::none) {
    g_.checkpoints = r.recompute == Recompute::full;
    mixed_ = r.mixed != MixedPrecision::none;
    stored_ = r.weights;
    g_.compute = r.mixed == MixedPrecision::bf16 ? Dtype::bf16 : r.mixed == MixedPrecision::fp16 ? Dtype::fp16 : stored_;
    B = r.device_batch_size, T = r.seq_len, D = a.width, H = a.heads, K = a.kv_heads, h = a.head_dim;
  }

  void write() {
    declare_inputs();
    NodeId x = b_.pointwise(Fn::embedding, std::array{weight("embed_tokens"), ids_}, tokens(D), stored_, "wte");
    counted_ = b_.pointwise(Fn::shift, std::array{padding_}, shape({B, T}, true), Dtype::bool8, "attn.mask");
    tables(x);
    for (std::int64_t layer = 0; layer < a_.layers; ++layer) {
      b_.at(static_cast<int>(layer));
      layer_ = layer;
      x = b_.binary(Fn::add, x, attend(norm(x, "input_layernorm", "norm1")), wider(b_[x].dtype, g_.compute), "x_mid");
      x = b_.binary(Fn::add, x, feed_forward(norm(x, "post_attention_layernorm", "norm2")), b_[x].dtype, "x_out");
    }
    b_.at(-1);
    layer_ = -1;
    x = norm(x, "norm", "norm");
    loss(linear(x, a_.tied_head ? "embed_tokens" : "lm_head", "logits"));
  }

 private:
  static Dtype wider(Dtype a, Dtype b) { return a == Dtype::fp32 || b == Dtype::fp32 ? Dtype::fp32 : a; }
  Shape tokens(std::int64_t width) const { return shape({B, T, width}, true); }
  Shape heads(std::int64_t n) const { return shape({B, T, n, h}, true); }

  void declare_inputs() {
    ids_ = b_.input(shape({B, T}, true), Dtype::int64, "batch.ids", -1);
    padding_ = b_.input(shape({B, T}, true), Dtype::int64, "batch.ids", -1);
    frequencies_ = b_.input(shape({a_.rotary_dims / 2, 1}, false), Dtype::fp32, "rotary.inv_freq", -1);
    std::int32_t place = 0;
    const auto declare = [&](const std::string& name, Shape s, Dtype d, bool trains) {
      inputs_[name] = b_.input(s, d, "weight", place++);
      g_.inputs.back().trains = trains;
    };
    std::string adapted;  // the module whose adapter comes next
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const Parameter& p = parameters_[i];
      b_.at(p.layer);
      declare(p.name, shape(p.shape, false), stored_, !r_.lora);
      if (std::ranges::binary_search(adapted_, static_cast<std::int32_t>(i))) adapted = p.name.substr(0, p.name.rfind('.'));
      const bool bias_follows = i + 1 < parameters_.size() && parameters_[i + 1].name == adapted + ".bias";
      if (adapted.empty() || bias_follows) continue;
      const Shape weight = b_[inputs_[adapted + ".weight"]].shape;
      declare(adapted + ".lora_A.weight", shape({r_.lora->rank, weight.dim[1]}, false), Dtype::fp32, true);
      declare(adapted + ".lora_B.weight", shape({weight.dim[0], r_.lora->rank}, false), Dtype::fp32, true);
      adapted.clear();
    }
    b_.at(-1);
    labels_ = b_.input(shape({B, T}, true), Dtype::int64, "batch.ids", -1);
  }

  // The parameter of a module of this layer, or outside of all; kNone where there is none.
  NodeId parameter(const std::string& module, const char* which) const {
    const std::string inside = "model.layers." + std::to_string(layer_) + "." + module, outside = "model." + module;
    for (const std::string& name : {layer_ >= 0 ? inside : outside, module}) {
      const auto it = inputs_.find(name + "." + which);
      if (it != inputs_.end()) return it->second;
    }
    return kNone;
  }
  NodeId weight(const std::string& module) const { return parameter(module, "weight"); }

  // LlamaRMSNorm: fp32 statistics, the weight times what was cast back.
  NodeId norm(NodeId x, const char* module, const char* role) {
    const NodeId scaled = b_.over_rms(x, role);
    const NodeId w = weight(module);
    return b_.times(w, b_.convert(scaled, b_[x].dtype, role), wider(b_[w].dtype, b_[x].dtype), role);
  }

  // A module's product, and what peft adds to it (peft 0.21, tuners/lora/layer.py).
  NodeId project(NodeId x, const std::string& module, const char* role) {
    const NodeId base = linear(x, module, role);
    if (weight(module + ".lora_A") == kNone) return base;
    const auto [it, fresh] = lora_inputs_.try_emplace(x, kNone);
    if (fresh) it->second = b_.convert(x, Dtype::fp32, "lora.x");
    NodeId low = dropout(it->second, r_.dropout ? r_.lora->dropout : 0, "lora.dropout");
    low = linear(linear(low, module + ".lora_A", "lora.A"), module + ".lora_B", "lora.B");
    low = b_.unary(Fn::scale, low, b_[low].dtype, "lora.scaled");
    return b_.convert(b_.binary(Fn::add, base, low, wider(b_[base].dtype, b_[low].dtype), role), b_[base].dtype, role);
  }

  // All calls share one buffer of seeds.
  NodeId dropout(NodeId x, double p, const char* role) {
    if (p == 0) return x;
    if (seeds_ == kNone) {
      const auto calls = static_cast<std::int64_t>(adapted_.size());
      seeds_ = b_.pointwise(Fn::fill, {}, shape({calls}, false), Dtype::int64, "lora.seeds");
    }
    return b_.dropped(x, seeds_, role);
  }

  // nn.Linear. Under autocast what is not in the compute dtype is cast: an input once for all who read it, each with a gradient of its own.
  NodeId linear(NodeId x, const std::string& module, const char* role) {
    const NodeId w = weight(module), bias = parameter(module, "bias");
    Shape s = b_[x].shape;
    s.dim[s.rank - 1] = b_[w].shape.dim[0];
    const Dtype d = mixed_ ? g_.compute : b_[w].dtype;
    const NodeId in = cast(x, d, role), by = cast(w, d, role), added = bias == kNone ? kNone : cast(bias, d, role);
    const NodeId y = bias == kNone ? b_.matmul(in, by, s, d, 0, role) : b_.addmm(added, in, by, s, d, 0, role);
    if (b_[x].dtype != d || b_[w].dtype != d || bias != kNone) g_.linears.push_back({x, w, bias, y});
    return y;
  }
  NodeId cast(NodeId x, Dtype d, const char* role) {
    if (b_[x].dtype == d) return x;
    const auto [it, fresh] = casts_.try_emplace(x, kNone);
    if (fresh) it->second = b_.convert(x, d, role);
    return it->second;
  }

  // LlamaRotaryEmbedding: an outer product of frequencies and positions, which is a matrix product; cosines and sines of it are made where they are needed.
  void tables(NodeId like) {
    const char* role = "rotary";
    const std::int64_t R = a_.rotary_dims;
    const NodeId positions = b_.pointwise(Fn::fill, {}, shape({T, 1}, false), Dtype::fp32, role);
    const NodeId angles = b_.matmul(frequencies_, positions, shape({R / 2, T}, false), Dtype::fp32, 0, role);
    const auto table = [&](const char* name) {
      NodeId t = b_.pointwise(Fn::cosine, std::array{angles}, shape({1, T, 1, R}, false), Dtype::fp32, name);
      t = b_.unary(Fn::scale, t, Dtype::fp32, name);
      return b_.convert(t, b_[like].dtype, name);
    };
    cos_ = table("rotary.cos");
    sin_ = table("rotary.sin");
  }

  NodeId rotate(NodeId x, const char* role) {
    const Dtype d = wider(b_[x].dtype, b_[cos_].dtype);
    const NodeId straight = b_.times(x, cos_, d, role);
    const NodeId turned = b_.unary(Fn::rotate_half, x, b_[x].dtype, role);
    return b_.binary(Fn::add, straight, b_.times(turned, sin_, d, role), d, role);
  }

  // Keys and values seen by all heads: copies.
  NodeId expand(NodeId x, const char* role) {
    return K == H ? x : b_.pointwise(Fn::expand, std::array{x}, heads(H), b_[x].dtype, role);
  }

  NodeId attend(NodeId x) {
    NodeId q = b_.viewed(project(x, "self_attn.q_proj", "attn.q"), heads(H));
    if (a_.qk_norm == QkNorm::per_head) q = norm(q, "self_attn.q_norm", "attn.q_norm");
    NodeId k = b_.viewed(project(x, "self_attn.k_proj", "attn.k"), heads(K));
    if (a_.qk_norm == QkNorm::per_head) k = norm(k, "self_attn.k_norm", "attn.k_norm");
    NodeId v = b_.viewed(project(x, "self_attn.v_proj", "attn.v"), heads(K));
    q = rotate(q, "attn.q_rot");
    k = rotate(k, "attn.k_rot");
    if (with_cache_) {  // DynamicCache joins both to empty tensors of the first keys' dtype
      v = b_.convert(v, b_[k].dtype, "attn.v_cache");
      g_.outputs.insert(g_.outputs.end(), {v, k});
    }
    k = expand(k, "attn.k_repeated");
    const NodeId values = expand(v, "attn.v_repeated");
    const Dtype c = g_.compute;
    k = b_.convert(k, c, "attn.k_repeated");
    q = b_.convert(q, c, "attn.q_rot");
    return project(attention_call(q, k, b_.convert(values, c, "attn.v_repeated")), "self_attn.o_proj", "attn.o");
  }

  // While it is traced the mask's values are not looked at: scaled_dot_product_attention always gets one, and the efficient kernel takes it.
  NodeId attention_call(NodeId q, NodeId k, NodeId v) {
    if (mask_ == kNone) mask_ = b_.pointwise(Fn::mask, std::array{counted_}, shape({B, 1, T, T}, true), g_.compute, "attn.mask");
    return b_.attention(static_cast<int>(Attention::efficient), q, k, v, mask_, tokens(H * h), shape({B, H, round_up(T, 32)}, true), 1, T).out;
  }

  NodeId feed_forward(NodeId x) {
    const Dtype c = g_.compute;
    const NodeId gate = project(x, "mlp.gate_proj", "mlp.gate");
    const NodeId act = b_.unary(Fn::silu, gate, c, "mlp.act");
    return project(b_.times(act, project(x, "mlp.up_proj", "mlp.up"), c, "mlp.product"), "mlp.down_proj", "mlp.down");
  }

  // ForCausalLMLoss. Under autocast accelerate hands the logits out in fp32.
  void loss(NodeId logits) {
    const Dtype f = Dtype::fp32;
    const NodeId y = b_.convert(logits, f, "logits");
    const NodeId targets = b_.pointwise(Fn::shift, std::array{labels_}, tokens(1), Dtype::int64, "loss.targets");
    const NodeId lp = b_.log_softmax(y);
    const auto valid = [&] { return b_.unary(Fn::compare, targets, Dtype::bool8, "loss.valid"); };  // compared for the count, and for the gradient in another shape
    const NodeId counts = b_.reduce(Fn::sum_all, valid(), shape({1}, false), f, "loss.count");
    const NodeId total = b_.reduce(Fn::nll_loss, lp, shape({1}, false), f, "loss", targets);
    g_.loss = b_.binary(Fn::mul, total, counts, f, "loss");
    const NodeId counted = valid();
    const NodeId safe = b_.unary(Fn::compare, targets, Dtype::int64, "loss.targets");
    g_.cross_entropy = {y, lp, safe, g_.loss, counted, counts};
    g_.outputs.insert(g_.outputs.begin(), mixed_ ? b_.convert(logits, f, "logits") : logits);
  }

  const Architecture& a_;
  const Training& r_;
  std::span<const std::int32_t> adapted_;
  Graph& g_;
  GraphBuilder b_;
  std::vector<Parameter> parameters_;
  std::unordered_map<std::string, NodeId> inputs_;
  std::unordered_map<NodeId, NodeId> casts_, lora_inputs_;
  bool with_cache_, mixed_ = false;
  Dtype stored_ = Dtype::bf16;
  std::int64_t B = 0, T = 0, D = 0, H = 0, K = 0, h = 0, layer_ = -1;
  NodeId ids_ = kNone, padding_ = kNone, counted_ = kNone, labels_ = kNone, frequencies_ = kNone, cos_ = kNone, sin_ = kNone, mask_ = kNone, seeds_ = kNone;
};

}  // namespace

bool has_graph(const Architecture& a) {
  const bool family = a.family == Family::llama || a.family == Family::mistral || a.family == Family::qwen2 || a.family == Family::qwen3;
  return family && a.rotary_dims == a.head_dim && a.activation == Activation::silu && a.gated_mlp && !a.moe;
}

Graph transformer_forward(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, int multiprocessors) {
  Graph graph;
  graph.multiprocessors = multiprocessors;
  graph.nodes.reserve(static_cast<std::size_t>(a.layers) * 320 + 64);
  TransformerWriter(a, r, adapted, graph).write();
  return graph;
}

}  // namespace dryfit
