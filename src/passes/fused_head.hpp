// TRL's head in tiles: log-probabilities of the labels in place of logits, as autograd functions on the eager engine. Which run has it is
// transformer.cpp's business. Source: trl 1.16, trainer/utils.py (add_fused_lm_head), kernels/chunked_logprob.py; the kernels themselves take no memory.
#pragma once

#include "passes/eager.hpp"

namespace dryfit::eager {

// SFTTrainer's loss. hidden [B, T, D], weight [V, D], bias [V] or undefined; labels are the ids themselves and every next token counts. Tiles of logits are
// made in forward and again in backward, where gradients are summed in fp32.
Tensor fused_head_loss(Tape& t, const Tensor& hidden, const Tensor& weight, const Tensor& bias);

}  // namespace dryfit::eager
