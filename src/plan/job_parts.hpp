// What a job says of its run, whatever the engine: the command without its launcher, and what has to be there before it runs.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "plan/report.hpp"

namespace dryfit {

struct JobParts {
  std::vector<std::pair<std::string, std::string>> environment;  // {"NANOCHAT_DTYPE", "float16"}
  std::vector<std::string> script;     // for python or torchrun: {"-m", "scripts.base_train"}, {"run_clm.py"}
  std::vector<std::string> arguments;
  bool separated = false;              // "--" stands before the arguments under torchrun
  bool one_process_alone = false;      // on one GPU no launcher may stand before it: under torchrun Trainer would run DDP
  std::vector<std::string> own;        // LitGPT and torchtune start their processes themselves: the whole command; script is empty then
  std::string name;                    // of the job: lower case, digits, dashes
  std::string what;                    // "d26"; "llama-3.1-8b, lora"
  std::string place;                   // where it is started: "a checkout of nanochat"
  std::string once;                    // after what: " that is set up as its runs/speedrun.sh does"
  std::string image;                   // the user's own, for Kubernetes
  std::string container;               // a published one without which it is hard to set up; empty: none
  std::vector<std::string> setup;      // shell commands on a fresh machine
  bool activates = false;              // they make .venv
  std::string note;                    // for the user, about the command; empty: none
};

// alloc_conf: PYTORCH_ALLOC_CONF as the user gave it; where none was given, what the report says saves memory.
// Errors: "bad_value" for a run of which no command is known that starts it elsewhere: captured ones, axolotl's.
Result<JobParts> job_parts(const Report& report, const std::optional<std::string>& alloc_conf);

}  // namespace dryfit
