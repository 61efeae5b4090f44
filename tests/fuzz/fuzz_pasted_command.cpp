// Any bytes as a pasted training command, of nanochat, of the Trainer, of axolotl, of LLaMA-Factory, of LitGPT or of Megatron-LM: flags or an error with a hint.
#include <cstdlib>
#include <string>

#include "plan/axolotl_command.hpp"
#include "plan/launch.hpp"
#include "plan/litgpt_command.hpp"
#include "plan/llamafactory_command.hpp"
#include "plan/megatron_command.hpp"
#include "plan/shell_text.hpp"
#include "plan/trainer_command.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto from_script = dryfit::training_command_in(text);
  if (!from_script && from_script.error().hint.empty()) std::abort();
  if (from_script) {
    const auto command = dryfit::parse_pasted_command(from_script->words);
    if (!command && command.error().hint.empty()) std::abort();
  }
  const auto words = dryfit::shell_split(text);
  if (!words) return words.error().hint.empty() ? (std::abort(), 0) : 0;
  if (const auto launch = dryfit::parse_launch(*words); launch && dryfit::is_trainer_command(*launch)) {
    const auto command = dryfit::read_trainer_command(*launch);
    if (!command && command.error().hint.empty()) std::abort();
  }
  if (const auto launch = dryfit::parse_launch(*words); launch && dryfit::is_axolotl_command(*launch)) {
    const auto command = dryfit::read_axolotl_command(*launch);
    if (command ? command->file.empty() : command.error().hint.empty()) std::abort();
  }
  if (const auto launch = dryfit::parse_launch(*words); launch && dryfit::is_llamafactory_command(*launch)) {
    const auto command = dryfit::read_llamafactory_command(*launch, {});
    if (!command && command.error().hint.empty()) std::abort();
  }
  if (const auto launch = dryfit::parse_launch(*words); launch && dryfit::is_litgpt_command(*launch)) {
    const auto command = dryfit::read_litgpt_command(*launch);
    if (!command && command.error().hint.empty()) std::abort();
  }
  if (const auto launch = dryfit::parse_launch(*words); launch && dryfit::is_megatron_command(*launch)) {
    std::vector<std::string> unused;
    const auto workload = dryfit::make_megatron_workload(dryfit::read_megatron_command(*launch).arguments, unused);
    if (!workload && workload.error().hint.empty()) std::abort();
  }
  const auto pasted = dryfit::parse_pasted_command(*words);
  if (!pasted) return pasted.error().hint.empty() ? (std::abort(), 0) : 0;
  const auto workload = dryfit::make_nanochat_workload(pasted->flags);
  if (!workload && workload.error().hint.empty()) std::abort();
  return 0;
}
