// A model and its loss as torchtune writes them, on the eager engine: keys and values repeated for all heads, fp32 norms and rotary pairs, LoRALinear,
// the head and the loss in chunks of the length, and what a recipe's loop names meanwhile. The same Architecture as transformers'; other code, so other
// tensors live. Source: pytorch/torchtune v0.6.1: modules/{transformer,attention,attention_utils,feed_forward,rms_norm,position_embeddings,tied_linear}.py,
// modules/peft/lora.py, modules/loss/ce_chunked_output_loss.py, models/{llama2,llama3_1,qwen2}, recipes/{full,lora}_finetune_single_device.py.
#pragma once

#include <map>
#include <memory>

#include "graph/torchtune.hpp"
#include "passes/compiled_function.hpp"
#include "passes/transformer.hpp"

namespace dryfit::eager {

class Torchtune {
 public:
  Torchtune(Tape& tape, const Architecture& architecture, const Training& training, ForwardOptions options);
  // The batch on the GPU, in place of the one before: it is not kept until this one is there.
  void load_batch();
  Tensor loss();                   // _loss_step, and what train() makes of it
  void scale_gradients();          // training.scale_grads: in place, by a number on the GPU
  void log();                      // after the optimizer's step
  const std::vector<Transformer::Weight>& weights() const { return weights_; }
  std::vector<Transformer::Weight> loading_order() const;  // the same as the recipes for several GPUs come to them
  void around_units(UnitHooks hooks) { hooks_ = std::move(hooks); }
  std::int64_t frozen_bytes() const { return frozen_bytes_; }  // NF4 weights with their scales, which weights() leaves out

 private:
  // torchao's NF4Tensor: codebook, mean of the scales, scales in 8 bits for every 64 elements, their factors for every 256 of them, two elements a byte.
  struct Quantized { Tensor code, mean, scales, factors, data; };
  struct Linear {
    Tensor weight, bias, a, b;
    Quantized packed;              // in place of weight
    Dims shape;                    // [out, in]
  };
  struct Rotary { Tensor theta, table; };
  struct Block { Linear q, k, v, o, gate, down, up; Tensor norm1, norm2; Rotary rotary; };

  void load();
  std::vector<Tensor> block_mask();
  Tensor targets_that_count();
  Tensor make(const char* role, std::initializer_list<std::int64_t> sizes, bool trains);
  Linear linear(const char* role, const char* module, std::int64_t in, std::int64_t out, bool bias);
  Rotary rotary_table();
  Quantized quantized(const char* role, Dims shape);
  void quantizing(std::int64_t elements);
  void read_checkpoint();

  Tensor norm(const Tensor& x, const Tensor& w, const char* role);
  Tensor dequantized(const Quantized& q, Dims shape, const char* role);
  Tensor linear_nf4(const Linear& l, const Tensor& x, const char* role);
  Tensor project(const Linear& l, const Tensor& x, const char* role);
  Tensor rotary_rows(const Block& b);
  Tensor rotate(const Block& b, const Tensor& x, const char* role);
  Tensor rotate_pairs(const Tensor& rows, const Tensor& x, const char* role);
  Tensor rotate_halves(const Tensor& rows, const Tensor& x, const char* role);
  Tensor for_all_heads(const Tensor& x, const char* role);
  Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v);
  Tensor attention(const Block& b, const Tensor& x);
  Tensor mlp(const Block& b, const Tensor& x);
  Tensor block(int layer, const Tensor& x);
  Tensor unit(int layer, const Tensor& x);
  Tensor embedded();
  Tensor head(const Tensor& x);
  Tensor enter(int unit, const Tensor& x) { return hooks_.before ? hooks_.before(unit, x) : x; }
  Tensor leave(int unit, const Tensor& y) { return hooks_.after ? hooks_.after(unit, y) : y; }
  void name(std::vector<Tensor>& inputs, std::initializer_list<const Linear*> linears) const;
  std::vector<Tensor> compiled_part(TorchtunePart part, bool first, std::span<const Tensor> inputs);
  Tensor compiled_block(int layer, const Tensor& x);
  Tensor compiled_loss(const Tensor& logits, const Tensor& labels, bool mean);
  std::vector<Tensor> model();
  Tensor loss_of(std::vector<Tensor> logits);
  Tensor loss_of_shifted_logits(Tensor logits);
  std::vector<std::int64_t> chunk_lengths() const;  // torch.chunk of the length

  Tape& t_;
  const Architecture& a_;
  const Training& r_;
  ForwardOptions o_;
  UnitHooks hooks_;
  std::map<std::pair<TorchtunePart, bool>, std::unique_ptr<CompiledFunction>> compiled_;  // what blocks run: the first by itself, where the embedding is frozen
  std::map<std::int64_t, std::unique_ptr<CompiledFunction>> losses_;  // by rows
  std::vector<Transformer::Weight> weights_;
  std::vector<Block> blocks_;
  Linear head_;
  Tensor table_, final_, ignored_;
  Tensor ids_, labels_, positions_, texts_, logits_;
  Tensor last_labels_;             // of the recipes for several GPUs, whose loop has them in no function
  std::vector<Tensor> mask_;
  Tensor counted_, all_counted_, running_, logged_[2];  // numbers that the loop names
  bool own_tables_ = false;        // of rotary angles, in every layer
  int layer_ = -1;
  std::int64_t B = 0, T = 0, frozen_bytes_ = 0;
};

}  // namespace dryfit::eager
