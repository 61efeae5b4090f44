// Processes of this machine as /proc or Windows shows them: the edge that finds a training job's command line.
#pragma once

#include <memory>
#include <span>

#include "machine/sample.hpp"

namespace dryfit {

// Environment variables that are read; all others are left alone, for they may hold secrets.
inline constexpr std::string_view kEnvironmentKeys[] = {"CUBLASLT_WORKSPACE_SIZE", "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NANOCHAT_DTYPE", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "RANK", "TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE", "TORCH_CUBLASLT_UNIFIED_WORKSPACE", "WORLD_SIZE"};

class ProcessTable {
 public:
  virtual ~ProcessTable() = default;
  // Everything /proc tells of one process; empty when it is gone. Fields that may not be read are empty.
  virtual std::optional<ProcessSample> read(std::int64_t pid) = 0;
  // Only what changes: resident and cpu (since the previous call for this pid). False when the process is gone or another one has its number.
  virtual bool update(ProcessSample& process) = 0;
  // pid, parent, started and name of all processes that can be seen. Costs a few milliseconds on a busy machine.
  virtual std::vector<ProcessSample> all() = 0;
  // Whether a GPU's device file is open in it; empty when that may not be known.
  virtual std::optional<bool> uses_gpu(std::int64_t pid) = 0;
};

// root: "/proc", or a copy of its layout in a test. ticks: clock ticks a second.
std::unique_ptr<ProcessTable> make_process_table(std::string root = "/proc");

}  // namespace dryfit
