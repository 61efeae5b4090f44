// See flat_shard.hpp.
#include "passes/flat_shard.hpp"

#include <algorithm>
#include <climits>
#include <tuple>

namespace dryfit::eager {

namespace {
constexpr std::int64_t kAlignedBytes = 16;  // _flat_param.py _get_aligned_numel
}

// "_init_flat_param_and_metadata"
FlatLayout flat_layout(std::span<const std::int64_t> parameters, std::int64_t ranks, Dtype dtype, bool aligned) {
  FlatLayout out;
  const auto add = [&](std::int64_t n, bool padding) {
    if (n == 0) return;
    out.lengths.push_back(n);
    out.padding.push_back(padding);
    out.elements += n;
  };
  for (const std::int64_t n : parameters) {
    if (aligned) add(round_up(out.elements, kAlignedBytes / size_of(dtype)) - out.elements, true);
    out.first.push_back(out.elements);
    add(n, false);
  }
  if (aligned) add(round_up(out.elements, ranks) - out.elements, true);
  out.shard = ceil_div(out.elements, ranks);
  return out;
}

FlatShard::FlatShard(Tape& tape, const std::vector<Transformer::Weight>& weights, FlatShardOptions options) : t_(tape), options_(options) {
  int last = -1, leaves = 0;
  for (const Transformer::Weight& w : weights) {
    if (options_.wrap_blocks) last = std::max(last, w.layer);
    leaves += w.leaf > 0 ? 1 : 0;
  }
  first_leaf_ = static_cast<std::size_t>(last + 2);
  units_.resize(first_leaf_ + static_cast<std::size_t>(leaves));
  for (int layer = -1; layer <= last; ++layer) unit_of(layer).layer = layer;
  for (const Transformer::Weight& w : weights) {
    Unit& u = unit_of(w.leaf > 0 ? w.leaf : options_.wrap_blocks ? w.layer : -1);
    if (w.leaf > 0) u.leaf = true, u.layer = w.layer;
    listed_.emplace_back(&u - units_.data(), u.members.size());
    u.members.push_back({w.tensor, {}, w.tensor.dims(), w.role, w.layer, w.trains, 0});
    u.trains = u.trains || w.trains;
  }
  const std::vector<Unit*> order = as_wrapped();
  for (Unit* u : order) place(*u);
  for (Unit* u : order) name_parts(*u);
}

// "_auto_wrap": what lies within comes first, the model last. Of a loop of one's own the order is not known.
std::vector<FlatShard::Unit*> FlatShard::as_wrapped() {
  std::vector<Unit*> out;
  for (Unit& u : units_) out.push_back(&u);
  if (!options_.joins) return out;
  std::ranges::sort(out, {}, [](const Unit* u) { return std::tuple(u->layer < 0 ? INT_MAX : u->layer, !u->leaf, u); });
  return out;
}

// "shard": this rank's part of the flat parameter.
void FlatShard::place(Unit& u) {
  if (u.members.empty()) return;
  const bool original = options_.config.original_parameters;
  u.stored = u.leaf ? options_.adapters : u.trains ? options_.stored : options_.frozen;
  u.computed = options_.computed.value_or(u.stored);
  u.reduced = options_.reduced.value_or(u.computed);
  std::vector<std::int64_t> counts;
  for (const Member& m : u.members) counts.push_back(m.dims.numel());
  u.layout = flat_layout(counts, options_.shards, u.computed, original);
  const Category outer = t_.category();
  t_.category(Category::weights);
  t_.at(u.layer);
  const Dtype loaded = u.leaf ? options_.loaded_adapters : u.trains ? options_.loaded : options_.frozen;
  Tensor whole, joined;
  if (options_.joins) whole = t_.buffer("load.unit", u.layout.elements, loaded, Category::weights), joined = t_.buffer("load.unit", u.layout.elements, loaded, Category::weights);
  if (options_.host) u.shard = t_.hollow_parameter("fsdp.shard", dims({u.layout.shard}, false), u.layout.shard, u.stored, u.trains && !original);
  else if (loaded != u.stored) u.as_loaded = t_.buffer("fsdp.shard", u.layout.shard, loaded, Category::weights);
  else u.shard = t_.parameter("fsdp.shard", dims({u.layout.shard}, false), u.stored, u.trains && !original);
  t_.at(-1);
  t_.category(outer);
}

// Once all are wrapped accelerate raises what trains. use_orig_params: the optimizer sees what of each parameter lies in the shard.
void FlatShard::name_parts(Unit& u) {
  if (u.members.empty()) return;
  const bool original = options_.config.original_parameters;
  const Category outer = t_.category();
  t_.category(Category::weights);
  t_.at(u.layer);
  if (!u.shard.defined()) u.shard = t_.parameter("fsdp.shard", dims({u.layout.shard}, false), u.stored, u.trains && !original);
  if (!original) u.as_loaded.reset();  // else parameters name parts of it
  t_.stream(gathering);
  u.full = t_.hollow_parameter("fsdp.flat_parameter", dims({u.layout.elements}, false), u.layout.shard * options_.shards, u.computed, u.trains);
  t_.stream(compute);
  const std::int64_t begin = options_.config.rank * u.layout.shard, end = begin + u.layout.shard;
  for (std::size_t i = 0; i < u.members.size(); ++i) {
    Member& m = u.members[i];
    const std::int64_t first = u.layout.first[i];
    m.here = std::max<std::int64_t>(0, std::min(end, first + m.dims.numel()) - std::max(begin, first));
    if (original && m.here > 0 && m.trains && !options_.host) m.part = t_.leaf(t_.slice(u.shard, 0, m.here));
  }
  if (u.trains) t_.on_gradient(u.full, [this, &u] { post_backward(u); });
  t_.at(-1);
  t_.category(outer);
}

UnitHooks FlatShard::hooks() {
  return {.before = [this](int unit, const Tensor& x) { return before(unit, x); },
          .after = [this](int unit, const Tensor& y) { return after(unit, y); },
          .dtype = [this](int unit) { return dtype_of(unit_of(unit)); },
          .before_again = [this](int unit) { pre_backward(unit_of(unit)); },
          .wrap = true};
}

UnitHooks::Named FlatShard::dtype_of(Unit& u) {
  const Dtype now = u.named ? u.computed : u.stored;
  if (!options_.graph_stays || !t_.grad_enabled()) u.in_graph = now;
  return {now, u.in_graph};
}

std::vector<Trained> FlatShard::trained() const {
  std::vector<Trained> out;
  if (options_.host) return out;
  if (!options_.config.original_parameters) {
    for (const Unit& u : units_) {
      if (u.trains) out.push_back({u.shard, "fsdp.shard", u.layer});
    }
    return out;
  }
  for (const auto& [unit, member] : listed_) {
    const Member& m = units_[unit].members[member];
    if (m.part.defined()) out.push_back({m.part, m.role, m.layer});
  }
  return out;
}

// "_reset_flat_param_grad_info_if_needed": zero_grad() took the parameters' views of a gradient; now the gradient goes.
void FlatShard::forget_gradients() {
  for (Unit& u : units_) {
    if (std::ranges::none_of(u.members, [&](const Member& m) { return m.part.defined() && t_.gradient(m.part).defined(); })) u.gradient.reset();
  }
}

// "_root_pre_forward", "_pre_forward". A unit that is not wrapped has no hooks.
Tensor FlatShard::before(int unit, const Tensor& x) {
  if (!options_.wrap_blocks && unit >= 0) return x;
  Unit& u = unit_of(unit);
  if (unit < 0) {
    for (Unit& each : units_) each.needs_forward = options_.config.forward_prefetch, each.prefetched = false, each.as_loaded.reset();  // "_lazy_init"
    forget_gradients();
  }
  if (u.members.empty()) return x;
  if (u.leaf && (u.prefetched || u.in_backward)) name_views(u);  // of a block that runs again: in the graph they stand where they are met
  if (u.in_backward) return x;
  if (first_forward_) forward_order_.push_back(&u);
  if (!u.prefetched) unshard(u, true);
  u.needs_forward = false;
  const auto here = std::ranges::find(forward_order_, &u);
  if (here != forward_order_.end() && here + 1 != forward_order_.end()) {
    Unit& next = **(here + 1);
    if (next.needs_forward && !next.prefetched) {
      unshard(next, true);
      next.prefetched = true;
    }
  }
  if (u.trains || !x.defined() || !t_.grad_enabled() || !x.requires_grad()) return x;
  return t_.hook(x, [this, &u] { reshard_backward(u); });  // "_post_backward_reshard_only_hook"
}

// "_post_forward": the root stays.
Tensor FlatShard::after(int unit, const Tensor& y) {
  if (!options_.wrap_blocks && unit >= 0) return y;
  Unit& u = unit_of(unit);
  if (unit < 0) first_forward_ = false;
  if (u.members.empty() || u.in_backward) return y;
  if (u.position.value_or(0) == 0) u.position = order_.size();  // record_post_forward: of its runs the first, unless that was the first of all
  order_.push_back(&u);
  reshard(u, unit >= 0 && options_.reshard_after_forward, true);
  const bool elsewhere = u.leaf && graph_elsewhere();
  if (reads_) return y;  // "_register_pre_backward_hooks": what a graph before this waits for stays as it is
  u.needs_backward = u.ran_backward = false;
  if (!elsewhere && (!t_.grad_enabled() || !y.requires_grad())) return y;
  u.needs_backward = true;
  return elsewhere ? y : t_.hook(y, [this, &u] { pre_backward(u); });
}

// The shard in the computed dtype, on a stream of its own, until it is gathered. From the host it comes where nothing has to be gathered, too ("pre_unshard").
Tensor FlatShard::gathered_from(Unit& u) {
  Tensor input;
  if (u.stored != u.computed) input = t_.buffer("fsdp.low_precision_shard", u.layout.shard, u.computed, Category::communication, casting);
  if (!options_.host) return input;
  Tensor copy = t_.buffer("fsdp.from_host", u.layout.shard, u.stored, Category::communication, casting);
  if (input.defined()) return input;
  if (options_.config.original_parameters) u.from_host = copy;
  return copy;
}

void FlatShard::unshard(Unit& u, bool forward) {
  u.in_use = true;
  if (!u.there || options_.host) {
    t_.at(u.layer);
    const Tensor input = gathered_from(u);
    if (!u.there) {
      t_.resize(u.full, true);
      t_.send("fsdp.all_gather", static_cast<double>(u.layout.shard * options_.shards * size_of(u.computed)), Work::Beside::earlier);
      u.there = true;
    }
    t_.at(-1);
  }
  u.named = u.named || forward || options_.config.original_parameters;
  if (forward) name_views(u);
}

// "_use_unsharded_views": the flat parameter cut up; what gradients autograd sends back is joined by the cut's own node.
void FlatShard::name_views(Unit& u) {
  const Category outer = t_.category();
  const bool graph = t_.grad_enabled();
  t_.category(Category::gradients);
  t_.grad_enabled(!reads_);
  t_.at(u.layer);
  const std::vector<Tensor> parts = t_.split(u.full, 0, u.layout.lengths);
  for (std::size_t i = 0, next = 0; i < parts.size(); ++i) {
    if (u.layout.padding[i]) continue;
    const Member& m = u.members[next++];
    t_.rename(m.name, t_.view(parts[i], m.dims));
  }
  t_.at(-1);
  t_.grad_enabled(graph);
  t_.category(outer);
}

// "_use_sharded_flat_param": names stay those of whole weights where these stay after forward, and where there are no others.
void FlatShard::reshard(Unit& u, bool free, bool forward) {
  if (options_.config.original_parameters && !(forward && !options_.reshard_after_forward && (t_.grad_enabled() || graph_elsewhere()))) {
    u.named = false;
    u.from_host.reset();
  }
  if (free && u.there) {
    t_.resize(u.full, false);
    u.there = false;
  }
  u.in_use = u.prefetched = false;
}

// "get_handle_to_backward_prefetch": what left forward before this one.
void FlatShard::prefetch_backward(Unit& u) {
  const std::size_t here = u.position.value_or(0);
  if (here == 0 || here >= order_.size()) return;
  Unit& next = *order_[here - 1];
  if (!next.needs_backward || next.prefetched) return;
  unshard(next, false);
  next.prefetched = true;
}

// "_pre_backward_hook"
void FlatShard::pre_backward(Unit& u) {
  if (u.ran_backward) return;
  if (!in_backward_) forget_gradients();
  in_backward_ = u.in_backward = true;
  if (u.needs_backward && !u.prefetched) unshard(u, false);
  u.needs_backward = false;
  if (options_.config.backward_prefetch == FlatShardConfig::Prefetch::pre) prefetch_backward(u);
  u.ran_backward = true;
}

void FlatShard::reshard_backward(Unit& u) {
  u.in_backward = false;
  reshard(u, frees_in_backward());
  if (options_.config.backward_prefetch == FlatShardConfig::Prefetch::post) prefetch_backward(u);
}

// "_post_backward_hook": the whole gradient is there.
void FlatShard::post_backward(Unit& u) {
  reshard_backward(u);
  t_.at(u.layer);
  if (reduces_) reduce(u);
  else keep_whole(u);
  t_.at(-1);
}

// "_use_unsharded_grad_views", within no_sync(): a gradient of the parameter's own size is made for the moment in which its data is exchanged.
void FlatShard::keep_whole(Unit& u) {
  if (!options_.config.original_parameters) return;
  for (Member& m : u.members) {
    const bool alike = m.dims.rank == 1 && m.here == m.dims.numel() && u.stored == u.computed;
    if (alike || m.here == 0 || u.whole) continue;
    t_.buffer(m.role, m.here, u.stored, Category::gradients);
  }
  u.whole = true;
}

// "_reduce_grad": in the reduced dtype, padded to W shards; its shard of the sum in the stored dtype, added to what is there.
void FlatShard::reduce(Unit& u) {
  u.whole = false;
  const Tensor whole = t_.gradient(u.full);
  t_.zero_grad(u.full);
  Tensor cast, padded;
  if (whole.dtype() != u.reduced) cast = t_.buffer("fsdp.gradient_cast", u.layout.elements, u.reduced, Category::communication, reducing);
  if (u.layout.elements < u.layout.shard * options_.shards) padded = t_.buffer("fsdp.gradient_padded", u.layout.shard * options_.shards, u.reduced, Category::communication, reducing);
  const bool casts = u.reduced != u.stored;
  Tensor reduced = t_.buffer("fsdp.reduce_scatter", u.layout.shard, u.reduced, casts ? Category::communication : Category::gradients, reducing);
  Tensor gradient = casts ? t_.buffer("fsdp.gradients", u.layout.shard, u.stored, Category::gradients, reducing) : reduced;
  reduced.reset();
  t_.send("fsdp.reduce_scatter", static_cast<double>(u.layout.shard * options_.shards * size_of(u.reduced)), Work::Beside::later);
  hand_over(u, std::move(gradient));
}

void FlatShard::hand_over(Unit& u, Tensor gradient) {
  if (options_.host) {  // "_accumulate_sharded_grad", "_offload_grad"
    if (!u.gradient.defined()) u.gradient = std::move(gradient);
    return;
  }
  if (!options_.config.original_parameters) {
    if (!t_.gradient(u.shard).defined()) t_.set_gradient(u.shard, std::move(gradient));
    return;
  }
  if (!u.gradient.defined()) u.gradient = std::move(gradient);
  for (const Member& m : u.members) {
    if (m.part.defined()) t_.set_gradient(m.part, t_.slice(u.gradient, 0, m.here));
  }
}

// clip_grad_norm_: norms of what lies on the host come here as numbers.
void FlatShard::clip_on_host() {
  std::vector<Tensor> norms;
  for (int i = 0; i < 3; ++i) norms.push_back(t_.buffer("clip.norm", 1, Dtype::fp32, Category::optimizer));
}

void FlatShard::after_backward() {
  in_backward_ = false;
  for (Unit& u : units_) {
    if (u.in_use) reshard(u, frees_in_backward());  // "_catch_all_reshard"
    u.ran_backward = u.needs_backward = u.prefetched = u.in_backward = false;
    if (options_.host) u.gradient.reset();  // "prepare_gradient_for_optim"
    u.position.reset();
  }
  order_.clear();
}

std::int64_t FlatShard::weight_bytes() const {
  if (options_.host) return 0;
  std::int64_t sum = 0;
  for (const Unit& u : units_) sum += u.layout.shard * size_of(u.stored);
  return sum;
}

std::int64_t FlatShard::gradient_bytes() const {
  if (options_.host) return 0;
  std::int64_t sum = 0;
  for (const Unit& u : units_) sum += u.trains ? u.layout.shard * size_of(u.stored) : 0;
  return sum;
}

}  // namespace dryfit::eager
