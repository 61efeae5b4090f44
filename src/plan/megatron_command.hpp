// A pasted command of Megatron-LM (torchrun pretrain_gpt.py --tensor-model-parallel-size 2 ...): its arguments, and the command again from a workload.
// What they mean is workload/megatron_arguments.hpp's.
#pragma once

#include "plan/launcher.hpp"
#include "workload/megatron_arguments.hpp"

namespace dryfit {

struct MegatronCommand {
  MegatronArguments arguments;
  std::optional<std::string> alloc_conf;         // PYTORCH_ALLOC_CONF or PYTORCH_CUDA_ALLOC_CONF
  std::vector<std::string> ignored;              // for people
};

// Whether the script's arguments are Megatron's: a pretrain_*.py, with heads and a hidden size.
bool is_megatron_command(const LaunchLine& launch);

MegatronCommand read_megatron_command(const LaunchLine& launch);

// The command of a Megatron workload: the arguments it was read from, with micro-batch, length, accumulation and recomputation of its Run.
std::vector<std::string> megatron_command(const Workload& workload);

}  // namespace dryfit
