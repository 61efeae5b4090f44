// NVML kept open: what does not change is asked once, the rest at every sample. Readings only; judgement lives in watch/.
#include <cerrno>
#include <cstdlib>
#include <string>
#ifdef __GLIBC__
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#endif

#include "machine/probe_nvml_library.hpp"
#include "machine/sampler.hpp"

namespace dryfit {

namespace {

using nvml::Library;

constexpr unsigned kClockSm = 1, kClockMemory = 2, kMostNvmlProcesses = 4096;

// Functions of the library, found once. A missing one stays null and its reading empty.
struct Functions {
  explicit Functions(const Library& lib)
      : init(lib.get<int (*)()>("nvmlInit_v2")), shutdown(lib.get<int (*)()>("nvmlShutdown")), count(lib.get<int (*)(unsigned*)>("nvmlDeviceGetCount_v2")),
        by_index(lib.get<int (*)(unsigned, void**)>("nvmlDeviceGetHandleByIndex_v2")), name(lib.get<Text>("nvmlDeviceGetName")), uuid(lib.get<Text>("nvmlDeviceGetUUID")),
        capability(lib.get<int (*)(void*, int*, int*)>("nvmlDeviceGetCudaComputeCapability")), mig_mode(lib.get<int (*)(void*, unsigned*, unsigned*)>("nvmlDeviceGetMigMode")),
        most_slices(lib.get<Number>("nvmlDeviceGetMaxMigDeviceCount")), slice(lib.get<int (*)(void*, unsigned, void**)>("nvmlDeviceGetMigDeviceHandleByIndex")),
        memory_v2(lib.get<int (*)(void*, nvml::MemoryV2*)>("nvmlDeviceGetMemoryInfo_v2")), memory_v1(lib.get<int (*)(void*, nvml::MemoryV1*)>("nvmlDeviceGetMemoryInfo")),
        utilization(lib.get<int (*)(void*, nvml::Utilization*)>("nvmlDeviceGetUtilizationRates")), power(lib.get<Number>("nvmlDeviceGetPowerUsage")), power_limit(lib.get<Number>("nvmlDeviceGetEnforcedPowerLimit")),
        temperature(lib.get<ByKind>("nvmlDeviceGetTemperature")), clock(lib.get<ByKind>("nvmlDeviceGetClockInfo")), clock_max(lib.get<ByKind>("nvmlDeviceGetMaxClockInfo")),
        throttle(lib.get<int (*)(void*, unsigned long long*)>("nvmlDeviceGetCurrentClocksEventReasons")), pcie_generation(lib.get<Number>("nvmlDeviceGetCurrPcieLinkGeneration")),
        pcie_generation_max(lib.get<Number>("nvmlDeviceGetMaxPcieLinkGeneration")), pcie_width(lib.get<Number>("nvmlDeviceGetCurrPcieLinkWidth")), pcie_width_max(lib.get<Number>("nvmlDeviceGetMaxPcieLinkWidth")) {
    if (throttle == nullptr) throttle = lib.get<int (*)(void*, unsigned long long*)>("nvmlDeviceGetCurrentClocksThrottleReasons");
    processes = lib.get<ProcessList>("nvmlDeviceGetComputeRunningProcesses_v3");
    if (processes == nullptr) processes = lib.get<ProcessList>("nvmlDeviceGetComputeRunningProcesses_v2");
  }
  using Text = int (*)(void*, char*, unsigned);
  using Number = int (*)(void*, unsigned*);
  using ByKind = int (*)(void*, unsigned, unsigned*);
  using ProcessList = int (*)(void*, unsigned*, nvml::Process*);
  int (*init)();
  int (*shutdown)();
  int (*count)(unsigned*);
  int (*by_index)(unsigned, void**);
  Text name, uuid;
  int (*capability)(void*, int*, int*);
  int (*mig_mode)(void*, unsigned*, unsigned*);
  Number most_slices;
  int (*slice)(void*, unsigned, void**);
  int (*memory_v2)(void*, nvml::MemoryV2*);
  int (*memory_v1)(void*, nvml::MemoryV1*);
  int (*utilization)(void*, nvml::Utilization*);
  Number power, power_limit;
  ByKind temperature, clock, clock_max;
  int (*throttle)(void*, unsigned long long*);
  Number pcie_generation, pcie_generation_max, pcie_width, pcie_width_max;
  ProcessList processes = nullptr;
};

Bytes bytes(unsigned long long n) { return Bytes(n > static_cast<unsigned long long>(Bytes::kMax) ? Bytes::kMax : static_cast<std::int64_t>(n)); }

std::optional<unsigned> ask(Functions::Number f, void* device) {
  unsigned n = 0;
  return f != nullptr && f(device, &n) == nvml::kSuccess ? std::optional(n) : std::nullopt;
}
std::optional<int> ask(Functions::ByKind f, void* device, unsigned kind) {
  unsigned n = 0;
  return f != nullptr && f(device, kind, &n) == nvml::kSuccess ? std::optional(static_cast<int>(n)) : std::nullopt;
}
std::optional<int> whole(std::optional<unsigned> n) { return n ? std::optional(static_cast<int>(*n)) : std::nullopt; }
std::optional<double> milliwatts(std::optional<unsigned> n) { return n ? std::optional(*n / 1000.0) : std::nullopt; }

class NvmlSampler final : public GpuSampler {
 public:
  ~NvmlSampler() override {
    if (started_ && f_.shutdown != nullptr) f_.shutdown();
  }

