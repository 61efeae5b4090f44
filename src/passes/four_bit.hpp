// bitsandbytes' Params4bit as tensors of the tape: packed values and what scales them. No products (Tape::linear_4bit).
#pragma once

#include <vector>

#include "passes/eager.hpp"

namespace dryfit::eager {

struct Packed {
  Tensor values;                 // uint8 [n/2, 1]
  std::vector<Tensor> scales;    // fp32 for every 64 values; when nested 8 bits, with scales of their own for every 256
  std::int64_t bytes = 0;        // of all
};

// count: elements of the weight.
Packed pack_4bit(Tape& tape, const char* role, std::int64_t count, bool nested);

}  // namespace dryfit::eager
