// What stands before a training script's own arguments: environment, wrappers (env, nohup, uv run) and launcher (python, torchrun, accelerate launch,
// deepspeed). Knows no script's flags.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/dtype.hpp"
#include "base/result.hpp"

namespace dryfit {

struct LaunchLine {
  std::vector<std::pair<std::string, std::string>> environment;  // all assignments, in order
  std::optional<std::int64_t> gpus;              // processes over all nodes; none: as many as there are GPUs
  std::string launcher;                          // "python", "torchrun", "accelerate", "deepspeed", "litgpt", "tune": the first word, without its folder
  std::string script;                            // "scripts.base_train", "train.py"
  bool module = false;                           // it stands after -m
  bool torchrun = false;                         // started by it or its like: RANK is in the environment of one process too
  std::vector<std::pair<std::string, std::string>> options;  // accelerate's and deepspeed's own, dashes inside: {"mixed-precision", "bf16"}; switches have ""
  std::vector<std::string> arguments;            // of the script
  std::string unset_gpus;                        // "$NPROC": a variable that nothing sets stands where their number should
  std::vector<std::string> understood, ignored;  // for people
};

// words: the whole command. Errors: "bad_command", "bad_value", "bad_number", each with the word.
Result<LaunchLine> parse_launch(std::span<const std::string> words);

// --name=value, --name value value: values are the words up to the next flag, names dashed. Words before the first flag are told in `ignored`.
struct Argument {
  std::string name;
  std::vector<std::string> values;
  std::string file = {};                         // that it stands in; empty: the command itself
};
std::string place_of(const Argument& argument);  // "--seed", or "args.yaml: seed"
std::vector<Argument> arguments_of(const LaunchLine& launch, std::vector<std::string>& ignored);

std::string program_of(std::string_view word);   // "/usr/bin/python3" -> "python3", "C:\\Python\\python.exe" -> "python"
// Whether a word ends a shell command ("|", "&&", "2>&1", "> log").
bool ends_command(std::string_view word);
// Whether a command may start a training: 2 for a launcher, 1 for plain python, 0 for what does not. Assignments and wrappers may stand before it.
int starts_training(std::span<const std::string> words);
bool stops_compiling(std::string_view variable, std::string_view value);  // TORCH_COMPILE_DISABLE=1 (torch/_dynamo/config.py), TORCHDYNAMO_DISABLE=1 (eval_frame.py): torch.compile then does nothing
bool sets_allocator(std::string_view variable);  // PYTORCH_ALLOC_CONF, PYTORCH_CUDA_ALLOC_CONF
std::string_view torch_name_of(Dtype floating);   // "bfloat16", "float16", "float32"

// A number that is such a variable: what is wrong and what helps. flag: "--depth".
Error unset_variable(std::string_view text, std::string_view flag);

// What a command is written with beside its file: the words that were said over it ("key=value"), but for keys of `resolved`, then those.
void add_words_over(std::span<const std::string_view> said, std::span<const std::pair<std::string, std::string>> resolved, std::vector<std::string>& out);

}  // namespace dryfit
