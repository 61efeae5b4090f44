// The NVIDIA management library, opened at run time: one binary runs where there is no driver. Names only; what is asked of it stands
// in the probes. Layouts and numbers from nvml.h, API 13.
#pragma once

#include <cstdint>

#include "machine/probe_os.hpp"

namespace dryfit::nvml {

constexpr int kSuccess = 0, kNoPermission = 4, kInsufficientSize = 7, kNotSupported = 3, kFunctionNotFound = 13, kGpuIsLost = 15, kMismatch = 18;

struct MemoryV2 { unsigned version; unsigned long long total, reserved, free, used; };
struct MemoryV1 { unsigned long long total, free, used; };
struct Utilization { unsigned gpu, memory; };                                  // percent
struct Process { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };  // nvmlProcessInfo_v2_t, also of _v3
constexpr unsigned kMemoryV2 = static_cast<unsigned>(sizeof(MemoryV2) | (2U << 24));

// Its name, and where else it lies.
#ifdef _WIN32
constexpr const char* kLibrary = "nvml.dll";
constexpr const char* kPlaces[] = {kLibrary, "C:\\Program Files\\NVIDIA Corporation\\NVSMI\\nvml.dll"};
#else
constexpr const char* kLibrary = "libnvidia-ml.so.1";
constexpr const char* kPlaces[] = {kLibrary, "/usr/lib/wsl/lib/libnvidia-ml.so.1", "libnvidia-ml.so"};
#endif

// Whether loading the library is known not to end this process. Cached.
bool loads_safely();

class Library {
 public:
  // DRYFIT_NVML names the file where it lies off the loader's path (NixOS, odd containers).
  Library() {
    if (const auto given = os::variable("DRYFIT_NVML").value_or(""); !given.empty()) {
      handle_ = os::load(given);
      return;
    }
    for (const char* place : kPlaces) {
      if ((handle_ = os::load(place)) != nullptr) return;
    }
  }
  ~Library() {
    if (handle_ != nullptr) os::unload(handle_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  bool loaded() const { return handle_ != nullptr; }
  template <class F>
  F get(const char* name) const { return handle_ == nullptr ? nullptr : reinterpret_cast<F>(os::find(handle_, name)); }

 private:
  void* handle_ = nullptr;
};

}  // namespace dryfit::nvml
