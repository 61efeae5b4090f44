// The screens of plan and table for Hugging Face models.
#pragma once

#include "plan/transformers_plan.hpp"
#include "report/text.hpp"

namespace dryfit {

// check: the command line that asks dryfit about the chosen run; plan: that asks the same question, without its machine.
struct OwnCommands { std::string check, plan; };

std::string plan_text(const TransformersPlan& plan, const HfModel& model, const Machine& machine, const OwnCommands& commands, const Style& style);
std::string offers_text(std::span<const Offer> offers, const HfModel& model, const Style& style);
std::string table_text(std::span<const TableRow> rows, const HfModel& model, std::int64_t gpus, const Style& style);

}  // namespace dryfit
