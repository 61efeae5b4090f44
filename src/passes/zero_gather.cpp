// See zero_gather.hpp. Names in quotes of comments are DeepSpeed's.
#include "passes/zero_gather.hpp"

#include <algorithm>

#include "passes/zero_partition.hpp"

namespace dryfit::eager {

namespace {

// "_create_fp16_sub_groups": a sub-group ends with the parameter that fills it; a group that fits is one.
std::vector<std::vector<std::size_t>> cut_into_sub_groups(const std::vector<std::size_t>& group, const std::vector<std::int64_t>& parts, std::int64_t most) {
  std::vector<std::vector<std::size_t>> out(1);
  std::int64_t sum = 0;
  for (std::size_t i : group) {
    if (!out.back().empty() && sum >= most) {
      out.emplace_back();
      sum = 0;
    }
    out.back().push_back(i);
    sum += parts[i];
  }
  return out;
}

}  // namespace

// zero.Init cut every weight while the model was made; they go through the host, and empty_cache() follows. Then: partitions in one buffer, fp32 copies by sub-group, gradients, the bucket; and each
// weight is gathered once for its hook.
ZeroGather::ZeroGather(Tape& tape, const std::vector<Transformer::Weight>& weights, const Training& training, bool reads)
    : t_(tape), r_(training), z_(training.zero), dtype_(training.weights), W(training.world_size), rank_(training.zero.rank.value_or(0)) {
  t_.linear_saves_input(true);
  overlap_ = z_.overlap_comm.value_or(true);
  host_ = r_.offload_optimizer;
  copies_ = W > 1 || r_.offload_parameters;
  std::vector<std::int64_t> parts;
  std::int64_t sum = 0, persistent = 0;
  for (const Transformer::Weight& w : weights) {
    parameters_.push_back({w.tensor, w.role, w.layer});
    Param& p = params_.emplace_back();
    p.trains = w.trains && !reads;
    p.elements = w.tensor.dims().numel();
    p.part = ceil_div(p.elements, W);
    parts.push_back(p.part);
    if (p.trains) sum += p.part;
    if (p.elements + persistent <= z_.model_persistence_threshold && p.elements <= z_.param_persistence_threshold) {
      p.persists = true;
      persistent += p.elements;
    }
    if (!r_.offload_parameters && !p.trains) frozen_.push_back(buffer("zero.ds_tensor", p.part, dtype_, Category::weights));
  }
  if (reads) return;
  if (!r_.offload_parameters) partitions_ = buffer("zero.lp_param_buffer", sum, dtype_, Category::weights);
  for (auto& group : optimizer_groups(parameters_, z_.split_groups)) {
    std::erase_if(group, [&](std::size_t i) { return !params_[i].trains; });
    if (group.empty()) continue;
    for (auto& sub : cut_into_sub_groups(group, parts, z_.sub_group_size)) sub_groups_.push_back(std::move(sub));
  }
  std::int64_t largest = 0;
  for (const auto& sub : sub_groups_) {
    std::int64_t elements = 0;
    for (std::size_t i : sub) elements += parts[i];
    largest = std::max(largest, elements);
    if (host_) continue;
    if (dtype_ == Dtype::fp32) {
      masters_.push_back(t_.leaf(t_.slice(partitions_, 0, elements)));
    } else {
      const Tensor copy = buffer("zero.partition_copy", elements, dtype_, Category::optimizer);
      masters_.push_back(t_.leaf(buffer("zero.fp32_partition", elements, Dtype::fp32, Category::optimizer)));
    }
    optimizers_.push_back(std::make_unique<Optimizer>(t_, r_.optimizer, std::vector<Trained>{{masters_.back(), "zero.partition", -1}}));
  }
  if (!host_) {
    tracker_ = buffer("zero.overflow_tracker", 1, Dtype::bool8, Category::optimizer);
    buffer("zero.first_gradients", largest, Dtype::fp32, Category::gradients);
  }
  if (z_.contiguous_gradients) bucket_ = buffer("zero.ipg_buffer", z_.reduce_bucket_size, dtype_, Category::communication);
  if (!host_) gradients_ = buffer("zero.grad_partitions", sum, dtype_, Category::gradients);
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (!params_[i].trains) continue;
    {
      const Tensor flat = buffer("zero.allgather", params_[i].part * W, dtype_, Category::communication);
      const Tensor whole = buffer("zero.gathered", params_[i].elements, dtype_, Category::weights);
    }
    t_.on_gradient(parameters_[i].parameter, [this, i] {
      if (!params_[i].of_leaf) arrived(i);
    });
  }
}

