// What is known of the run that a log tells of: its workload, its machine, its allocator settings, from the training command, from what
// nanochat printed of itself, from the failing card, and from what the user gave, which goes before all of them. Every value has a source.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "doctor/log.hpp"
#include "machine/machine.hpp"
#include "memory/allocator.hpp"
#include "workload/workload.hpp"

namespace dryfit {

// From the command line of dryfit: flags, or a command pasted after --.
struct Given {
  WorkloadFlags flags;
  MachineFlags machine;
  std::optional<AllocatorConfig> allocator;
  std::optional<std::string> transformers = {};  // its version, of a model that the log's own command trains
  // Of a job that runs here: its command line and environment, which go before what its log prints, and the machine as the driver shows it.
  std::optional<WorkloadFlags> running = {};
  std::string running_source = {};           // "the command line of process 4100"
  std::optional<Machine> here = {};
  std::optional<Workload> model = {};        // of a Hugging Face model, laid out already: it goes before everything a log says
  std::string model_source = {};             // "the flags given"
};

struct KnownRun {
  std::optional<Workload> workload;          // none: neither a depth nor a model is known
  std::optional<Machine> machine;            // none: neither the card's name nor its memory is known
  std::optional<AllocatorConfig> allocator;  // none: what nanochat sets
  std::vector<std::string> sources;          // "the training command (line 3)", "nanochat's printed configuration"
  std::vector<std::string> notes;            // what could not be used, and why
  std::optional<Error> problem;              // why there is no workload although the depth is known
};

// The workload where it is nanochat's: what is advised about its speed is in nanochat's flags.
inline std::optional<Workload> nanochat_of(const KnownRun& known) { return known.workload && !known.workload->transformers ? known.workload : std::nullopt; }

// event: the failure to explain; null when there is none.
KnownRun known_run(const RunLog& run, const OomEvent* event, const Given& given);

}  // namespace dryfit
