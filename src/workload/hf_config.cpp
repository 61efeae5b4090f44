// See hf_config.hpp. Source of fields, defaults and rules: transformers 5.24, models/<family>/configuration_<family>.py and modeling_<family>.py.
#include "workload/hf_config.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/text.hpp"
#include "workload/class_heads.hpp"
#include "workload/hf_families.hpp"

namespace dryfit {

namespace {

constexpr std::int64_t kMostLayers = 4096, kMostWidth = 1 << 20, kMostHeads = 1 << 16, kMostFfn = 1 << 24, kMostVocab = 1 << 28, kMostPositions = std::int64_t{1} << 32, kMostExperts = 1 << 16;
constexpr double kMostParameters = 1e15;

class Reader {
 public:
  Reader(const FamilySpec& spec, const Document& config, std::string where, std::string prefix) : spec_(spec), f_(config, std::move(where), std::move(prefix)) {}

  Result<HfModel> read() {
    Architecture& a = out_.architecture;
    a.family = spec_.family;
    a.model_type = std::string(spec_.type);
    a.class_name = std::string(spec_.class_name);
    f_.used("model_type"), f_.used("auto_map"), f_.used("architectures");
    shapes();
    common();
    if (!f_.error()) family();
    read_class_heads(f_, a);
    if (!f_.error()) check();
    if (f_.error()) return std::unexpected(*f_.error());
    for (std::string& key : f_.unused()) {
      if (std::ranges::find(kHarmless, key.substr(key.rfind('.') + 1)) == kHarmless.end()) out_.unused.push_back(std::move(key));
    }
    return std::move(out_);
  }

 private:
  // The first of several spellings that is present, else the class's default, which is listed.
  std::int64_t shape(std::initializer_list<std::string_view> keys, std::int64_t fallback, std::int64_t low, std::int64_t high) {
    for (std::string_view key : keys) {
      if (const auto n = f_.whole(key, low, high)) return *n;
      if (f_.error()) return low;
    }
    assume(*keys.begin(), std::to_string(fallback));
    return fallback;
  }
  void assume(std::string_view key, std::string value) {
    out_.assumptions.push_back({std::string(key), std::move(value), "transformers' default for " + std::string(spec_.type)});
  }
  double probability(std::string_view key, double fallback) { return f_.real(key, 0, 1).value_or(fallback); }
  bool yes(std::string_view key, bool fallback) { return f_.yes(key).value_or(fallback); }
  void unsupported(std::string_view key, const std::string& what, std::string hint) { f_.fault(key, what + ", which dryfit does not describe", std::move(hint)); }

  void shapes() {
    Architecture& a = out_.architecture;
    a.vocab = shape({"vocab_size"}, spec_.vocab, 1, kMostVocab);
    a.width = shape({"hidden_size", "n_embd", "dim"}, spec_.width, 1, kMostWidth);
    a.layers = shape({"num_hidden_layers", "n_layer", "n_layers"}, spec_.layers, 1, kMostLayers);
    a.heads = shape({"num_attention_heads", "n_head", "n_heads"}, spec_.heads, 1, kMostHeads);
    a.max_positions = shape({"max_position_embeddings", "n_positions"}, spec_.positions, 1, kMostPositions);
    a.kv_heads = a.heads;
    if (spec_.family != Family::gpt2 && spec_.family != Family::gpt_neox && !is_encoder()) {
      const auto kv = f_.whole("num_key_value_heads", 1, kMostHeads);
      if (!kv && spec_.kv_heads != 0 && spec_.kv_heads != a.heads) assume("num_key_value_heads", std::to_string(spec_.kv_heads));
      a.kv_heads = kv ? *kv : spec_.kv_heads != 0 && !f_.is_null("num_key_value_heads") ? spec_.kv_heads : a.heads;
    }
    const bool own_head_dim = spec_.family != Family::gpt2 && spec_.family != Family::gpt_neox && !is_encoder() && !is_latent();
    const auto h = own_head_dim ? f_.whole("head_dim", 1, kMostWidth) : std::nullopt;
    if (!h && spec_.head_dim != 0 && own_head_dim) assume("head_dim", std::to_string(spec_.head_dim));
    a.head_dim = h ? *h : spec_.head_dim != 0 ? spec_.head_dim : a.width / a.heads;
    if (!f_.error() && a.width % a.heads != 0 && !h && (spec_.head_dim == 0 || !own_head_dim)) {
      f_.fault("hidden_size", "is " + std::to_string(a.width) + ", which " + std::to_string(a.heads) + " heads do not divide", "give a multiple of the number of attention heads");
    }
    if (spec_.ffn == 0) a.ffn = f_.whole("n_inner", 1, kMostFfn).value_or(4 * a.width);
    else a.ffn = shape({"intermediate_size", "hidden_dim"}, spec_.ffn, 1, kMostFfn);
  }