Tensor ZeroGather::buffer(const char* role, std::int64_t elements, Dtype d, Category category, int stream) {
  return t_.buffer(role, elements, d, category, overlap_ ? stream : 0);
}

ModuleHooks ZeroGather::hooks() {
  return {[this](Who who, std::span<const Tensor> own, const Tensor& x) { return before(who, own, x); }, [this](Who who, std::span<const Tensor> all, const Tensor& x) { return before_leaf(who, all, x); }, [this](Who who, const Tensor& y, bool again) { return after(who, y, again); },
          [this](Who who) { before_backward_of(module_of(who, {})); }, [this](Who who, const Tensor& weight) { take(module_of(who, {}), weight); }};
}

int ZeroGather::module_of(Who who, std::span<const Tensor> own) {
  const auto known = ids_.find(who);
  if (known != ids_.end()) return known->second;
  Module m;
  for (const Tensor& w : own) {
    if (!w.defined()) continue;
    const auto it = std::ranges::find_if(parameters_, [&](const Trained& p) { return t_.storage_of(p.parameter) == t_.storage_of(w); });
    if (it != parameters_.end()) m.own.push_back(static_cast<std::size_t>(it - parameters_.begin()));
  }
  std::ranges::sort(m.own);
  modules_.push_back(std::move(m));
  return ids_[who] = static_cast<int>(modules_.size()) - 1;
}

// A module's forward begins; when its input has its gradient, its weights go.
Tensor ZeroGather::before(Who who, std::span<const Tensor> own, const Tensor& x) {
  const int module = module_of(who, own);
  expect(module);
  if (trace_ == Trace::recording) order_.push_back(module);
  fetch(module);
  int& remaining = modules_[static_cast<std::size_t>(module)].remaining;
  remaining = 0;
  if (!x.defined() || !x.requires_grad()) return x;
  ++remaining;
  return t_.grad_enabled() ? t_.hook(x, [this, module] { input_has_gradient(module); }) : x;
}

// "PostBackwardFunctionModule": only the last of those that the module's last call counted lets its weights go. Where a call without gradients came between, none is, and they stay.
void ZeroGather::input_has_gradient(int module) {
  if (--modules_[static_cast<std::size_t>(module)].remaining == 0) release(module);
}

// "trace_prologue": a module out of order ends the trace, until the next but one forward pass begins.
void ZeroGather::expect(int module) {
  if (trace_ != Trace::complete) return;
  const auto here = static_cast<std::size_t>(step_);
  if (here < order_.size() && order_[here] == module) return;
  trace_ = Trace::invalid;
  order_.clear(), param_order_.clear(), queue_.clear();
  for (Param& p : params_) p.fetched_for = -1;
  settle();
}

// "reduce_leaf_module_grads": once the module's input has its gradient those of its weights go into the bucket, one after the other.
Tensor ZeroGather::before_leaf(Who who, std::span<const Tensor> all, const Tensor& x) {
  const Tensor given = before(who, all, x);
  const int module = module_of(who, all);
  for (std::size_t p : modules_[static_cast<std::size_t>(module)].own) params_[p].of_leaf = true;
  if (!given.defined() || !t_.grad_enabled() || !given.requires_grad()) return given;
  return t_.hook(given, [this, module] {
    for (std::size_t p : modules_[static_cast<std::size_t>(module)].own) {
      if (params_[p].trains) arrived(p);
    }
  });
}

Tensor ZeroGather::after(Who who, const Tensor& y, bool again) {
  const int module = module_of(who, {});
  release(module, again);
  if (!y.defined() || !t_.grad_enabled() || !y.requires_grad()) return y;
  return t_.hook(y, [this, module] { before_backward_of(module); });
}

void ZeroGather::before_backward_of(int module) {
  expect(module);
  if (trace_ == Trace::recording) order_.push_back(module);
  fetch(module);
}

