// See rollout_arguments.hpp. Source: trl 1.16, trainer/grpo_config.py, scripts/grpo.py.
#include "plan/rollout_arguments.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"

namespace dryfit {

namespace {

// What moves no memory, or numbers of one a token.
constexpr std::array<std::string_view, 36> kStillBesideRollouts = {
    "reward-funcs", "reward-weights", "scale-rewards", "multi-objective-aggregation", "epsilon", "epsilon-high", "delta", "importance-sampling-level", "loss-type", "sapo-temperature-pos", "sapo-temperature-neg", "mask-truncated-completions",
    "log-completions", "num-completions-to-print", "log-unique-prompts", "log-multimodal", "log-completions-hub-repo", "shuffle-dataset", "ds3-gather-for-generation", "chat-template-kwargs", "top-entropy-quantile", "use-bias-correction-kl", "off-policy-mask-threshold",
    "num-generations-eval", "vllm-server-base-url", "vllm-server-host", "vllm-server-port", "vllm-server-timeout", "vllm-group-port", "vllm-model-impl", "vllm-max-model-length", "vllm-tensor-parallel-size", "vllm-importance-sampling-mode", "vllm-importance-sampling-cap",
    "vllm-importance-sampling-clip-max", "max-tool-calling-iterations"};

struct NotBesideRollouts { std::string_view name, what; };
constexpr std::array kNotBesideRollouts = {
    NotBesideRollouts{"reward-model-name-or-path", "a reward model, which lies on the GPU too,"}, NotBesideRollouts{"sync-ref-model", "a reference that follows the model"}, NotBesideRollouts{"use-liger-kernel", "Liger-Kernel beside GRPO"},
    NotBesideRollouts{"use-transformers-continuous-batching", "transformers' continuous batching"}, NotBesideRollouts{"use-transformers-paged", "transformers' continuous batching"}, NotBesideRollouts{"cast-lm-head-to-fp32", "a head in fp32"},
    NotBesideRollouts{"use-adaptive-entropy", "an entropy bonus"}, NotBesideRollouts{"vllm-enable-sleep-mode", "a vLLM that sleeps"}, NotBesideRollouts{"eval-on-start", "an evaluation, which writes completions of its own,"},
    NotBesideRollouts{"generation-kwargs", "other words for generate()"}, NotBesideRollouts{"router-aux-loss-coef", "a loss of routers"}, NotBesideRollouts{"lora-modules-to-save", "GRPO with modules to save"}};

std::string said_by(const Argument& a) { return a.values.empty() ? "" : a.values[0]; }

Result<bool> asked_by(const Argument& a) {
  const std::string v = to_lower(said_by(a));
  if (v.empty() || v == "true" || v == "1" || v == "yes") return true;
  if (v == "false" || v == "0" || v == "no" || v == "none" || v == "null") return false;
  return fail("bad_value", place_of(a) + " " + v.substr(0, 40) + " is neither True nor False", "write True or False", place_of(a));
}

Error beside_rollouts(const Argument& a, std::string_view what) {
  return {"unsupported_training", place_of(a) + ": " + std::string(what) + " is not laid out yet", "leave it out: the rest of the run is", place_of(a)};
}

constexpr RolloutArgument kMoves{true, true}, kStill{true, false};

Result<RolloutArgument> count_of(const Argument& a, std::optional<std::int64_t>& out) {
  const auto n = parse_int(said_by(a), place_of(a));
  if (!n) return std::unexpected(n.error());
  if (*n < 1 || *n > (std::int64_t{1} << 20)) return fail("bad_value", place_of(a) + " " + said_by(a).substr(0, 40) + " is out of range", "use a number from 1 to 1048576", place_of(a));
  out = *n;
  return kMoves;
}

// A number that makes a difference unless it is the one that makes none.
Result<RolloutArgument> other_than(const Argument& a, double none, bool& out) {
  const std::string v = to_lower(said_by(a));
  if (v == "none" || v == "null") return out = false, kMoves;
  const auto x = parse_real(v, place_of(a));
  if (!x) return std::unexpected(x.error());
  out = *x != none;
  return kMoves;
}

}  // namespace

Result<RolloutArgument> read_rollout_argument(const Argument& a, RolloutFlags& f) {
  const std::string& n = a.name;
  Rollouts& rest = f.rest;
  const auto when = [&](auto set) -> Result<RolloutArgument> {
    const auto on = asked_by(a);
    if (!on) return std::unexpected(on.error());
    set(*on);
    return kMoves;
  };
  if (n == "num-generations") return count_of(a, f.generations);
  if (n == "max-completion-length") return count_of(a, f.completion);
  if (n == "max-prompt-length") return count_of(a, f.prompt);
  if (n == "steps-per-generation") return count_of(a, f.steps);
  if (n == "generation-batch-size") return count_of(a, f.batch);
  if (n == "num-iterations") return count_of(a, f.iterations);
  if (n == "beta") return other_than(a, 0, rest.reference);
  if (n == "temperature") return other_than(a, 1, rest.scales_logits);
  if (n == "repetition-penalty") return other_than(a, 1, rest.penalizes);
  if (n == "top-p") return other_than(a, 1, rest.cuts_sum);
  if (n == "top-k") return other_than(a, 0, rest.cuts_most);
  if (n == "min-p") return other_than(a, -1, rest.cuts_least);  // any number cuts
  if (n == "vllm-importance-sampling-correction") return when([&](bool on) { rest.corrected = on; });
  if (n == "use-vllm") return when([&](bool on) { rest.by_vllm = on; });
  if (n == "disable-dropout") return when([&](bool on) { rest.drops_out = !on; });
  if (n == "vllm-mode") {
    if (said_by(a) != "server" && said_by(a) != "colocate") return fail("bad_value", place_of(a) + " is " + said_by(a).substr(0, 40), "use server or colocate", place_of(a));
    rest.elsewhere = said_by(a) == "server";
    return kMoves;
  }
  if (n == "vllm-gpu-memory-utilization") {
    const auto x = parse_real(said_by(a), place_of(a));
    if (!x) return std::unexpected(x.error());
    if (!(*x > 0 && *x <= 1)) return fail("bad_value", place_of(a) + " " + said_by(a).substr(0, 40) + " is no share of a GPU's memory", "use a number above 0, at most 1; 0.3 is TRL's default", place_of(a));
    rest.share = *x;
    return kMoves;
  }
  if (n == "entropy-coef" || n == "pad-to-multiple-of" || n == "cache-implementation") {
    const std::string v = to_lower(said_by(a));
    const bool usual = v == "none" || v == "null" || v == "auto" || v == "dynamic" || parse_real(v, "").value_or(1) == 0;
    if (usual) return kStill;
    return std::unexpected(beside_rollouts(a, n == "entropy-coef" ? "an entropy bonus" : n == "cache-implementation" ? "another cache than transformers' dynamic one" : "rows that are filled up to a multiple"));
  }
  if (n == "eval-strategy" || n == "evaluation-strategy") {
    if (said_by(a) == "no" || said_by(a) == "False") return kStill;
    return std::unexpected(beside_rollouts(a, "an evaluation, which writes completions of its own,"));
  }
  if (std::ranges::find(kStillBesideRollouts, n) != kStillBesideRollouts.end()) return kStill;
  const auto refused = std::ranges::find(kNotBesideRollouts, n, &NotBesideRollouts::name);
  if (refused == kNotBesideRollouts.end()) return RolloutArgument{};
  const std::string v = to_lower(said_by(a));
  if (v == "false" || v == "0" || v == "none" || v == "null") return kStill;
  return std::unexpected(beside_rollouts(a, refused->what));
}

}  // namespace dryfit
