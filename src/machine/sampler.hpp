// Samplers: readings of every GPU, again and again, at little cost. The live seam beside probe.hpp, which asks once.
#pragma once

#include <memory>

#include "machine/probe.hpp"
#include "machine/sample.hpp"

namespace dryfit {

class GpuSampler {
 public:
  virtual ~GpuSampler() = default;
  // All GPUs now, in the driver's order. A GPU that no longer answers stays in the list as `lost`. Errors: "gpu_lost" when none answers.
  virtual Result<std::vector<GpuSample>> sample() = 0;
  virtual MachineSource source() const = 0;
  virtual std::vector<std::string> notes() const { return {}; }  // what this source cannot tell
};

// NVML, kept open. Errors: those of make_nvml_probe().
Result<std::unique_ptr<GpuSampler>> open_nvml_sampler();
// nvidia-smi run once a sample: the same readings at a higher price. Errors: "no_gpu", "driver_mismatch", ...
Result<std::unique_ptr<GpuSampler>> open_nvidia_smi_sampler();
// Whatever the probe tells (AMD's sysfs, a recorded nvidia-smi output): memory and utilization only.
Result<std::unique_ptr<GpuSampler>> open_probe_sampler(std::unique_ptr<GpuProbe> probe);
// NVML, else nvidia-smi, else AMD; the recorded probe alone when DRYFIT_PROBE is set.
Result<std::unique_ptr<GpuSampler>> open_sampler();

// Text of `nvidia-smi --query-gpu=<kSampleFields>` and of `--query-compute-apps=gpu_uuid,pid,used_memory`, both csv,noheader,nounits. Any input.
extern const char* const kSampleFields;
Result<std::vector<GpuSample>> parse_nvidia_smi_sample(std::string_view gpus, std::string_view processes);

// Runs nvidia-smi with one query (null: its plain table), five seconds and 1 MiB at most; what it wrote. Errors: "no_gpu" when it is not installed.
Result<std::string> run_nvidia_smi(const char* query);

}  // namespace dryfit
