// Llama and its kin as a graph, in the order their forward() runs. Source: transformers 4.57, models/llama/modeling_llama.py and those made from it.
// B device batch, T length, D width, H heads, K KV heads, h head size, R rotary dimensions, V vocabulary.
#include "graph/transformers.hpp"

#include <array>

#include "graph/gpt2.hpp"
#include "graph/model_writer.hpp"

namespace dryfit {

namespace {

class LlamaWriter : ModelWriter {
 public:
  LlamaWriter(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, Graph& graph) : ModelWriter(a, r, adapted, graph, "model.", "layers.") {}

  void write() {
    const NodeId ids = declare_ids();
    padding_ = declare_ids();
    frequencies_ = b_.input(shape({a_.rotary_dims / 2, 1}, false), Dtype::fp32, "rotary.inv_freq", -1);
    declare_parameters();
    const NodeId labels = declare_ids();
    NodeId x = b_.pointwise(Fn::embedding, std::array{weight("embed_tokens"), ids}, tokens(D), stored_, "wte");
    read_padding();
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
    const NodeId logits = linear(x, a_.tied_head ? "embed_tokens" : "lm_head", "logits");
    loss(logits, labels);
    // under autocast accelerate hands the logits out in fp32
    g_.outputs.insert(g_.outputs.begin(), mixed_ ? b_.convert(logits, Dtype::fp32, "logits") : logits);
    finish();
  }

 private:
  // LlamaRMSNorm: fp32 statistics, the weight times what was cast back.
  NodeId norm(NodeId x, const char* module, const char* role) {
    const NodeId scaled = b_.over_rms(x, role);
    const NodeId w = weight(module);
    return b_.times(w, b_.convert(scaled, b_[x].dtype, role), wider(b_[w].dtype, b_[x].dtype), role);
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
    if (caches()) {  // DynamicCache joins both to empty tensors of the first keys' dtype
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

  NodeId feed_forward(NodeId x) {
    const NodeId gate = project(x, "mlp.gate_proj", "mlp.gate");
    const Dtype c = b_[gate].dtype;
    const NodeId act = b_.unary(Fn::silu, gate, c, "mlp.act");
    return project(b_.times(act, project(x, "mlp.up_proj", "mlp.up"), c, "mlp.product"), "mlp.down_proj", "mlp.down");
  }

  NodeId frequencies_ = kNone, cos_ = kNone, sin_ = kNone;
};

// The loss of logits that another graph made, and those cast.
class LossWriter : ModelWriter {
 public:
  LossWriter(const Architecture& a, const Training& r, Graph& graph) : ModelWriter(a, r, {}, graph, "", "") {}

  void write() {
    const NodeId logits = given();
    loss(logits, declare_ids());
  }
  void write_cast() { g_.outputs.push_back(b_.convert(given(), Dtype::fp32, "logits")); }

 private:
  NodeId given() { return b_.input(tokens(a_.vocab), g_.compute, "logits", 0); }
};

}  // namespace

bool has_graph(const Architecture& a) {
  if (has_gpt2_graph(a)) return true;
  const bool family = a.family == Family::llama || a.family == Family::mistral || a.family == Family::qwen2 || a.family == Family::qwen3;
  return family && a.rotary_dims == a.head_dim && a.activation == Activation::silu && a.gated_mlp && !a.moe;
}

Graph transformer_forward(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, int multiprocessors) {
  if (a.family == Family::gpt2) return gpt2_forward(a, r, adapted, multiprocessors);
  return written_by<LlamaWriter>(a, r, adapted, multiprocessors);
}

bool loss_is_apart(const Architecture& a) { return a.family == Family::gpt2; }

Graph transformer_loss(const Architecture& a, const Training& r) {
  Graph graph;
  LossWriter(a, r, graph).write();
  return graph;
}

Graph logits_handed_out(const Architecture& a, const Training& r) {
  Graph graph;
  LossWriter(a, r, graph).write_cast();
  return graph;
}

}  // namespace dryfit