  void common() {
    Architecture& a = out_.architecture;
    a.norm_eps = spec_.eps_key.empty() ? spec_.eps : f_.real(spec_.eps_key, 0, 1).value_or(spec_.eps);
    std::string act = f_.text(spec_.activation_key).value_or(std::string(spec_.activation));
    if (spec_.family == Family::gemma) {
      f_.used("hidden_activation");
      if (act == "gelu") act = "gelu_pytorch_tanh";  // what the class makes of the first releases' files
    }
    const auto known = activation_of(act);
    if (!known) f_.fault(spec_.activation_key, "is \"" + act.substr(0, 40) + "\", an activation dryfit does not describe", "gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, silu, relu and relu2 are");
    a.activation = known.value_or(Activation::silu);
    a.tied_head = a.tied_words = yes("tie_word_embeddings", spec_.tied);
    a.use_cache = yes("use_cache", true) && !is_encoder();
    a.attention_dropout = probability("attention_dropout", 0);
    for (std::string_view key : {"dtype", "torch_dtype"}) {
      const auto name = f_.text(key);
      if (name && !a.dtype) a.dtype = dtype_of(key, *name);
    }
    if (f_.find("quantization_config") != nullptr) a.notes.push_back("quantization_config is not used: weights are taken in the file's dtype");
    a.windows.assign(static_cast<std::size_t>(a.layers), 0);
  }

  std::optional<Dtype> dtype_of(std::string_view key, std::string name) {
    if (name.starts_with("torch.")) name = name.substr(6);
    if (name == "float32" || name == "float") return Dtype::fp32;
    if (name == "bfloat16") return Dtype::bf16;
    if (name == "float16" || name == "half") return Dtype::fp16;
    if (name == "auto") return std::nullopt;
    f_.fault(key, "is \"" + name.substr(0, 40) + "\"", "it should be float32, bfloat16 or float16");
    return std::nullopt;
  }

  bool is_encoder() const { return spec_.family == Family::bert || spec_.family == Family::roberta || spec_.family == Family::distilbert; }
  bool is_latent() const { return spec_.family == Family::deepseek_v2 || spec_.family == Family::deepseek_v3; }

  void family() {
    switch (spec_.family) {
      case Family::gpt2: return gpt2();
      case Family::gpt_neox: return gpt_neox();
      case Family::phi: return phi();
      case Family::phi3: return phi3();
      case Family::bert:
      case Family::roberta:
      case Family::distilbert: return encoder();
      case Family::deepseek_v2:
      case Family::deepseek_v3: return deepseek();
      default: return llama_like();
    }
  }

  void layer_norms() {
    Architecture& a = out_.architecture;
    a.norm = NormKind::layer_norm, a.norm_bias = true;
    a.gated_mlp = false;
    a.qkv_bias = a.out_bias = a.mlp_bias = true;
  }

  void gpt2() {
    Architecture& a = out_.architecture;
    layer_norms();
    a.fused_qkv = a.conv1d = true;
    a.position = Position::learned, a.position_rows = a.max_positions;
    a.embedding_dropout = probability("embd_pdrop", 0.1), a.residual_dropout = probability("resid_pdrop", 0.1), a.attention_dropout = probability("attn_pdrop", 0.1);
    if (yes("add_cross_attention", false)) unsupported("add_cross_attention", "is true: cross-attention", "decoders alone are described");
    if (yes("reorder_and_upcast_attn", false)) unsupported("reorder_and_upcast_attn", "is true: attention scores in fp32 in another order", "set it to false");
  }

