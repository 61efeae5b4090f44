// axolotl's YAML to a run of transformers' Trainer: what axolotl does around it, as flags. Its program and launchers are plan/axolotl_command.hpp.
#pragma once

#include "workload/transformers.hpp"

namespace dryfit {

// Its defaults stand for what the file does not say: sequences of 512, one a micro-step, bf16 weights and autocast. A DeepSpeed file that it names is left in
// flags.deepspeed_file. Told are the keys that were used and those that move memory and are not laid out, such as fused losses and kernels.
// Errors: "bad_config" and "bad_value" with the key, "unsupported_training" for what would be another run (preferences, int8 weights, tensor parallelism, ...).
Result<void> apply_axolotl(const Document& config, std::string_view where, TransformersFlags& flags, KeysTold& told);

}  // namespace dryfit
