// Which machine to rent for a method that does not fit here. Prices are data/prices.csv's or the user's.
#pragma once

#include "plan/transformers_plan.hpp"

namespace dryfit {

// None where it fits no priced machine. A machine: 1, 2, 4 or 8 GPUs of one kind.
std::optional<Rent> cheapest_machine(const HfModel& model, const TransformersFlags& flags, Method method, const EstimateOptions& options);

}  // namespace dryfit
