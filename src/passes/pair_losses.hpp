// Losses of pairs and of liked answers beside TRL's DPO (preference.hpp): LLaMA-Factory's preference training, reward models, KTO. Each takes what models say from the caller and runs none.
// Sources: LLaMA-Factory 0.9.5, train/{dpo,rm}/trainer.py and train/trainer_utils.py (get_batch_logps, nested_detach); trl 0.24, trainer/dpo_trainer.py (dpo_loss); trl 1.16,
// trainer/{reward,kto}_trainer.py.
#pragma once

#include "base/result.hpp"
#include "passes/transformer.hpp"

namespace dryfit::eager {

// CustomDPOTrainer: all logits of 2 B rows of T tokens, in fp32, of the model that trains and of its reference.
struct FactoryPairs {
  const Transformer::Batch& batch;                    // ids, mask and labels, [2 B, T]
  Preference::Loss loss = Preference::Loss::compared;
  std::function<Tensor(const Transformer::Batch&)> policy, reference = nullptr;  // [2 B, T, V]; reference: without gradients, where the loss compares
};
Tensor factory_preference_loss(Tape& t, FactoryPairs in);

// RewardTrainer's loss of what a head of one class says of 2 B rows, [2 B, 1].
Tensor reward_loss(Tape& t, const Tensor& rewards);
// PairwiseTrainer's, of the values of 2 B rows of T tokens: each row's is its last token's.
Tensor last_values_loss(Tape& t, const Tensor& values);

// KTOTrainer: log-probabilities of B rows and, but for the unpaired loss, of as many rows of answers to other prompts.
struct LikedAnswers {
  const Transformer::Batch& batch;
  bool others = true;
  std::function<FusedOutput(const Transformer::Batch&, bool graph)> policy;  // graph: with gradients
  std::function<FusedOutput(const Transformer::Batch&)> reference = nullptr;  // without; none where its log-probabilities lie in the batch
};
Tensor liked_answers_loss(Tape& t, const LikedAnswers& in);

// Whether a run of one of these is laid out. Errors: "unsupported_training" with what is not.
Result<void> pairs_are_described(const Architecture& architecture, const Training& training);

}  // namespace dryfit::eager
