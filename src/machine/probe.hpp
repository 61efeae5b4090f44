// Probes: how the GPUs of this machine are found. The seam to the outside; tests use the recorded one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "machine/machine.hpp"

namespace dryfit {

// One GPU (or MIG slice) as the driver tells it. Unknown readings are empty, never zero.
struct GpuReading {
  int index = 0;
  std::string name, uuid, pci_bus_id, driver_version;
  std::optional<Bytes> total, reserved, used, free;
  std::optional<int> compute_major, compute_minor;
  std::optional<double> utilization;  // 0..1
  bool mig_parent = false;            // MIG is on: use its slices instead
  bool mig_slice = false;
  bool unified = false;
};

struct ProbeResult {
  std::vector<GpuReading> gpus;
  MachineSource source = MachineSource::nvml;
  bool windows_memory_model = false;  // WDDM or WSL: CUDA sees the whole memory.total
  std::optional<Bytes> host_available;  // MemAvailable, for unified memory
  std::vector<std::string> notes;
};

class GpuProbe {
 public:
  virtual ~GpuProbe() = default;
  // Errors: "no_gpu", "driver_mismatch", "no_permission", ... each with a hint that names --gpu.
  virtual Result<ProbeResult> read() = 0;
};

std::unique_ptr<GpuProbe> make_nvml_probe();        // dlopen libnvidia-ml.so.1
std::unique_ptr<GpuProbe> make_nvidia_smi_probe();  // runs nvidia-smi, parses its CSV, else its table
std::unique_ptr<GpuProbe> make_sysfs_probe(std::string root = "/sys");  // AMD
std::unique_ptr<GpuProbe> make_recorded_probe(std::string file);        // a recorded nvidia-smi output, for tests (DRYFIT_PROBE=file)
// NVML, else nvidia-smi, else AMD sysfs; or the recorded one when DRYFIT_PROBE is set.
std::unique_ptr<GpuProbe> make_probe();

// Text of `nvidia-smi --query-gpu=... --format=csv`, of the plain table, or of `nvidia-smi -L`. Never throws, any input.
Result<ProbeResult> parse_nvidia_smi(std::string_view text);

// Readings and flags to a machine: variant by name and memory, the largest set of equal GPUs, what is subtracted.
// Errors: "no_gpu", "unequal_gpus" never (the largest equal set is taken and said), "unknown_memory".
Result<Machine> machine_from_probe(const ProbeResult& probe, const MachineFlags& flags);

}  // namespace dryfit
