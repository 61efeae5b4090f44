// Rates: what one GPU was measured to reach, or what its architecture lets expect. Every figure with its source in docs/speed.md and
// data/gpu_rates.csv; none is taken from the training runs that the accuracy is judged on.
#pragma once

#include <optional>

#include "base/dtype.hpp"
#include "machine/machine.hpp"
#include "workload/workload.hpp"

namespace dryfit {

struct GpuRates {
  double bf16_peak = 0;              // FLOP/s as sold, dense
  double bf16_gemm = 0;              // FLOP/s of the best matrix product: bf16 and fp16 operands
  double fp8_gemm = 0;               // 0: no fp8
  double fp32_gemm = 0;              // as PyTorch runs it under "high" precision: TF32 from compute capability 8.0
  bool gemm_measured = false;        // else the architecture's usual share of the peak
  double fp32_cores = 0;             // the same as PyTorch runs it unless asked otherwise ("highest"): on the CUDA cores
  double bandwidth = 0;              // bytes/s that streaming kernels reach
  double reducing_bandwidth = 0;     // bytes/s that fused kernels with a reduction reach
  double full_bandwidth = 0;         // as sold
  int sms = 1;
  int major = 8, minor = 0;
  double clock = 0;                  // Hz, boosted: from the fp32 rate and SMs
  double link = 0;                   // bytes/s per direction and GPU that ring collectives reach; 0: unknown
  int link_gpus = 8;                 // GPUs that this link joins
  double attention_forward = 1, attention_backward = 1;  // of attention_rate: below 1 for kernels that are slower than those it knows
};

// Empty where the catalogue does not tell the peak or the bandwidth, and for other vendors.
std::optional<GpuRates> rates_of(const GpuKind& gpu);

double gemm_rate(const GpuRates& rates, Dtype operands);

// FLOP/s of an attention kernel with head size 128 on long sequences, of every score it computes (masked-out blocks left out).
double attention_rate(const GpuRates& rates, Attention kind, bool backward, Dtype operands);

}  // namespace dryfit
