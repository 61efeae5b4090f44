// See zero_partition.hpp. Names in quotes of comments are DeepSpeed's.
#include "passes/zero_partition.hpp"

#include <algorithm>
#include <array>

namespace dryfit::eager {

namespace {

constexpr std::int64_t kAlignment = 2;  // nccl_start_alignment_factor, in elements

// Trainer goes by names: nothing called a norm or a bias. Of gpt-oss sinks decay, and experts' biases are matrices that do not.
bool decays(const Trained& p) {
  const std::string_view role = p.role;
  const int rank = p.parameter.dims().rank;
  return role == "attn.sinks" || rank >= (role.starts_with("experts.") ? 3 : 2);
}

}  // namespace

std::vector<std::vector<std::size_t>> optimizer_groups(std::span<const Trained> parameters, bool split) {
  std::vector<std::vector<std::size_t>> groups(split ? 2 : 1);
  for (std::size_t i = 0; i < parameters.size(); ++i) groups[split && !decays(parameters[i]) ? 1 : 0].push_back(i);
  std::erase_if(groups, [](const auto& g) { return g.empty(); });
  return groups;
}

FlatGroup flat_group(std::span<const Trained> parameters, const std::vector<std::size_t>& members, std::int64_t ranks, bool round_robin) {
  FlatGroup g;
  for (std::size_t i : members) g.elements += parameters[i].parameter.dims().numel();
  g.elements = round_up(g.elements, kAlignment * ranks);
  g.partition = g.elements / ranks;
  std::int64_t at = 0;
  const auto append = [&](std::size_t i) {
    const std::int64_t n = parameters[i].parameter.dims().numel();
    FlatGroup::Span s{i, n, at / g.partition, {}};
    for (const std::int64_t end = at + n; at < end;) {
      const std::int64_t boundary = (at / g.partition + 1) * g.partition, to = std::min(end, boundary);
      s.lengths.push_back(to - at);
      at = to;
    }
    g.spans.push_back(std::move(s));
  };
  const std::size_t step = round_robin ? static_cast<std::size_t>(ranks) : 1;
  for (std::size_t first = 0; first < std::min(step, members.size()); ++first) {
    for (std::size_t i = first; i < members.size(); i += step) append(members[i]);
  }
  return g;
}

std::int64_t FlatGroup::Span::length_at(std::int64_t rank) const {
  const std::int64_t i = rank - first;
  return i < 0 || i >= static_cast<std::int64_t>(lengths.size()) ? 0 : lengths[static_cast<std::size_t>(i)];
}

std::int64_t heaviest_rank(std::span<const FlatGroup> groups, std::int64_t ranks) {
  std::vector<std::int64_t> held(static_cast<std::size_t>(ranks), 0);
  for (const FlatGroup& g : groups) {
    for (const FlatGroup::Span& s : g.spans) {
      for (std::size_t i = 0; i < s.lengths.size(); ++i) held[static_cast<std::size_t>(s.first) + i] += s.elements;
    }
  }
  return std::ranges::max_element(held) - held.begin();
}

// Everything was on the GPU in 16 bits; group by group it goes to the host, is flattened there and comes back, after empty_cache(): what was before
// leaves no trace. Then the fp32 partition.
ZeroPartition::ZeroPartition(Tape& tape, std::vector<Trained> parameters, const Training& training)
    : t_(tape), r_(training), z_(training.zero), parameters_(std::move(parameters)), dtype_(training.weights) {
  host_ = training.offload_optimizer;
  contiguous_ = z_.contiguous_gradients || host_;
  overlap_ = z_.overlap_comm.value_or(false);
  const std::int64_t W = training.world_size;
  for (const auto& members : optimizer_groups(parameters_, z_.split_groups)) groups_.push_back(flat_group(parameters_, members, W, z_.round_robin_gradients));
  rank_ = z_.rank.value_or(heaviest_rank(groups_, W));
  places_.resize(parameters_.size());
  std::int64_t largest = 0;
  std::vector<Tensor> zeros;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const FlatGroup& group = groups_[g];
    flat_.push_back(t_.buffer("zero.bit16_group_flat", group.elements, dtype_, Category::weights));
    if (!host_) {
      Tensor copy = t_.buffer("zero.partition_copy", group.partition, dtype_, Category::optimizer);
      masters_.push_back(leaf_master(group.partition, std::move(copy)));
    }
    for (const FlatGroup::Span& s : group.spans) {
      places_[s.parameter] = {&s, s.length_at(rank_)};
      largest = std::max(largest, s.elements);
      t_.on_gradient(parameters_[s.parameter].parameter, [this, i = s.parameter] { arrived(i); });
    }
    if (!host_) optimizers_.push_back(std::make_unique<Optimizer>(t_, r_.optimizer, std::vector<Trained>{{masters_.back(), "zero.partition", -1}}));
  }
  if (host_) host_staging_ = t_.buffer("zero.offload_staging", largest, dtype_, Category::communication);
  if (!host_) {  // initialize_optimizer_states
    for (const FlatGroup& g : groups_) zeros.push_back(t_.buffer("zero.first_gradients", g.partition, Dtype::fp32, Category::gradients));
  }
  accumulated_.resize(groups_.size());
  averaged_.resize(groups_.size());
}

