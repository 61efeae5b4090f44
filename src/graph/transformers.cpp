// Llama and its kin as a graph, in the order their forward() runs. Source: transformers 4.57, models/llama/modeling_llama.py and those made from it.
// B device batch, T length, D width, H heads, K KV heads, h head size, R rotary dimensions, V vocabulary.
#include "graph/transformers.hpp"

#include "graph/gpt2.hpp"
#include "graph/llama_writer.hpp"
#include "graph/neox.hpp"

namespace dryfit {

namespace {

class LlamaWriter : LlamaBlocks {
 public:
  LlamaWriter(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, CompileTarget target, Graph& graph) : LlamaBlocks(a, r, adapted, target, graph, "model.", "layers.") {}

  void write() {
    NodeId x = begin("embed_tokens", Dtype::fp32);
    const Names mlp{"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", {"mlp.gate", "mlp.act", "mlp.up", "mlp.product", "mlp.down"}};
    for (std::int64_t layer = 0; layer < a_.layers; ++layer) {
      b_.at(static_cast<int>(layer));
      layer_ = layer;
      x = b_.binary(Fn::add, x, attend(norm(x, "input_layernorm", "norm1")), wider(b_[x].dtype, g_.compute), "x_mid");
      x = b_.binary(Fn::add, x, feed_forward(norm(x, "post_attention_layernorm", "norm2"), mlp), b_[x].dtype, "x_out");
    }
    b_.at(-1);
    layer_ = -1;
    x = norm(x, "norm", "norm");
    end(x, "embed_tokens");
  }
};

// The loss of logits that another graph made, and those cast.
class LossWriter : ModelWriter {
 public:
  LossWriter(const Architecture& a, const Training& r, Graph& graph) : ModelWriter(a, r, {}, {}, graph, "", "") {}

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
  if (has_gpt2_graph(a) || has_neox_graph(a)) return true;
  const bool family = a.family == Family::llama || a.family == Family::mistral || a.family == Family::qwen2 || a.family == Family::qwen3;
  return family && a.rotary_dims == a.head_dim && a.activation == Activation::silu && a.gated_mlp && !a.moe;
}

Graph transformer_forward(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, CompileTarget target) {
  if (a.family == Family::gpt2) return gpt2_forward(a, r, adapted, target);
  if (a.family == Family::gpt_neox) return neox_forward(a, r, adapted, target);
  return written_by<LlamaWriter>(a, r, adapted, target);
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
