// Sample: what the GPUs of a machine and the processes on them show at one moment. Plain values; machine/sampler.hpp fills them.
// `watch` draws them, `calibrate` learns from them, a diagnosis of an under-used GPU reads them. Unknown readings are empty, never zero.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"

namespace dryfit {

// Why a GPU runs below its highest clock: the bits of NVML's clocks event (formerly throttle) reasons, as nvml.h numbers them.
enum class Throttle : std::uint64_t {
  idle = 0x1, application_clocks = 0x2, power_cap = 0x4, hardware_slowdown = 0x8, sync_boost = 0x10,
  thermal = 0x20, hardware_thermal = 0x40, power_brake = 0x80, display = 0x100,
};
std::string_view name_of(Throttle reason);
// Names of all known bits set, lowest first.
std::vector<std::string_view> throttle_names(std::uint64_t reasons);

struct GpuProcess {
  std::int64_t pid = 0;
  std::optional<Bytes> used;          // empty under WDDM and in some containers
};

struct GpuSample {
  int index = 0;                      // NVML's, which is PCI order
  std::string name, uuid;
  bool lost = false;                  // fell off the bus: nothing else below is filled
  bool mig = false;                   // a MIG slice
  std::optional<int> compute_major, compute_minor;
  std::optional<Bytes> total, reserved, used, free;        // used: without `reserved`
  std::optional<double> utilization, memory_utilization;   // 0..1: share of time a kernel ran; memory was read or written
  std::optional<double> power_watts, power_limit_watts, temperature_c;
  std::optional<int> sm_clock_mhz, sm_clock_max_mhz, memory_clock_mhz, memory_clock_max_mhz;
  std::optional<std::uint64_t> throttle;                   // bits of Throttle
  std::optional<int> pcie_generation, pcie_generation_max, pcie_width, pcie_width_max;
  std::optional<std::vector<GpuProcess>> processes;        // empty optional: the driver does not tell
  // total - reserved: what all processes together can have. Empty when the total is unknown.
  std::optional<Bytes> usable() const { return total ? std::optional(*total - reserved.value_or(Bytes(0))) : std::nullopt; }
};

// A process of this machine as /proc shows it.
struct ProcessSample {
  std::int64_t pid = 0, parent = 0;
  std::uint64_t started = 0;          // clock ticks since boot; larger is newer
  std::string name;
  std::vector<std::string> command;   // argv; empty when not readable
  std::vector<std::string> environment;  // KEY=value, only those that move memory or tell the rank (kEnvironmentKeys)
  std::optional<std::string> folder;  // working folder
  std::optional<Bytes> resident;      // host memory
  std::optional<double> cpu;          // cores used since the sample before; 1 = one core
};

struct MachineSample {
  double seconds = 0;                 // since the first sample
  std::vector<GpuSample> gpus;
  std::vector<ProcessSample> processes;  // the watched job's, parents first
  std::vector<std::string> notes;     // what could not be read, and why
};

}  // namespace dryfit
