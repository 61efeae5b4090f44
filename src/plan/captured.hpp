// A captured run as a workload on a machine: its events are laid out already, what remains is the GPU they run on.
#pragma once

#include "capture/capture.hpp"
#include "plan/plan.hpp"

namespace dryfit {

// capture: its workspaces become this GPU's. Errors: those of parse_alloc_conf, where the script set one.
Result<Report> estimate_captured(Capture& capture, const Machine& machine, EstimateOptions options);

}  // namespace dryfit
