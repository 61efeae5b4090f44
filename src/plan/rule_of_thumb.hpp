// The seed document's calculator (calculate_config), reproduced to the last character. Rough on purpose: the engine stands beside it.
#pragma once

#include <string>

#include "base/result.hpp"

namespace dryfit {

// The eight fields as Python would print them.
struct RuleOfThumb {
  double gpu_memory_gb; std::string gpu_memory;  // repr as given: "24" for an int argument, "24.0" or "23.5" for a float
  std::int64_t depth;
  std::string model_params, model_memory, optimizer_memory, available_for_activations;  // "425M", "0.9GB", ...
  std::int64_t recommended_batch_size, safe_batch_size;
  bool negative_room = false;   // no room for activations: what Python does then is reproduced, and this says so
  std::string note;
};
// Errors: "bad_number"; and "rule_of_thumb_raises" where the seed's Python raises (message: the Python exception's text).
Result<RuleOfThumb> rule_of_thumb(std::string_view gpu_memory_gb, std::int64_t depth, std::int64_t seq_len);

}  // namespace dryfit
