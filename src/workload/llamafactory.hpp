// LLaMA-Factory's arguments (a YAML or JSON file, or words of its command) to a run of transformers' Trainer. Its program and launchers are plan/llamafactory_command.hpp.
#pragma once

#include "workload/transformers.hpp"

namespace dryfit {

// Its defaults stand for what is not said: LoRA of rank 8 on all linear modules, checkpoints of the older form, rows of 2048, doubly quantized nf4 beside quantization_bit 4. A DeepSpeed
// file that it names is left in flags.deepspeed_file. Told are the keys that were used and those that move memory and are not laid out.
// Errors: "bad_config" and "bad_value" with the key, "unsupported_training" for what would be another run (stages but pt and sft, freeze tuning, int8, unsloth, GaLore, ...).
Result<void> apply_llamafactory(const Document& arguments, std::string_view where, TransformersFlags& flags, KeysTold& told);

}  // namespace dryfit
