// See torchtune_command.hpp. Source: pytorch/torchtune v0.6.1, torchtune/_cli/run.py, torchtune/config/{_parse,_utils}.py.
#include "plan/torchtune_command.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace dryfit {

bool is_torchtune_command(const LaunchLine& launch) { return launch.launcher == "tune"; }

Result<TorchtuneCommand> read_torchtune_command(const LaunchLine& launch) {
  TorchtuneCommand out;
  out.launched = before_arguments(launch);
  out.launched.flags.gpus = launch.gpus;
  std::string name = launch.script;
  if (name.ends_with(".py")) return fail("bad_value", "tune run " + name.substr(0, 60) + " is a recipe of your own, whose loop dryfit does not know", "it can be captured: python -m dryfit.capture (docs/capture.md)", "pasted command");
  const auto recipe = torchtune_recipe_of(name, "tune run");
  if (!recipe) return std::unexpected(recipe.error());
  out.recipe = *recipe;
  out.launched.understood.push_back("tune run " + name);
  const auto& words = launch.arguments;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--config" && i + 1 < words.size()) out.config = words[++i];
    else if (word.starts_with("--config=")) out.config = word.substr(9);
    else if (word.starts_with("~")) out.over.push_back({word.substr(1), {"null"}, {}});  // takes the key away
    else if (const std::size_t equals = word.find('='); equals != std::string::npos && equals > 0 && !word.starts_with("-")) out.over.push_back({word.substr(0, equals), {word.substr(equals + 1)}, {}});
    else return fail("bad_command", "'" + word.substr(0, 60) + "' is no key=value of torchtune's configuration", "write batch_size=2, or optimizer.fused=True", "pasted command");
  }
  if (out.config.empty()) return fail("bad_command", "tune run " + name + " names no configuration", "paste all of it: tune run " + name + " --config my.yaml", "pasted command");
  return out;
}

std::vector<std::string> torchtune_command(const Workload& workload) {
  const Training t = training_of(*workload.transformers, workload.run);
  std::vector<std::string> out{"tune", "run"};
  if (t.world_size > 1) out.push_back("--nproc_per_node=" + std::to_string(t.world_size));
  const std::vector<std::pair<std::string, std::string>> resolved = {{"batch_size", std::to_string(t.device_batch_size)}, {"gradient_accumulation_steps", std::to_string(t.grad_accum_steps)},
                                                                     {"tokenizer.max_seq_len", std::to_string(t.seq_len)}, {"enable_activation_checkpointing", t.recompute == Recompute::full ? "True" : "False"}};
  const std::vector<std::string_view> said = split(t.torchtune.config, '\n');
  for (std::string_view word : {name_of(t.torchtune.recipe), std::string_view("--config"), said[0].empty() ? std::string_view("my.yaml") : said[0]}) out.emplace_back(word);
  add_words_over(std::span(said).subspan(1), resolved, out);
  return out;
}

}  // namespace dryfit
