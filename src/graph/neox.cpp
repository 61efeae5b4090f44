// See neox.hpp. Source: transformers 4.57, models/gpt_neox/modeling_gpt_neox.py.
// B device batch, T length, D width, H heads, h head size, R rotary dimensions.
#include "graph/neox.hpp"

#include <array>

#include "graph/llama_writer.hpp"

namespace dryfit {

namespace {

class NeoxWriter : LlamaBlocks {
 public:
  NeoxWriter(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, CompileTarget target, Graph& graph) : LlamaBlocks(a, r, adapted, target, graph, "gpt_neox.", "layers.") {}

  void write() {
    NodeId x = begin("embed_in", stored_);
    for (std::int64_t layer = 0; layer < a_.layers; ++layer) {
      b_.at(static_cast<int>(layer));
      layer_ = layer;
      x = a_.parallel_residual ? side_by_side(x) : one_by_one(x);
    }
    b_.at(-1);
    layer_ = -1;
    x = layer_norm(x, "final_layer_norm", "norm");
    end(x, "embed_in");
  }

 private:
  // Autocast computes it in fp32.
  NodeId layer_norm(NodeId x, const char* module, const char* role) { return b_.layer_norm(x, weight(module), parameter(module, "bias"), mixed_ ? Dtype::fp32 : b_[x].dtype, role); }

  // Both norms are of one tensor: one has the statistics of the other.
  NodeId side_by_side(NodeId x) {
    const NodeId normed = layer_norm(x, "input_layernorm", "norm1");
    const LayerNorm first = g_.layer_norms.back();
    const NodeId attended = attend(normed);
    const NodeId fed = feed_forward(b_.layer_norm_again(first, weight("post_attention_layernorm"), parameter("post_attention_layernorm", "bias"), b_[normed].dtype, "norm2"));
    return b_.binary(Fn::add, b_.binary(Fn::add, fed, attended, g_.compute, "x_mid"), x, wider(b_[x].dtype, g_.compute), "x_out");
  }

  NodeId one_by_one(NodeId x) {
    x = b_.binary(Fn::add, attend(layer_norm(x, "input_layernorm", "norm1")), x, wider(b_[x].dtype, g_.compute), "x_mid");
    return b_.binary(Fn::add, feed_forward(layer_norm(x, "post_attention_layernorm", "norm2")), x, b_[x].dtype, "x_out");
  }

  // Queries, keys and values of a head lie side by side; the first R of what is turned are.
  NodeId attend(NodeId x) {
    const NodeId qkv = project(x, "attention.query_key_value", "attn.qkv");
    auto [q, k, v] = b_.split(qkv, heads(H), {"attn.q", "attn.k", "attn.v"});
    const auto parts = [&](NodeId whole, const char* role) { return std::array{b_.slice(whole, part(a_.rotary_dims), 0, role), b_.slice(whole, part(h - a_.rotary_dims), 1, role)}; };
    const auto of_q = parts(q, "attn.q"), of_k = parts(k, "attn.k");
    const NodeId q_turned = rotate(of_q[0], "attn.q_rot"), k_turned = rotate(of_k[0], "attn.k_rot");
    const auto join = [&](NodeId turned, NodeId rest, const char* role) { return b_.cat(turned, b_.convert(rest, b_[turned].dtype, role), heads(H), role); };
    q = join(q_turned, of_q[1], "attn.q_rot");
    k = join(k_turned, of_k[1], "attn.k_rot");
    if (caches()) {  // joined to empty tensors of the first keys' dtype, which copies what lies in parts of rows
      v = b_.unary(Fn::convert, v, b_[k].dtype, "attn.v_cache");
      g_.outputs.insert(g_.outputs.end(), {v, k});
    }
    k = cast_joined(k, "attn.k_rot");
    q = cast_joined(q, "attn.q_rot");
    return project(attention_call(q, k, b_.convert(v, g_.compute, "attn.v"), true), "attention.dense", "attn.proj", ReadBy::pointwise);
  }
  Shape part(std::int64_t width) const { return shape({B, T, H, width}, true); }

  // It goes head by head over what was written row by row: before 2.10 Inductor keeps such loops apart (scheduler.py, fusable_read_and_write).
  NodeId cast_joined(NodeId x, const char* role) {
    if (b_[x].dtype == g_.compute || g_.loops_apart) return b_.convert(x, g_.compute, role);
    const NodeId id = b_.unary(Fn::transpose, x, g_.compute, role);
    g_.nodes.back().variant = kByHeads;
    return id;
  }

  NodeId feed_forward(NodeId x) {
    // saved for backward, unless a checkpoint makes it again or nothing below trains: the first block's reads frozen embeddings alone
    const bool saved = r_.recompute == Recompute::none && (!r_.lora || layer_ > 0 || !a_.parallel_residual);
    const NodeId up = project(x, "mlp.dense_h_to_4h", "mlp.fc", saved ? ReadBy::others : ReadBy::pointwise);
    return project(b_.unary(Fn::gelu, up, b_[up].dtype, "mlp.act"), "mlp.dense_4h_to_h", "mlp.proj", ReadBy::pointwise);
  }
};

}  // namespace

bool has_neox_graph(const Architecture& a) { return a.family == Family::gpt_neox && a.activation == Activation::gelu && a.rotary_dims > 0 && a.rotary_dims < a.head_dim; }

Graph neox_forward(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, CompileTarget target) {
  return written_by<NeoxWriter>(a, r, adapted, target);
}

}  // namespace dryfit