// "single_partition_of_fp32_groups": .clone().float(), of fp32 weights the clone itself.
Tensor ZeroPartition::leaf_master(std::int64_t partition, Tensor copy) {
  if (dtype_ == Dtype::fp32) return t_.leaf(copy);
  return t_.leaf(t_.buffer("zero.fp32_partition", partition, Dtype::fp32, Category::optimizer));
}

// "process_gradients", when a gradient has been kept. Stage 1 reduces nothing before the last micro-step, but has its buffers.
void ZeroPartition::arrived(std::size_t i) {
  const bool stage2 = r_.sharding == Sharding::zero2;
  if (!stage2 && !overlap_ && !contiguous_) return;  // no hooks
  if (!ready_ && contiguous_) {
    for (Tensor& b : ipg_) b.reset();
    for (int n = 0; n < (overlap_ ? 2 : 1); ++n) ipg_[n] = t_.buffer("zero.ipg_buffer", z_.reduce_bucket_size, dtype_, Category::communication);
    index_ = 0;
  }
  ready_ = true;
  if (stage2 || (overlap_ && boundary_)) bucket(i);
}

// "reduce_independent_p_g_buckets_and_remove_grads"
void ZeroPartition::bucket(std::size_t i) {
  const std::int64_t n = elements(i);
  if (bucket_elements_ + n > z_.reduce_bucket_size) {
    reduce();
    if (contiguous_ && overlap_) index_ = 1 - index_;
  }
  const Tensor& p = parameters_[i].parameter;
  if (contiguous_ && n <= z_.reduce_bucket_size) t_.set_gradient(p, t_.slice(ipg_[index_], 0, n));
  bucket_elements_ += n;
  in_bucket_.push_back(i);
}

// "reduce_ipg_grads": the bucket is averaged; then gradients of other ranks go, and this rank's are copied out of it.
void ZeroPartition::reduce() {
  if (!in_bucket_.empty()) average();
  for (std::size_t i : in_bucket_) {
    const bool mine = places_[i].mine > 0;
    if (r_.sharding == Sharding::zero2 && !mine) {
      if (overlap_ && !contiguous_) previous_.push_back(i);  // until the next reduction is done
      else t_.zero_grad(parameters_[i].parameter);
    } else if (contiguous_ && mine) {
      keep(i);
    }
  }
  in_bucket_.clear();
  bucket_elements_ = 0;
}

