// See mixture.hpp. Source: transformers 4.57, models/{mixtral,qwen3_moe}/modeling_*.py, masking_utils.py.
// N tokens, E experts, k of them for each token.
#include "graph/mixture.hpp"

#include <algorithm>
#include <array>
#include <functional>

#include "graph/llama_writer.hpp"

namespace dryfit {

namespace {

class MixtureWriter : LlamaBlocks {
 public:
  MixtureWriter(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, CompileTarget target, Graph& graph) : LlamaBlocks(a, r, adapted, target, graph, "", "") {}

  void write(MixturePart part, const MixtureShape& of) {
    switch (part) {
      case MixturePart::mask: return mask();
      case MixturePart::tables: return rotary();
      case MixturePart::attention: return attention(of.first && r_.lora);
      case MixturePart::router: return router();
      case MixturePart::expert: return expert(of.rows);
      case MixturePart::residual: return residual();
      case MixturePart::norm: return last_norm();
      case MixturePart::loss: return head();
    }
  }

 private:
  Dtype stream() const { return stored_; }  // of what goes from block to block: products that autocast casts are added to it
  void own(const std::string& module, Shape s) { declare_weight(module + ".weight", s, stored_, !r_.lora); }
  Shape row(std::int64_t width) const { return shape({B * T, width}, true); }

  void mask() {
    const NodeId padding = declare_ids();
    const NodeId positions = b_.input(shape({T}, false), Dtype::int64, "positions", -1);
    g_.outputs.push_back(b_.pointwise(Fn::mask, std::array{padding, positions}, shape({B, T, T}, true), Dtype::bool8, "attn.mask"));
  }

  void rotary() {
    const NodeId frequencies = b_.input(shape({a_.rotary_dims / 2, 1}, false), stored_, "rotary.inv_freq", -1);
    const NodeId positions = b_.input(shape({T, 1}, false), Dtype::int64, "positions", -1);
    const NodeId wide = b_.convert(frequencies, Dtype::fp32, "rotary");
    const auto both = tables(wide, b_.convert(positions, Dtype::fp32, "rotary"), stream());
    g_.outputs.assign(both.begin(), both.end());
  }

  void attention(bool frozen_input) {
    const NodeId x = declare(tokens(D), stream(), "x", !frozen_input);
    const auto product = [&](const std::string& module, std::int64_t out, std::int64_t in) {
      own(module, shape({out, in}, false));
      if (is_adapted("model.layers.0." + module + ".weight")) declare_adapter(module, shape({out, in}, false));
    };
    const auto norm_of_heads = [&](const char* module) {
      if (a_.qk_norm == QkNorm::per_head) own(module, shape({h}, false));
    };
    own("input_layernorm", shape({D}, false));
    product("self_attn.q_proj", H * h, D);
    norm_of_heads("self_attn.q_norm");
    product("self_attn.k_proj", K * h, D);
    norm_of_heads("self_attn.k_norm");
    product("self_attn.v_proj", K * h, D);
    const auto table = [&](const char* role) {
      const NodeId t = b_.input(shape({1, T, 1, a_.rotary_dims}, false), stream(), role, -1);
      g_.inputs.back().passing = true;
      return t;
    };
    cos_ = table("rotary.cos");
    sin_ = table("rotary.sin");
    counted_ = b_.input(shape({B, 1, T, T}, true), Dtype::bool8, "attn.mask", -1);
    product("self_attn.o_proj", D, H * h);
    own("post_attention_layernorm", shape({D}, false));
    const NodeId middle = b_.binary(Fn::add, x, attend(norm(x, "input_layernorm", "norm1")), stream(), "x_mid");
    g_.outputs = {norm(middle, "post_attention_layernorm", "norm2"), middle};
    finish();
  }

  void router() {
    const MixtureOfExperts& m = *a_.moe;
    const NodeId x = declare(row(D), stream(), "norm2");
    own("gate", shape({m.experts, D}, false));
    const NodeId logits = linear(x, "gate", "router");
    const Routing r = b_.route(logits, m.top_k, m.normalize_top_k || a_.family == Family::mixtral, stream());
    const NodeId zeros = b_.pointwise(Fn::fill, {}, row(D), stream(), "moe.out");
    const NodeId choices = b_.pointwise(Fn::compare, std::array{r.places}, shape({B * T, m.top_k, m.experts}, true), Dtype::int64, "router.mask");
    const NodeId counts = b_.column_sums(choices, shape({m.experts}, false), Dtype::int64, "router.hit");
    g_.outputs = {logits, r.out, zeros, choices, b_.unary(Fn::compare, counts, Dtype::bool8, "router.hit")};
  }

  void expert(std::int64_t rows) {
    const std::int64_t F = a_.moe->expert_ffn;
    const bool mixtral = a_.family == Family::mixtral;
    const Names names{mixtral ? "w1" : "gate_proj", mixtral ? "w3" : "up_proj", mixtral ? "w2" : "down_proj",
                      {"expert.gate", "expert.act", "expert.up", "expert.product", "expert.down"}};
    own(names.gate, shape({F, D}, false));
    const NodeId x = declare(shape({rows, D}, true), stream(), "moe.x");
    own(names.up, shape({F, D}, false));
    own(names.down, shape({D, F}, false));
    g_.outputs.push_back(feed_forward(x, names));
  }

  void residual() {
    const NodeId x = declare(tokens(D), stream(), "x_mid");
    g_.outputs.push_back(b_.binary(Fn::add, x, declare(tokens(D), stream(), "moe.out"), stream(), "x_out"));
  }

  void last_norm() {
    const NodeId x = declare(tokens(D), stream(), "x_out");
    own("norm", shape({D}, false));
    g_.outputs.push_back(norm(x, "norm", "norm"));
  }

  void head() {
    const NodeId x = declare(tokens(D), stream(), "norm");
    own("lm_head", shape({a_.vocab, D}, false));
    const NodeId labels = declare_ids();
    const NodeId logits = linear(x, "lm_head", "logits");
    loss(logits, labels);
    g_.outputs.push_back(logits);
  }
};

}  // namespace

bool has_mixture_graph(const Architecture& a) {
  const bool family = a.family == Family::mixtral || a.family == Family::qwen3_moe;
  return family && a.moe && !a.moe->aux_loss && a.moe->shared_ffn == 0 && !a.tied_head && !a.qkv_bias && !a.out_bias && a.rotary_dims == a.head_dim && a.activation == Activation::silu && std::ranges::all_of(a.moe->layers, std::identity());
}

Graph mixture_part(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, MixturePart part, MixtureShape shape) {
  Graph graph;
  MixtureWriter(a, r, adapted, shape.target, graph).write(part, shape);
  return graph;
}

}  // namespace dryfit