  Result<void> open() {
    const auto bad = [](std::string message) { return fail("no_gpu", std::move(message), "watch needs a GPU and its driver here; a recording plays anywhere: dryfit watch --replay FILE", "nvml"); };
    if (!lib_.loaded()) return bad("no NVIDIA driver here (" + std::string(nvml::kLibrary) + " is not installed)");
    if (f_.init == nullptr || f_.count == nullptr || f_.by_index == nullptr) return bad(std::string(nvml::kLibrary) + " is too old");
    if (const int code = f_.init(); code != nvml::kSuccess) {
      if (code == nvml::kMismatch) return fail("driver_mismatch", "the NVIDIA driver and its library have different versions", "reboot, or reload the driver", "nvml");
      if (code == nvml::kNoPermission) return fail("no_permission", "no permission to ask the NVIDIA driver", "run as a user who may open /dev/nvidiactl", "nvml");
      return bad("the NVIDIA driver is not running (NVML error " + std::to_string(code) + ")");
    }
    started_ = true;
    unsigned n = 0;
    if (f_.count(&n) != nvml::kSuccess || n == 0) return bad("the NVIDIA driver knows no GPU");
    for (unsigned i = 0; i < n; ++i) {
      void* handle = nullptr;
      if (f_.by_index(i, &handle) != nvml::kSuccess) {
        devices_.push_back({nullptr, {}});
        devices_.back().fixed.index = static_cast<int>(i);
        devices_.back().fixed.lost = true;
        continue;
      }
      add(handle, static_cast<int>(i));
    }
    return {};
  }

  Result<std::vector<GpuSample>> sample() override {
    std::vector<GpuSample> out;
    out.reserve(devices_.size());
    bool any = false;
    for (const Device& d : devices_) {
      out.push_back(d.fixed);
      if (d.handle != nullptr) read(d.handle, out.back());
      any = any || !out.back().lost;
    }
    if (!any) return fail("gpu_lost", "no GPU answers any more (NVML: GPU is lost)", "look for Xid in: dmesg; a reset or a reboot brings it back", "nvml");
    return out;
  }

  MachineSource source() const override { return MachineSource::nvml; }

 private:
  struct Device { void* handle; GpuSample fixed; };

