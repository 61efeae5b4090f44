// The parameters of an Architecture, as transformers' classes register them. See architecture.hpp.
// Source: transformers 5.24, models/<family>/modeling_<family>.py; tools/models/check_counts.py compares tensor for tensor.
#include "workload/architecture.hpp"

#include <algorithm>
#include <array>

namespace dryfit {

namespace {

constexpr std::array<std::string_view, 31> kFamilies = {"gpt2", "gpt_neox", "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "gemma", "gemma2",
                                                        "gemma3", "phi", "phi3", "olmo", "olmo2", "olmo3", "olmoe",
                                                        "smollm3", "granite", "seed_oss", "arcee", "starcoder2", "exaone4", "gpt_oss", "deepseek_v2", "deepseek_v3", "bert", "roberta", "distilbert", "megatron"};
constexpr std::array<std::string_view, 8> kActivations = {"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "silu", "relu", "relu2"};

// Writes tensors down under a prefix, in order.
class Writer {
 public:
  explicit Writer(const Architecture& a) : a_(a), dtype_(a.dtype.value_or(Dtype::fp32)) { out_.reserve(static_cast<std::size_t>(a.layers) * 12); }

  void at(std::string prefix, std::int64_t layer = -1) {
    prefix_ = std::move(prefix);
    layer_ = static_cast<int>(layer);
  }
  void tensor(std::string_view name, std::vector<std::int64_t> shape, ParamGroup group, std::string_view ending = {}) {
    Parameter& p = out_.emplace_back(Parameter{{}, std::move(shape), dtype_, group, layer_});
    p.name.reserve(prefix_.size() + name.size() + ending.size());
    p.name.append(prefix_).append(name).append(ending);
  }
  // nn.Linear: weight [out, in]; GPT-2's Conv1D: [in, out].
  void linear(std::string_view name, std::int64_t in, std::int64_t out, bool bias, ParamGroup group = ParamGroup::transformer_matrices) {
    if (a_.conv1d && group == ParamGroup::transformer_matrices) tensor(name, {in, out}, group, ".weight");
    else tensor(name, {out, in}, group, ".weight");
    if (bias) tensor(name, {out}, ParamGroup::scalars, ".bias");
  }
  void norm(std::string_view name, std::int64_t size) {
    if (a_.norm == NormKind::non_parametric) return;
    tensor(name, {size}, ParamGroup::scalars, ".weight");
    if (a_.norm == NormKind::layer_norm && a_.norm_bias) tensor(name, {size}, ParamGroup::scalars, ".bias");
  }
  void embedding(std::string_view name, std::int64_t rows) { tensor(name, {rows, a_.width}, ParamGroup::wte, ".weight"); }

  std::vector<Parameter> take() { return std::move(out_); }

 private:
  const Architecture& a_;
  Dtype dtype_;
  std::string prefix_;
  int layer_ = -1;
  std::vector<Parameter> out_;
};

// What stands behind the base model in place of a head of words.
void class_head(const Architecture& a, Writer& w) {
  const bool texts = a.head == HeadKind::sequences;
  const auto linear = [&](std::string_view name, std::int64_t out, bool bias = true) { w.linear(name, a.width, out, bias, ParamGroup::lm_head); };
  if (a.head == HeadKind::answers) return linear("qa_outputs", a.classes);
  if (!a.encoder) {
    const bool old = a.family == Family::gpt2 || a.family == Family::gpt_neox;  // classes of their own, before those that all share
    return texts ? linear("score", a.classes, false) : linear(old ? "classifier" : "score", a.classes);
  }
  if (texts && a.family == Family::roberta) {
    linear("classifier.dense", a.width);
    return linear("classifier.out_proj", a.classes);
  }
  if (texts && a.family == Family::distilbert) linear("pre_classifier", a.width);
  linear("classifier", a.classes);
}

void gpt2(const Architecture& a, Writer& w) {
  w.at("transformer.");
  w.embedding("wte", a.vocab);
  w.embedding("wpe", a.position_rows);
  for (std::int64_t i = 0; i < a.layers; ++i) {
    w.at("transformer.h." + std::to_string(i) + ".", i);
    w.norm("ln_1", a.width);
    w.linear("attn.c_attn", a.width, 3 * a.width, a.qkv_bias);
    w.linear("attn.c_proj", a.width, a.width, a.out_bias);
    w.norm("ln_2", a.width);
    w.linear("mlp.c_fc", a.width, a.ffn, a.mlp_bias);
    w.linear("mlp.c_proj", a.ffn, a.width, a.mlp_bias);
  }
  w.at("transformer.");
  w.norm("ln_f", a.width);
  w.at("");
  if (a.classifies()) class_head(a, w);
  else if (!a.tied_head) w.linear("lm_head", a.width, a.vocab, false, ParamGroup::lm_head);
}

void gpt_neox(const Architecture& a, Writer& w) {
  w.at("gpt_neox.");
  w.embedding("embed_in", a.vocab);
  for (std::int64_t i = 0; i < a.layers; ++i) {
    w.at("gpt_neox.layers." + std::to_string(i) + ".", i);
    w.norm("input_layernorm", a.width);
    w.norm("post_attention_layernorm", a.width);
    w.linear("attention.query_key_value", a.width, 3 * a.width, a.qkv_bias);
    w.linear("attention.dense", a.width, a.width, a.out_bias);
    w.linear("mlp.dense_h_to_4h", a.width, a.ffn, a.mlp_bias);
    w.linear("mlp.dense_4h_to_h", a.ffn, a.width, a.mlp_bias);
  }
  w.at("gpt_neox.");
  w.norm("final_layer_norm", a.width);
  w.at("");
  if (a.classifies()) class_head(a, w);
  else if (!a.tied_head) w.linear("lm_head", a.width, a.vocab, false, ParamGroup::lm_head);
}

void latent_attention(const Architecture& a, Writer& w) {
  const LatentAttention& m = *a.latent;
  const std::int64_t qk = m.nope_head_dim + m.rope_head_dim;
  if (m.q_lora_rank == 0) {
    w.linear("self_attn.q_proj", a.width, a.heads * qk, false);
  } else {
    w.linear("self_attn.q_a_proj", a.width, m.q_lora_rank, a.qkv_bias);
    w.norm("self_attn.q_a_layernorm", m.q_lora_rank);
    w.linear("self_attn.q_b_proj", m.q_lora_rank, a.heads * qk, false);
  }
  w.linear("self_attn.kv_a_proj_with_mqa", a.width, m.kv_lora_rank + m.rope_head_dim, a.qkv_bias);
  w.norm("self_attn.kv_a_layernorm", m.kv_lora_rank);
  w.linear("self_attn.kv_b_proj", m.kv_lora_rank, a.heads * (m.nope_head_dim + m.value_head_dim), false);
  w.linear("self_attn.o_proj", a.heads * m.value_head_dim, a.width, a.out_bias);
}

void attention(const Architecture& a, Writer& w) {
  if (a.latent) return latent_attention(a, w);
  const std::int64_t q = a.heads * a.head_dim, kv = a.kv_heads * a.head_dim;
  if (a.sinks) w.tensor("self_attn.sinks", {a.heads}, ParamGroup::scalars);
  const std::string out = a.family == Family::phi ? "self_attn.dense" : "self_attn.o_proj";
  if (a.fused_qkv) {
    w.linear(out, q, a.width, a.out_bias);  // Phi-3 registers it first
    w.linear("self_attn.qkv_proj", a.width, q + 2 * kv, a.qkv_bias);
    return;
  }
  w.linear("self_attn.q_proj", a.width, q, a.qkv_bias);
  w.linear("self_attn.k_proj", a.width, kv, a.qkv_bias);
  w.linear("self_attn.v_proj", a.width, kv, a.qkv_bias);
  w.linear(out, q, a.width, a.out_bias);
  if (a.qk_norm == QkNorm::none) return;
  const bool full = a.qk_norm == QkNorm::full;
  const std::string kind = a.family == Family::phi ? "layernorm" : "norm";
  w.norm("self_attn.q_" + kind, full ? q : a.head_dim);
  w.norm("self_attn.k_" + kind, full ? kv : a.head_dim);
}

void dense_mlp(const Architecture& a, Writer& w, const std::string& name, std::int64_t ffn) {
  if (a.family == Family::phi) {
    w.linear(name + ".fc1", a.width, ffn, a.mlp_bias);
    w.linear(name + ".fc2", ffn, a.width, a.mlp_bias);
    return;
  }
  if (a.family == Family::starcoder2) {
    w.linear(name + ".c_fc", a.width, ffn, a.mlp_bias);
    w.linear(name + ".c_proj", ffn, a.width, a.mlp_bias);
    return;
  }
  if (!a.gated_mlp) {
    w.linear(name + ".up_proj", a.width, ffn, a.mlp_bias);
  } else if (a.fused_gate_up) {
    w.linear(name + ".gate_up_proj", a.width, 2 * ffn, a.mlp_bias);
  } else {
    w.linear(name + ".gate_proj", a.width, ffn, a.mlp_bias);
    w.linear(name + ".up_proj", a.width, ffn, a.mlp_bias);
  }
  w.linear(name + ".down_proj", ffn, a.width, a.mlp_bias);
}

// Experts of a layer are two tensors, [E, 2F, D] and [E, D, F]; families differ in whether the router comes first.
void mixture(const Architecture& a, Writer& w) {
  const MixtureOfExperts& m = *a.moe;
  if (m.stacked) {
    w.linear("mlp.router", a.width, m.experts, true);
    w.tensor("mlp.experts.gate_up_proj", {m.experts, a.width, 2 * m.expert_ffn}, ParamGroup::transformer_matrices);
    w.tensor("mlp.experts.gate_up_proj_bias", {m.experts, 2 * m.expert_ffn}, ParamGroup::scalars);
    w.tensor("mlp.experts.down_proj", {m.experts, m.expert_ffn, a.width}, ParamGroup::transformer_matrices);
    w.tensor("mlp.experts.down_proj_bias", {m.experts, a.width}, ParamGroup::scalars);
    return;
  }
  const bool router_first = a.family == Family::mixtral || a.family == Family::qwen2_moe || a.family == Family::olmoe;
  const auto router = [&] { w.tensor("mlp.gate.weight", {m.experts, a.width}, ParamGroup::transformer_matrices); };
  if (router_first) router();
  w.tensor("mlp.experts.gate_up_proj", {m.experts, 2 * m.expert_ffn, a.width}, ParamGroup::transformer_matrices);
  w.tensor("mlp.experts.down_proj", {m.experts, a.width, m.expert_ffn}, ParamGroup::transformer_matrices);
  if (!router_first) router();
  if (m.shared_ffn == 0) return;
  dense_mlp(a, w, a.family == Family::qwen2_moe ? "mlp.shared_expert" : "mlp.shared_experts", m.shared_ffn);
  if (m.shared_gate) w.linear("mlp.shared_expert_gate", a.width, 1, false);
}

// Llama and everything written after it.
void decoder(const Architecture& a, Writer& w) {
  constexpr std::array kOldName = {Family::arcee, Family::exaone4, Family::llama, Family::qwen2, Family::qwen3, Family::qwen3_moe, Family::seed_oss, Family::smollm3};
  const std::string model = a.head == HeadKind::answers && std::ranges::find(kOldName, a.family) != kOldName.end() ? "transformer." : "model.";
  w.at(model);
  w.embedding("embed_tokens", a.vocab);
  for (std::int64_t i = 0; i < a.layers; ++i) {
    w.at(model + "layers." + std::to_string(i) + ".", i);
    attention(a, w);
    if (a.is_moe_layer(i)) mixture(a, w);
    else dense_mlp(a, w, "mlp", a.ffn);
    if (a.norm_placement != NormPlacement::output) w.norm("input_layernorm", a.width);
    if (!a.shared_parallel_norm) w.norm("post_attention_layernorm", a.width);
    if (a.norm_placement == NormPlacement::sandwich) w.norm("pre_feedforward_layernorm", a.width);
    if (a.norm_placement == NormPlacement::sandwich || a.norm_placement == NormPlacement::output) w.norm("post_feedforward_layernorm", a.width);
  }
  w.at(model);
  w.norm(a.family == Family::phi ? "final_layernorm" : "norm", a.width);
  w.at("");
  if (a.classifies()) class_head(a, w);
  else if (!a.tied_head) w.linear("lm_head", a.width, a.vocab, a.head_bias, ParamGroup::lm_head);
  else if (a.head_bias) w.tensor("lm_head.bias", {a.vocab}, ParamGroup::scalars);
}

// Dense, activation, norm, then the decoder, whose bias is a parameter of the head.
void bert_head(const Architecture& a, Writer& w, bool weight_here) {
  const bool roberta = a.family == Family::roberta;
  const std::string head = roberta ? "lm_head." : "cls.predictions.";
  w.at(head);
  w.tensor("bias", {a.vocab}, ParamGroup::scalars);
  w.at(roberta ? head : head + "transform.");
  w.linear("dense", a.width, a.width, true, ParamGroup::lm_head);
  w.norm(roberta ? "layer_norm" : "LayerNorm", a.width);
  w.at(head);
  if (weight_here) w.tensor("decoder.weight", {a.vocab, a.width}, a.tied_head ? ParamGroup::wte : ParamGroup::lm_head);
  if (!a.tied_head) w.tensor("decoder.bias", {a.vocab}, ParamGroup::scalars);
}

void bert(const Architecture& a, Writer& w) {
  const bool roberta = a.family == Family::roberta;
  const std::string model = roberta ? "roberta." : "bert.";
  const bool head_first = a.model_type == "xlm-roberta" || a.model_type == "camembert";  // the class registers it first: a tied weight is then the head's
  const auto head = [&](bool weight_here) {
    w.at("");
    if (a.classifies()) class_head(a, w);
    else bert_head(a, w, weight_here);
  };
  if (head_first) head(true);
  w.at(model + "embeddings.");
  if (!head_first || !a.tied_head) w.embedding("word_embeddings", a.vocab);
  if (!roberta) w.embedding("position_embeddings", a.position_rows);
  w.embedding("token_type_embeddings", a.encoder->token_types);
  w.norm("LayerNorm", a.width);
  if (roberta) w.embedding("position_embeddings", a.position_rows);
  for (std::int64_t i = 0; i < a.layers; ++i) {
    w.at(model + "encoder.layer." + std::to_string(i) + ".", i);
    for (const char* name : {"query", "key", "value"}) w.linear("attention.self." + std::string(name), a.width, a.width, a.qkv_bias);
    w.linear("attention.output.dense", a.width, a.width, a.out_bias);
    w.norm("attention.output.LayerNorm", a.width);
    w.linear("intermediate.dense", a.width, a.ffn, a.mlp_bias);
    w.linear("output.dense", a.ffn, a.width, a.mlp_bias);
    w.norm("output.LayerNorm", a.width);
  }
  if (a.encoder->pooler) {
    w.at(model);
    w.linear("pooler.dense", a.width, a.width, true, ParamGroup::lm_head);
  }
  if (!head_first) head(!a.tied_head);
}

void distilbert(const Architecture& a, Writer& w) {
  w.at("distilbert.embeddings.");
  w.embedding("word_embeddings", a.vocab);
  w.embedding("position_embeddings", a.position_rows);
  w.norm("LayerNorm", a.width);
  for (std::int64_t i = 0; i < a.layers; ++i) {
    w.at("distilbert.transformer.layer." + std::to_string(i) + ".", i);
    for (const char* name : {"q_lin", "k_lin", "v_lin"}) w.linear("attention." + std::string(name), a.width, a.width, a.qkv_bias);
    w.linear("attention.out_lin", a.width, a.width, a.out_bias);
    w.norm("sa_layer_norm", a.width);
    w.linear("ffn.lin1", a.width, a.ffn, a.mlp_bias);
    w.linear("ffn.lin2", a.ffn, a.width, a.mlp_bias);
    w.norm("output_layer_norm", a.width);
  }
  w.at("");
  if (a.classifies()) return class_head(a, w);
  w.linear("vocab_transform", a.width, a.width, true, ParamGroup::lm_head);
  w.norm("vocab_layer_norm", a.width);
  if (!a.tied_head) w.linear("vocab_projector", a.width, a.vocab, true, ParamGroup::lm_head);
  else w.tensor("vocab_projector.bias", {a.vocab}, ParamGroup::scalars);
}

// All experts of a layer, whichever rank has them.
void megatron_mixture(const Architecture& a, Writer& w) {
  const MixtureOfExperts& m = *a.moe;
  const std::int64_t gates = a.gated_mlp ? 2 : 1;
  const auto biases = [&](const std::string& name, std::int64_t width) {
    if (a.mlp_bias) w.tensor(name + ".bias", {m.experts, width}, ParamGroup::scalars);
  };
  w.linear("mlp.router", a.width, m.experts, a.mlp_bias);
  w.tensor("mlp.experts.linear_fc1.weight", {m.experts, gates * m.expert_ffn, a.width}, ParamGroup::transformer_matrices);
  biases("mlp.experts.linear_fc1", gates * m.expert_ffn);
  w.tensor("mlp.experts.linear_fc2.weight", {m.experts, a.width, m.expert_ffn}, ParamGroup::transformer_matrices);
  biases("mlp.experts.linear_fc2", a.width);
  if (m.shared_ffn == 0) return;
  if (m.shared_gate) w.linear("mlp.shared_experts.gate", a.width, 1, false);
  w.linear("mlp.shared_experts.linear_fc1", a.width, gates * m.shared_ffn, false);
  w.linear("mlp.shared_experts.linear_fc2", m.shared_ffn, a.width, false);
}

void megatron_latent_attention(const Architecture& a, Writer& w) {
  const LatentAttention& m = *a.latent;
  const bool normed = a.qk_norm != QkNorm::none;
  w.norm("input_layernorm", a.width);
  w.linear("self_attention.linear_proj", a.heads * m.value_head_dim, a.width, a.out_bias);
  const std::int64_t query = a.heads * (m.nope_head_dim + m.rope_head_dim);
  if (m.q_lora_rank > 0) {
    w.linear("self_attention.linear_q_down_proj", a.width, m.q_lora_rank, false);
    if (normed) w.norm("self_attention.q_layernorm", m.q_lora_rank);
    w.linear("self_attention.linear_q_up_proj", m.q_lora_rank, query, false);
  } else {
    w.linear("self_attention.linear_q_proj", a.width, query, false);
  }
  w.linear("self_attention.linear_kv_down_proj", a.width, m.kv_lora_rank + m.rope_head_dim, false);
  if (normed) w.norm("self_attention.kv_layernorm", m.kv_lora_rank);
  w.linear("self_attention.linear_kv_up_proj", m.kv_lora_rank, a.heads * (m.nope_head_dim + m.value_head_dim), false);
}

void megatron_attention(const Architecture& a, Writer& w) {
  w.linear("self_attention.linear_proj", a.heads * a.head_dim, a.width, a.out_bias);
  w.norm("input_layernorm", a.width);
  w.linear("self_attention.linear_qkv", a.width, (a.heads + 2 * a.kv_heads) * a.head_dim, a.qkv_bias);
  if (a.qk_norm == QkNorm::none) return;
  w.norm("self_attention.q_layernorm", a.head_dim);
  w.norm("self_attention.k_layernorm", a.head_dim);
}

// Megatron-LM's names; TransformerEngine keeps a norm in the product behind it.
void megatron(const Architecture& a, Writer& w) {
  w.at("embedding.");
  w.embedding("word_embeddings", a.vocab);
  if (a.position == Position::learned) w.embedding("position_embeddings", a.position_rows);
  for (std::int64_t i = 0; i < a.layers; ++i) {
    w.at("decoder.layers." + std::to_string(i) + ".", i);
    if (a.latent) megatron_latent_attention(a, w);
    else megatron_attention(a, w);
    w.norm("pre_mlp_layernorm", a.width);
    if (a.is_moe_layer(i)) {
      megatron_mixture(a, w);
      continue;
    }
    w.linear("mlp.linear_fc1", a.width, a.gated_mlp ? 2 * a.ffn : a.ffn, a.mlp_bias);
    w.linear("mlp.linear_fc2", a.ffn, a.width, a.mlp_bias);
  }
  w.at("decoder.");
  w.norm("final_layernorm", a.width);
  w.at("");
  if (!a.tied_head) w.linear("output_layer", a.width, a.vocab, false, ParamGroup::lm_head);
}

}  // namespace

std::string_view name_of(Family family) { return kFamilies[static_cast<std::size_t>(family)]; }
std::string_view name_of(Activation activation) { return kActivations[static_cast<std::size_t>(activation)]; }

std::optional<Activation> activation_of(std::string_view name) {
  if (name == "swish") name = "silu";
  if (name == "gelu_python") name = "gelu";
  for (int i = 0; i <= static_cast<int>(Activation::relu_squared); ++i) {
    if (name_of(static_cast<Activation>(i)) == name) return static_cast<Activation>(i);
  }
  return std::nullopt;
}

std::vector<Parameter> parameters_of(const Architecture& a) {
  Writer w(a);
  switch (a.family) {
    case Family::gpt2: gpt2(a, w); break;
    case Family::gpt_neox: gpt_neox(a, w); break;
    case Family::megatron: megatron(a, w); break;
    case Family::bert:
    case Family::roberta: bert(a, w); break;
    case Family::distilbert: distilbert(a, w); break;
    default: decoder(a, w); break;
  }
  return w.take();
}

std::int64_t active_of(const Architecture& a, std::int64_t all) {
  if (!a.moe) return all;
  const auto sparse = std::ranges::count(a.moe->layers, true);
  const std::int64_t biases = a.moe->stacked ? 2 * a.moe->expert_ffn + a.width : 0;
  return all - sparse * (a.moe->experts - a.moe->top_k) * ((a.gated_mlp ? 3 : 2) * a.moe->expert_ffn * a.width + biases);
}

}  // namespace dryfit
