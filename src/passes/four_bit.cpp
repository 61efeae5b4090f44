// See four_bit.hpp. Source: bitsandbytes 0.41 to 0.48 functional.py quantize_4bit: blocks of 64, nested blocks of 256, code books of 16 and 256.
#include "passes/four_bit.hpp"

namespace dryfit::eager {

Packed pack_4bit(Tape& tape, const char* role, std::int64_t count, bool nested) {
  Packed out;
  const Category before = tape.category();
  tape.category(Category::weights);
  const auto buffer = [&](const char* name, std::int64_t n, Dtype d) {
    out.scales.push_back(tape.empty(name, dims({n}, false), d));
    out.bytes += n * size_of(d);
  };
  const std::int64_t packed = ceil_div(count, 2), scales = ceil_div(count, 64);
  out.values = tape.empty(role, dims({packed, 1}, false), Dtype::uint8);
  out.bytes += packed;
  if (nested) {
    buffer("quant.absmax", scales, Dtype::uint8);
    buffer("quant.absmax_scale", ceil_div(scales, 256), Dtype::fp32);
    buffer("quant.nested_code", 256, Dtype::fp32);
    buffer("quant.offset", 1, Dtype::fp32);
  } else {
    buffer("quant.absmax", scales, Dtype::fp32);
  }
  buffer("quant.code", 16, Dtype::fp32);
  tape.category(before);
  return out;
}

}  // namespace dryfit::eager
