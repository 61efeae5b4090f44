// See transformers_plan.hpp.
#include "cli/transformers_plan.hpp"

#include <algorithm>

#include "cli/job_flags.hpp"
#include "plan/launch.hpp"
#include "plan/rent.hpp"
#include "report/json.hpp"
#include "report/transformers_plan.hpp"

namespace dryfit::cli {

namespace {

Result<HfModel> model_to_search(const TransformersRequest& request, const Env& env) {
  if (request.megatron) return fail("not_searched", "plan and table do not search Megatron-LM's runs", "dryfit check or explain take the command; --device-batch-size -1 before the -- finds the largest batch that fits", "pasted command");
  return transformers_model(request, env);
}

// The flags given, but for those of the machine and of the output: the question for another machine.
std::string same_question(const Options& o) {
  static constexpr std::string_view kNot[] = {"json", "color", "ascii", "quiet", "verbose", "gpu", "gpus", "memory", "reserve", "emit", "nodes"};
  std::vector<std::string> words{"dryfit", "plan"};
  for (const auto& [name, value] : o.flags) {
    if (std::ranges::find(kNot, name) != std::end(kNot)) continue;
    words.push_back("--" + name);
    if (!value.empty()) words.push_back(value);
  }
  return shell_join(words);
}

// check reads the command itself; what is no argument of it stays a flag. A model from standard input has no name there.
std::string check_line(const Options& o, const TransformersRequest& request, const std::string& command) {
  std::vector<std::string> words{"dryfit", "check"};
  for (const char* flag : {"gpu", "memory", "reserve"}) {
    if (o.has(flag)) words.insert(words.end(), {"--" + std::string(flag), *o.get(flag)});
  }
  if (request.flags.padded && request.flags.head != HeadLoss::trl && !(request.flags.preference && *request.flags.padded)) words.insert(words.end(), {"--padded", *request.flags.padded ? "1" : "0"});  // TRL's command says it, and preferences are so
  for (const char* flag : {"no-cache", "ema"}) {
    if (o.has(flag)) words.push_back("--" + std::string(flag));
  }
  if (request.flags.optimizer && !has_word_in_trainer(*request.flags.optimizer)) words.insert(words.end(), {"--optimizer", std::string(name_of(*request.flags.optimizer))});
  if (const auto conf = o.has("alloc-conf") ? o.get("alloc-conf") : request.alloc_conf) words.insert(words.end(), {"--alloc-conf", *conf});
  if (o.get("config") == "-") words.insert(words.end(), {"--config", "-"});
  return shell_join(words) + " -- " + command;
}

}  // namespace

Result<int> plan_transformers_command(const Options& o, const Env& env, const Style& style, const TransformersRequest& request, const Machine& machine, const EstimateOptions& options) {
  const auto model = model_to_search(request, env);
  if (!model) return std::unexpected(model.error());
  const auto plan = plan_transformers(*model, request.flags, machine, options);
  if (!plan) return std::unexpected(plan.error());
  const Report* best = plan->chosen ? &plan->candidates[*plan->chosen].report : nullptr;
  const auto job = job_asked_for(o, best, request.alloc_conf);
  if (!job) return std::unexpected(job.error());
  const OwnCommands commands{best != nullptr ? check_line(o, request, best->command) : "", same_question(o)};
  if (o.has("json")) {
    env.out(plan_json(*plan, commands.check, *job));
  } else {
    if (!style.quiet) env.err(assumptions_text(best != nullptr ? *best : plan->candidates.front().report));
    answer_with_job(o, env, style, plan_text(*plan, *model, machine, commands, style), *job);
  }
  return best != nullptr ? kOk : kDoesNotFit;
}

Result<int> offers_transformers_command(const Options& o, const Env& env, const Style& style, const TransformersRequest& request, const EstimateOptions& options) {
  const auto model = model_to_search(request, env);
  if (!model) return std::unexpected(model.error());
  const auto found = offers_transformers(*model, request.flags, options);
  if (!found) return std::unexpected(found.error());
  env.out(o.has("json") ? offers_json(*found) : offers_text(*found, *model, style));
  return found->empty() ? kDoesNotFit : kOk;
}

Result<int> table_transformers_command(const Options& o, const Env& env, const Style& style, const TransformersRequest& request, const std::vector<Machine>& machines, const EstimateOptions& options) {
  if (o.has("depths")) return fail("bad_value", "--depths is nanochat's, and this is a Hugging Face model", "leave it out", "--depths");
  const auto model = model_to_search(request, env);
  if (!model) return std::unexpected(model.error());
  const auto rows = table_transformers(*model, request.flags, machines, options);
  if (!rows) return std::unexpected(rows.error());
  env.out(o.has("json") ? table_json(*rows) : o.has("csv") ? table_csv(*rows) : table_text(*rows, *model, machines.front().gpus, style));
  return kOk;
}

}  // namespace dryfit::cli
