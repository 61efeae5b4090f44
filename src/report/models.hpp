// `list models`: presets as a table or as JSON, one model in detail. Pure: values in, a string out.
#pragma once

#include <span>
#include <string>

#include "workload/hf_config.hpp"

namespace dryfit {

struct ListedModel {
  std::string name, origin;  // "llama-3.1-8b"; "https://... (2024-07-23)" or the file
  HfModel model;
};

// name, parameters, model_type, layers, width, heads/KV, experts, vocabulary, positions.
std::string presets_text(std::span<const ListedModel> models);

// The same as JSON (docs/schema/list.schema.json), with parameters by group, what is assumed, left out and not read.
std::string presets_json(std::span<const ListedModel> models);

// Shape, parameters by group, bytes of the tensors that training holds whatever the batch, what was assumed, left out and not read.
std::string model_text(const ListedModel& model);

}  // namespace dryfit
