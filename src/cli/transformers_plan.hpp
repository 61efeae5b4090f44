// plan and table for Hugging Face models: a request and a machine to the screen or JSON.
#pragma once

#include "cli/model_source.hpp"
#include "report/text.hpp"

namespace dryfit::cli {

// Exit status 1 where nothing fits. Errors: those of the model, of flags, and "not_searched" for a command of Megatron-LM.
Result<int> plan_transformers_command(const Options& o, const Env& env, const Style& style, const TransformersRequest& request, const Machine& machine, const EstimateOptions& options);
Result<int> offers_transformers_command(const Options& o, const Env& env, const Style& style, const TransformersRequest& request, const EstimateOptions& options);
Result<int> table_transformers_command(const Options& o, const Env& env, const Style& style, const TransformersRequest& request, const std::vector<Machine>& machines, const EstimateOptions& options);

}  // namespace dryfit::cli
