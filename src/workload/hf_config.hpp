// A Hugging Face config.json, already a Document, to an Architecture: what transformers would build from it, field by field.
// What the file does not say is transformers' default and is listed; what dryfit does not describe is an error, never a guess.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/document.hpp"
#include "workload/architecture.hpp"
#include "workload/workload.hpp"

namespace dryfit {

struct HfModel {
  Architecture architecture;
  std::vector<Assumption> assumptions;  // fields of the shape that the file leaves to transformers' defaults
  std::vector<std::string> unused;      // fields that might mean something and are not read
};

// where: names the file in errors ("config.json"). Errors: "unknown_architecture" (with the nearest known), "unsupported_architecture" (what is
// missing), "bad_config" (field, value, what it should be).
Result<HfModel> architecture_from(const Document& config, std::string_view where);

// model_type values that are read: "gpt2", "gpt_neox", ... in the order of Family, aliases last.
std::vector<std::string_view> known_model_types();

}  // namespace dryfit
