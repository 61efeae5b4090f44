// See gpt2.hpp. Source: transformers 4.57, models/gpt2/modeling_gpt2.py, activations.py (NewGELUActivation), pytorch_utils.py (Conv1D).
#include "graph/gpt2.hpp"

#include <array>

#include "graph/model_writer.hpp"

namespace dryfit {

namespace {

class Gpt2Writer : ModelWriter {
 public:
  Gpt2Writer(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, CompileTarget target, Graph& graph) : ModelWriter(a, r, adapted, target, graph, "transformer.", "h.") {}

  void write() {
    const NodeId ids = declare_ids();
    padding_ = declare_ids();
    declare_parameters();
    NodeId x = b_.pointwise(Fn::embedding, std::array{weight("wte"), ids}, tokens(D), stored_, "wte");
    const NodeId places = b_.pointwise(Fn::fill, {}, shape({T}, false), Dtype::int64, "positions");
    const NodeId positions = b_.pointwise(Fn::embedding, std::array{weight("wpe"), places}, shape({1, T, D}, false), stored_, "wpe");
    x = b_.binary(Fn::add, x, positions, stored_, "x_embed");
    read_padding();
    x = drop(x, a_.embedding_dropout, "x_embed");
    for (std::int64_t layer = 0; layer < a_.layers; ++layer) {
      b_.at(static_cast<int>(layer));
      layer_ = layer;
      const NodeId attended = drop(attend(norm(x, "ln_1", "norm1")), a_.residual_dropout, "attn.dropout");
      x = b_.binary(Fn::add, attended, x, wider(b_[x].dtype, g_.compute), "x_mid");
      x = b_.binary(Fn::add, x, drop(feed_forward(norm(x, "ln_2", "norm2")), a_.residual_dropout, "mlp.dropout"), b_[x].dtype, "x_out");
    }
    b_.at(-1);
    layer_ = -1;
    x = norm(x, "ln_f", "norm");
    g_.outputs.insert(g_.outputs.begin(), linear(x, a_.tied_head ? "wte" : "lm_head", "logits"));
    g_.outputs.push_back(x);  // of the model below the head, whose outputs have a name
    finish();
  }

 private:
  NodeId drop(NodeId x, double p, const char* role) { return r_.dropout ? dropout(x, p, role) : x; }

  // Autocast computes it in fp32.
  NodeId norm(NodeId x, const char* module, const char* role) { return b_.layer_norm(x, weight(module), parameter(module, "bias"), mixed_ ? Dtype::fp32 : b_[x].dtype, role); }

  NodeId attend(NodeId x) {
    const NodeId qkv = project(x, "attn.c_attn", "attn.qkv");
    auto [q, k, v] = b_.split(qkv, heads(H), {"attn.q", "attn.k", "attn.v"});
    if (caches()) {  // joined to empty tensors, which copies what lies in parts of rows
      k = b_.unary(Fn::convert, k, b_[k].dtype, "attn.k_cache");
      v = b_.unary(Fn::convert, v, b_[v].dtype, "attn.v_cache");
      g_.outputs.insert(g_.outputs.end(), {v, k});
    }
    return project(attention_call(q, k, v), "attn.c_proj", "attn.proj", ReadBy::pointwise);
  }

  // Autocast computes the power in fp32, and with it what follows.
  NodeId feed_forward(NodeId x) {
    const char* role = "mlp.act";
    const NodeId up = project(x, "mlp.c_fc", "mlp.fc");
    const Dtype c = b_[up].dtype, f = mixed_ ? Dtype::fp32 : c;
    enum Number { one = kNumberOne, half, of_cube, root };
    const NodeId halved = b_.with_number(Fn::scale, up, half, c, role);
    const NodeId cubed = b_.with_number(Fn::scale, b_.unary(Fn::cube, b_.convert(up, f, role), f, role), of_cube, f, role);
    const NodeId bent = b_.unary(Fn::tanh, b_.with_number(Fn::scale, b_.binary(Fn::add, up, cubed, f, role), root, f, role), f, role);
    return project(b_.times(halved, b_.with_number(Fn::offset, bent, one, f, role), f, role), "mlp.c_proj", "mlp.proj", ReadBy::pointwise);
  }
};

}  // namespace

bool has_gpt2_graph(const Architecture& a) { return a.family == Family::gpt2 && a.conv1d && a.activation == Activation::gelu_new; }

Graph gpt2_forward(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, CompileTarget target) {
  return written_by<Gpt2Writer>(a, r, adapted, target);
}

}  // namespace dryfit
