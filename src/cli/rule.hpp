// rule-of-thumb: the seed's calculator, and the engine beside it.
#pragma once

#include "cli/options.hpp"
#include "report/text.hpp"

namespace dryfit::cli {

// Errors: "bad_number", "missing_value", and those of rule_of_thumb.
Result<std::string> rule_answer(const Options& options, const Style& style);

}  // namespace dryfit::cli
