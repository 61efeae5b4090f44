// Probes that touch the machine: NVML by dlopen, nvidia-smi as a child process, AMD's sysfs, a recorded file.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "base/text.hpp"
#include "machine/probe.hpp"
#include "machine/probe_nvml_library.hpp"
#include "machine/probe_os.hpp"
#include "machine/sampler.hpp"

namespace dryfit {

namespace {

std::unexpected<Error> no_gpu(std::string message, std::string where) {
  return fail("no_gpu", std::move(message), "name the GPU instead: --gpu \"RTX 4090\", or its memory: --memory 24GiB", std::move(where));
}

std::optional<Bytes> host_available() {
  std::ifstream in("/proc/meminfo");
  std::string key, unit;
  std::int64_t kilobytes = 0;
  while (in >> key >> kilobytes) {
    if (key == "MemAvailable:") return kib(kilobytes);
    std::getline(in, unit);
  }
  return std::nullopt;
}

// ---- NVML
using nvml::kNotSupported, nvml::Library, nvml::MemoryV1, nvml::MemoryV2;

class NvmlProbe final : public GpuProbe {
 public:
  Result<ProbeResult> read() override {
    if (!nvml::loads_safely()) return no_gpu("no NVIDIA driver here, as far as nvidia-smi tells (its library does not load into this static binary)", "nvml");
    Library lib;
    if (!lib.loaded()) return no_gpu("no NVIDIA driver here (" + std::string(nvml::kLibrary) + " is not installed)", "nvml");
    const auto init = lib.get<int (*)()>("nvmlInit_v2");
    const auto shutdown = lib.get<int (*)()>("nvmlShutdown");
    const auto count = lib.get<int (*)(unsigned*)>("nvmlDeviceGetCount_v2");
    const auto by_index = lib.get<int (*)(unsigned, void**)>("nvmlDeviceGetHandleByIndex_v2");
    if (init == nullptr || count == nullptr || by_index == nullptr) return no_gpu(std::string(nvml::kLibrary) + " is too old", "nvml");
    if (const int code = init(); code != 0) {
      if (code == 18) return fail("driver_mismatch", "the NVIDIA driver and its library have different versions", "reboot, or name the GPU: --gpu \"RTX 4090\"", "nvml");
      if (code == 4) return fail("no_permission", "no permission to ask the NVIDIA driver", "run as a user who may, or name the GPU: --gpu \"RTX 4090\"", "nvml");
      return no_gpu("the NVIDIA driver is not running (NVML error " + std::to_string(code) + ")", "nvml");
    }
    ProbeResult out;
    out.source = MachineSource::nvml;
    out.windows_memory_model = os::windows_manages_gpus();
    unsigned n = 0;
    if (count(&n) == 0) {
      for (unsigned i = 0; i < n; ++i) {
        void* device = nullptr;
        if (by_index(i, &device) != 0) {
          out.notes.push_back("GPU " + std::to_string(i) + " does not answer and is left out");
          continue;
        }
        read_device(lib, device, static_cast<int>(i), out);
      }
    }
    if (shutdown != nullptr) shutdown();
    out.host_available = host_available();
    if (out.gpus.empty()) return no_gpu("the NVIDIA driver knows no GPU", "nvml");
    return out;
  }

 private:
  static void read_memory(const Library& lib, void* device, GpuReading& g) {
    const auto v2 = lib.get<int (*)(void*, MemoryV2*)>("nvmlDeviceGetMemoryInfo_v2");
    const auto v1 = lib.get<int (*)(void*, MemoryV1*)>("nvmlDeviceGetMemoryInfo");
    MemoryV2 a{nvml::kMemoryV2, 0, 0, 0, 0};
    int code = v2 != nullptr ? v2(device, &a) : 13;
    if (code == 0) {
      g.total = Bytes(static_cast<std::int64_t>(a.total));
      g.reserved = Bytes(static_cast<std::int64_t>(a.reserved));
      g.used = Bytes(static_cast<std::int64_t>(a.used));
      g.free = Bytes(static_cast<std::int64_t>(a.free));
      return;
    }
    MemoryV1 b{};
    if (v1 != nullptr && code != kNotSupported) code = v1(device, &b);
    if (code == 0) {
      g.total = Bytes(static_cast<std::int64_t>(b.total));
      g.free = Bytes(static_cast<std::int64_t>(b.free));
    }
    g.unified = code == kNotSupported;
  }

  static void read_device(const Library& lib, void* device, int index, ProbeResult& out) {
    GpuReading g;
    g.index = index;
    char text[96] = {};
    if (const auto f = lib.get<int (*)(void*, char*, unsigned)>("nvmlDeviceGetName"); f != nullptr && f(device, text, sizeof text) == 0) g.name = text;
    if (const auto f = lib.get<int (*)(void*, char*, unsigned)>("nvmlDeviceGetUUID"); f != nullptr && f(device, text, sizeof text) == 0) g.uuid = text;
    int major = 0, minor = 0;
    if (const auto f = lib.get<int (*)(void*, int*, int*)>("nvmlDeviceGetCudaComputeCapability"); f != nullptr && f(device, &major, &minor) == 0) g.compute_major = major, g.compute_minor = minor;
    unsigned mig = 0, coming = 0;
    if (const auto f = lib.get<int (*)(void*, unsigned*, unsigned*)>("nvmlDeviceGetMigMode"); f != nullptr && f(device, &mig, &coming) == 0) g.mig_parent = mig == 1;
    read_memory(lib, device, g);
    if (g.mig_parent) read_slices(lib, device, g, out);
    out.gpus.push_back(g);
  }