// "ZeROOrderedDict": a weight that is away is gathered on the spot, and from then on belongs to the module that asks, too ("register_external_parameter").
void ZeroGather::take(int module, const Tensor& weight) {
  const auto it = std::ranges::find_if(parameters_, [&](const Trained& p) { return t_.storage_of(p.parameter) == t_.storage_of(weight); });
  const auto param = static_cast<std::size_t>(it - parameters_.begin());
  if (it == parameters_.end() || params_[param].status != Status::away) return;
  std::vector<std::size_t>& own = modules_[static_cast<std::size_t>(module)].own;
  own.insert(std::ranges::upper_bound(own, param), param);
  gather({param});
  wait(param);
}

// "fetch_sub_module": gathers what is missing, waits for what is on its way, then begins to gather what comes next.
void ZeroGather::fetch(int module) {
  const std::vector<std::size_t>& own = modules_[static_cast<std::size_t>(module)].own;
  std::vector<std::size_t> missing;
  for (std::size_t p : own) {
    if (params_[p].status == Status::away) missing.push_back(p);
  }
  if (!missing.empty()) gather(missing);
  for (std::size_t p : own) {
    params_[p].users.insert(module);
    if (params_[p].flight) wait(p);
  }
  if (trace_ == Trace::complete) {
    std::size_t expected = 0;
    for (std::size_t p : own) expected += params_[p].fetched_for < step_ ? 1 : 0;
    std::set<std::size_t> discarded;
    while (!queue_.empty() && discarded.size() < expected) {
      params_[queue_.front().param].fetched_for = queue_.front().step;
      discarded.insert(queue_.front().param);
      queue_.pop_front();
    }
    prefetch();
  }
  ++step_;
}

void ZeroGather::prefetch() {
  if (z_.prefetch_bucket_size <= 0) return;
  const std::int64_t most = std::min(z_.max_live_parameters - available_, z_.prefetch_bucket_size);
  std::vector<std::size_t> wanted;
  std::int64_t elements = 0;
  while (!queue_.empty() && elements < most) {
    const Queued next = queue_.front();
    queue_.pop_front();
    Param& p = params_[next.param];
    const bool fetches = p.status == Status::away && std::ranges::find(wanted, next.param) == wanted.end();
    p.fetched_for = std::max(p.fetched_for, next.step);
    if (!fetches) continue;
    wanted.push_back(next.param);
    elements += p.elements;
  }
  if (!wanted.empty()) gather(wanted);
}

// "all_gather_coalesced": one weight is gathered in place; several through a flat buffer, which stays until the last of them was waited for.
void ZeroGather::gather(const std::vector<std::size_t>& params) {
  auto made = std::make_shared<Gather>();
  made->members = params;
  std::int64_t sum = 0;
  for (std::size_t p : params) sum += params_[p].part, available_ += params_[p].elements;
  t_.stream(overlap_ ? 1 : 0);
  if (!copies_) {
    // one rank: the partition is the weight
  } else if (params.size() == 1) {
    t_.resize(parameters_[params.front()].parameter, true);
    if (r_.offload_parameters) buffer("zero.partition_from_host", sum, dtype_, Category::communication, 1);
  } else {
    made->flat = buffer("zero.allgather", sum * W, dtype_, Category::communication, 1);
    if (r_.offload_parameters) {
      std::vector<Tensor> copies;
      for (std::size_t p : params) copies.push_back(buffer("zero.partition_from_host", params_[p].part, dtype_, Category::communication, 1));
    }
  }
  t_.stream(0);
  if (W > 1) t_.send("zero.all_gather", static_cast<double>(sum * W * size_of(dtype_)), overlap_ ? Work::Beside::earlier : Work::Beside::nothing);
  for (std::size_t p : params) {
    params_[p].status = Status::in_flight;
    params_[p].flight = made;
  }
}

void ZeroGather::wait(std::size_t param) {
  const std::shared_ptr<Gather> flight = std::move(params_[param].flight);
  params_[param].flight.reset();
  if (flight->done) return;
  flight->done = true;
  for (std::size_t p : flight->members) {
    if (copies_) t_.resize(parameters_[p].parameter, true);
    params_[p].status = Status::there;
  }
}

// "release_sub_module"
void ZeroGather::release(int module, bool again) {
  const std::vector<std::size_t>& own = modules_[static_cast<std::size_t>(module)].own;
  if (own.empty()) return;
  const std::set<std::size_t>* chosen = trace_ == Trace::complete ? &releasable(module) : nullptr;
  for (std::size_t p : own) {
    params_[p].users.erase(module);
    if (chosen == nullptr || chosen->contains(p)) let_go(p, again);
  }
}

