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

// bitsandbytes functional.py dequantize_4bit, to the dtype that was quantised first, and the cast of its result to the product's.
Tensor Tape::dequantized(Dims weight, Dtype first, Dtype dtype, bool nested, const char* role) {
  Tensor full;
  {
    Tensor scales;
    if (nested) scales = scratch("quant.scales", eager::dims({ceil_div(weight.numel(), 64)}, false), Dtype::fp32);
    full = scratch(role, weight, first);
  }
  tell_traffic(role, static_cast<double>(weight.numel()) * (0.5 + 4.0 / 64 + static_cast<double>(size_of(full.dtype()))));  // 4 bits, a scale for 64
  if (full.dtype() != dtype) full = scratch(role, weight, dtype);
  return full;
}

Tensor Tape::linear_4bit(const Tensor& x, const Tensor& packed, Dims weight, const char* role, FourBit how) {
  const Dims d = x.dims();
  Tensor out;
  const Dtype made = autocast_ && x.dtype() == Dtype::fp32 ? *autocast_ : x.dtype();  // by a product of 16-bit copies of both
  {
    Tensor half_x, half_weight;  // what is dequantised goes first, the input's copy last
    const Tensor full = dequantized(weight, how.via_half ? Dtype::fp16 : x.dtype(), x.dtype(), how.nested, role);
    Dims o = d;
    o.size[d.rank - 1U] = weight.size[0];
    if (made != x.dtype()) half_weight = scratch(role, weight, made), half_x = scratch(role, like(d), made);
    out = empty(role, eager::contiguous(o), made);
    multiplied();
  }
  const std::int32_t n = record(Rule::quantized, {x}, role);
  if (n >= 0) {
    save(n, packed);
    node(n).detail = weight.size[0] * 4 + (how.via_half ? 1 : 0) + (how.nested ? 2 : 0);
    if (how.holds_input) {
      keep_storage(value(x).storage);
      node(n).held.push_back(value(x).storage);
    }
  }
  return to(attach(std::move(out), n), x.dtype(), role);
}

}  // namespace dryfit::eager