  void rotary(double fraction, std::string_view key) {
    Architecture& a = out_.architecture;
    a.position = Position::rotary;
    double f = key.empty() ? fraction : f_.real(key, 0, 1).value_or(fraction);
    if (const Document* rope = f_.find("rope_parameters"); rope != nullptr && !key.empty()) {
      if (const Document* inner = rope->find("partial_rotary_factor"); inner != nullptr && inner->real >= 0 && inner->real <= 1) f = inner->real;
    }
    a.rotary_dims = static_cast<std::int64_t>(static_cast<double>(a.head_dim) * f);
  }

  void gpt_neox() {
    Architecture& a = out_.architecture;
    layer_norms();
    a.fused_qkv = true;
    a.qkv_bias = a.out_bias = yes("attention_bias", true);
    a.parallel_residual = yes("use_parallel_residual", true);
    rotary(0.25, "rotary_pct");
    a.residual_dropout = a.embedding_dropout = probability("hidden_dropout", 0);
    if (yes("is_decoder", false)) a.notes.push_back("is_decoder says nothing more of a decoder");
  }

  void phi() {
    Architecture& a = out_.architecture;
    layer_norms();
    a.head_bias = true;
    a.parallel_residual = a.shared_parallel_norm = true;
    rotary(0.5, "partial_rotary_factor");
    a.qk_norm = yes("qk_layernorm", false) ? QkNorm::per_head : QkNorm::none;
    a.residual_dropout = probability("resid_pdrop", 0), a.embedding_dropout = probability("embd_pdrop", 0);
  }

  void phi3() {
    Architecture& a = out_.architecture;
    a.fused_qkv = a.fused_gate_up = true;
    rotary(1, "partial_rotary_factor");
    a.residual_dropout = probability("resid_pdrop", 0), a.embedding_dropout = 0;
    f_.used("embd_pdrop");  // the class reads it and applies no dropout to embeddings
    f_.used("attention_bias");
    all_windows(f_.whole("sliding_window", 1, kMostPositions).value_or(0));
  }

  void all_windows(std::int64_t window) { std::ranges::fill(out_.architecture.windows, window); }

  // layer_types of the file, or those the class works out; both name "full_attention" or "sliding_attention" for each layer.
  template <class Rule>
  void windows_by_layer(std::int64_t window, Rule sliding) {
    Architecture& a = out_.architecture;
    const std::vector<std::string> types = f_.texts("layer_types", kMostLayers);
    if (f_.find("layer_types") != nullptr && static_cast<std::int64_t>(types.size()) != a.layers) {
      f_.fault("layer_types", "names " + std::to_string(types.size()) + " layers of " + std::to_string(a.layers), "give one entry per layer");
      return;
    }
    a.windows_by_layer = true;
    for (std::int64_t i = 0; i < a.layers; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (!types.empty() && types[at] != "full_attention" && types[at] != "sliding_attention") {
        unsupported("layer_types", "has a layer of " + types[at].substr(0, 40), "full_attention and sliding_attention are described");
        return;
      }
      if (types.empty() ? sliding(i) : types[at] == "sliding_attention") a.windows[at] = window;
    }
  }

  void mixture_layers(std::int64_t first_sparse, std::int64_t step) {
    Architecture& a = out_.architecture;
    a.moe->layers.assign(static_cast<std::size_t>(a.layers), false);
    for (std::int64_t i = first_sparse; i < a.layers; ++i) a.moe->layers[static_cast<std::size_t>(i)] = (i + 1) % step == 0;
    if (const Document* dense = f_.list("mlp_only_layers", kMostLayers)) {
      for (const Document& d : dense->items) {
        if (d.kind == Document::Kind::whole && d.whole >= 0 && d.whole < a.layers) a.moe->layers[static_cast<std::size_t>(d.whole)] = false;
        else f_.fault("mlp_only_layers", "holds " + shown(d), "it should be a list of layers from 0 to " + std::to_string(a.layers - 1));
      }
    }
  }

