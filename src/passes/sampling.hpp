// nanochat's engine: a prompt is run once, its keys and values are copied into a cache for all samples, then each step runs one token of
// every sample. Source: nanochat/engine.py of the version. Recorded: tests/golden/oracle (kind `sampling`).
#pragma once

#include "passes/inference.hpp"

namespace dryfit {

struct Generation { std::int64_t prompt, samples, new_tokens; };  // tokens of the prompt, sequences, most tokens of each

// One call of Engine.generate_batch, from the caches to the last token; everything is let go at the end. Two decoding steps stand for all.
EagerForward generate(const Workload& workload, Attention attention, const Generation& generation);

// What base_train samples: seven prompts of at most 16 tokens, one after the other, 16 new tokens each.
constexpr Generation kBaseTrainSample{16, 1, 16};
// What chat_rl samples at most at once: a device batch for its longest question.
inline Generation rollout_of(const Run& run) { return {rollout_tokens(run).middle - run.max_new_tokens, run.device_batch_size, run.max_new_tokens}; }

}  // namespace dryfit
