// A model as the user names it: a shipped one, or a config.json (a file, or - for standard input); and a run of it with transformers.
#pragma once

#include "cli/cli.hpp"
#include "cli/options.hpp"
#include "plan/other_training.hpp"
#include "report/models.hpp"
#include "workload/megatron_arguments.hpp"
#include "workload/transformers.hpp"

namespace dryfit::cli {

// Errors: "unreadable_file", and those of document_from_json and architecture_from.
Result<ListedModel> model_from_file(const std::string& path, const Env& env);

// Errors: "unknown_model".
Result<ListedModel> model_from_name(std::string_view name);

// What a transformers run is given: flags of the command line over those of a pasted command of the Trainer, over the files that it names.
struct TransformersRequest {
  TransformersFlags flags;
  std::optional<std::string> config, alloc_conf;  // --config; of the pasted command's environment
  std::optional<Workload> megatron;               // of a pasted command of Megatron-LM; of flags only the GPUs and the device batch are then set
  std::vector<std::string> notes;                 // what of the pasted command and its files is not used
  std::vector<UnclearArgument> unclear;           // of the pasted command: each is an error unless an option says it
  std::vector<std::string> told;                  // whole lines: what of each file is used, and its tool's defaults
};

// Whether --model, --config or a pasted command of the Trainer, LitGPT or Megatron-LM ask for a transformers run.
Result<bool> asks_for_transformers(const Options& options);
// Errors: those of the readers of commands and files; "unsupported_flag" for an argument that moves memory and that neither dryfit nor an option before the -- explains.
Result<TransformersRequest> transformers_request(const Options& options, const Env& env);
// Not of Megatron-LM, whose command says the model. Errors: "missing_value", and those of model_from_file and model_from_name.
Result<HfModel> transformers_model(const TransformersRequest& request, const Env& env);
Result<Workload> transformers_workload(const TransformersRequest& request, const Env& env);

// `list models [NAME|PART|FILE.json|-]`: all, those with PART in their name, or one in detail.
Result<std::string> list_models(std::string_view what, const Env& env, bool json);

}  // namespace dryfit::cli
