// TRL's preference training, DPOTrainer: the loss of a batch of pairs, a row of the answer that was chosen and one of the answer that was rejected, between what a model and its
// reference say of them. Runs no model: what both hand out comes from the caller. Source: trl 1.16, trainer/dpo_trainer.py (_compute_loss); its losses differ in numbers of one a pair.
#pragma once

#include "base/result.hpp"
#include "passes/fused_head.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"

namespace dryfit::eager {

// What the loss takes of 2 B rows of T tokens, rows of chosen answers first.
struct PreferenceInputs {
  Dims tokens;                                       // [2 B, T]
  std::function<FusedOutput()> policy;               // of the model that trains
  std::function<FusedOutput()> reference = nullptr;  // of its reference, without gradients; none where its log-probabilities lie in the batch:
  std::array<Tensor, 2> computed_before = {};        // [B] each
};

// The loss, a number. All of a completion's labels count: prompts are of one token.
Tensor preference_loss(Tape& t, const PreferenceInputs& in);

// Whether a run of pairs is laid out. Errors: "unsupported_training" with what is not.
Result<void> preference_is_described(const Architecture& architecture, const Training& training);

}  // namespace dryfit::eager
