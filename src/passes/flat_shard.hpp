// FSDP1, torch.distributed.fsdp.FullyShardedDataParallel around every block and around the model: one rank's flat parameters, shards, gradients and
// buffers, as events of the eager engine. Knows units and their hooks; no model code, no optimizer, no NCCL (memory/outside.hpp).
// Source: torch/distributed/fsdp/{_runtime_utils,_flat_param,_exec_order_utils}.py (2.9).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "passes/torch_optimizer.hpp"
#include "passes/transformer.hpp"

namespace dryfit::eager {

struct FlatShardOptions {
  std::int64_t shards = 1;             // W
  Dtype stored = Dtype::fp32;          // of the shards that train: what the model was loaded in, fp32 where accelerate computes in 16 bits
  Dtype frozen = Dtype::fp32;          // of the others
  Dtype adapters = Dtype::fp32;        // of matrices that are units of their own
  bool joins = false;                  // Trainer's model is on the host: each unit comes here whole, and is joined into one
  Dtype loaded = Dtype::fp32, loaded_adapters = Dtype::fp32;  // what they were before accelerate raised them, which stays until the first forward pass
  std::optional<Dtype> computed;       // MixedPrecision.param_dtype; none: as each unit is stored
  std::optional<Dtype> reduced;        // MixedPrecision.reduce_dtype; none: as computed
  bool reshard_after_forward = true;   // FULL_SHARD; false: SHARD_GRAD_OP
  bool wrap_blocks = true;             // false: the model is the only unit
  FlatShardConfig config;
  bool host = false;                   // CPUOffload: shards, their gradients and the optimizer stay there
  bool graph_stays = false;            // checkpoints of the newer form: what runs first has hooks in the graph that backward follows
};

// One unit's parameters end to end. Counts are elements.
struct FlatLayout {
  std::vector<std::int64_t> lengths;   // as flattened, with paddings
  std::vector<std::int64_t> first;     // of each parameter: where it begins
  std::vector<bool> padding;           // of lengths
  std::int64_t elements = 0, shard = 0;  // of all; of a rank, the last one's padded
};
// aligned: use_orig_params, each parameter on a multiple of 16 bytes of `dtype` and all of them of W; otherwise one after the other.
FlatLayout flat_layout(std::span<const std::int64_t> parameters, std::int64_t ranks, Dtype dtype, bool aligned);

class FlatShard {
 public:
  // Allocates the shards; `weights` have no memory of their own (ForwardOptions::gathered) and mean views of the flat parameters from then on.
  FlatShard(Tape& tape, const std::vector<Transformer::Weight>& weights, FlatShardOptions options);
  UnitHooks hooks();
  std::vector<Trained> trained() const;  // parts of the shards, or shards
  void reduces(bool on) { reduces_ = on; }  // false: within no_sync()
  void reads(bool on) { reads_ = on; }   // within torch.no_grad(): no graph anywhere waits for what runs
  void after_backward();                 // "_post_backward_final_callback"
  void clip_on_host();
  std::int64_t weight_bytes() const;     // shards
  std::int64_t gradient_bytes() const;

 private:
  struct Member { Tensor name, part; Dims dims; const char* role; int layer; bool trains; std::int64_t here; };  // here: its elements in this rank's shard
  struct Unit {
    int layer = -1;
    bool leaf = false;                   // a single matrix within a block's unit
    Dtype stored = Dtype::fp32, computed = Dtype::fp32, reduced = Dtype::fp32;
    std::vector<Member> members;
    FlatLayout layout;
    Tensor as_loaded;
    Tensor shard, full;                  // full: "_full_param_padded", a leaf that is there or not
    Tensor gradient;                     // use_orig_params: of the shard; zero_grad() of what is named does not reach it. On the host: what was sent there, until backward ends
    Tensor from_host;                    // the shard's copy here: use_orig_params names parts of it until it is named on the host again ("flat_param_to")
    bool whole = false;                  // no_sync() left a gradient of all of it
    bool trains = false, there = false, in_use = false, prefetched = false, needs_forward = false, needs_backward = false, ran_backward = false;
    bool named = false;                  // the module's attributes are views of all of it, not of the shard
    Dtype in_graph = Dtype::fp32;        // of what they were, where what runs first has the graph
    bool in_backward = false;            // from its output's gradient to its own
    std::optional<std::size_t> position; // in order_
  };
  enum Stream : std::uint8_t { compute, gathering, reducing, casting };

  Unit& unit_of(int unit) { return units_[unit >= UnitHooks::kLeaf ? first_leaf_ + static_cast<std::size_t>(unit - UnitHooks::kLeaf) : static_cast<std::size_t>(options_.wrap_blocks ? unit + 1 : 0)]; }
  UnitHooks::Named dtype_of(Unit& u);
  bool graph_elsewhere() const { return !t_.grad_enabled() && options_.graph_stays && !reads_; }
  std::vector<Unit*> as_wrapped();
  void place(Unit& u);
  void name_parts(Unit& u);
  Tensor before(int unit, const Tensor& x);
  Tensor after(int unit, const Tensor& y);
  void forget_gradients();
  void unshard(Unit& u, bool forward);
  Tensor gathered_from(Unit& u);
  void name_views(Unit& u);
  void reshard(Unit& u, bool free, bool forward = false);
  void prefetch_backward(Unit& u);
  void pre_backward(Unit& u);
  void reshard_backward(Unit& u);
  void post_backward(Unit& u);
  void reduce(Unit& u);
  void keep_whole(Unit& u);
  void hand_over(Unit& u, Tensor gradient);
  bool frees_in_backward() const { return reduces_ || options_.reshard_after_forward; }

  Tape& t_;
  FlatShardOptions options_;
  std::vector<Unit> units_;              // the model first, then its blocks, then single matrices
  std::size_t first_leaf_ = 0;
  std::vector<std::pair<std::size_t, std::size_t>> listed_;  // unit and member, in named_parameters() order
  std::vector<Unit*> order_;             // units as they left forward
  std::vector<Unit*> forward_order_;     // as they entered the first one
  bool reduces_ = true, reads_ = false, first_forward_ = true, in_backward_ = false;
};

}  // namespace dryfit::eager