// "average_tensor": one all-reduce of the pieces of different ranks, which are joined for it; "buffered_reduce_fallback": of all gradients.
void ZeroPartition::average() {
  // with reduce_scatter each piece goes to its rank alone; else all ranks get the sum
  const double bytes = static_cast<double>(bucket_elements_ * size_of(dtype_));
  if (r_.world_size > 1) t_.send("zero.reduce", z_.reduce_scatter ? bytes : 2 * bytes, overlap_ ? Work::Beside::later : Work::Beside::nothing);
  std::vector<std::int64_t> pieces;
  if (!contiguous_) {
    for (std::size_t i : previous_) t_.zero_grad(parameters_[i].parameter);
    previous_.clear();
    for (std::size_t i : in_bucket_) pieces.push_back(elements(i));
    return flatten(pieces, bucket_elements_);
  }
  if (!z_.reduce_scatter) return;
  std::int64_t last = -1;
  for (std::size_t i : in_bucket_) {
    std::int64_t rank = places_[i].span->first;
    for (std::int64_t length : places_[i].span->lengths) {
      if (rank == last) pieces.back() += length;
      else pieces.push_back(length);
      last = rank++;
    }
  }
  flatten(pieces, z_.reduce_bucket_size);
}

// torch's flatten_dense_tensors makes a copy of several, a view of one; pieces go together until they are more than `most`.
void ZeroPartition::flatten(std::span<const std::int64_t> pieces, std::int64_t most) {
  std::int64_t sum = 0, count = 0;
  const auto go = [&] {
    if (count > 1) t_.buffer("zero.allreduce_flat", sum, dtype_, Category::communication, overlap_ ? 1 : 0);
    sum = count = 0;
  };
  for (std::int64_t n : pieces) {
    sum += n;
    ++count;
    if (sum > most) go();
  }
  go();
}

// "copy_grads_in_partition": out of the bucket into one buffer that holds whole gradients of every parameter this rank has a part of.
void ZeroPartition::keep(std::size_t i) {
  if (host_) return to_host(i);
  if (!kept_.defined()) {
    std::int64_t sum = 0;
    for (std::size_t j = 0; j < places_.size(); ++j) sum += places_[j].mine > 0 ? elements(j) : 0;
    kept_ = t_.buffer("zero.grads_in_partition", sum, dtype_, Category::gradients, overlap_ ? 1 : 0);
  }
  t_.set_gradient(parameters_[i].parameter, t_.slice(kept_, 0, elements(i)));
}

// Offloaded: the norm of this rank's part in double precision, a look for infinities, an fp32 copy that goes to the host.
void ZeroPartition::to_host(std::size_t i) {
  if (!boundary_) return;
  const std::int64_t part = places_[i].mine, n = elements(i);
  t_.buffer("zero.norm_double", part, Dtype::fp64, Category::optimizer);
  host_norms_.push_back(t_.buffer("zero.norm", 1, Dtype::fp64, Category::optimizer));
  look_for_infinities(n);
  if (dtype_ != Dtype::fp32) t_.buffer("zero.offload_fp32", part, Dtype::fp32, Category::communication);
  t_.zero_grad(parameters_[i].parameter);
}

// "_has_inf_or_nan": the values in fp32, three masks, the last as fp32; isinf itself takes absolute values.
void ZeroPartition::look_for_infinities(std::int64_t n) {
  const auto mask = [&](const char* role, Dtype d) { return t_.buffer(role, n, d, Category::optimizer); };
  Tensor values;
  if (dtype_ != Dtype::fp32) values = mask("zero.overflow_fp32", Dtype::fp32);
  const Tensor nan = mask("zero.overflow_mask", Dtype::bool8);
  Tensor absolute = mask("zero.overflow_abs", Dtype::fp32);
  const Tensor inf = mask("zero.overflow_mask", Dtype::bool8);
  absolute.reset();
  const Tensor either = mask("zero.overflow_mask", Dtype::bool8);
  const Tensor result = mask("zero.overflow_result", Dtype::fp32);
}

void ZeroPartition::after_backward() {
  const bool stage2 = r_.sharding == Sharding::zero2;
  if (!stage2 && !boundary_) return;  // gradients stay whole, and the buffers
  if (!stage2 && !overlap_) {
    for (const FlatGroup& g : groups_) {
      std::vector<std::size_t> members;
      for (const FlatGroup::Span& s : g.spans) members.push_back(s.parameter);
      std::ranges::sort(members);
      for (std::size_t i : members) {
        if (t_.gradient(parameters_[i].parameter).defined()) bucket(i);
      }
    }
  }
  finish();
}

