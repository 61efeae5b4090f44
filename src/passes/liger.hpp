// Liger-Kernel's replacements for parts of transformers' models, as autograd functions on the eager engine: what each allocates, saves and
// overwrites. Which of them a model gets is transformer.cpp's business. Source: liger-kernel 0.8.4, ops/{rms_norm,swiglu,geglu,rope,
// fused_linear_cross_entropy}.py; the kernels themselves take no memory.
#pragma once

#include <utility>

#include "passes/eager.hpp"

namespace dryfit::eager {

// LigerRMSNormFunction. x [..., D], w [D]. in_place: its gradient is written over the one it was given. partial_sums: of the weight's gradient, in fp32: one for
// each multiprocessor of the GPU (before 0.3.0: for each row).
Tensor liger_rms_norm(Tape& t, const Tensor& x, const Tensor& w, bool in_place, std::int64_t partial_sums, const char* role);

// LigerSiLUMulFunction, LigerGELUMulFunction: act(gate) * up. The gradients are written over gate and up.
Tensor liger_gated(Tape& t, const Tensor& gate, const Tensor& up, const char* role);

// LigerRopeFunction: q and k [B, H or K, T, h] are rotated where they lie.
std::pair<Tensor, Tensor> liger_rotate(Tape& t, const Tensor& q, const Tensor& k, const Tensor& cos, const Tensor& sin);

// LigerFusedLinearCrossEntropyFunction: hidden [N, D], weight [V, D], targets [N] to a loss. Logits are made for some rows at a time, and both
// gradients with them in the forward pass. fuses: products may add onto fp32 or 16-bit sums (compute capability 8.0 or newer; torch 2.8 for fp32).
Tensor liger_loss(Tape& t, const Tensor& hidden, const Tensor& weight, const Tensor& targets, bool fuses);

}  // namespace dryfit::eager
