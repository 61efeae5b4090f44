// Machine: GPUs of one kind, what memory they have and what of it a training process can use. Pure values;
// probes that fill them live in machine/probe.hpp.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/result.hpp"

namespace dryfit {

// One row of data/gpus.csv.
struct GpuKind {
  std::string name;                   // as nvidia-smi prints it where that exists: "NVIDIA H100 80GB HBM3"
  std::vector<std::string> aliases;   // "h100", "h100 sxm", ...
  std::string vendor, architecture;   // "NVIDIA", "Hopper"
  int compute_major = 0, compute_minor = 0;  // 0.0: not CUDA
  Bytes total;                        // what nvidia-smi calls memory.total
  Bytes driver_reserve;               // total - what CUDA shows as capacity on Linux
  bool unified = false;               // shares the host's memory
  std::optional<double> bf16_tflops;  // dense tensor-core rate, fp32 accumulate
  std::optional<double> fp16_tflops;  // the same for fp16, where bf16 is absent too
  std::optional<double> fp32_tflops;
  std::optional<double> fp8_tflops;
  std::optional<double> bandwidth_gb_s;
  std::optional<double> l2_mib;       // the L2 cache, as torch.cuda.get_device_properties shows it
  std::string source;
  std::string note;                   // set by find_gpu when a variant was chosen: which, and how to choose another
};

// The catalogue, embedded at build time from data/gpus.csv.
std::span<const GpuKind> gpu_catalogue();
// By name or alias, case, spaces and dashes ignored ("4090", "rtx-4090", "H100 SXM"). With `total` given, memory decides between variants.
// Variants that differ in memory ("rtx 3080": 10 or 12 GB) without a size: the smaller one; `note` says so and how to name the others.
// Errors: "unknown_gpu" with a did-you-mean.
Result<GpuKind> find_gpu(std::string_view name, std::optional<Bytes> total = std::nullopt);

// "40 GiB", rounded.
std::string gigabytes_text(Bytes b);

// A machine by the name that a provider gives it: one name of a row of data/instances.csv.
struct Instance {
  std::string name, provider;  // "p4d.24xlarge", "AWS"
  std::string gpu;             // as the catalogue has it
  std::int64_t gpus = 1;
  std::string source;
};
std::span<const Instance> instances();
// By name, case and what stands between its words ignored, with or without "ml." and "Standard_"; nullptr: none.
const Instance* find_instance(std::string_view name);
// A hint that names the family's sizes where the name is another of them ("p5.24xlarge"); empty: no such family.
std::string instances_like(std::string_view name);

// Total of a MIG slice ("H100 PCIe", "3g.40gb") as nvidia-smi's own table prints it (docs/gpus.md); others are not guessed.
std::optional<Bytes> slice_memory(std::string_view card, std::string_view profile);

enum class MachineSource { flag, nvml, nvidia_smi, sysfs, recorded, default_gpu };
std::string_view name_of(MachineSource source);

struct Machine {
  GpuKind gpu;
  std::int64_t gpus = 1;
  Bytes total;                        // per GPU
  Bytes driver_reserve;
  Bytes used_by_others;               // other processes, on the worst GPU
  Bytes user_reserve;                 // --reserve
  MachineSource source = MachineSource::flag;
  std::vector<std::string> notes;     // what was assumed or subtracted, for people
  Bytes usable() const { return total - driver_reserve - used_by_others - user_reserve; }
};

struct MachineFlags {
  std::optional<std::string> gpu;     // --gpu: a name, "8xH100", a line of nvidia-smi ("NVIDIA A10G, 23028 MiB", "GPU 0: NVIDIA A10G (UUID: ...)"), a slice ("H100 MIG 3g.40gb"), a machine ("p4d.24xlarge")
  std::optional<std::int64_t> gpus;   // --gpus
  std::optional<Bytes> memory;        // --memory
  std::optional<Bytes> reserve;       // --reserve
};

// What a workload's dtype is chosen by (WorkloadFlags::compute_major): the GPU's, or where there is no CUDA, whose torch.cuda nanochat asks, one below 8.
int capability_for_dtype(const GpuKind& gpu);

// What the driver keeps where no sourced figure is known.
Bytes default_driver_reserve(Bytes total);

// From flags alone (no probing). Errors: "unknown_gpu", "bad_value".
Result<Machine> machine_from_flags(const MachineFlags& flags);

}  // namespace dryfit
