// Arguments that are GRPOConfig's own, and those of others that mean something else beside rollouts. See trainer_command.hpp.
#pragma once

#include "plan/argument_file.hpp"
#include "workload/rollouts.hpp"

namespace dryfit {

// Whether the argument is read here; of those that move no memory too. Errors: "bad_value", and "unsupported_training" with what is not laid out.
struct RolloutArgument { bool known = false, moves = false; };
Result<RolloutArgument> read_rollout_argument(const Argument& argument, RolloutFlags& flags);

}  // namespace dryfit
