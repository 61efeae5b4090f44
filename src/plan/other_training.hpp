// What a pasted command asks for that is another training than the one dryfit lays out, or that moves memory in a way that only its script knows: errors, in place of a
// figure of some other run.
#pragma once

#include <optional>
#include <span>

#include "plan/launcher.hpp"

namespace dryfit {

// What of a run an argument of an unknown script decides, and so which of dryfit's own options, before the --, says it in its place.
enum class Unclear : std::uint8_t { adapters, quantization, int8, freezing, parallel, offload, activations };
struct UnclearArgument { std::string place; Unclear about; };

// Whether the argument is one of those: a name that speaks of adapters, quantized or frozen weights, parallel dimensions or activations on the host, with a value that
// asks for it. name: dashed. What only scales or seeds (lora_alpha, use_rslora, bnb_4bit_quant_type) is none.
std::optional<Unclear> unclear_about(const Argument& argument);

// Which of dryfit's options answers: "lora-rank"; empty: none.
std::string_view option_for(Unclear about);
// "unsupported_flag" at the argument: what it speaks of, and what to say in its place.
Error unclear_error(const UnclearArgument& argument);

// The training of a script or of its arguments where it is neither supervised fine-tuning nor one of TRL's dpo.py, kto.py and reward.py: preferences, rewards, rollouts, distillation. "unsupported_training" with the script or the argument.
std::optional<Error> other_training(const LaunchLine& launch, std::span<const Argument> arguments);

}  // namespace dryfit