  void add(void* handle, int index) {
    GpuSample g;
    g.index = index;
    char text[96] = {};
    if (f_.name != nullptr && f_.name(handle, text, sizeof text) == nvml::kSuccess) g.name = text;
    if (f_.uuid != nullptr && f_.uuid(handle, text, sizeof text) == nvml::kSuccess) g.uuid = text;
    int major = 0, minor = 0;
    if (f_.capability != nullptr && f_.capability(handle, &major, &minor) == nvml::kSuccess) g.compute_major = major, g.compute_minor = minor;
    g.sm_clock_max_mhz = ask(f_.clock_max, handle, kClockSm);
    g.memory_clock_max_mhz = ask(f_.clock_max, handle, kClockMemory);
    g.pcie_generation_max = whole(ask(f_.pcie_generation_max, handle));
    g.pcie_width_max = whole(ask(f_.pcie_width_max, handle));
    unsigned mig = 0, coming = 0;
    if (f_.mig_mode == nullptr || f_.mig_mode(handle, &mig, &coming) != nvml::kSuccess || mig != 1 || f_.slice == nullptr) {
      devices_.push_back({handle, std::move(g)});
      return;
    }
    g.mig = true;
    const unsigned most = ask(f_.most_slices, handle).value_or(0);
    for (unsigned i = 0; i < most; ++i) {
      void* slice = nullptr;
      if (f_.slice(handle, i, &slice) != nvml::kSuccess) continue;  // holes are usual
      devices_.push_back({slice, g});
      if (f_.uuid != nullptr && f_.uuid(slice, text, sizeof text) == nvml::kSuccess) devices_.back().fixed.uuid = text;
    }
  }

  void memory(void* device, GpuSample& g) const {
    nvml::MemoryV2 a{nvml::kMemoryV2, 0, 0, 0, 0};
    int code = f_.memory_v2 != nullptr ? f_.memory_v2(device, &a) : nvml::kFunctionNotFound;
    if (code == nvml::kSuccess) {
      g.total = bytes(a.total), g.reserved = bytes(a.reserved), g.used = bytes(a.used), g.free = bytes(a.free);
      return;
    }
    if (code == nvml::kGpuIsLost) g.lost = true;
    nvml::MemoryV1 b{};
    if (g.lost || code == nvml::kNotSupported || f_.memory_v1 == nullptr) return;
    code = f_.memory_v1(device, &b);
    if (code == nvml::kSuccess) g.total = bytes(b.total), g.used = bytes(b.used), g.free = bytes(b.free);
    g.lost = code == nvml::kGpuIsLost;
  }

  void process_list(void* device, GpuSample& g) {
    if (f_.processes == nullptr) return;
    unsigned n = static_cast<unsigned>(list_.size());
    int code = f_.processes(device, &n, list_.data());
    if (code == nvml::kInsufficientSize && n <= kMostNvmlProcesses) {
      list_.resize(n + 16);
      n = static_cast<unsigned>(list_.size());
      code = f_.processes(device, &n, list_.data());
    }
    if (code != nvml::kSuccess) return;
    g.processes.emplace();
    for (unsigned i = 0; i < n && i < list_.size(); ++i) {
      const bool known = list_[i].used != ~0ULL;  // all ones: not available
      g.processes->push_back({static_cast<std::int64_t>(list_[i].pid), known ? std::optional(bytes(list_[i].used)) : std::nullopt});
    }
  }

  void read(void* device, GpuSample& g) {
    memory(device, g);
    if (g.lost) return;
    if (nvml::Utilization u{}; f_.utilization != nullptr && f_.utilization(device, &u) == nvml::kSuccess) {
      g.utilization = u.gpu / 100.0;
      g.memory_utilization = u.memory / 100.0;
    }
    g.power_watts = milliwatts(ask(f_.power, device));
    g.power_limit_watts = milliwatts(ask(f_.power_limit, device));
    if (const auto t = ask(f_.temperature, device, 0)) g.temperature_c = *t;
    g.sm_clock_mhz = ask(f_.clock, device, kClockSm);
    g.memory_clock_mhz = ask(f_.clock, device, kClockMemory);
    if (unsigned long long bits = 0; f_.throttle != nullptr && f_.throttle(device, &bits) == nvml::kSuccess) g.throttle = bits;
    g.pcie_generation = whole(ask(f_.pcie_generation, device));
    g.pcie_width = whole(ask(f_.pcie_width, device));
    process_list(device, g);
  }

