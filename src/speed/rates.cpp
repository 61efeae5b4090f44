// See rates.hpp. Sources of each constant: docs/speed.md.
#include "speed/rates.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/embedded.hpp"
#include "base/text.hpp"

namespace dryfit {

namespace {

constexpr double kTera = 1e12, kGiga = 1e9;
constexpr double kStream = 0.9;       // of the bandwidth as sold: refresh, and turning between reading and writing
constexpr double kReducing = 2.0e12 / 132;  // bytes/s and SM of the reductions that torch.compile writes, seen on the H100
constexpr double kRing = 0.8;         // of one direction of NVLink
constexpr double kThroughHost = 0.35; // of PCIe: every hop is written to the host's memory and read back

struct Measured { int sms = 0; double bf16 = 0, fp8 = 0, nvlink = 0, pcie = 0; };

Measured measured(std::string_view name) {
  for (std::string_view line : split(embedded_gpu_rates_csv, '\n')) {
    if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != ',') continue;
    const auto f = split(line, ',');
    if (f.size() < 6) continue;
    const auto number = [&](std::size_t i) { return f[i].empty() ? 0 : parse_real(f[i], "data/gpu_rates.csv").value_or(0); };
    return {static_cast<int>(number(1)), number(2) * kTera, number(3) * kTera, number(4) * kGiga, number(5) * kGiga};
  }
  return {};
}

// Share of the peak where nobody measured this very card: the middle of the measured cards of its kind.
double usual_share(const GpuKind& gpu) {
  const bool geforce = gpu.name.find("GeForce") != std::string::npos;
  switch (gpu.compute_major * 10 + gpu.compute_minor) {
    case 70: return 0.76;
    case 75: return 0.65;
    case 80: return 0.86;
    case 86: return geforce ? 1.07 : 0.81;
    case 89: return geforce ? 1.02 : 0.75;
    case 90: return 0.8;
    case 100:
    case 103: return 0.78;
    case 120: return geforce ? 1.05 : 0.82;
    default: return 0.8;
  }
}

}  // namespace

std::optional<GpuRates> rates_of(const GpuKind& gpu) {
  if (gpu.vendor != "NVIDIA" || gpu.compute_major < 7 || !gpu.bandwidth_gb_s || !gpu.fp32_tflops) return std::nullopt;
  const Measured m = measured(gpu.name);
  GpuRates r;
  r.major = gpu.compute_major;
  r.minor = gpu.compute_minor;
  r.bf16_peak = gpu.bf16_tflops.value_or(0) * kTera;
  const double tensor = r.bf16_peak > 0 ? r.bf16_peak : gpu.fp16_tflops.value_or(0) * kTera;
  r.gemm_measured = m.bf16 > 0;
  r.bf16_gemm = m.bf16 > 0 ? m.bf16 : tensor * usual_share(gpu);
  // where fp8 was measured it reached 0.88 of bf16's share
  constexpr double kFp8Share = 0.88;
  if (gpu.fp8_tflops && tensor > 0) r.fp8_gemm = m.fp8 > 0 ? m.fp8 : *gpu.fp8_tflops * kTera * kFp8Share * std::min(1.0, r.bf16_gemm / tensor);
  constexpr double kCudaCores = 0.85;
  r.fp32_cores = *gpu.fp32_tflops * kTera * kCudaCores;
  r.fp32_gemm = gpu.compute_major >= 8 && r.bf16_gemm > 0 ? r.bf16_gemm / 2 : r.fp32_cores;
  r.full_bandwidth = *gpu.bandwidth_gb_s * kGiga;
  r.bandwidth = r.full_bandwidth * kStream;
  constexpr double kUsualClock = 1.75e9;
  r.sms = m.sms > 0 ? m.sms : std::max(1, static_cast<int>(std::lround(*gpu.fp32_tflops * kTera / (2 * 128 * kUsualClock))));
  const int lanes = r.major == 7 || (r.major == 8 && r.minor == 0) ? 64 : 128;  // fp32 units of an SM
  r.clock = *gpu.fp32_tflops * kTera / (2.0 * lanes * r.sms);
  r.reducing_bandwidth = std::min(r.bandwidth, kReducing * r.sms);
  r.link = m.nvlink > 0 ? m.nvlink / 2 * kRing : m.pcie * kThroughHost;
  return r;
}

double gemm_rate(const GpuRates& r, Dtype operands) {
  switch (operands) {
    case Dtype::fp8_e4m3:
    case Dtype::fp8_e5m2: return r.fp8_gemm > 0 ? r.fp8_gemm : r.bf16_gemm;
    case Dtype::fp32: return r.fp32_gemm;
    default: return r.bf16_gemm;
  }
}

// What a kernel was published to reach on one GPU, and which rate of products its instructions have there.
struct Published { double forward, backward, gemm, lanes; };  // FLOP/s, FLOP/s, FLOP/s, SMs x Hz
constexpr double kOldInstructions = 0.63 * 4096;  // FLOP a clock and SM: Hopper's tensor cores, driven by the instructions of Ampere
constexpr double kA100 = 108 * 1.41e9, kH100 = 132 * 1.98e9;
constexpr Published kFlashA100{0.72 * 312e12, 0.63 * 312e12, 271.2e12, kA100}, kMaskedA100{0.33 * 312e12, 0.25 * 312e12, 271.2e12, kA100};
constexpr Published kFlashH100{370e12, 322e12, kOldInstructions * kH100, kH100}, kFlash3H100{648e12, 561e12, 794.5e12, kH100};

// A score of one query and key at head size h takes 4 h FLOP forward, 10 h backward. What a kernel needs beyond its products is taken as
// a number of clocks per score and SM: exponentials, sums, waiting; another GPU spends as many.
double attention_rate(const GpuRates& r, Attention kind, bool backward, Dtype operands) {
  const double lanes = r.clock * r.sms;
  double gemm = gemm_rate(r, operands);
  if (kind == Attention::math) return gemm;
  const bool newer = r.major == 9 || r.major == 10;
  const Published& p = kind == Attention::efficient ? kMaskedA100 : kind == Attention::fa3 && r.major == 9 ? kFlash3H100 : newer ? kFlashH100 : kFlashA100;
  if (newer && !(kind == Attention::fa3 && r.major == 9)) gemm = std::min(gemm, kOldInstructions * lanes);
  constexpr double kHead = 128;
  const double flops = (backward ? 10 : 4) * kHead;
  const double extra = flops * p.lanes * (1 / (backward ? p.backward : p.forward) - 1 / p.gemm);
  return flops / (flops / (gemm / lanes) + extra) * lanes * (backward ? r.attention_backward : r.attention_forward);
}

}  // namespace dryfit
