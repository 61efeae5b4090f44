// torchtune's configuration to a run of one of its recipes, as flags. Its program is plan/torchtune_command.hpp.
#pragma once

#include "workload/transformers.hpp"

namespace dryfit {

// Sets a key of a configuration as torchtune's command line does: "optimizer.fused", and a component's name for the whole of it.
// Errors: "bad_value" where a part of the key is no map.
Result<void> set_torchtune_key(Document& config, std::string_view key, Document value, std::string_view where);

// The keys of a configuration that ships with torchtune 0.6.1, what of them moves memory, as "key=value" words; empty when it ships none of that name.
std::string_view torchtune_config(std::string_view name);
std::vector<std::string_view> torchtune_config_names();

// A recipe's keys over its own defaults: the model by its builder, adapters, batch, dtype, optimizer, loss, checkpoints, packing. Told are the keys that
// were used and those that move memory and are not read. Errors: "bad_config" and "bad_value" with the key, "unsupported_training" for what would be
// another run (compiled steps, DoRA, other losses, ...).
Result<void> apply_torchtune(const Document& config, std::string_view where, TorchtuneRecipe recipe, TransformersFlags& flags, KeysTold& told);

}  // namespace dryfit
