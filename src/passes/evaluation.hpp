// CORE evaluation: nanochat runs the model that was not compiled, without gradients, on prompts whose length has nothing to do
// with --max-seq-len or --device-batch-size. Its peak is the soft-cap and the loss over all logits of the largest prompt.
#pragma once

#include <cstdint>
#include <vector>

#include "passes/program.hpp"

namespace dryfit {

// The largest batch of prompts that rank 0 meets: `choices` sequences of `middle` tokens. low, high: the count depends on the
// user's own tokenizer, these bracket it (high also covers every other rank). Source: data/core_prompts.csv.
struct CorePrompts { std::int64_t choices, low, middle, high; };
CorePrompts core_prompts(const Run& run);

// Whether this run evaluates CORE at all: --core-metric-every, and what -1 means to this nanochat.
bool evaluates_core(const Workload& workload);

// The evaluation of one batch of prompts from input to loss, as events on its own tensors; everything is let go at the end.
// rows: sequences; length: tokens each; attention: resolved.
struct EagerForward { std::vector<TensorInfo> tensors; std::vector<Event> events; };
EagerForward core_forward(const Workload& workload, Attention attention, std::int64_t rows, std::int64_t length);

// Most bytes (of whole 512-byte blocks) alive at once.
Bytes peak_of(const EagerForward& forward);

}  // namespace dryfit
