// See rollouts.hpp.
#include "workload/rollouts.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace dryfit {

void Rollouts::resolve(std::int64_t device_batch, std::int64_t world_size, std::int64_t accumulated) {
  const std::int64_t together = device_batch * world_size;
  steps = told_steps ? *told_steps : batch ? std::max<std::int64_t>(1, *batch / together) : accumulated;
  alike = together * steps <= generations;
}

std::int64_t usual_row(const RolloutFlags& f) { return f.prompt.value_or(kUsualPrompt) + f.completion.value_or(Rollouts().completion); }

std::string usual_row_note(const RolloutFlags& f) {
  const std::string prompt = std::to_string(f.prompt.value_or(kUsualPrompt)), completion = std::to_string(f.completion.value_or(Rollouts().completion));
  return "prompts of " + prompt + " tokens" + (f.prompt ? "" : ", a guess: TRL takes them as long as they are") + ", and max_completion_length " + completion;
}

Result<void> put_rollouts(const std::optional<RolloutFlags>& flags, Training& t, std::int64_t row) {
  if (!flags) return {};
  const RolloutFlags& f = *flags;
  Rollouts& out = t.rollouts.emplace(f.rest);
  out.completion = f.completion.value_or(out.completion);
  out.generations = f.generations.value_or(out.generations);
  out.iterations = f.iterations.value_or(out.iterations);
  out.told_steps = f.steps, out.batch = f.batch;
  if (f.steps && f.batch) return fail("bad_value", "generation_batch_size and steps_per_generation say the same, and TRL takes one of them", "leave one of them out", "--generation_batch_size");
  if (out.generations < 2) return fail("bad_value", "--num_generations " + std::to_string(out.generations) + ": GRPO compares completions of one prompt", "use 2 or more; 8 is TRL's default", "--num_generations");
  if (out.completion < 2) return fail("bad_value", "--max_completion_length " + std::to_string(out.completion) + " leaves nothing to write", "use 2 or more; 512 is TRL's default", "--max_completion_length");
  if (row <= out.completion) return fail("bad_value", "--max-seq-len " + std::to_string(row) + " has no room for a prompt before " + std::to_string(out.completion) + " tokens of a completion (max_completion_length)", "give the tokens of a prompt and its completion together", "--max-seq-len");
  return {};
}

std::string rollout_note(const Training& t) {
  const std::string length = std::to_string(t.rollouts->completion), row = std::to_string(t.seq_len);
  return "laid out are the longest completions: every one of " + length + " tokens (max_completion_length), rows filled up to " + row + "; rewards are taken to be functions, not models" +
         std::string(!t.rollouts->by_vllm ? "" : t.rollouts->elsewhere ? "; vLLM's server, on other GPUs, writes them" : "; vLLM, which writes them, is counted by its own budget, " + tenths(100 * t.rollouts->share) + " % of the GPU (vllm_gpu_memory_utilization), which is not derived: its CUDA graphs may take more");
}

bool writes_whole_prompts(Rollouts r, std::int64_t device_batch, std::int64_t world_size, std::int64_t accumulated) {
  const std::int64_t together = device_batch * world_size;
  r.resolve(device_batch, world_size, accumulated);
  return (!r.batch || r.told_steps || *r.batch % together == 0) && together * r.steps % r.generations == 0;
}

std::int64_t least_device_batch(const std::optional<RolloutFlags>& flags, std::int64_t world_size, std::int64_t accumulated) {
  Training t;
  if (!put_rollouts(flags, t, std::int64_t{1} << 22) || !t.rollouts) return 1;
  for (std::int64_t batch = 1; batch < t.rollouts->generations; ++batch) {
    if (writes_whole_prompts(*t.rollouts, batch, world_size, accumulated)) return batch;
  }
  return t.rollouts->generations;
}

Result<void> rollouts_are_legal(const Training& t) {
  const Rollouts& r = *t.rollouts;
  const std::int64_t together = t.device_batch_size * t.world_size, at_once = together * r.steps;
  if (writes_whole_prompts(r, t.device_batch_size, t.world_size, t.grad_accum_steps)) return {};
  if (r.batch && *r.batch % together != 0) return fail("illegal_batch", "--generation_batch_size " + std::to_string(*r.batch) + " is not a multiple of the " + std::to_string(together) + " completions of a micro-step, and TRL stops", "use a multiple of per_device_train_batch_size", "--generation_batch_size");
  const std::string product = r.steps > 1 ? std::to_string(t.device_batch_size) + " x " + std::to_string(r.steps) + " micro-steps = " : "";
  return fail("illegal_batch", product + std::to_string(at_once) + " completions are written at once, which is no multiple of --num_generations " + std::to_string(r.generations) + ", and TRL stops",
              "use a per_device_train_batch_size or gradient_accumulation_steps that make it one, or fewer generations", "--per_device_train_batch_size");
}

}  // namespace dryfit
