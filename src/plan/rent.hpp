// Which machine to rent: for a method that does not fit here, or for a run whose machine is open. Prices are data/prices.csv's or the user's. A machine: 1, 2, 4 or 8
// GPUs of one kind, in whole instances.
#pragma once

#include "plan/transformers_plan.hpp"

namespace dryfit {

// None where it fits no priced machine.
std::optional<Rent> cheapest_machine(const HfModel& model, const TransformersFlags& flags, Method method, const EstimateOptions& options);

// Of every price the machines whose speed is known, each run the way that best_way chooses there (flags.gpus holds their GPUs): the one that costs least, and those that
// no offer of the same method beats in both time and cost. By method, those that train more first, then by rank_offers. Time and cost are to the horizon, which has to be
// the same tokens everywhere; without one they are a token's. Errors: "bad_value" for --max-steps of steps that differ from machine to machine, and what every machine refuses.
Result<std::vector<Offer>> offers_transformers(const HfModel& model, const TransformersFlags& flags, const EstimateOptions& options);

// By time, then cost; marks the best. All of one method.
void rank_offers(std::span<Offer> offers);

}  // namespace dryfit