  void mixture(std::initializer_list<std::string_view> experts_keys, std::int64_t experts, std::int64_t top_k, std::int64_t expert_ffn) {
    MixtureOfExperts m;
    m.experts = shape(experts_keys, experts, 1, kMostExperts);
    m.top_k = shape({"num_experts_per_tok"}, top_k, 1, kMostExperts);
    m.expert_ffn = expert_ffn;
    m.aux_loss = yes("output_router_logits", false);
    if (m.aux_loss) out_.architecture.notes.push_back("output_router_logits: the routers' own loss, some numbers a token and expert, is not laid out");
    if (m.top_k > m.experts) f_.fault("num_experts_per_tok", "is " + std::to_string(m.top_k) + " of " + std::to_string(m.experts) + " experts", "a token can visit each expert once at most");
    if (f_.real("router_jitter_noise", 0, 1).value_or(0) > 0) out_.architecture.notes.push_back("router_jitter_noise is not used");
    out_.architecture.moe = std::move(m);
  }

  void biases(bool qkv, bool out, std::string_view key) {
    out_.architecture.qkv_bias = key.empty() ? qkv : yes(key, qkv);
    out_.architecture.out_bias = key == "attention_bias" ? out_.architecture.qkv_bias : out;
  }

  // Llama's switches, which many classes after it have.
  void llama_biases() {
    biases(false, false, "attention_bias");
    out_.architecture.mlp_bias = yes("mlp_bias", false);
  }

  void llama_like() {
    Architecture& a = out_.architecture;
    rotary(1, "");
    const std::int64_t given = f_.whole("sliding_window", 0, kMostPositions).value_or(0);
    switch (spec_.family) {
      case Family::llama:
        llama_biases();
        break;
      case Family::mistral: {
        const bool silent = f_.find("sliding_window") == nullptr && !f_.is_null("sliding_window");
        if (silent) assume("sliding_window", "4096");
        all_windows(silent ? 4096 : given);
        break;
      }
      case Family::mixtral:
        all_windows(given);
        mixture({"num_local_experts", "num_experts"}, 8, 2, a.ffn);
        a.moe->normalize_top_k = true;
        mixture_layers(0, 1);
        break;
      case Family::qwen2:
      case Family::qwen3: qwen(); break;
      case Family::qwen2_moe:
      case Family::qwen3_moe: qwen_moe(); break;
      case Family::olmo:
        a.norm = NormKind::non_parametric;
        biases(false, false, "attention_bias");
        a.clip_qkv = f_.real("clip_qkv", 0, 1e6);
        break;
      case Family::olmo2:
      case Family::olmo3:
        a.norm_placement = NormPlacement::output;
        a.qk_norm = QkNorm::full;
        biases(false, false, "attention_bias");
        if (spec_.family == Family::olmo3) windows_by_layer(window_or(given, 4096), [](std::int64_t i) { return (i + 1) % 4 != 0; });
        break;
      case Family::smollm3: smollm3(given); break;
      case Family::exaone4: exaone4(given); break;
      case Family::granite:
        llama_biases();
        a.embedding_scale = multiplier("embedding_multiplier");
        a.attention_scale = multiplier("attention_multiplier");
        multiplier("residual_multiplier"), multiplier("logits_scaling");
        a.scales_branches = a.scales_logits = true;
        break;
      case Family::seed_oss:
        a.qkv_bias = yes("attention_bias", true), a.out_bias = yes("attention_out_bias", false);
        a.mlp_bias = yes("mlp_bias", false);
        a.attention_dropout = probability("attention_dropout", 0.1);
        a.residual_dropout = probability("residual_dropout", 0.1);
        break;
      case Family::gpt_oss:
        biases(true, true, "attention_bias");
        a.sinks = true;
        a.notes.push_back("the released weights are MXFP4, which nothing trains: laid out is what Mxfp4Config(dequantize=True) makes of them, without what that takes while it loads");
        windows_by_layer(window_or(given, 128), [](std::int64_t i) { return (i + 1) % 2 != 0; });
        mixture({"num_local_experts", "num_experts"}, 128, 4, a.ffn);
        a.moe->router = RouterKind::topk_softmax, a.moe->stacked = true;
        mixture_layers(0, 1);
        for (std::string_view key : {"swiglu_limit", "swiglu_alpha", "experts_per_token", "initial_context_length"}) f_.used(key);
        break;
      case Family::arcee:
        llama_biases();
        a.gated_mlp = false;
        break;
      case Family::starcoder2:
        layer_norms();
        a.qkv_bias = a.out_bias = a.mlp_bias = yes("use_bias", true);
        a.residual_dropout = probability("residual_dropout", 0), a.embedding_dropout = probability("embedding_dropout", 0);
        all_windows(given);
        break;
      case Family::olmoe:
        a.qk_norm = QkNorm::full;
        biases(false, false, "attention_bias");
        a.clip_qkv = f_.real("clip_qkv", 0, 1e6);
        mixture({"num_experts", "num_local_experts"}, 64, 8, a.ffn);
        a.moe->normalize_top_k = yes("norm_topk_prob", false);
        mixture_layers(0, 1);
        break;
      default: gemma(given); break;
    }
  }

