// torchtitan's blocks as torch.compile sees them: each TransformerBlock by itself, with the checkpoint that is around it inside (apply_compile after apply_ac).
#pragma once

#include "graph/graph.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"
#include "workload/workload.hpp"

namespace dryfit {

// How much of a block its checkpoint computes again.
enum class TitanCheckpoint : std::uint8_t { none, all, but_ops };

// Inputs: x, then q, k, v, o, gate, down, up and both norms' weights, all `GraphInput::parameter`; then the rotary table. One output.
Graph torchtitan_block(const Architecture& architecture, const Training& training, Attention attention, TitanCheckpoint checkpoint, int multiprocessors);

}  // namespace dryfit
