// Stride arithmetic of ATen. See strided.hpp.
#include "passes/strided.hpp"

#include <algorithm>
#include <utility>

namespace dryfit::eager {

namespace {

std::size_t axis(const Dims& d, int i) { return static_cast<std::size_t>(i < 0 ? i + d.rank : i); }

// TensorIterator's comparison of two dimensions: > 0 when they stand in the wrong order, 0 when no operand decides.
int should_swap(std::span<const Dims> operands, std::size_t dim0, std::size_t dim1) {
  for (const Dims& o : operands) {
    const std::int64_t s0 = o.stride[dim0], s1 = o.stride[dim1];
    if (s0 == 0 || s1 == 0) continue;
    if (s0 < s1) return -1;
    if (s0 > s1) return 1;
    if (o.size[dim0] > o.size[dim1]) return 1;
  }
  return 0;
}

// Dimensions from the fastest to the slowest, as the operands (all of one rank) suggest.
std::array<std::size_t, 5> order_of(std::span<const Dims> operands, std::size_t rank) {
  std::array<std::size_t, 5> perm{};
  for (std::size_t i = 0; i < rank; ++i) perm[i] = rank - 1 - i;
  for (std::size_t i = 1; i < rank; ++i) {
    std::size_t dim1 = i;
    for (std::size_t dim0 = i; dim0-- > 0;) {
      const int comparison = should_swap(operands, perm[dim0], perm[dim1]);
      if (comparison > 0) {
        std::swap(perm[dim0], perm[dim1]);
        dim1 = dim0;
      } else if (comparison < 0) {
        break;
      }
    }
  }
  return perm;
}

Dims ordered(Dims d, const std::array<std::size_t, 5>& perm) {
  std::int64_t step = 1;
  for (std::size_t i = 0; i < d.rank; ++i) {
    d.stride[perm[i]] = step;
    step *= d.size[perm[i]];
  }
  return d;
}

}  // namespace

Dims contiguous(Dims d) {
  std::int64_t step = 1;
  for (std::size_t i = d.rank; i-- > 0;) {
    d.stride[i] = step;
    step *= std::max<std::int64_t>(d.size[i], 1);
  }
  return d;
}

Dims dims(std::span<const std::int64_t> sizes, bool batched) {
  Dims d;
  for (std::int64_t s : sizes) d.size[d.rank++] = s;
  d.batched = batched;
  return contiguous(d);
}

bool is_contiguous(const Dims& d) {
  std::int64_t step = 1;
  for (std::size_t i = d.rank; i-- > 0;) {
    if (d.size[i] == 1) continue;
    if (d.stride[i] != step) return false;
    step *= d.size[i];
  }
  return true;
}

bool is_dense(const Dims& d) {
  std::int64_t step = 1;
  std::array<bool, 5> taken{};
  for (std::size_t n = 0; n < d.rank; ++n) {  // the axis whose stride is the product of those already taken
    for (std::size_t i = 0; i < d.rank; ++i) {
      if (taken[i] || (d.size[i] != 1 && d.stride[i] != step)) continue;
      taken[i] = true;
      step *= d.size[i];
      break;
    }
  }
  return std::ranges::all_of(std::span(taken).first(d.rank), [](bool t) { return t; });
}

Dims swapped(Dims d, int a, int b) {
  std::swap(d.size[axis(d, a)], d.size[axis(d, b)]);
  std::swap(d.stride[axis(d, a)], d.stride[axis(d, b)]);
  return d;
}

Dims expanded(const Dims& d, const Dims& to) {
  Dims out = to;
  for (std::size_t i = 0; i < to.rank; ++i) {
    const std::size_t lead = static_cast<std::size_t>(to.rank - d.rank);
    out.stride[i] = i < lead || (d.size[i - lead] == 1 && to.size[i] != 1) ? 0 : d.stride[i - lead];
  }
  return out;
}

Dims narrowed(Dims d, int dim, std::int64_t length) {
  d.size[axis(d, dim)] = length;
  return d;
}

std::optional<Dims> viewed(const Dims& from, const Dims& to) {
  Dims out = to;
  if (from.numel() == 0) return contiguous(to);
  std::ptrdiff_t view = static_cast<std::ptrdiff_t>(to.rank) - 1;
  std::int64_t chunk_stride = from.rank == 0 ? 1 : from.stride[from.rank - 1U];
  std::int64_t tensor_numel = 1, view_numel = 1;
  for (std::ptrdiff_t d = static_cast<std::ptrdiff_t>(from.rank) - 1; d >= 0; --d) {
    const auto i = static_cast<std::size_t>(d);
    tensor_numel *= from.size[i];
    if (d != 0 && (from.size[i - 1] == 1 || from.stride[i - 1] == tensor_numel * chunk_stride)) continue;
    while (view >= 0 && (view_numel < tensor_numel || to.size[static_cast<std::size_t>(view)] == 1)) {
      out.stride[static_cast<std::size_t>(view)] = view_numel * chunk_stride;
      view_numel *= to.size[static_cast<std::size_t>(view)];
      --view;
    }
    if (view_numel != tensor_numel) return std::nullopt;
    if (d > 0) {
      chunk_stride = from.stride[i - 1];
      tensor_numel = view_numel = 1;
    }
  }
  if (from.rank == 0) return contiguous(to);
  return view == -1 ? std::optional(out) : std::nullopt;
}

Dims pointwise_result(std::span<const Dims> operands) {
  const Dims& first = operands.front();
  const auto as_first = [&](const Dims& o) { return o.rank == first.rank && o.batched == first.batched && o.size == first.size && o.stride == first.stride; };
  if (std::ranges::all_of(operands.subspan(1), as_first) && contiguous(first).stride == first.stride) return first;  // what all below comes to
  Dims out;
  for (const Dims& o : operands) {
    out.rank = std::max(out.rank, o.rank);
    out.batched = out.batched || o.batched;
  }
  std::array<Dims, 4> wide;
  for (std::size_t i = 0; i < out.rank; ++i) {
    out.size[i] = 1;
    for (const Dims& o : operands) {
      const std::size_t lead = static_cast<std::size_t>(out.rank - o.rank);
      if (i >= lead && o.size[i - lead] != 1) out.size[i] = o.size[i - lead];
    }
  }
  const std::size_t count = std::min<std::size_t>(operands.size(), wide.size());
  for (std::size_t i = 0; i < count; ++i) wide[i] = expanded(operands[i], out);
  return ordered(out, order_of(std::span(wide).first(count), out.rank));
}

Dims like(const Dims& d) { return is_dense(d) ? d : ordered(d, order_of(std::span(&d, 1), d.rank)); }

Shape shown(const Dims& d) {
  Shape s;
  s.batched = d.batched;
  const std::size_t joined = d.rank == 5 ? 1 : 0;
  for (std::size_t i = joined; i < d.rank; ++i) s.dim[s.rank++] = i == joined && joined == 1 ? d.size[0] * d.size[1] : d.size[i];
  if (s.rank == 0) s.dim[s.rank++] = 1;
  return s;
}

}  // namespace dryfit::eager
