// A model as LitGPT writes it, on the eager engine: one fused qkv product, fp32 rotary tables, LoRA inside the fused product, the head in
// chunks of 128 tokens. The same Architecture as transformers'; other code, so other tensors live.
// Source: Lightning-AI/litgpt lit_gpt/{model,lora,rmsnorm,utils}.py, finetune/lora.py of 2023-10-24 (after pull request 606), pretrain.py of 2024-05;
// Lightning 2.1 HalfPrecision. Without adapters it is pretrain.py: all logits at once, the loss in chunks.
#pragma once

#include "passes/transformer.hpp"

namespace dryfit::eager {

class Litgpt {
 public:
  Litgpt(Tape& tape, const Architecture& architecture, const Training& training, ForwardOptions options);
  Transformer::Outputs forward(const Transformer::Batch& batch);
  const std::vector<Transformer::Weight>& weights() const { return weights_; }

 private:
  struct Linear { Tensor weight, bias, a, b; };
  struct Norm { Tensor weight, bias; };
  struct Block { Linear qkv, proj, fc, gate, down; Norm norm1, norm2; };

  Tensor make(const char* role, std::initializer_list<std::int64_t> sizes, bool trains);
  Linear linear(const char* role, std::int64_t in, std::int64_t out, bool bias, bool adapted);
  Linear fused_qkv();
  Norm norm_weights(const char* role);
  void load();
  bool adapts(std::string_view module) const;
  std::int64_t adapted_parts() const { return (adapts("q_proj") ? 1 : 0) + (adapts("k_proj") ? 1 : 0) + (adapts("v_proj") ? 1 : 0); }
  Tensor norm(const Tensor& x, const Norm& w, const char* role);
  Tensor project(const Linear& l, const Tensor& x, const char* role);
  Tensor project_qkv(const Linear& l, const Tensor& x);
  Tensor rotate(const Tensor& x, const char* role);
  Tensor attention(const Block& b, const Tensor& x);
  Tensor mlp(const Block& b, const Tensor& x);
  Tensor block(int layer, const Tensor& x);
  std::vector<Tensor> head(const Tensor& x);
  Tensor loss_of(const std::vector<Tensor>& logits, const Tensor& labels);

  Tape& t_;
  const Architecture& a_;
  const Training& r_;
  ForwardOptions o_;
  std::vector<Transformer::Weight> weights_;
  std::vector<Block> blocks_;
  Linear head_;
  Tensor table_, cos_, sin_;
  Norm final_;
  int layer_ = -1;
  std::int64_t B = 0, T = 0;
};

}  // namespace dryfit::eager