  static void read_slices(const Library& lib, void* device, const GpuReading& parent, ProbeResult& out) {
    const auto most = lib.get<int (*)(void*, unsigned*)>("nvmlDeviceGetMaxMigDeviceCount");
    const auto slice = lib.get<int (*)(void*, unsigned, void**)>("nvmlDeviceGetMigDeviceHandleByIndex");
    unsigned n = 0;
    if (most == nullptr || slice == nullptr || most(device, &n) != 0) return;
    for (unsigned i = 0; i < n; ++i) {
      void* handle = nullptr;
      if (slice(device, i, &handle) != 0) continue;
      GpuReading g = parent;
      g.mig_parent = false;
      g.mig_slice = true;
      read_memory(lib, handle, g);
      out.gpus.push_back(g);
    }
  }
};

// ---- nvidia-smi: run without a shell, five seconds at most.
class NvidiaSmiProbe final : public GpuProbe {
 public:
  Result<ProbeResult> read() override {
    static const char* const kQueries[] = {
        "--query-gpu=index,name,uuid,pci.bus_id,memory.total,memory.reserved,memory.used,memory.free,compute_cap,utilization.gpu,mig.mode.current,ecc.mode.current,driver_version",
        "--query-gpu=index,name,memory.total,memory.used,driver_version"};
    Result<ProbeResult> last = no_gpu("nvidia-smi is not installed", "nvidia-smi");
    for (const char* query : kQueries) {
      const auto text = run_nvidia_smi(query);
      if (!text) return std::unexpected(text.error());
      last = parse_nvidia_smi(*text);
      if (last) {
        const bool mig = std::ranges::any_of(last->gpus, &GpuReading::mig_parent);
        if (mig) {  // only the table has the slices
          if (const auto table = run_nvidia_smi(nullptr)) {
            if (auto slices = parse_nvidia_smi(*table)) last = std::move(slices);
          }
        }
        last->windows_memory_model = last->windows_memory_model || os::windows_manages_gpus();
        last->host_available = host_available();
        return last;
      }
      if (text->find("not a valid field") == std::string::npos) break;
    }
    return last;
  }
};

// ---- AMD: /sys/class/drm/card*/device
class SysfsProbe final : public GpuProbe {
 public:
  explicit SysfsProbe(std::string root) : root_(std::move(root)) {}
  Result<ProbeResult> read() override {
    ProbeResult out;
    out.source = MachineSource::sysfs;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(root_ + "/class/drm", error)) {
      const std::string card = entry.path().filename().string();
      if (!card.starts_with("card") || card.find('-') != std::string::npos) continue;
      const std::string device = entry.path().string() + "/device/";
      const auto total = parse_int(line(device + "mem_info_vram_total"), "");
      if (line(device + "vendor") != "0x1002" || !total || *total < (std::int64_t{1} << 30)) continue;  // integrated GPUs are smaller
      GpuReading g;
      g.index = static_cast<int>(out.gpus.size());
      g.total = Bytes(*total);
      g.reserved = Bytes(0);
      if (const auto used = parse_int(line(device + "mem_info_vram_used"), "")) g.used = Bytes(*used);
      g.name = line(device + "product_name");
      if (g.name.empty()) g.name = "AMD GPU " + line(device + "device");
      out.gpus.push_back(std::move(g));
    }
    if (out.gpus.empty()) return no_gpu("no AMD GPU under " + root_, "sysfs");
    return out;
  }

 private:
  static std::string line(const std::string& path) {
    std::ifstream in(path);
    std::string text;
    std::getline(in, text);
    return std::string(trim(text));
  }
  std::string root_;
};

class RecordedProbe final : public GpuProbe {
 public:
  explicit RecordedProbe(std::string file) : file_(std::move(file)) {}
  Result<ProbeResult> read() override {
    std::ifstream in(file_, std::ios::binary);
    if (!in || std::filesystem::is_directory(file_)) return fail("unreadable_file", "cannot read the recorded probe '" + file_ + "'", "point DRYFIT_PROBE at a file with nvidia-smi output", "DRYFIT_PROBE");
    std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    auto result = parse_nvidia_smi(text);
    if (result) result->source = MachineSource::recorded;
    return result;
  }

 private:
  std::string file_;
};

class FirstOf final : public GpuProbe {
 public:
  Result<ProbeResult> read() override {
    auto first = make_nvml_probe()->read();
    if (first) return first;
    for (auto make : {make_nvidia_smi_probe, +[] { return make_sysfs_probe("/sys"); }}) {
      if (auto next = make()->read(); next) return next;
    }
    return first;
  }
};

}  // namespace

Result<std::string> run_nvidia_smi(const char* query) {
  const std::vector<std::string> words = query == nullptr ? std::vector<std::string>() : std::vector<std::string>{query, "--format=csv,noheader,nounits"};
  const auto text = os::output_of("nvidia-smi", words, 5, 1 << 20);
  if (!text) return no_gpu("nvidia-smi is not installed", "nvidia-smi");
  return *text;
}

std::unique_ptr<GpuProbe> make_nvml_probe() { return std::make_unique<NvmlProbe>(); }
std::unique_ptr<GpuProbe> make_nvidia_smi_probe() { return std::make_unique<NvidiaSmiProbe>(); }
std::unique_ptr<GpuProbe> make_sysfs_probe(std::string root) { return std::make_unique<SysfsProbe>(std::move(root)); }
std::unique_ptr<GpuProbe> make_recorded_probe(std::string file) { return std::make_unique<RecordedProbe>(std::move(file)); }
std::unique_ptr<GpuProbe> make_probe() {
  const char* recorded = std::getenv("DRYFIT_PROBE");
  if (recorded != nullptr && *recorded != '\0') return make_recorded_probe(recorded);
  return std::make_unique<FirstOf>();
}

}  // namespace dryfit
