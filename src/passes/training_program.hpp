// A transformers training run as a Program: loading, first step, two steady steps, on one GPU of W. The eager engine under
// transformers' model, with the optimizer of the Training.
#pragma once

#include "passes/eager.hpp"
#include "passes/transformer.hpp"

namespace dryfit {

// SDPA's choice for an unmasked causal call on this GPU, or what attn_implementation says.
Attention resolve_attention(const Architecture& architecture, const Training& training, const Target& target);

// Two micro-steps a step when gradients are accumulated, three where FSDP keeps whole gradients until the last. options: how the engine itself behaves (tests: as under the oracle).
// Errors: "unsupported_training": what is not written down yet.
Result<Program> build_program(const Architecture& architecture, const Training& training, const Target& target, eager::TapeOptions options = {});

// Tensors that live through the run on one GPU: weights; gradients; optimizer state. Bytes as stored, not rounded.
StaticBytes static_bytes(const Architecture& architecture, const Training& training);

}  // namespace dryfit
