// The reference of TRL's preference training, or of its rollouts, where it is a model of its own: as DPOTrainer and GRPOTrainer hold it beside the one that trains, whole or shared out by a strategy of its own, and what it says of
// a batch. Knows strategies by what they hold; no loss, no optimizer.
// Source: trl 1.16, models/utils.py (prepare_deepspeed, prepare_fsdp), trainer/dpo_trainer.py; accelerate 1.15, accelerator.py (prepare_model with evaluation_mode).
#pragma once

#include <memory>

#include "passes/flat_shard.hpp"
#include "passes/fully_shard.hpp"
#include "passes/transformer.hpp"
#include "passes/zero_gather.hpp"

namespace dryfit::eager {

class ReferenceModel {
 public:
  // Allocates it as it is left for training. forward: of a model on one GPU; training: the run's.
  ReferenceModel(Tape& tape, const Architecture& architecture, const Training& training, ForwardOptions forward);
  // Without gradients, under autocast where accelerate puts it around a forward pass.
  FusedOutput scores(const Transformer::Batch& batch, FusedAsked asked = {});
  Tensor logits(const Transformer::Batch& batch);  // likewise, on one GPU
  std::int64_t weight_bytes() const;     // of what stays on this GPU; gathered weights are not counted

 private:
  void share_out(const Training& training);

  Tape& t_;
  Training computes_;                    // what its modules see
  Dtype output_;                         // of what fully_shard's policy hands out
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<FullyShard> sharded_;
  std::unique_ptr<FlatShard> flat_;
  std::unique_ptr<ZeroGather> gathered_; // ZeRO's stage 3; of the others it is whole (stage 0)
};

}  // namespace dryfit::eager
