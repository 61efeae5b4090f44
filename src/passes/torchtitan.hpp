// A Llama and its loss as torchtitan writes them, on the eager engine: complex rotary products in fp32, torch's fused norms, cuDNN's attention first, blocks behind
// checkpoints of three kinds, and units for fully_shard that the embedding and the head are of. The same Architecture as transformers'; other code, so other
// tensors live. Source: pytorch/torchtitan v0.2.2 (2026-02-20): models/llama3/model/model.py, models/llama3/infra/parallelize.py, models/attention.py,
// distributed/activation_checkpoint.py, components/loss.py, train.py (forward_backward_step, train_step).
#pragma once

#include <array>
#include <memory>

#include "graph/torchtitan.hpp"
#include "passes/compiled_function.hpp"
#include "passes/transformer.hpp"

namespace dryfit::eager {

class Torchtitan {
 public:
  Torchtitan(Tape& tape, const Architecture& architecture, const Training& training, ForwardOptions options);
  void load_batch();               // a micro-batch to the GPU: its ids stay until the step is over, its labels until the next one's
  Tensor loss();                   // forward_backward_step up to the backward pass
  void end_step();                 // train_step returns
  void around_units(UnitHooks hooks) { hooks_ = std::move(hooks); }
  const std::vector<Transformer::Weight>& weights() const { return weights_; }

 private:
  struct Block { Tensor q, k, v, o, gate, down, up, norm1, norm2; };

  void load();
  Tensor make(const char* role, std::initializer_list<std::int64_t> sizes);
  Tensor turned(const Tensor& x, const char* role);
  Tensor for_all_heads(const Tensor& x, const char* role);
  Tensor attention(const Block& b, const Tensor& x);
  Tensor mlp(const Block& b, const Tensor& x);
  Tensor block(int layer, const Tensor& x);
  Tensor compiled_block(int layer, const Tensor& x, TitanCheckpoint checkpoint);
  TitanCheckpoint checkpoint_of(int layer) const;
  bool compiles(bool part) const { return r_.compile && part; }
  Tensor unit(int layer, const Tensor& x);
  Tensor model();
  Tensor enter(int unit, const Tensor& x) { return hooks_.before ? hooks_.before(unit, x) : x; }
  Tensor leave(int unit, const Tensor& y) { return hooks_.after ? hooks_.after(unit, y) : y; }

  Tape& t_;
  const Architecture& a_;
  const Training& r_;
  ForwardOptions o_;
  UnitHooks hooks_;
  std::array<std::unique_ptr<CompiledFunction>, 3> compiled_;  // what blocks run, by their checkpoint
  std::unique_ptr<CompiledFunction> compiled_loss_;
  std::vector<Transformer::Weight> weights_;
  std::vector<Block> blocks_;
  Tensor table_, final_, head_, angles_;
  std::vector<Tensor> ids_, losses_;
  Tensor labels_, counted_, all_counted_;
  int layer_ = -1;
  std::int64_t B = 0, T = 0;
};

}  // namespace dryfit::eager
