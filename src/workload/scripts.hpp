// nanochat's scripts: what each one trains on, how often it evaluates, which phases it meets. The model and the rules of legal batches
// are nanochat.cpp's. Source: scripts/{base_train,mid_train,chat_sft,chat_rl}.py at the version's commit.
#pragma once

#include "workload/workload.hpp"

namespace dryfit {

// Fills run.script, the cadences, what chat_rl samples, and --phases. Needs the version.
// Errors: "bad_value": a script, phase or flag that the version does not have.
Result<void> set_script(const WorkloadFlags& flags, Workload& workload);

// run.only as --phases takes it.
std::string phases_text(const Run& run);

// Scripts that run the model without torch.compile: chat_rl, and chat_sft while it padded rows.
bool trains_eagerly(const Workload& workload);

// Whether rows are as long as conversations are, not as the model's context.
bool trains_on_rows(const Workload& workload);

// Tokens of a row that such a script trains on, at most; and its rows per optimizer step over all GPUs.
std::int64_t row_tokens(const Workload& workload);
std::int64_t rows_per_step(const Run& run);

// What the script takes where a flag is not given, and from where.
struct ScriptDefault { std::int64_t value; const char* source; };
ScriptDefault default_device_batch(const Workload& workload);

}  // namespace dryfit
