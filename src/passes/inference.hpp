// The model that was not compiled, run without gradients, op by op: each op allocates its result, and a tensor dies with the last Python
// name that holds it (nanochat/gpt.py of the version). CORE, chat evaluations and sampling are made of it. Recorded:
// tests/golden/oracle (kinds `evaluation` and `sampling`). N tokens, D width, H heads, V vocabulary.
#pragma once

#include <cstdint>
#include <vector>

#include "passes/program.hpp"

namespace dryfit {

// Events on tensors of their own.
struct EagerForward { std::vector<TensorInfo> tensors; std::vector<Event> events; };

inline Bytes peak_of(const EagerForward& forward) { return peak_of(forward.tensors, forward.events); }

// From tensor `first` on, all but weights and masks have as many rows as the device batch, or a multiple: they grow with it.
void mark_batched(EagerForward& forward, std::size_t first);

class Inference {
 public:
  using Tensor = std::int32_t;

  // attention: resolved.
  Inference(const Workload& workload, Attention attention);

  // Autocast casts each Linear weight once and keeps the copies until its context ends.
  void enter_autocast();
  void leave_autocast();

  // The forward pass on `rows` sequences of `length` new tokens each; logits are handed out, everything else is gone.
  // cached: tokens that a cache holds already, with as many sequences; kNoCache where there is none.
  static constexpr std::int64_t kNoCache = -1;
  Tensor forward(std::int64_t rows, std::int64_t length, std::int64_t cached = kNoCache);

  Tensor make(const char* role, Dtype d, std::initializer_list<std::int64_t> dims, Category category = Category::activations);
  void drop(std::initializer_list<Tensor> gone);
  const TensorInfo& info(Tensor t) const { return out_.tensors[static_cast<std::size_t>(t)]; }
  std::size_t count() const { return out_.tensors.size(); }
  EagerForward take() { return std::move(out_); }

 private:
  Tensor make(const char* role, Dtype d, Shape s, Category category, int layer);
  Tensor wide(const char* role, std::int64_t width);
  Tensor linear(const char* role, std::int64_t in, std::int64_t out);
  Tensor norm(const char* role, std::int64_t width, std::int64_t statistics);
  Tensor rotate(const char* role);
  void block();
  Tensor attend(Tensor normed);
  void mlp(Tensor mid);
  Tensor head();
  Tensor linear_head(std::int64_t in);

  const Model& m_;
  const Run& run_;
  Attention attention_;
  std::int64_t rows_ = 0, length_ = 0, cached_ = kNoCache, n_ = 0;
  std::vector<Tensor> casts_;
  EagerForward out_;
};

}  // namespace dryfit
