// TRL's head in tiles: log-probabilities of the labels in place of logits, as autograd functions on the eager engine. Which run has it is
// transformer.cpp's business. Source: trl 1.16, trainer/utils.py (add_fused_lm_head), kernels/chunked_logprob.py; the kernels themselves take no memory.
#pragma once

#include "passes/eager.hpp"

namespace dryfit::eager {

// What a model hands out of each position with a next token, [B, T - 1]: FusedCausalLMOutput. entropy and what follows it are undefined where they were not asked for.
struct FusedOutput { Tensor loss, log_probs, entropy, mean_logits, top, mask; };
// Which of its fields beside the log-probabilities a trainer asks for (add_fused_lm_head's outputs), and of how many last tokens of a row; 0: of all but the first.
struct FusedAsked { bool entropy = false, mean_logits = false, top = false; std::int64_t last = 0; };

// hidden [B, T, D], weight [V, D], bias [V] or undefined; labels are the ids themselves; every next token counts, or the last of a row. Tiles of logits are made in forward and, where
// something wants a gradient, again in backward, where gradients are summed in fp32.
FusedOutput fused_head(Tape& t, const Tensor& hidden, const Tensor& weight, const Tensor& bias, FusedAsked asked);

// SFTTrainer's loss of it.
Tensor fused_head_loss(Tape& t, const FusedOutput& made);

}  // namespace dryfit::eager