  std::int64_t window_or(std::int64_t given, std::int64_t fallback) {
    if (given == 0) assume("sliding_window", std::to_string(fallback));
    return given == 0 ? fallback : given;
  }

  double multiplier(std::string_view key) { return f_.real(key, 1e-9, 1e9).value_or(1); }

  // Every fourth layer has no rotary positions; those alone may have a window.
  void smollm3(std::int64_t given) {
    Architecture& a = out_.architecture;
    llama_biases();
    const std::int64_t interval = f_.whole("no_rope_layer_interval", 1, kMostLayers).value_or(4);
    for (std::int64_t i = 0; i < a.layers; ++i) a.unrotated.push_back((i + 1) % interval == 0);
    if (const Document* rotates = f_.list("no_rope_layers", kMostLayers)) {  // 1: has them, for all its name
      if (static_cast<std::int64_t>(rotates->items.size()) != a.layers) return f_.fault("no_rope_layers", "has " + std::to_string(rotates->items.size()) + " entries for " + std::to_string(a.layers) + " layers", "give one entry per layer");
      for (std::size_t i = 0; i < rotates->items.size(); ++i) {
        const Document& d = rotates->items[i];
        if (d.kind != Document::Kind::whole || d.whole < 0 || d.whole > 1) return f_.fault("no_rope_layers", "holds " + shown(d), "it should be 1 for a layer with rotary positions, 0 for one without");
        a.unrotated[i] = d.whole == 0;
      }
    }
    const std::int64_t window = yes("use_sliding_window", false) ? given : 0;
    windows_by_layer(window, [&](std::int64_t i) { return a.unrotated[static_cast<std::size_t>(i)]; });
  }

  // Where there are windows, the layers without one have no rotary positions either.
  void exaone4(std::int64_t given) {
    Architecture& a = out_.architecture;
    a.norm_placement = NormPlacement::output;
    a.qk_norm = QkNorm::per_head;
    const bool windowless = f_.is_null("sliding_window");
    const Document* pattern = f_.find("sliding_window_pattern");
    const bool letters = pattern != nullptr && pattern->kind == Document::Kind::text;  // "LLLG" stands beside layer_types, which say the same
    f_.used("sliding_window_pattern");
    if ((windowless || letters) && f_.find("layer_types") == nullptr) return f_.fault("layer_types", "is missing", "give one entry per layer: transformers works them out from a window and a number of layers alone");
    const std::int64_t every = letters ? 4 : f_.whole("sliding_window_pattern", 1, kMostLayers).value_or(4);
    windows_by_layer(windowless ? 0 : window_or(given, 4096), [&](std::int64_t i) { return (i + 1) % every != 0; });
    if (windowless) return;
    for (std::int64_t window : a.windows) a.unrotated.push_back(window == 0);
  }

  std::int64_t window_if_used() {
    const auto window = f_.whole("sliding_window", 1, kMostPositions);
    return yes("use_sliding_window", false) ? window.value_or(4096) : 0;
  }

  void qwen() {
    Architecture& a = out_.architecture;
    if (spec_.family == Family::qwen2) {
      biases(true, false, "");
    } else {
      biases(false, false, "attention_bias");
      a.qk_norm = QkNorm::per_head;
    }
    const std::int64_t window = window_if_used(), first = f_.whole("max_window_layers", 0, kMostLayers).value_or(28);
    windows_by_layer(window, [&](std::int64_t i) { return window > 0 && i >= first; });
  }

