// A run as a job for the engines that start training on more than one machine: torchrun by hand, Slurm, Kubernetes (Kubeflow's PyTorchJob and
// TrainJob), SkyPilot, Ray Train. The text of a file; nothing is submitted.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "plan/report.hpp"

namespace dryfit {

enum class JobKind : std::uint8_t { torchrun, slurm, kubernetes, trainjob, skypilot, ray };
struct JobFile { JobKind kind; std::string text; };
std::string_view name_of(JobKind kind);
std::string_view file_of(JobKind kind);   // what to call the file: "job.sbatch"

// nodes: machines that share its GPUs evenly; none: 8 GPUs a machine, or all on one where they are fewer. alloc_conf: as the user gave it.
// Errors: "bad_value" (GPUs that cannot be shared out so, a kind nobody knows, a GPU that SkyPilot has no name for, a run that job_parts refuses or that cannot be
// started so).
Result<JobKind> job_kind(std::string_view name);
Result<JobFile> write_job(const Report& report, JobKind kind, std::optional<std::int64_t> nodes, const std::optional<std::string>& alloc_conf = std::nullopt);

}  // namespace dryfit
