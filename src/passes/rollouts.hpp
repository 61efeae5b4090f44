// TRL's GRPOTrainer on one GPU: completions that the model writes by transformers' generate(), what it and its reference say of them without gradients, and the loss of a part of them. Knows
// no optimizer. Source: trl 1.16, trainer/grpo_trainer.py (_prepare_inputs, _generate_and_score_completions, _compute_loss); transformers 4.57 and 5.17, generation/utils.py (_sample).
#pragma once

#include <array>

#include "base/result.hpp"
#include "passes/reference_model.hpp"
#include "passes/transformer.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"

namespace dryfit::eager {

class RolloutLoop {
 public:
  // computes: what the model reads, changed while it writes and scores and then as before; reference: null where the model is its own, or none is asked.
  RolloutLoop(Tape& tape, const Architecture& architecture, const Training& training, Training& computes, Transformer& model, ReferenceModel* reference);

  // How many micro-steps of an optimizer's step are laid out: the first and the last, and between them one that writes beside gradients where completions do not last for a whole step.
  int micro_steps() const;
  // What goes before a micro-step, from 1 on, of those: the phases "rollout" and "scoring" where it is time to write.
  void before(int micro);
  // GRPOTrainer's loss of a micro-step, a number. The losses that it knows differ in numbers of one a token.
  Tensor loss();

 private:
  // Of so many rows: what is kept of them until they are written anew. All but advantages are [rows, tokens]; said: by vLLM, of its tokens, and how far that is to be trusted.
  struct Kept { Tensor prompts, prompt_mask, completions, completion_mask, advantages, before, of_reference, said, trust; };

  std::int64_t rows() const { return r_.device_batch_size * g_.steps; }
  std::int64_t prompt() const { return r_.seq_len - g_.completion; }
  Tensor made(const char* role, std::int64_t rows, std::int64_t tokens, Dtype dtype) { return t_.empty(role, dims({rows, tokens}, true), dtype); }
  bool is_time(int micro) const;
  bool scores_itself() const;
  void write();
  void give(std::int64_t tokens);
  void pass(std::int64_t tokens);
  void sample();
  Tensor processed(const Tensor& logits);
  void score();
  Tensor scored(bool by_reference);
  FusedOutput scores(const Transformer::Batch& batch, FusedAsked asked, bool by_reference);

  Tape& t_;
  const Architecture& a_;
  const Training& r_;
  const Rollouts& g_;
  Training& computes_;
  Transformer& model_;
  ReferenceModel* reference_;
  Kept kept_;
  struct Given { Tensor ids, positions, mask; } given_;  // to the last pass
  std::array<Tensor, 2> inputs_;   // prompts and their mask
  Tensor tokens_, mask_, counted_, logits_, next_, scores_, probabilities_;  // names of generate()
  int written_ = 0;
};

// Whether a run of rollouts is laid out. Errors: "unsupported_training" with what is not.
Result<void> rollouts_are_described(const Architecture& architecture, const Training& training);

}  // namespace dryfit::eager
