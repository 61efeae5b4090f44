// A Megatron-LM run from the arguments of pretrain_gpt.py: defaults, what follows from what, what cannot be.
// Source: NVIDIA/Megatron-LM megatron/training/arguments.py, megatron/core/tokenizers/utils/build_tokenizer.py (2026-08).
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "workload/workload.hpp"

namespace dryfit {

struct MegatronArguments {
  std::vector<std::pair<std::string, std::vector<std::string>>> given;  // {"num-layers", {"12"}}, {"bf16", {}}: in order, without dashes
  std::optional<std::int64_t> gpus;              // W; none: TP*PP*CP
  Variables workspaces;                          // sizes_workspaces
  // The value of an argument from elsewhere: takes the place of what was given.
  void set(const std::string& name, std::string value);
};

// unused: arguments that might move memory and are not read. Errors: "missing_value", "bad_value", "bad_number", "unsupported_training", each with
// the argument.
Result<Workload> make_megatron_workload(const MegatronArguments& arguments, std::vector<std::string>& unused);

}  // namespace dryfit
