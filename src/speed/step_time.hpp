// Seconds of one optimizer step: each kernel takes the longer of its arithmetic and its traffic, the GPU's units come in whole waves,
// launches cost the host time, the optimizer's collectives overlap with its arithmetic as nanochat orders them.
// Never below the roofline. Formulas and sources: docs/speed.md.
#pragma once

#include <array>

#include "passes/work.hpp"
#include "speed/rates.hpp"

namespace dryfit {


struct StepTime {
  double seconds = 0;
  std::array<double, kWorkKinds> by_kind{};  // seconds; communication: what arithmetic does not hide; sums to seconds with `waiting` and `loading`
  double waiting = 0;                        // the GPU waits for the host to launch
  double loading = 0;                        // the GPU waits for the host to make the next micro-batch
  double roofline = 0;                       // no implementation is faster: FLOP at the peak rate or bytes at full bandwidth, kernel by kernel
  double flops = 0;                          // of matrix products and attention, one GPU
};

double kernel_seconds(const Work& work, const GpuRates& rates);

// world: GPUs; accumulation: micro-steps a step; loader: seconds of the host for the next micro-batch once a micro-step is launched. compute: of activations, for attention. Of work that the eager engine told (StepWork::laid_out) kernels wait for
// their launch one by one, the host for the GPU at the end of each micro-step (the loss is looked at), collectives run beside what they may.
StepTime time_step(const StepWork& work, const GpuRates& rates, std::int64_t world, std::int64_t accumulation, Dtype compute, bool compiled, double loader = 0);

}  // namespace dryfit
