// The time a token of a transformers run cannot go below: arithmetic, reading the weights, launching kernels, messages between GPUs. It puts ways
// of running one training in order. It is no prediction of a run's speed: that needs each kernel (step_time.hpp).
#pragma once

#include <optional>

#include "speed/rates.hpp"

namespace dryfit {

// Seconds a token, on each of the run's GPUs. kernels: launches of one micro-step, or fewer. Messages, with r = (W - 1) / W, each GPU:
//   ddp     a step 2 r gradients, beside the last backward pass
//   zero1   a step r gradients in 16 bits, then r weights in 16 bits, beside nothing (overlap_comm is off)
//   zero2   the same, gradients each micro-step
//   fsdp    a micro-step 2 r weights in 16 bits beside it; a step r gradients
//   zero3   a micro-step 2 r weights and r gradients beside it
// None where the GPU's rates, or links between so many of them, are not known; of Megatron-LM's runs, too.
std::optional<double> least_seconds_per_token(const Workload& workload, const GpuRates& rates, std::int64_t kernels);

}  // namespace dryfit
