// The models that ship with dryfit (data/models/*.json, each with its source): read once from the text in the binary.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "workload/hf_config.hpp"

namespace dryfit {

struct ModelPreset {
  std::string name, source, date;   // "llama-3.1-8b", the config.json it is taken from, ISO date of its release
  std::string repository;           // "meta-llama/Llama-3.1-8B"
  HfModel model;
};

// Families in the order of the files, small models first.
const std::vector<ModelPreset>& model_presets();

// By name, or by repository as scripts name it ("meta-llama/Llama-3.1-8B-Instruct": tuned versions have the shape of their base; `variant` is
// set when such an ending was dropped). Case does not matter. Errors: "unknown_model" with did-you-mean.
struct FoundPreset { const ModelPreset* preset; bool variant; };
Result<FoundPreset> find_preset(std::string_view name);

}  // namespace dryfit
