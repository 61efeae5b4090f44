// See llama_writer.hpp.
#include "graph/llama_writer.hpp"

#include <array>

namespace dryfit {

NodeId LlamaBlocks::begin(const char* embedding, Dtype frequencies) {
  const NodeId ids = declare_ids();
  padding_ = declare_ids();
  const NodeId buffer = b_.input(shape({a_.rotary_dims / 2, 1}, false), frequencies, "rotary.inv_freq", -1);
  declare_parameters();
  labels_ = declare_ids();
  const NodeId x = b_.pointwise(Fn::embedding, std::array{weight(embedding), ids}, tokens(D), stored_, "wte");
  read_padding();
  const NodeId positions = b_.pointwise(Fn::fill, {}, shape({T, 1}, false), Dtype::fp32, "rotary");
  const auto [cos, sin] = tables(b_.convert(buffer, Dtype::fp32, "rotary"), positions, b_[x].dtype);
  cos_ = cos, sin_ = sin;
  return x;
}

void LlamaBlocks::end(NodeId x, const char* embedding) {
  const NodeId logits = linear(x, a_.tied_head ? embedding : "lm_head", "logits");
  loss(logits, labels_);
  g_.outputs.insert(g_.outputs.begin(), mixed_ ? b_.convert(logits, Dtype::fp32, "logits") : logits);
  finish();
}

NodeId LlamaBlocks::norm(NodeId x, const char* module, const char* role) {
  const NodeId scaled = b_.over_rms(x, role);
  const NodeId w = weight(module);
  return b_.times(w, b_.convert(scaled, b_[x].dtype, role), wider(b_[w].dtype, b_[x].dtype), role);
}

// An outer product of frequencies and positions, which is a matrix product; cosines and sines of it are made where they are needed.
std::array<NodeId, 2> LlamaBlocks::tables(NodeId frequencies, NodeId positions, Dtype d) {
  const char* role = "rotary";
  const std::int64_t R = a_.rotary_dims;
  const NodeId angles = b_.matmul(frequencies, positions, shape({R / 2, T}, false), Dtype::fp32, 0, role);
  const auto table = [&](const char* name) {
    NodeId t = b_.pointwise(Fn::cosine, std::array{angles}, shape({1, T, 1, R}, false), Dtype::fp32, name);
    t = b_.unary(Fn::scale, t, Dtype::fp32, name);
    return b_.convert(t, d, name);
  };
  const NodeId cos = table("rotary.cos");
  return {cos, table("rotary.sin")};
}

NodeId LlamaBlocks::rotate(NodeId x, const char* role) {
  const Dtype d = wider(b_[x].dtype, b_[cos_].dtype);
  const NodeId straight = b_.times(x, cos_, d, role);
  const NodeId turned = b_.unary(Fn::rotate_half, x, b_[x].dtype, role);
  return b_.binary(Fn::add, straight, b_.times(turned, sin_, d, role), d, role);
}

NodeId LlamaBlocks::expand(NodeId x, const char* role) {
  return K == H ? x : b_.pointwise(Fn::expand, std::array{x}, heads(H), b_[x].dtype, role);
}

NodeId LlamaBlocks::attend(NodeId x) {
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

NodeId LlamaBlocks::feed_forward(NodeId x, const Names& n) {
  const NodeId gate = project(x, n.gate, n.roles[0]);
  const Dtype c = b_[gate].dtype;
  const NodeId act = b_.unary(Fn::silu, gate, c, n.roles[1]);
  return project(b_.times(act, project(x, n.up, n.roles[2]), c, n.roles[3]), n.down, n.roles[4]);
}

}  // namespace dryfit