  void qwen_moe() {
    Architecture& a = out_.architecture;
    const std::int64_t window = window_if_used();
    const std::int64_t expert_ffn = shape({"moe_intermediate_size"}, spec_.family == Family::qwen2_moe ? 1408 : 768, 1, kMostFfn);
    if (spec_.family == Family::qwen2_moe) {
      biases(true, false, "qkv_bias");
      mixture({"num_experts"}, 60, 4, expert_ffn);
      a.moe->shared_ffn = shape({"shared_expert_intermediate_size"}, 5632, 1, kMostFfn);
      a.moe->shared_gate = true;
      const std::int64_t last = f_.whole("max_window_layers", 0, kMostLayers).value_or(28);
      windows_by_layer(window, [&](std::int64_t i) { return window > 0 && (i + 1) % 2 != 0 && i < last; });
      a.windows_by_layer = false;
    } else {
      biases(false, false, "attention_bias");
      a.qk_norm = QkNorm::per_head;
      mixture({"num_experts", "num_local_experts"}, 128, 8, expert_ffn);
      all_windows(window);
    }
    a.moe->normalize_top_k = yes("norm_topk_prob", false);
    mixture_layers(0, f_.whole("decoder_sparse_step", 1, kMostLayers).value_or(1));
  }

  void gemma(std::int64_t given) {
    Architecture& a = out_.architecture;
    a.norm = NormKind::rms_norm_plus_one;
    a.embedding_scale = std::sqrt(static_cast<double>(a.width));
    biases(false, false, "attention_bias");
    if (yes("use_bidirectional_attention", false)) unsupported("use_bidirectional_attention", "is true: attention without a causal mask", "causal decoders are described");
    if (spec_.family == Family::gemma) return;
    a.norm_placement = NormPlacement::sandwich;
    a.attention_scale = 1 / std::sqrt(f_.real("query_pre_attn_scalar", 1e-3, 1e6).value_or(256));
    const bool second = spec_.family == Family::gemma2;
    if (second) a.attention_softcap = cap("attn_logit_softcapping", 50.0);
    else f_.used("attn_logit_softcapping");  // Gemma3Attention has the number and hands it to nobody
    a.logit_softcap = cap("final_logit_softcapping", second ? std::optional(30.0) : std::nullopt);
    if (!second) a.qk_norm = QkNorm::per_head;
    const std::int64_t pattern = second ? 2 : f_.whole("sliding_window_pattern", 1, kMostLayers).value_or(6);
    if (f_.find("_sliding_window_pattern") != nullptr && f_.find("layer_types") == nullptr) f_.fault("_sliding_window_pattern", "stands without layer_types", "transformers reads sliding_window_pattern or layer_types");
    windows_by_layer(window_or(given, 4096), [&](std::int64_t i) { return (i + 1) % pattern != 0; });
  }

  std::optional<double> cap(std::string_view key, std::optional<double> fallback) {
    if (f_.is_null(key)) return std::nullopt;
    const auto given = f_.real(key, 1e-3, 1e9);
    return given ? given : fallback;
  }

  void deepseek() {
    Architecture& a = out_.architecture;
    const bool third = spec_.family == Family::deepseek_v3;
    LatentAttention m;
    const bool no_q_rank = f_.is_null("q_lora_rank");
    m.q_lora_rank = no_q_rank ? 0 : shape({"q_lora_rank"}, 1536, 1, kMostWidth);
    m.kv_lora_rank = shape({"kv_lora_rank"}, 512, 1, kMostWidth);
    m.nope_head_dim = shape({"qk_nope_head_dim"}, 128, 1, kMostWidth);
    m.rope_head_dim = shape({"qk_rope_head_dim"}, 64, 1, kMostWidth);
    m.value_head_dim = shape({"v_head_dim"}, 128, 1, kMostWidth);
    f_.used("head_dim");  // the class sets it to the rotary part
    a.latent = m;
    a.head_dim = m.nope_head_dim + m.rope_head_dim;
    a.position = Position::rotary, a.rotary_dims = m.rope_head_dim;
    biases(false, false, "attention_bias");
    if (!third) a.mlp_bias = yes("mlp_bias", false);
    mixture({"n_routed_experts", "num_local_experts", "num_experts"}, third ? 256 : 64, 8, shape({"moe_intermediate_size"}, third ? 2048 : 1407, 1, kMostFfn));
    if (!third && f_.find("num_experts_per_tok") == nullptr) f_.fault("num_experts_per_tok", "is missing", "DeepSeek-V2 has no default for it: give the number of experts a token visits");
    const std::int64_t shared = shape({"n_shared_experts"}, third ? 1 : 2, 1, 1024);
    a.moe->shared_ffn = shared * a.moe->expert_ffn;
    router(third);
    if (f_.whole("moe_layer_freq", 1, kMostLayers).value_or(1) != 1) unsupported("moe_layer_freq", "is not 1", "transformers' class makes every layer from first_k_dense_replace on a mixture");
    mixture_layers(f_.whole("first_k_dense_replace", 0, kMostLayers).value_or(third ? 3 : 0), 1);
    const auto predicted = f_.whole("num_nextn_predict_layers", 0, 64);
    if (predicted.value_or(0) > 0) a.notes.push_back("num_nextn_predict_layers: transformers does not build the layers that predict further tokens, and they are not counted");
  }

