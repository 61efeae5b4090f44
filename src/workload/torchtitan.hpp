// torchtitan's configuration (its TOML, and the command's words over it) to a run of its trainer, as flags. Its command is plan/torchtitan_command.hpp.
#pragma once

#include "workload/transformers.hpp"

namespace dryfit {

// The keys of a configuration that ships with torchtitan 0.2.2 for llama3, what of them moves memory, as "key=value" words; empty when it ships none of that
// file's name ("llama3_8b.toml").
std::string_view torchtitan_config(std::string_view file);

// JobConfig's keys over its own defaults: flavor, batch, length, precision, parallelism, checkpoints, compile, optimizer. gpus: that the launcher starts, where
// it says so. Told are the keys that were used and those that move memory and are not read. Errors: "bad_config" with the key, "unsupported_training" for what
// would be another run (tensor, pipeline, context and expert parallelism, float8, ...).
Result<void> apply_torchtitan(const Document& config, std::string_view where, std::optional<std::int64_t> gpus, TransformersFlags& flags, KeysTold& told);

}  // namespace dryfit
