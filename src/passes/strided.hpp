// Sizes and strides of a dense tensor as ATen keeps them: what is a view and what must be copied. No memory, no autograd.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>

#include "base/bytes.hpp"
#include "graph/graph.hpp"

namespace dryfit::eager {

// Up to five dimensions (repeat_kv has five). `batched`: the element count is proportional to the device batch.
struct Dims {
  std::array<std::int64_t, 5> size{}, stride{};
  std::uint8_t rank = 0;
  bool batched = false;
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (std::uint8_t i = 0; i < rank; ++i) n *= size[i];
    return n;
  }
  std::int64_t back() const { return rank == 0 ? 1 : size[rank - 1U]; }
  std::int64_t elements_in(std::int64_t parts) const {     // whose first dimension is rounded up to a multiple of `parts`
    const std::int64_t rows = rank == 0 ? 1 : size[0];
    return numel() / std::max<std::int64_t>(1, rows) * round_up(rows, parts);
  }
  bool same_sizes(const Dims& o) const { return rank == o.rank && size == o.size; }
};

Dims contiguous(Dims d);                                   // the same sizes, row-major strides
Dims dims(std::span<const std::int64_t> sizes, bool batched);
inline Dims dims(std::initializer_list<std::int64_t> sizes, bool batched) { return dims(std::span(sizes.begin(), sizes.size()), batched); }
bool is_contiguous(const Dims& d);
bool is_dense(const Dims& d);                              // non-overlapping and dense: some permutation of row-major
Dims swapped(Dims d, int a, int b);                        // transpose(a, b); negative counts from the end
Dims expanded(const Dims& d, const Dims& to);              // d broadcast to the sizes of `to`
Dims narrowed(Dims d, int dim, std::int64_t length);
// The strides that make `to` a view of `from`, or none: then reshape copies. aten/src/ATen/TensorUtils.cpp computeStride.
std::optional<Dims> viewed(const Dims& from, const Dims& to);
// Sizes broadcast together, strides in the order TensorIterator chooses (aten/src/ATen/TensorIterator.cpp reorder_dimensions).
Dims pointwise_result(std::span<const Dims> operands);
// empty_like with the preserve format.
Dims like(const Dims& d);
// As TensorInfo shows it: four dimensions, the first two joined where there are five.
Shape shown(const Dims& d);

}  // namespace dryfit::eager