  void router(bool third) {
    MixtureOfExperts& m = *out_.architecture.moe;
    const std::string method = f_.text("topk_method").value_or(third ? "noaux_tc" : "greedy"), scoring = f_.text("scoring_func").value_or(third ? "sigmoid" : "softmax");
    const bool known = third ? method == "noaux_tc" : method == "greedy" || method == "group_limited_greedy";
    if (!known) unsupported("topk_method", "is \"" + method.substr(0, 40) + "\"", third ? "transformers' class routes by noaux_tc" : "transformers' class knows greedy and group_limited_greedy");
    if (scoring != (third ? "sigmoid" : "softmax")) unsupported("scoring_func", "is \"" + scoring.substr(0, 40) + "\"", third ? "DeepSeek-V3 scores by sigmoid" : "DeepSeek-V2 scores by softmax");
    m.router = third ? RouterKind::sigmoid_group_topk : method == "greedy" ? RouterKind::softmax_topk : RouterKind::softmax_group_topk;
    m.normalize_top_k = yes("norm_topk_prob", third);
    if (!third && m.normalize_top_k) {
      m.normalize_top_k = false;
      out_.architecture.notes.push_back("norm_topk_prob: transformers' DeepSeek-V2 does not act on it");
    }
    m.groups = f_.whole("n_group", 1, kMostExperts).value_or(third ? 8 : 1);
    m.top_groups = f_.whole("topk_group", 1, kMostExperts).value_or(third ? 4 : 1);
    if (m.router != RouterKind::softmax_topk && (m.experts % m.groups != 0 || m.top_groups > m.groups)) {
      f_.fault("n_group", "is " + std::to_string(m.groups) + " for " + std::to_string(m.experts) + " experts, " + std::to_string(m.top_groups) + " chosen", "groups divide the experts, and no more can be chosen than there are");
    }
  }

  void encoder() {
    Architecture& a = out_.architecture;
    layer_norms();
    a.causal = false;
    a.norm_placement = NormPlacement::post;
    a.embedding_norm = true, a.final_norm = false;
    a.position = Position::learned, a.position_rows = a.max_positions;
    a.head_bias = true;
    Encoder e;
    if (spec_.family == Family::distilbert) {
      a.residual_dropout = a.embedding_dropout = probability("dropout", 0.1);
      a.attention_dropout = probability("attention_dropout", 0.1);
      if (yes("sinusoidal_pos_embds", false)) out_.architecture.notes.push_back("sinusoidal_pos_embds: the table is a parameter all the same");
    } else {
      a.residual_dropout = a.embedding_dropout = probability("hidden_dropout_prob", 0.1);
      a.attention_dropout = probability("attention_probs_dropout_prob", 0.1);
      e.token_types = shape({"type_vocab_size"}, 2, 1, 1 << 16);
      if (f_.text("position_embedding_type").value_or("absolute") != "absolute") unsupported("position_embedding_type", "is not \"absolute\"", "absolute positions are described");
      if (yes("is_decoder", false)) unsupported("is_decoder", "is true: a causal mask over an encoder's blocks", "set it to false");
      if (yes("add_cross_attention", false)) unsupported("add_cross_attention", "is true: cross-attention", "encoders alone are described");
    }
    if (spec_.family == Family::roberta) {
      const std::int64_t pad = f_.whole("pad_token_id", 0, kMostVocab).value_or(1);
      a.max_positions -= pad + 1;  // positions are counted from the padding index on
      if (a.max_positions < 1) f_.fault("max_position_embeddings", "is " + std::to_string(a.position_rows) + ", of which the first " + std::to_string(pad + 1) + " are kept for padding", "give more rows");
    }
    a.encoder = e;
  }

