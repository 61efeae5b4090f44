// The training command for a workload, and back: parsing what is printed gives the same Workload.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "memory/allocator.hpp"
#include "plan/launcher.hpp"
#include "workload/workload.hpp"

namespace dryfit {

// "torchrun --standalone --nproc_per_node=8 -m scripts.base_train -- --depth=26 ..." or "python -m scripts.base_train --depth=..." in the
// spelling of the workload's nanochat version. One element per shell word; render with shell_join. Of a transformers run "train.py" stands for the
// user's own script.
std::vector<std::string> launch_command(const Workload& workload);
std::string shell_join(std::span<const std::string> words);

// A pasted training command: what dryfit understood of it.
struct PastedCommand {
  WorkloadFlags flags;
  std::optional<std::string> alloc_conf;       // PYTORCH_ALLOC_CONF or PYTORCH_CUDA_ALLOC_CONF from the environment part
  std::string script;                          // "scripts.base_train"
  std::vector<std::string> understood, ignored;  // for people: what was used and what was not
};
// How a pasted command is read.
struct PasteOptions {
  std::vector<std::string> over;      // names of flags that are given beside it ("depth", "gpus"), which win: a variable of the shell that nothing sets may stand where their values should
  std::vector<std::string> left_out;  // names of flags that a fork of nanochat's has and nanochat does not: they and their values are left out, and told in flags.left_out
  bool ran = false;                   // it runs, or ran: whatever flags it has exist, and those unknown here are left out
};
// Words as the shell gave them (argv after --), or one string still to be split: quotes, continuations, `=` or spaces, underscores or dashes.
// Errors: "bad_command", "unknown_flag" (all of them, with did-you-mean), "bad_number", each with the word.
Result<PastedCommand> parse_pasted_command(std::span<const std::string> words, const PasteOptions& options = {});
Result<std::vector<std::string>> shell_split(std::string_view text);
// Whose command of Hugging Face models it is, for people: "axolotl"; empty: none's.
std::string_view program_of_models(const LaunchLine& launch);
// Whether words start a training that dryfit reads, of nanochat or of a Hugging Face model.
bool is_training_command(std::span<const std::string> words);

}  // namespace dryfit
