// See outside.hpp. In MiB: what a process held beyond the pool, per GPU generation, and what a communicator adds.
#include "memory/outside.hpp"

namespace dryfit {

OutsideMemory outside_memory(int compute_major, int compute_minor, std::int64_t world_size) {
  struct Range { int low, middle, high; };
  Range context{250, 400, 620};                                       // unknown: as GeForce cards
  if (compute_major == 7 && compute_minor == 5) context = {110, 145, 205};   // T4, 2080 Ti
  else if (compute_major == 7) context = {300, 500, 820};                    // V100
  else if (compute_major == 8 && compute_minor == 0) context = {490, 535, 645};  // A100
  else if (compute_major == 8) context = {255, 420, 615};                    // RTX 30, RTX 40, A6000, L40S
  else if (compute_major == 9) context = {510, 580, 665};                    // H100, H200
  else if (compute_major >= 10) context = {305, 500, 680};                   // Blackwell
  Range nccl{0, 0, 0};
  if (world_size == 2) nccl = {130, 400, 560};
  else if (world_size > 2) nccl = {400, 690, 1090};
  return {mib(context.low + nccl.low), mib(context.middle + nccl.middle), mib(context.high + nccl.high)};
}

}  // namespace dryfit