  void check() {
    Architecture& a = out_.architecture;
    if (!a.latent && a.heads % a.kv_heads != 0) {
      f_.fault("num_key_value_heads", "is " + std::to_string(a.kv_heads) + ", which does not divide " + std::to_string(a.heads) + " heads", "each KV head serves a whole number of heads");
    }
    if (a.position == Position::rotary && a.rotary_dims % 2 != 0) f_.fault(a.latent ? "qk_rope_head_dim" : "head_dim", "gives " + std::to_string(a.rotary_dims) + " rotated dimensions a head", "rotary positions turn pairs: give an even number");
    double count = 0;
    if (!f_.error()) {
      for (const Parameter& p : parameters_of(a)) {
        double n = 1;
        for (std::int64_t d : p.shape) n *= static_cast<double>(d);
        count += n;
      }
    }
    if (count > kMostParameters) f_.fault("hidden_size", "and the other sizes make a model of more than 10^15 parameters", "look for a number that is too large");
  }

  const FamilySpec& spec_;
  Fields f_;
  HfModel out_;
};

std::string all_types() {
  std::string out;
  for (std::string_view t : known_model_types()) out += (out.empty() ? "" : ", ") + std::string(t);
  return out;
}

std::unexpected<Error> unknown(const std::string& type, std::string_view where) {
  const std::string place = std::string(where) + ": model_type";
  const auto missing = std::ranges::find(kMissing, type, &Missing::type);
  if (missing != kMissing.end()) {
    return fail("unsupported_architecture", "dryfit does not describe " + type + " yet: it has " + std::string(missing->what),
                (missing->nearest.empty() ? "all that are described: " : "the nearest described is " + std::string(missing->nearest) + "; all: ") + "dryfit list models; python -m dryfit.capture -- SCRIPT answers for any model", place);
  }
  return fail("unknown_architecture", "model_type '" + type.substr(0, 60) + "' is not known: there is no description of its blocks",
              did_you_mean(type, known_model_types(), "described are: " + all_types()), place);
}

}  // namespace

std::vector<std::string_view> known_model_types() {
  std::vector<std::string_view> out;
  for (const FamilySpec& s : kSpecs) out.push_back(s.type);
  out.push_back("gemma3");
  return out;
}

Result<HfModel> architecture_from(const Document& config, std::string_view where) {
  Fields top(config, std::string(where));
  if (top.error()) return std::unexpected(*top.error());
  const auto type = top.text("model_type");
  if (top.error()) return std::unexpected(*top.error());
  if (!type) {
    return fail("bad_config", "model_type is missing: this does not tell which architecture it is", "give the config.json of a Hugging Face model, with a model_type such as \"llama\"", std::string(where));
  }
  // Gemma 3 from 4B on: a decoder beside a vision tower
  const bool with_vision = *type == "gemma3";
  const Document* inner = with_vision ? top.map("text_config") : nullptr;
  if (top.error()) return std::unexpected(*top.error());
  const std::string name = with_vision ? "gemma3_text" : *type;
  const auto spec = std::ranges::find(kSpecs, name, &FamilySpec::type);
  if (spec == kSpecs.end()) return unknown(*type, where);
  static const Document kEmpty = [] { Document d; d.kind = Document::Kind::map; return d; }();
  const Document& text = inner != nullptr ? *inner : with_vision ? kEmpty : config;
  auto model = Reader(*spec, text, std::string(where), with_vision ? "text_config." : "").read();
  if (!model) return model;
  if (with_vision) {
    Architecture& a = model->architecture;
    a.notes.push_back("the vision tower and its projector are not counted: described is the text model, " + a.class_name);
    if (!a.dtype) {
      for (std::string_view key : {"dtype", "torch_dtype"}) {
        if (const Document* d = config.find(key); d != nullptr && d->text.ends_with("bfloat16")) a.dtype = Dtype::bf16;
      }
    }
  } else {
    take_named_class(config, model->architecture);
  }
  return model;
}

}  // namespace dryfit
