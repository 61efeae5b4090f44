// See data_parallel.hpp.
#include "passes/data_parallel.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace dryfit::eager {

namespace {

constexpr std::int64_t kFirstBucket = 1 << 20, kBucket = 25 << 20;  // _DEFAULT_FIRST_BUCKET_BYTES, bucket_cap_mb

}  // namespace

std::vector<std::vector<std::size_t>> buckets_by_size(std::span<const Trained> parameters, std::span<const std::int64_t> limits) {
  struct Open { Dtype dtype; std::vector<std::size_t> members; std::int64_t bytes = 0; std::size_t limit = 0; };
  std::vector<Open> open;
  std::vector<std::vector<std::size_t>> out;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Dtype d = parameters[i].parameter.dtype();
    auto bucket = std::ranges::find(open, d, &Open::dtype);
    if (bucket == open.end()) bucket = open.insert(open.end(), Open{d, {}, 0, 0});
    bucket->members.push_back(i);
    bucket->bytes += parameters[i].parameter.dims().numel() * size_of(d);
    if (bucket->bytes < limits[bucket->limit]) continue;
    out.push_back(std::move(bucket->members));
    bucket->members.clear();
    bucket->bytes = 0;
    bucket->limit = std::min(bucket->limit + 1, limits.size() - 1);
  }
  for (Open& o : open) {
    if (!o.members.empty()) out.push_back(std::move(o.members));
  }
  std::ranges::sort(out, {}, [](const std::vector<std::size_t>& b) { return b.front(); });
  return out;
}

DataParallel::DataParallel(Tape& tape, std::vector<Trained> parameters, std::int64_t buffer_bytes, bool find_unused)
    : t_(tape), parameters_(std::move(parameters)), buffer_bytes_(buffer_bytes), find_unused_(find_unused) {
  constexpr std::array kUsual = {kFirstBucket, kBucket}, kAll = {std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::max()};
  make_buckets(parameters_, find_unused ? kUsual : kAll);
  for (const Trained& p : parameters_) {
    t_.on_gradient(p.parameter, [this, p] {
      if (!reduces_) return;
      if (!find_unused_ && !rebuilt_) arrived_.push_back(p);
      ++arrived_tensors_;
      ready_ += static_cast<double>(p.parameter.dims().numel() * size_of(p.parameter.dtype()));
      if (ready_ >= (sent_ ? kBucket : kFirstBucket)) send();
    });
  }
}

// A bucket whose gradients are all there is summed while backward goes on; gradients arrive in about the order of the buckets.
void DataParallel::send() {
  if (ready_ > 0) t_.tell_traffic("ddp.bucket", 4 * ready_, 2 * std::exchange(arrived_tensors_, 0));  // into it, divided; and back
  t_.send("ddp.all_reduce", 2 * std::exchange(ready_, 0), Work::Beside::later);
  sent_ = true;
}

void DataParallel::after_backward() {
  send();
  sent_ = false;
}

// initialize_buckets: the old ones go first.
void DataParallel::make_buckets(std::span<const Trained> parameters, std::span<const std::int64_t> limits) {
  buckets_.clear();
  const Category outer = t_.category();
  t_.category(Category::communication);
  for (const std::vector<std::size_t>& members : buckets_by_size(parameters, limits)) {
    std::int64_t elements = 0;
    for (std::size_t i : members) elements += parameters[i].parameter.dims().numel();
    buckets_.push_back(t_.empty("ddp.bucket", dims({elements}, false), parameters[members.front()].parameter.dtype()));
  }
  t_.category(outer);
}

void DataParallel::before_forward(bool reduces) {
  if (!find_unused_ && !rebuilt_ && arrived_.size() == parameters_.size()) {
    make_buckets(arrived_, std::array{kFirstBucket, kBucket});
    arrived_.clear();
    rebuilt_ = true;
  }
  // buffers go out from rank 0 in one flat copy (comm.cpp broadcast_coalesced)
  const Category outer = t_.category();
  t_.category(Category::communication);
  if (reduces_ && buffer_bytes_ > 0) t_.empty("ddp.buffers", dims({buffer_bytes_}, false), Dtype::uint8);
  t_.category(outer);
  reduces_ = reduces;
}

Tensor DataParallel::output(const Tensor& x) { return find_unused_ ? t_.clone(x, "ddp.output") : x; }

}  // namespace dryfit::eager
