// nvidia-smi's CSV of one moment to samples. Any input; fields it does not know are empty.
#include <algorithm>

#include "base/text.hpp"
#include "machine/sampler.hpp"

namespace dryfit {

const char* const kSampleFields =
    "index,name,uuid,memory.total,memory.reserved,memory.used,memory.free,compute_cap,utilization.gpu,utilization.memory,power.draw,enforced.power.limit,temperature.gpu,"
    "clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,clocks_throttle_reasons.active,pcie.link.gen.current,pcie.link.gen.max,pcie.link.width.current,pcie.link.width.max";

namespace {

constexpr std::size_t kFields = 22, kMostGpus = 1024, kMostProcesses = 65536;

std::optional<Bytes> mebibytes(std::string_view text) {
  const auto n = parse_int(text, "");
  return n && *n >= 0 && *n < (std::int64_t{1} << 40) ? std::optional(mib(*n)) : std::nullopt;
}
std::optional<double> real(std::string_view text, double scale = 1) {
  const auto x = parse_real(text, "");
  return x && *x >= 0 ? std::optional(*x * scale) : std::nullopt;
}
std::optional<int> small(std::string_view text) {
  const auto n = parse_int(text, "");
  return n && *n >= 0 && *n < 1'000'000 ? std::optional(static_cast<int>(*n)) : std::nullopt;
}
std::optional<std::uint64_t> hexadecimal(std::string_view text) {
  if (!text.starts_with("0x") || text.size() < 3 || text.size() > 18) return std::nullopt;
  std::uint64_t out = 0;
  for (char c : to_lower(text.substr(2))) {
    const bool digit = is_digit(c);
    if (!digit && !(c >= 'a' && c <= 'f')) return std::nullopt;
    out = out * 16 + static_cast<std::uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return out;
}

std::optional<GpuSample> gpu(std::string_view line) {
  std::vector<std::string_view> f = split(line, ',');
  if (f.size() != kFields) return std::nullopt;
  for (auto& field : f) field = trim(field);
  const auto index = small(f[0]);
  if (!index) return std::nullopt;
  GpuSample g;
  g.index = *index;
  g.name = f[1].substr(0, 96);
  g.uuid = f[2].substr(0, 96);
  g.total = mebibytes(f[3]);
  g.reserved = mebibytes(f[4]);
  g.used = mebibytes(f[5]);
  g.free = mebibytes(f[6]);
  const auto capability = split(f[7], '.');
  if (capability.size() == 2) g.compute_major = small(capability[0]), g.compute_minor = small(capability[1]);
  g.utilization = real(f[8], 0.01);
  g.memory_utilization = real(f[9], 0.01);
  g.power_watts = real(f[10]);
  g.power_limit_watts = real(f[11]);
  g.temperature_c = real(f[12]);
  g.sm_clock_mhz = small(f[13]);
  g.sm_clock_max_mhz = small(f[14]);
  g.memory_clock_mhz = small(f[15]);
  g.memory_clock_max_mhz = small(f[16]);
  g.throttle = hexadecimal(f[17]);
  g.pcie_generation = small(f[18]);
  g.pcie_generation_max = small(f[19]);
  g.pcie_width = small(f[20]);
  g.pcie_width_max = small(f[21]);
  g.processes.emplace();
  return g;
}

}  // namespace

Result<std::vector<GpuSample>> parse_nvidia_smi_sample(std::string_view gpus, std::string_view processes) {
  std::vector<GpuSample> out;
  for (std::string_view line : split(gpus, '\n')) {
    if (auto g = gpu(trim(line)); g && out.size() < kMostGpus) out.push_back(std::move(*g));
  }
  if (out.empty()) return fail("no_gpu", "nvidia-smi tells of no GPU: " + std::string(trim(gpus.substr(0, std::min<std::size_t>(gpus.find('\n'), 100)))), "is the driver running? try: nvidia-smi", "nvidia-smi");
  std::size_t seen = 0;
  for (std::string_view line : split(processes, '\n')) {
    const auto f = split(line, ',');
    if (f.size() != 3) continue;
    const auto pid = parse_int(trim(f[1]), "");
    const auto at = std::ranges::find(out, trim(f[0]), &GpuSample::uuid);
    if (!pid || *pid <= 0 || at == out.end() || ++seen > kMostProcesses) continue;
    at->processes->push_back({*pid, mebibytes(trim(f[2]))});
  }
  return out;
}

}  // namespace dryfit
