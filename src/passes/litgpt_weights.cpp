// Parameters and buffers of a LitGPT model, as loading leaves them. See litgpt.hpp. D width, H heads, h head size, F MLP width, r rank of the adapters.
#include <algorithm>

#include "passes/four_bit.hpp"
#include "passes/litgpt.hpp"

namespace dryfit::eager {

Litgpt::Litgpt(Tape& tape, const Architecture& architecture, const Training& training, ForwardOptions options)
    : t_(tape), a_(architecture), r_(training), o_(options) {
  load();
}

Tensor Litgpt::make(const char* role, std::initializer_list<std::int64_t> sizes, bool trains) {
  const Dims d = dims(sizes, false);
  Tensor t = o_.gathered ? t_.hollow_parameter(role, d, d.numel(), r_.weights, trains) : t_.parameter(role, d, r_.weights, trains);
  weights_.push_back({t, role, layer_, trains});
  return t;
}

// lora_query and lora_value by default; here by peft's names, "mlp" standing for all of it.
bool Litgpt::adapts(std::string_view module) const {
  if (!r_.lora) return false;
  const std::vector<std::string>& wanted = r_.lora->targets;
  if (wanted.empty()) return module == "q_proj" || module == "v_proj";
  return std::ranges::find(wanted, module) != wanted.end();
}

// BitsandbytesPrecision replaces every torch.nn.Linear, the head's too; biases stay as they are.
Litgpt::Linear Litgpt::linear(const char* role, std::int64_t in, std::int64_t out, bool bias, bool adapted) {
  Linear l;
  l.shape = dims({out, in}, false);
  if (r_.quantized) {
    Packed packed = pack_4bit(t_, role, in * out, r_.double_quantized);
    l.packed = std::move(packed.values);
    frozen_bytes_ += packed.bytes;
    for (Tensor& t : packed.scales) buffers_.push_back(std::move(t));
  } else {
    l.weight = make(role, {out, in}, all_train());
  }
  if (bias) l.bias = make(role, {out}, all_train());
  if (r_.litgpt.script == LitgptScript::adapter_v2) {
    l.shift = make("adapter.bias", {out}, true);
    l.scale = make("adapter.scale", {out}, true);
  }
  if (!adapted) return l;
  l.a = make("lora.A", {r_.lora->rank, in}, true);
  l.b = make("lora.B", {out, r_.lora->rank}, true);
  return l;
}

// LoRAQKVLinear: A of all adapted parts together [parts*r, D], B of each below the other [sum of their widths, r].
Litgpt::Linear Litgpt::fused_qkv() {
  const std::int64_t D = a_.width, h = a_.head_dim, q = a_.heads * h, kv = a_.kv_heads * h;
  Linear l = linear("attn.qkv", D, q + 2 * kv, a_.qkv_bias, false);
  if (adapted_parts() == 0) return l;
  l.a = make("lora.A", {adapted_parts() * r_.lora->rank, D}, true);
  l.b = make("lora.B", {(adapts("q_proj") ? q : 0) + (adapts("k_proj") ? kv : 0) + (adapts("v_proj") ? kv : 0), r_.lora->rank}, true);
  return l;
}

Litgpt::Norm Litgpt::norm_weights(const char* role) {
  const bool trains = all_train() || r_.litgpt.script == LitgptScript::adapter_v2;
  Norm n;
  n.weight = make(role, {a_.width}, trains);
  if (a_.norm == NormKind::layer_norm) n.bias = make(role, {a_.width}, trains);
  return n;
}

// The sanity check before training runs without gradients and leaves keys and values of the prompt in `adapter_kv_cache`, which training then
// reads: no gradient reaches the prompt.
void Litgpt::prompt_weights(Block& b) {
  if (!prompts() || layer_ < r_.litgpt.prompt_start) return;
  const std::int64_t rows = r_.litgpt.prompt_length;
  b.prompt = make("adapter.prompt", {rows, a_.width}, true);
  b.gate_factor = make("adapter.gate", {1, 1, a_.heads, 1}, true);
  b.prompt_qkv = t_.empty("adapter.kv", dims({1, rows, (a_.heads + 2 * a_.kv_heads) * a_.head_dim}, false), r_.weights);
}

void Litgpt::load() {
  const Category before = t_.category();
  t_.category(Category::weights);
  const std::int64_t D = a_.width, F = a_.ffn, V = a_.vocab, h = a_.head_dim;
  head_ = linear("lm_head", D, V, a_.head_bias, adapts("lm_head"));
  table_ = make("wte", {V, D}, all_train());
  const bool sandwich = a_.norm_placement == NormPlacement::sandwich;
  for (layer_ = 0; layer_ < a_.layers; ++layer_) {
    t_.at(layer_);
    Block b;
    b.norm1 = norm_weights("norm1");
    b.qkv = fused_qkv();
    b.proj = linear("attn.o", a_.heads * h, D, a_.out_bias, adapts("o_proj"));
    prompt_weights(b);
    if (sandwich) b.after_attention = norm_weights("norm_after_attn");
    if (!a_.shared_parallel_norm) b.norm2 = norm_weights("norm2");
    if (a_.gated_mlp) b.gate = linear("mlp.gate", D, F, a_.mlp_bias, adapts("mlp"));
    b.fc = linear("mlp.up", D, F, a_.mlp_bias, adapts("mlp"));
    b.down = linear("mlp.down", F, D, a_.mlp_bias, adapts("mlp"));
    if (sandwich) b.after_mlp = norm_weights("norm_after_mlp");
    blocks_.push_back(std::move(b));
  }
  t_.at(-1);
  layer_ = -1;
  final_ = norm_weights("norm");
  const Dtype half = half_of(r_.mixed).value_or(r_.weights);
  const Dtype table = is_fsdp1(r_.sharding) ? half : Dtype::fp32;  // FSDP casts buffers to MixedPrecision.buffer_dtype
  cos_ = t_.empty("rotary.cos", dims({r_.seq_len, a_.rotary_dims}, false), table);
  sin_ = t_.empty("rotary.sin", dims({r_.seq_len, a_.rotary_dims}, false), table);
  t_.category(before);
}

}  // namespace dryfit::eager
