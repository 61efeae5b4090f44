// What the gradient of an embedding's table takes beside itself. Source: aten/src/ATen/native/cuda/Embedding.cu and EmbeddingBackwardKernel.cu of PyTorch.
#pragma once

#include <algorithm>
#include <cstdint>

namespace dryfit {

constexpr std::int64_t kUnsortedIds = 3072;  // the most whose gradients are summed without sorting them

struct SortedGradients {
  std::int64_t segments;  // ids that differ, at most
  std::int64_t partials;  // partial sums, rows in fp32: one a segment, and one more for every ten ids
};
constexpr SortedGradients sorted_gradients(std::int64_t ids, std::int64_t rows) {
  const std::int64_t segments = std::min(ids, rows);
  return {segments, ids / 10 + segments};
}

}  // namespace dryfit
