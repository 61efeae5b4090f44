// FSDP2, torch.distributed.fsdp.fully_shard as accelerate puts it on a model: on every block, the embedding, the tail and the model: one rank's gathered parameters, gradients and buffers, as events of
// the eager engine. Knows units and their hooks; no model code, no optimizer, no NCCL (memory/outside.hpp).
// Source: torch/distributed/fsdp/_fully_shard/{_fsdp_state,_fsdp_param_group,_fsdp_collectives,_fsdp_param}.py (2.9); accelerate 1.15, utils/fsdp_utils.py.
#pragma once

#include <cstdint>
#include <vector>

#include "passes/torch_optimizer.hpp"
#include "passes/transformer.hpp"

namespace dryfit::eager {

struct FullyShardOptions {
  std::int64_t shards = 1;             // W
  Dtype stored = Dtype::fp32;          // of the shards that train: accelerate stores fp32 where it computes in 16 bits
  Dtype frozen = Dtype::fp32;          // of the others: as they were loaded
  Dtype reduced = Dtype::fp32;         // MixedPrecisionPolicy.reduce_dtype
  bool reshard_after_forward = true;
  bool wrap_blocks = true;             // false: blocks are part of the model's unit
  bool tied = false, norm_in_tail = true;  // the embedding is the head, and part of the tail; the last norm is, too
  // torchtune's shard_model: what is not in a block is the model's unit, but for what a configuration names; every unit is resharded. Shards are cut from
  // whole weights that come one by one (set_model_state_dict), adapters' apart.
  bool torchtune = false, embedding_apart = true, head_apart = true;
  bool tail_reshards = false, last_block_reshards = true;  // beside reshard_after_forward
  bool one_unit = false;               // all weights are the model's unit, resharded too: a single fully_shard(model) that is told so
  bool host = false;                   // CPUOffloadPolicy: shards, their gradients and the optimizer stay there
};

// Rank 0 of W, which holds the largest shards: chunks are ceil(rows / W) rows, what is missing lacks in the last.
class FullyShard {
 public:
  // Allocates the shards of a model's hollow weights (ForwardOptions::shards).
  FullyShard(Tape& tape, const std::vector<Transformer::Weight>& weights, FullyShardOptions options);
  UnitHooks hooks();
  const std::vector<Trained>& trained() const { return trained_; }  // shards on the GPU, with .grad after backward
  std::int64_t weight_bytes() const;     // of all shards on the GPU, frozen ones too
  void reduces(bool on) { reduces_ = on; }  // set_requires_gradient_sync: whole gradients stay until it is on again
  void after_backward();                 // the root's final callback

 private:
  enum class State : std::uint8_t { idle, forward, pre_backward, post_backward };
  struct Member {
    Tensor full, shard, accumulated;
    const char* role;
    int layer;
    bool trains;
    std::int64_t padded;
    Dtype stored() const { return shard.dtype(); }
  };
  struct Group {
    int layer = -1;
    std::vector<Member> members;
    Tensor gathered;                     // all-gather output that waits for its copy-out
    State state = State::idle;
    bool there = false, reshards = true;
    std::vector<std::size_t> forward_order;  // where in order_ it stands
  };

  static constexpr int kUnits = 3;       // beside the blocks
  Group& group_of(int unit) { return groups_[static_cast<std::size_t>(unit + kUnits)]; }
  int unit_of(const Transformer::Weight& w) const;
  bool hooked(int unit) const { return options_.one_unit ? unit == UnitHooks::kModel : unit < 0 ? unit != UnitHooks::kEmbedding || !options_.tied : options_.wrap_blocks; }
  Tensor before(int unit, const Tensor& x);
  Tensor after(int unit, const Tensor& y);
  Tensor whole(const Tensor& weight);
  void unshard(Group& g);
  std::vector<Tensor> from_host(const Group& g);
  void wait(Group& g);
  void reshard(Group& g);
  void pre_backward(Group& g);
  void post_backward(Group& g);
  void reduce(Group& g, std::vector<Tensor> gradients, const std::vector<Member*>& members);
  enum Stream : std::uint8_t { compute, gathering, reducing };

  Tape& t_;
  FullyShardOptions options_;
  std::vector<Group> groups_;            // tail, embedding, model, then blocks
  std::vector<Trained> trained_;
  std::vector<Group*> order_;            // units as they left forward
  Tensor kept_gather_, reduce_input_;    // until the next copy-out in forward; until the next reduction
  bool reduces_ = true;
};

}  // namespace dryfit::eager