// "__params_to_release": not what persists, nor what was fetched for a later use, nor what is used again within max_reuse_distance.
const std::set<std::size_t>& ZeroGather::releasable(int module) {
  const auto [it, fresh] = releasable_.try_emplace({module, step_});
  std::set<std::size_t>& out = it->second;
  if (!fresh) return out;
  for (std::size_t p : modules_[static_cast<std::size_t>(module)].own) {
    if (!params_[p].persists && params_[p].fetched_for <= step_) out.insert(p);
  }
  std::int64_t passed = 0;
  for (std::size_t i = static_cast<std::size_t>(step_); i < order_.size() && passed < z_.max_reuse_distance; ++i) {
    for (std::size_t p : modules_[static_cast<std::size_t>(order_[i])].own) {
      out.erase(p);
      passed += params_[p].elements;
    }
  }
  return out;
}

void ZeroGather::let_go(std::size_t param, bool again) {
  Param& p = params_[param];
  if (p.status != Status::there || !p.users.empty()) return;
  t_.leave_to_saved(parameters_[param].parameter, again);
  p.status = Status::away;
  available_ -= p.elements;
}

void ZeroGather::settle() {
  for (std::size_t i = 0; i < params_.size(); ++i) {
    if (!params_[i].flight) continue;
    wait(i);
    let_go(i);
  }
}

// "reset_step", before the model's forward: after one whole micro-step the order of modules is known.
void ZeroGather::before_forward() {
  settle();
  if (trace_ == Trace::recording) {
    for (std::size_t i = 0; i < order_.size(); ++i) {
      for (std::size_t p : modules_[static_cast<std::size_t>(order_[i])].own) param_order_.push_back({p, static_cast<int>(i)});
    }
    trace_ = Trace::complete;
  } else if (trace_ == Trace::invalid) {
    trace_ = Trace::recording;
  }
  queue_.assign(param_order_.begin(), param_order_.end());
  for (Param& p : params_) p.fetched_for = -1;
  step_ = 0;
  available_ = 0;
}

// "reduce_independent_p_g_buckets_and_remove_grads"
void ZeroGather::arrived(std::size_t i) {
  const std::int64_t n = params_[i].elements;
  if (bucket_elements_ + n > z_.reduce_bucket_size && bucket_elements_ > 0) reduce();
  if (z_.contiguous_gradients && bucket_elements_ + n <= z_.reduce_bucket_size) t_.set_gradient(parameters_[i].parameter, t_.slice(bucket_, 0, n));
  bucket_elements_ += n;
  in_bucket_.push_back(i);
}

// "reduce_scatter_coalesced": gradients interleaved by rank in a copy; one that divides evenly is reduced where it lies. Without reduce_scatter the
// bucket is all-reduced where it lies, and odd parts are padded.
void ZeroGather::reduce() {
  if (in_bucket_.empty()) return;
  std::vector<Tensor> pads;
  Tensor joined;
  if (W > 1) t_.send("zero.reduce_scatter", static_cast<double>(bucket_elements_ * size_of(dtype_)), overlap_ ? Work::Beside::later : Work::Beside::nothing);
  std::vector<std::size_t> members = in_bucket_;
  std::ranges::sort(members);
  if (z_.contiguous_gradients && bucket_elements_ <= z_.reduce_bucket_size && !z_.reduce_scatter) {
    for (std::size_t i : in_bucket_) {
      const Param& p = params_[i];
      if (std::clamp<std::int64_t>(p.elements - rank_ * p.part, 0, p.part) != p.part) pads.push_back(buffer("zero.padding", p.part, dtype_, Category::communication, 2));
    }
    members = in_bucket_;
  } else if (members.size() > 1 || params_[members.front()].elements % W != 0) {
    std::int64_t sum = 0;
    for (std::size_t i : members) sum += params_[i].part * W;
    for (std::int64_t rank = 0; rank < W; ++rank) {
      for (std::size_t i : members) {
        const Param& p = params_[i];
        const std::int64_t lacks = p.part - std::clamp<std::int64_t>(p.elements - rank * p.part, 0, p.part);
        if (lacks > 0) pads.push_back(buffer("zero.padding", lacks, dtype_, Category::communication, 2));
      }
    }
    joined = buffer("zero.reduce_scatter", sum, dtype_, Category::communication, 2);
  }
  for (std::size_t i : members) {
    if (host_) to_host(i);
    t_.zero_grad(parameters_[i].parameter);
  }
  if (host_) host_last_.reset();
  in_bucket_.clear();
  bucket_elements_ = 0;
}