  Library lib_;
  Functions f_{lib_};
  bool started_ = false;
  std::vector<Device> devices_;
  std::vector<nvml::Process> list_{64};
};

}  // namespace

// A static binary shares no C library with the driver's: where the two do not agree, loading it can end the process. So a child tries first. musl loads nothing into one.
bool nvml::loads_safely() {
#if !defined(DRYFIT_STATIC_BINARY) || !defined(__linux__)
  return true;
#elif !defined(__GLIBC__)
  return false;
#else
  static const bool safe = [] {
    const pid_t child = fork();
    if (child < 0) return false;
    if (child == 0) {
      signal(SIGSEGV, SIG_DFL);
      signal(SIGABRT, SIG_DFL);
      alarm(10);
      Library lib;
      if (lib.loaded()) {
        const auto init = lib.get<int (*)()>("nvmlInit_v2");
        const auto shutdown = lib.get<int (*)()>("nvmlShutdown");
        if (init != nullptr && init() == kSuccess && shutdown != nullptr) shutdown();
      }
      _exit(0);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status);
  }();
  return safe;
#endif
}

Result<std::unique_ptr<GpuSampler>> open_nvml_sampler() {
  if (!nvml::loads_safely()) return fail("no_gpu", "the NVIDIA driver's library does not load into this static binary", "build dryfit on this machine: ./dryfit.sh", "nvml");
  auto sampler = std::make_unique<NvmlSampler>();
  if (const auto ok = sampler->open(); !ok) return std::unexpected(ok.error());
  return sampler;
}

namespace {

class NvidiaSmiSampler final : public GpuSampler {
 public:
  Result<std::vector<GpuSample>> sample() override {
    const auto gpus = run_nvidia_smi((std::string("--query-gpu=") + kSampleFields).c_str());
    if (!gpus) return std::unexpected(gpus.error());
    const auto processes = run_nvidia_smi("--query-compute-apps=gpu_uuid,pid,used_memory");
    return parse_nvidia_smi_sample(*gpus, processes.value_or(""));
  }
  MachineSource source() const override { return MachineSource::nvidia_smi; }
  std::vector<std::string> notes() const override { return {"NVML cannot be loaded here: asking nvidia-smi, which costs more"}; }
};

class ProbeSampler final : public GpuSampler {
 public:
  explicit ProbeSampler(std::unique_ptr<GpuProbe> probe) : probe_(std::move(probe)) {}
  Result<std::vector<GpuSample>> sample() override {
    const auto result = probe_->read();
    if (!result) return std::unexpected(result.error());
    source_ = result->source;
    std::vector<GpuSample> out;
    for (const GpuReading& r : result->gpus) {
      if (r.mig_parent) continue;
      GpuSample g;
      g.index = r.index, g.name = r.name, g.uuid = r.uuid, g.mig = r.mig_slice;
      g.total = r.total, g.reserved = r.reserved, g.used = r.used, g.free = r.free;
      g.compute_major = r.compute_major, g.compute_minor = r.compute_minor, g.utilization = r.utilization;
      out.push_back(std::move(g));
    }
    return out;
  }
  MachineSource source() const override { return source_; }
  std::vector<std::string> notes() const override { return {"this source tells memory and utilization only"}; }

 private:
  std::unique_ptr<GpuProbe> probe_;
  MachineSource source_ = MachineSource::recorded;
};

template <class S>
Result<std::unique_ptr<GpuSampler>> tried(std::unique_ptr<S> sampler) {
  if (const auto first = sampler->sample(); !first) return std::unexpected(first.error());
  return sampler;
}

}  // namespace

Result<std::unique_ptr<GpuSampler>> open_nvidia_smi_sampler() { return tried(std::make_unique<NvidiaSmiSampler>()); }
Result<std::unique_ptr<GpuSampler>> open_probe_sampler(std::unique_ptr<GpuProbe> probe) { return tried(std::make_unique<ProbeSampler>(std::move(probe))); }

Result<std::unique_ptr<GpuSampler>> open_sampler() {
  const char* recorded = std::getenv("DRYFIT_PROBE");
  if (recorded != nullptr && *recorded != '\0') return open_probe_sampler(make_recorded_probe(recorded));
  auto first = open_nvml_sampler();
  if (first) return first;
  if (auto next = open_nvidia_smi_sampler()) return next;
  if (auto next = open_probe_sampler(make_nvidia_smi_probe())) return next;  // a driver too old for the long query
  if (auto next = open_probe_sampler(make_sysfs_probe("/sys"))) return next;
  return first;
}

}  // namespace dryfit
