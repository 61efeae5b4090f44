// A model as LitGPT writes it, on the eager engine: one fused qkv product, fp32 rotary tables, LoRA inside the fused product or a LLaMA-Adapter
// beside attention, frozen weights in 4 bits by bitsandbytes, the head in chunks of 128 tokens. The same Architecture as transformers'; other code, so
// other tensors live. Source: Lightning-AI/litgpt model.py, lora.py, adapter.py, adapter_v2.py, finetune/*.py, pretrain.py from 2023-10-24 to 2024-09-27;
// Lightning 2.1 HalfPrecision and BitsandbytesPrecision; bitsandbytes 0.41 and 0.42.
#pragma once

#include "passes/transformer.hpp"

namespace dryfit::eager {

class Litgpt {
 public:
  Litgpt(Tape& tape, const Architecture& architecture, const Training& training, ForwardOptions options);
  Transformer::Outputs forward(const Transformer::Batch& batch);
  void around_units(UnitHooks hooks) { hooks_ = std::move(hooks); }
  const std::vector<Transformer::Weight>& weights() const { return weights_; }
  std::int64_t buffer_bytes() const { return 2 * cos_.dims().numel() * size_of(cos_.dtype()); }  // rotary tables
  std::int64_t frozen_bytes() const { return frozen_bytes_; }  // 4-bit weights with their scales, which weights() leaves out

 private:
  struct Linear {
    Tensor weight, bias, a, b;
    Tensor packed;               // in 4 bits, in place of weight
    Tensor scale, shift;         // LLaMA-Adapter v2: scale * (linear(x) + shift)
    Dims shape;                  // [out, in]
  };
  struct Norm { Tensor weight, bias; };
  struct Block {
    Linear qkv, proj, fc, gate, down;
    Norm norm1, norm2, after_attention, after_mlp;
    Tensor prompt, gate_factor, prompt_qkv;  // LLaMA-Adapter: rows of the prompt, one factor a head, and what the block's qkv makes of the rows
  };

  void load();
  Tensor make(const char* role, std::initializer_list<std::int64_t> sizes, bool trains);
  Linear linear(const char* role, std::int64_t in, std::int64_t out, bool bias, bool adapted);
  Linear fused_qkv();
  Norm norm_weights(const char* role);
  void prompt_weights(Block& b);
  bool adapts(std::string_view module) const;
  std::int64_t adapted_parts() const { return (adapts("q_proj") ? 1 : 0) + (adapts("k_proj") ? 1 : 0) + (adapts("v_proj") ? 1 : 0); }

  Tensor norm(const Tensor& x, const Norm& w, const char* role);
  Tensor base(const Linear& l, const Tensor& x, const char* role);
  Tensor project(const Linear& l, const Tensor& x, const char* role);
  Tensor project_qkv(const Linear& l, const Tensor& x);
  Tensor convolve(const Linear& l, const Tensor& channels);
  Tensor pad_with_zeros(const Tensor& after_b, std::int64_t width, std::int64_t all);
  Tensor rotate(const Tensor& x, const char* role);
  Tensor scores(int layer, const Tensor& q, const Tensor& k, const Tensor& v);
  Tensor attend(const Block& b, int layer, const Tensor& q, const Tensor& k, const Tensor& v);
  Tensor attention(const Block& b, int layer, const Tensor& x);
  Tensor mlp(const Block& b, const Tensor& x);
  Tensor block(int layer, const Tensor& x);
  Tensor unit(int layer, const Tensor& x);
  Tensor enter(int unit, const Tensor& x) { return hooks_.before ? hooks_.before(unit, x) : x; }
  Tensor leave(int unit, const Tensor& y) { return hooks_.after ? hooks_.after(unit, y) : y; }
  std::vector<Tensor> head(const Tensor& x);
  Tensor loss_of(const std::vector<Tensor>& logits, const Tensor& labels);

  // the scripts of adapters take the head in chunks; only pretraining has targets that are shifted already
  bool chunked_head() const { return r_.litgpt.script != LitgptScript::pretrain && r_.litgpt.script != LitgptScript::full; }
  bool all_train() const { return !chunked_head(); }
  bool prompts() const { return r_.litgpt.script == LitgptScript::adapter || r_.litgpt.script == LitgptScript::adapter_v2; }

  Tape& t_;
  const Architecture& a_;
  const Training& r_;
  ForwardOptions o_;
  UnitHooks hooks_;
  std::vector<Transformer::Weight> weights_;
  std::vector<Tensor> buffers_;
  std::vector<Block> blocks_;
  Linear head_;
  Tensor table_, cos_, sin_, lora_index_;
  Norm final_;
  int layer_ = -1;
  std::int64_t B = 0, T = 0, frozen_bytes_ = 0;
};

}  // namespace dryfit::eager