// "independent_gradient_partition_epilogue"
void ZeroPartition::finish() {
  reduce();
  for (std::size_t i : previous_) t_.zero_grad(parameters_[i].parameter);
  previous_.clear();
  for (std::size_t g = 0; g < groups_.size() && !host_; ++g) {
    std::vector<Tensor> mine;
    std::int64_t held = 0;
    for (const FlatGroup::Span& s : groups_[g].spans) {
      if (places_[s.parameter].mine == 0) continue;
      Tensor gradient = t_.gradient(parameters_[s.parameter].parameter);
      if (!gradient.defined()) gradient = t_.buffer("zero.no_gradient", elements(s.parameter), dtype_, Category::gradients);
      mine.push_back(std::move(gradient));
      held += places_[s.parameter].mine;
    }
    accumulated_[g] = std::move(mine);
    if (!boundary_) continue;
    averaged_[g] = std::move(accumulated_[g]);
    accumulated_[g].clear();
    if (held < groups_[g].partition) averaged_[g].push_back(t_.buffer("zero.padding", groups_[g].partition - held, dtype_, Category::gradients));
  }
  for (Tensor& b : ipg_) b.reset();
  kept_.reset();
  ready_ = false;
  for (const Trained& p : parameters_) t_.zero_grad(p.parameter);
}

// "get_grad_norm_direct": each gradient in double precision, one after the other.
void ZeroPartition::norms() {
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    std::vector<Tensor> each;
    for (const FlatGroup::Span& s : groups_[g].spans) {
      if (places_[s.parameter].mine == 0) continue;
      const Tensor wide = t_.buffer("zero.norm_double", places_[s.parameter].mine, Dtype::fp64, Category::optimizer);
      each.push_back(t_.buffer("zero.norm", 1, Dtype::fp64, Category::optimizer));
    }
  }
}

// Per group: its gradients joined, in fp32, then the optimizer on the fp32 partition. Gradients of later groups still stand, whole.
void ZeroPartition::step() {
  host_norms_.clear();
  if (host_) return;
  if (dtype_ == Dtype::fp16) {
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      for (const FlatGroup::Span& s : groups_[g].spans) {
        if (places_[s.parameter].mine > 0) look_for_infinities(places_[s.parameter].mine);
      }
    }
  }
  norms();
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    Tensor flat = averaged_[g].size() != 1 ? t_.buffer("zero.flat_gradients", groups_[g].partition, dtype_, Category::gradients) : averaged_[g].front();
    if (dtype_ != Dtype::fp32) flat = t_.buffer("zero.fp32_gradients", groups_[g].partition, Dtype::fp32, Category::gradients);
    t_.set_gradient(masters_[g], std::move(flat));
    averaged_[g].clear();
    optimizers_[g]->step();
    t_.zero_grad(masters_[g]);
  }
  if (r_.world_size > 1) t_.send("zero.all_gather", static_cast<double>(weight_bytes()), Work::Beside::nothing);
}

std::int64_t ZeroPartition::weight_bytes() const {
  std::int64_t sum = 0;
  for (const FlatGroup& g : groups_) sum += g.elements * size_of(dtype_);
  return sum;
}

std::int64_t ZeroPartition::gradient_bytes() const {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < places_.size(); ++i) sum += places_[i].mine > 0 || r_.sharding == Sharding::zero1 ? elements(i) * size_of(dtype_) : 0;
  return sum;
}

std::int64_t ZeroPartition::state_bytes() const {
  std::int64_t sum = 0;
  for (const Tensor& m : masters_) sum += m.dims().numel() * size_of(m.dtype());
  for (const auto& o : optimizers_) sum += o->state_bytes();
  return sum;
}

}  // namespace dryfit::eager
