// See outside.hpp. In MiB: what a process held beyond the pool, per GPU generation, and what a communicator adds.
#include "memory/outside.hpp"

#include "base/text.hpp"

namespace dryfit {

namespace {

OutsideMemory range(int low, int middle, int high) { return {mib(low), mib(middle), mib(high)}; }

// Wheels from PyPI are built with CUDA 13 from torch 2.11 on.
bool has_cuda13(std::string_view torch) { return version_from(torch, 2, 11); }

}  // namespace

OutsideMemory context_memory(int compute_major, int compute_minor, std::string_view torch) {
  if (compute_major == 7 && compute_minor == 5) return range(110, 145, 205);   // T4, 2080 Ti
  if (compute_major == 7) return range(300, 500, 820);                         // V100
  if (compute_major == 8 && compute_minor == 0) return range(490, 535, 645);   // A100
  if (compute_major == 8) return range(255, 420, 615);                         // RTX 30, RTX 40, A6000, L40S
  if (compute_major == 9 && has_cuda13(torch)) return range(720, 758, 790);    // H100: 744 to 776 in 53 runs of our own; 128 of it cuBLAS' own for two threads
  if (compute_major == 9) return range(510, 580, 665);                         // H100, H200
  if (compute_major >= 10) return range(305, 500, 680);                        // Blackwell
  return range(250, 400, 620);                                                 // unknown: as GeForce cards
}

OutsideMemory nccl_memory(std::int64_t world_size) {
  if (world_size <= 1) return range(0, 0, 0);
  return world_size == 2 ? range(130, 400, 560) : range(400, 690, 1090);
}

OutsideMemory outside_memory(int compute_major, int compute_minor, std::int64_t world_size, std::string_view torch) {
  return context_memory(compute_major, compute_minor, torch) + nccl_memory(world_size);
}

}  // namespace dryfit
