// Dtype: element types as PyTorch names them in short, and their sizes.
#pragma once

#include <cstdint>
#include <string_view>

namespace dryfit {

enum class Dtype : std::uint8_t { fp32, bf16, fp16, fp8_e4m3, fp8_e5m2, int64, int32, uint8, bool8, fp64 };

constexpr std::int64_t size_of(Dtype d) {
  switch (d) {
    case Dtype::fp32:
    case Dtype::int32: return 4;
    case Dtype::bf16:
    case Dtype::fp16: return 2;
    case Dtype::int64:
    case Dtype::fp64: return 8;
    case Dtype::fp8_e4m3:
    case Dtype::fp8_e5m2:
    case Dtype::uint8:
    case Dtype::bool8: return 1;
  }
  return 0;
}

constexpr std::string_view name_of(Dtype d) {
  switch (d) {
    case Dtype::fp32: return "fp32";
    case Dtype::bf16: return "bf16";
    case Dtype::fp16: return "fp16";
    case Dtype::fp8_e4m3: return "fp8_e4m3";
    case Dtype::fp8_e5m2: return "fp8_e5m2";
    case Dtype::int64: return "int64";
    case Dtype::int32: return "int32";
    case Dtype::uint8: return "uint8";
    case Dtype::bool8: return "bool";
    case Dtype::fp64: return "fp64";
  }
  return "";
}

}  // namespace dryfit
