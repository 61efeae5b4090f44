// The job that is watched: which of this machine's processes it is, and what its command line says it trains. Pure: processes as
// machine/process.hpp read them come in as values.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "machine/sample.hpp"
#include "plan/plan.hpp"
#include "watch/moment.hpp"

namespace dryfit {

// How surely a command line trains a model: nanochat's pretraining; another script that names training; any Python; something else.
enum class Trains { no, python, script, nanochat };
Trains trains(const ProcessSample& process);

// "torchrun ...", "accelerate launch ...", "python -m torch.distributed.run ...": starts the ranks and uses no GPU itself.
bool is_launcher(const ProcessSample& process);

// The process to watch among candidates: the surest to train, then the newest. Empty when there is none that may train.
std::optional<std::int64_t> newest_training(std::span<const ProcessSample> candidates);

// Processes from `pid`'s topmost launcher down to all descendants, parents before children. `all` needs pid, parent and command of the
// ancestors (other fields are handed on). At most kMostTree.
inline constexpr std::size_t kMostTree = 512;
std::vector<ProcessSample> process_tree(std::span<const ProcessSample> all, std::int64_t pid);

struct Job {
  std::int64_t pid = 0;               // what the user named, or what was found
  std::string command;                // of the launcher or the process, joined for a shell; may be empty
  std::string script;                 // "scripts.base_train"; empty when not read
  std::optional<WorkloadFlags> flags; // empty: dryfit cannot read this command
  std::optional<std::string> alloc_conf;
  std::string unread;                 // why flags are empty; a sentence
};

// What the tree's command lines and environments tell. tree: as process_tree gives it, with commands and environments read.
Job read_job(std::span<const ProcessSample> tree, std::int64_t pid);

// The same from what a moment or a recording keeps of a job.
Job job_of(const SeenJob& seen);

// `given` over `found`: what the user said wins over what was read.
WorkloadFlags overlaid(WorkloadFlags found, const WorkloadFlags& given);

// The job's GPUs as a machine: those in `used` (indices into gpus), with what other processes hold there taken off.
// own: memory of the job's processes by GPU, in the order of `used`. Errors: "unknown_gpu", "unknown_memory".
Result<Machine> machine_of(std::span<const GpuSample> gpus, std::span<const std::size_t> used, std::span<const Bytes> own, MachineSource source);

}  // namespace dryfit
