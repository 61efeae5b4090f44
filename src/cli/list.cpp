// See list.hpp.
#include "cli/list.hpp"

#include "base/text.hpp"
#include "cli/model_source.hpp"
#include "machine/machine.hpp"
#include "report/json.hpp"
#include "report/text.hpp"

namespace dryfit::cli {

Result<std::string> list_text(const Options& options, const Env& env) {
  const bool json = options.has("json");
  const std::string what = options.positional.empty() ? "" : options.positional[0];
  if (what == "gpus") {
    const std::string_view filter = options.positional.size() > 1 ? options.positional[1] : std::string_view();
    const Instance* machine = filter.empty() ? nullptr : find_instance(filter);
    if (machine != nullptr) return json ? gpus_json(machine->gpu) : machine->name + " (" + machine->provider + "): " + std::to_string(machine->gpus) + " x\n" + gpus_text(machine->gpu);
    return json ? gpus_json(filter) : gpus_text(filter);
  }
  if (what == "versions") return json ? versions_json() : versions_text();
  if (what == "models" && options.positional.size() > 1) {
    const auto text = list_models(options.positional[1], env, json);
    if (!text) return std::unexpected(text.error());
    return *text;
  }
  if (what == "models") {
    std::vector<Workload> models;
    for (std::int64_t depth : {4, 8, 12, 16, 18, 20, 24, 26, 28, 32}) {
      WorkloadFlags f;
      f.depth = depth;
      f.device_batch_size = 1;
      if (auto w = make_nanochat_workload(f)) models.push_back(std::move(*w));
    }
    if (json) return models_json(models);
    const auto presets = list_models("", env, false);
    if (!presets) return std::unexpected(presets.error());
    return "nanochat, by depth\n" + models_text(models) + "\nHugging Face; one in detail, or a file: dryfit list models llama-3.1-8b, dryfit list models config.json\n" + *presets;
  }
  static constexpr std::string_view kWhat[] = {"gpus", "models", "versions"};
  return fail("bad_value", what.empty() ? "list what?" : "cannot list '" + what.substr(0, 40) + "'", did_you_mean(what, kWhat, "dryfit list gpus, dryfit list models or dryfit list versions"), "list");
}

}  // namespace dryfit::cli
