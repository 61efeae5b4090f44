// A Megatron-LM run on one GPU: gradient buffers, optimizer, pipeline schedule around the chunks of megatron.hpp. Load, first step, two steady steps.
// Sources: Megatron-LM megatron/core/distributed/param_and_grad_buffer.py, optimizer/{optimizer,distrib_optimizer}.py, pipeline_parallel/schedules.py.
#pragma once

#include "passes/eager.hpp"
#include "passes/program.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"

namespace dryfit {

// Of the stage that the run names, or the one that needs most. Errors: "unsupported_training".
Result<Program> build_megatron_program(const Architecture& a, const Training& r, const Target& target, eager::TapeOptions options);

// Of the same stage: weights, gradient buffers, main parameters and moments.
StaticBytes megatron_static_bytes(const Architecture& a, const Training& r);

// What TransformerEngine takes on this GPU.
MegatronAttention resolve_attention(const Architecture& a, const MegatronRun& run, const Target& target);

}  // namespace dryfit
