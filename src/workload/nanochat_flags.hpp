// Which flags nanochat's scripts have, from when until when: read from its own history (the first-parent log of master, to 92d63d4 of 2026-07-03).
// What a flag means is nanochat.cpp's and plan/launch.cpp's.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "workload/workload.hpp"

namespace dryfit {

// memory: its value decides what is allocated, or when. The name is without --, with dashes.
struct NanochatFlag { std::string_view name; bool takes_value, memory; };
std::span<const NanochatFlag> nanochat_flags();
// Whether some version of the script has it.
bool script_has(Script script, std::string_view name);

// Whether some commit of the version (from its own to the next row's) has the flag as it is written: "--device_batch_size". Until 2026-01-13 nanochat's
// flags had underscores, and since then dashes, and it took no other. Of a script that the version does not have: false.
bool version_has(const NanochatVersion& version, Script script, std::string_view written);

// Whether it has all flags of a pasted command (WorkloadFlags::written) as they are written.
bool has_written(const NanochatVersion& version, const WorkloadFlags& flags);

// The newest version that has all of a pasted command's flags and, on a GPU of flags.compute_major, does not stop for want of FlashAttention 3.
struct VersionByFlags {
  const NanochatVersion* version = nullptr;  // nullptr: none has all names
  bool as_written = true;                    // false: none has all as they are written, and dashes and underscores count as one
  std::string reason;                        // for people, where the newest of all does not have them: "--grad_clip went on 2026-01-08"
};
VersionByFlags version_by_flags(const WorkloadFlags& flags);

}  // namespace dryfit