// The part comes from the host where it lies, and its norm is taken and its fp32 copy made on the way back.
void ZeroGather::to_host(std::size_t i) {
  const std::int64_t n = std::clamp<std::int64_t>(params_[i].elements - rank_ * params_[i].part, 0, params_[i].part);
  if (n == 0) return;
  host_last_ = buffer("zero.offload_gradient", n, dtype_, Category::communication, 2);
  if (!boundary_) return;
  buffer("zero.norm_double", n, Dtype::fp64, Category::optimizer, 2);
  host_norms_.push_back(buffer("zero.norm", 1, Dtype::fp64, Category::optimizer, 2));
  if (dtype_ != Dtype::fp32) buffer("zero.offload_fp32", n, Dtype::fp32, Category::communication, 2);
}

void ZeroGather::after_backward() { reduce(); }

// "partition_all_parameters"
void ZeroGather::partition_all() {
  for (std::size_t i = 0; i < params_.size(); ++i) {
    if (params_[i].flight) wait(i);
    params_[i].users.clear();
    let_go(i);
  }
}

void ZeroGather::look_for_infinities() {
  const std::int64_t n = gradients_.dims().numel();
  {
    Tensor absolute = buffer("zero.overflow_abs", n, dtype_, Category::optimizer);
    const Tensor inf = buffer("zero.overflow_mask", n, Dtype::bool8, Category::optimizer);
  }
  buffer("zero.overflow_mask", n, Dtype::bool8, Category::optimizer);
}

void ZeroGather::norms() {
  for (const auto& sub : sub_groups_) {
    std::vector<Tensor> each;
    for (std::size_t i : sub) {
      const Tensor wide = buffer("zero.norm_double", params_[i].part, Dtype::fp64, Category::optimizer);
      each.push_back(buffer("zero.norm", 1, Dtype::fp64, Category::optimizer));
    }
  }
}

// Sub-group by sub-group: gradients joined, in fp32, the optimizer on the fp32 partition. Then what persists is gathered again.
void ZeroGather::step() {
  partition_all();
  host_norms_.clear();
  if (!host_) {
    if (dtype_ == Dtype::fp16) look_for_infinities();
    norms();
    // one norm a sub-group, theirs, and the clipping coefficient before and after the loss scale
    std::vector<Tensor> scalars;
    for (std::size_t i = 0; i < sub_groups_.size() + 3; ++i) scalars.push_back(buffer("zero.norm", 1, Dtype::fp32, Category::optimizer));
    global_norm_ = buffer("zero.norm", 1, Dtype::fp32, Category::optimizer);
    for (std::size_t s = 0; s < sub_groups_.size(); ++s) {
      const std::int64_t n = masters_[s].dims().numel();
      Tensor flat = sub_groups_[s].size() > 1 ? buffer("zero.flat_gradients", n, dtype_, Category::gradients) : t_.slice(gradients_, 0, n);
      if (dtype_ != Dtype::fp32) flat = buffer("zero.fp32_gradients", n, Dtype::fp32, Category::gradients);
      t_.set_gradient(masters_[s], std::move(flat));
      optimizers_[s]->step();
      t_.zero_grad(masters_[s]);
    }
  }
  for (std::size_t i = 0; i < params_.size(); ++i) {
    if (!params_[i].persists) continue;
    if (copies_) t_.resize(parameters_[i].parameter, true);
    params_[i].status = Status::there;
  }
}

std::int64_t ZeroGather::weight_bytes() const {
  std::int64_t sum = partitions_.defined() ? partitions_.dims().numel() * size_of(dtype_) : 0;
  for (const Tensor& f : frozen_) sum += f.dims().numel() * size_of(dtype_);
  return sum;
}
std::int64_t ZeroGather::gradient_bytes() const { return gradients_.defined() ? gradients_.dims().numel() * size_of(dtype_) : 0; }

std::int64_t ZeroGather::state_bytes() const {
  std::int64_t sum = 0;
  if (dtype_ != Dtype::fp32) {
    for (const Tensor& m : masters_) sum += m.dims().numel() * size_of(m.dtype());
  }
  for (const auto& o : optimizers_) sum += o->state_bytes();
  return sum;
}

}  // namespace dryfit::eager
