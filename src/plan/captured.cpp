// See captured.hpp.
#include "plan/captured.hpp"

#include <algorithm>

namespace dryfit {

Result<Report> estimate_captured(const Capture& capture, const Machine& machine, EstimateOptions options) {
  if (!options.allocator && !capture.run.alloc_conf.empty()) {
    const auto conf = parse_alloc_conf(capture.run.alloc_conf);
    if (!conf) return std::unexpected(conf.error());
    options.allocator = *conf;
  }
  Workload workload;
  workload.captured = capture.run;
  workload.run.world_size = capture.gpus;
  workload.run.grad_accum_steps = std::max<std::int64_t>(1, capture.run.micro_steps);
  workload.run.torch = capture.run.torch;
  workload.run.compile = capture.run.compile != "none";
  return estimate_program(workload, machine, options, fit_to(capture, target_of(machine)));
}

}  // namespace dryfit
