// cut_cross_entropy: a loss whose logits never leave a kernel, as an autograd function on the eager engine. Which run has it is transformer.cpp's business.
// Source: axolotl's fork of Apple's ml-cross-entropy, 25.5 (commit 5f0c7a7): cce.py, cce_lse_forward.py, indexed_dot.py, cce_backward.py, utils.py.
#pragma once

#include "passes/eager.hpp"

namespace dryfit::eager {

// hidden [B, T, D], weight [V, D] in 16 bits, bias [V] or undefined, labels [B, T], of which every next token counts. Its own choice of small gradients left out
// (filter_eps) asks for the mean of each word's logits.
Tensor cut_loss(Tape& t, const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& labels);

}  // namespace dryfit::eager
