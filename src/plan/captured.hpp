// A captured run as a workload on a machine: its events are laid out already, what remains is the GPU they run on.
#pragma once

#include "capture/capture.hpp"
#include "plan/plan.hpp"

namespace dryfit {

// Workspaces, and what kernels take inside, as on this GPU. Errors: those of parse_alloc_conf, where the script set one.
Result<Report> estimate_captured(const Capture& capture, const Machine& machine, EstimateOptions options);

}  // namespace dryfit
