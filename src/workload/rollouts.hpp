// What a command says of TRL's rollouts (GRPOConfig), and what of it can be trained. Knows no GPU.
// Source: trl 1.16, trainer/grpo_config.py.
#pragma once

#include <optional>
#include <string>

#include "base/result.hpp"
#include "workload/training.hpp"

namespace dryfit {

// Empty: not said. prompt: tokens of one, of which TRL since 0.26 says nothing.
struct RolloutFlags {
  std::optional<std::int64_t> completion, generations, steps, batch, iterations, prompt;
  Rollouts rest;                        // fields that have a usual value
};

constexpr std::int64_t kUsualPrompt = 512;  // GRPOConfig.max_prompt_length, while there was one

// Tokens of a row where nobody says how many: a prompt and the longest completion.
std::int64_t usual_row(const RolloutFlags& flags);
std::string usual_row_note(const RolloutFlags& flags);

// The training's rollouts of rows of so many tokens, over TRL's defaults. Errors: "bad_value" with the argument.
Result<void> put_rollouts(const std::optional<RolloutFlags>& flags, Training& training, std::int64_t row);

// What is laid out, where a run may differ from it.
std::string rollout_note(const Training& training);

// Whether the completions that are written at once are of whole prompts, as TRL asks; of a resolved training. Errors: "illegal_batch".
Result<void> rollouts_are_legal(const Training& training);
// The same of a device batch, for a search.
bool writes_whole_prompts(Rollouts rollouts, std::int64_t device_batch, std::int64_t world_size, std::int64_t grad_accum_steps);
// The least device batch with which a search may begin; 1 without rollouts.
std::int64_t least_device_batch(const std::optional<RolloutFlags>& flags, std::int64_t world_size, std::int64_t grad_accum_steps);

}  // namespace dryfit
