// dryfit-accuracy --captured data/measured/captured.csv: training scripts that others ran on GPUs, and what their captures say. The captured figures stand in the
// file, with the torch and the day of the capture (tools/measure/capture_records.py writes them): captures are made by torch, which this program has not.
#pragma once

namespace dryfit {

// mode: "" rows and summary · --summary · --errors - · --check FILE. Returns the exit status.
int captured_accuracy(const char* path, const char* mode, const char* argument);

}  // namespace dryfit
