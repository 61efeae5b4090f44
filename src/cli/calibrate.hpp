// The calibrate command: logs, recordings and memory snapshots of this machine's runs to rows of measurements, kept in one file, and what they teach.
#pragma once

#include "cli/cli.hpp"
#include "plan/calibration.hpp"
#include "report/text.hpp"

namespace dryfit::cli {

struct CalibrateRequest {
  std::vector<std::string> files;
  WorkloadFlags given;                  // what the files do not tell, above all --nanochat
  std::optional<Machine> machine;       // --gpu
  bool show = false, reset = false, json = false;
};

// Exit status: 0 something was learned or shown, 1 no file held a run to learn from.
// Errors: "missing_file", "unreadable_file", "bad_recording", those of a snapshot, "corrupt_calibration", "newer_calibration", "unwritable_file", "no_home".
Result<int> calibrate(const CalibrateRequest& request, const Env& env, const Style& style);

}  // namespace dryfit::cli
