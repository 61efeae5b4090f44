// See fully_shard.hpp.
#include "passes/fully_shard.hpp"

#include <algorithm>
#include <string_view>

namespace dryfit::eager {

// fsdp2_prepare_model: the tail stays gathered between forward and backward, as the root does by fully_shard's own choice.
FullyShard::FullyShard(Tape& tape, const std::vector<Transformer::Weight>& weights, FullyShardOptions options) : t_(tape), options_(options) {
  int last = -1;
  for (const Transformer::Weight& w : weights) last = std::max(last, w.layer);
  const Category outer = t_.category();
  t_.category(Category::weights);
  for (const Transformer::Weight& w : weights) {
    const int unit = unit_of(w);
    for (int next = static_cast<int>(groups_.size()) - kUnits; next <= std::max(unit, UnitHooks::kModel); ++next) {
      Group& g = groups_.emplace_back();
      g.layer = std::max(next, -1);
      const bool stays = (next == UnitHooks::kTail && !options.tail_reshards) || next == UnitHooks::kModel || (next == last && !options.last_block_reshards);
      g.reshards = options.reshard_after_forward && (options.torchtune || options.one_unit || !stays);
    }
    Member m{w.tensor, {}, {}, w.role, w.layer, w.trains, 0};
    Dims d = w.tensor.dims();
    if (d.rank == 0) d = dims({1}, false);
    d.size[0] = ceil_div(d.size[0], options_.shards);
    t_.at(w.layer);
    const bool read = options_.host || (options_.torchtune && !std::string_view(w.role).starts_with("lora."));  // on the host: fsdp2_load_full_state_dict
    const Dtype stored = w.trains ? options_.stored : options_.frozen;
    Tensor whole, part;
    if (read) whole = t_.buffer(w.role, w.tensor.dims().numel(), stored, Category::communication, compute);
    m.shard = options_.host ? t_.hollow_parameter(w.role, contiguous(d), d.numel(), stored, w.trains) : t_.parameter(w.role, contiguous(d), stored, w.trains);
    m.padded = d.numel() * options_.shards;
    if (read && m.padded != w.tensor.dims().numel()) part = t_.buffer(w.role, d.numel(), stored, Category::communication, compute);
    if (options_.host) t_.buffer(w.role, d.numel(), stored, Category::communication, compute);  // cut here, and sent there
    if (w.trains && !options_.host) trained_.push_back({m.shard, m.role, m.layer});
    group_of(unit).members.push_back(std::move(m));
  }
  t_.at(-1);
  t_.category(outer);
}

int FullyShard::unit_of(const Transformer::Weight& w) const {
  const std::string_view role = w.role;
  if (options_.one_unit) return UnitHooks::kModel;
  if (w.layer >= 0) return options_.wrap_blocks ? w.layer : UnitHooks::kModel;
  if (role == "wte") return options_.tied ? UnitHooks::kTail : options_.embedding_apart ? UnitHooks::kEmbedding : UnitHooks::kModel;
  return (role == "lm_head" && options_.head_apart) || (options_.norm_in_tail && role == "final") ? UnitHooks::kTail : UnitHooks::kModel;
}

UnitHooks FullyShard::hooks() {
  return {.before = [this](int unit, const Tensor& x) { return before(unit, x); }, .after = [this](int unit, const Tensor& y) { return after(unit, y); }, .whole = [this](const Tensor& w) { return whole(w); }, .carves = true};
}

// DTensor.full_tensor(): gathered in the dtype of the shards, with what pads them.
Tensor FullyShard::whole(const Tensor& weight) {
  for (const Group& g : groups_) {
    for (const Member& m : g.members) {
      if (t_.storage_of(m.full) != t_.storage_of(weight)) continue;
      const std::int64_t elements = weight.dims().numel();
      const Category outer = t_.category();
      t_.category(Category::weights);
      t_.send("fsdp.all_gather", static_cast<double>(m.padded * size_of(m.stored())), Work::Beside::nothing);
      Tensor out = t_.empty("fsdp.full_tensor", contiguous(weight.dims()), m.stored(), m.padded - elements);
      t_.category(outer);
      return out;
    }
  }
  return weight;
}

std::int64_t FullyShard::weight_bytes() const {
  if (options_.host) return 0;
  std::int64_t sum = 0;
  for (const Group& g : groups_) {
    for (const Member& m : g.members) sum += m.shard.dims().numel() * size_of(m.shard.dtype());
  }
  return sum;
}

// FSDPParamGroup.pre_forward, with the node that runs post_backward when the unit's input has its gradient. A unit that is not wrapped
// has no hooks.
Tensor FullyShard::before(int unit, const Tensor& x) {
  if (!hooked(unit)) return unit == UnitHooks::kEmbedding ? before(UnitHooks::kTail, x) : x;
  Group& g = group_of(unit);
  if (g.state == State::forward) return x;  // of a unit of several modules the first
  t_.at(g.layer);
  g.state = State::forward;
  unshard(g);
  wait(g);
  t_.at(-1);
  if (!x.defined() || !t_.grad_enabled() || !x.requires_grad()) return x;
  return t_.hook(x, [this, &g] { post_backward(g); });
}

Tensor FullyShard::after(int unit, const Tensor& y) {
  if (!hooked(unit)) return y;
  Group& g = group_of(unit);
  if (g.state == State::forward) {  // not at a further output
    if (g.reshards) reshard(g);
    if (!g.members.empty()) {
      g.forward_order.push_back(order_.size());
      order_.push_back(&g);
    }
    g.state = State::idle;
    if (unit == UnitHooks::kModel || t_.in_backward()) kept_gather_.reset();  // FSDPState._post_forward: a block that runs again is the root of its own forward pass
  }
  if (!t_.grad_enabled() || !y.requires_grad()) return y;
  return t_.hook(y, [this, &g] { pre_backward(g); });
}

// foreach_all_gather: shards cast to the computed dtype in one flat tensor, which goes when the collective has its input; the output of all ranks.
void FullyShard::unshard(Group& g) {
  if (g.gathered.defined() || g.there || g.members.empty()) return;
  std::int64_t cast = 0, bytes = 0;
  bool uniform = true;
  const Dtype first = g.members.front().full.dtype();
  for (const Member& m : g.members) {
    const Dtype d = m.full.dtype();
    if (d != m.stored()) cast += m.padded / options_.shards;
    bytes += m.padded * size_of(d);
    uniform = uniform && d == first;
  }
  std::vector<Tensor> inputs;
  if (options_.host) inputs = from_host(g);
  else if (cast > 0) inputs.push_back(t_.buffer("fsdp.all_gather_input", cast, first, Category::communication, gathering));
  t_.send("fsdp.all_gather", static_cast<double>(bytes), Work::Beside::earlier);
  // of several dtypes it goes as bytes
  g.gathered = t_.buffer("fsdp.all_gather", uniform ? bytes / size_of(first) : bytes, uniform ? first : Dtype::uint8, Category::communication, gathering);
}

// all_gather_inputs: each shard comes as it is stored, and is cast on its own.
std::vector<Tensor> FullyShard::from_host(const Group& g) {
  std::vector<Tensor> inputs;
  for (const Member& m : g.members) {
    const std::int64_t n = m.shard.dims().numel();
    Tensor input = t_.buffer("fsdp.from_host", n, m.stored(), Category::communication, gathering);
    if (m.full.dtype() != m.stored()) input = t_.buffer("fsdp.all_gather_input", n, m.full.dtype(), Category::communication, gathering);
    inputs.push_back(std::move(input));
  }
  return inputs;
}

// wait_for_unshard. In forward the output stays until the next unit's copy-out, so that the two can overlap; a local of it until that is done.
void FullyShard::wait(Group& g) {
  if (!g.gathered.defined()) return;
  const bool forward = g.state == State::forward;
  const Tensor previous = forward ? std::move(kept_gather_) : Tensor();
  double copied = 0;
  for (const Member& m : g.members) {
    t_.resize(m.full, true);
    copied += static_cast<double>(m.padded * size_of(m.full.dtype()));
  }
  t_.tell_traffic("fsdp.copy_out", 2 * copied);
  g.there = true;
  if (forward) kept_gather_ = g.gathered;
  g.gathered.reset();
}

void FullyShard::reshard(Group& g) {
  if (!g.there) return;
  for (const Member& m : g.members) t_.resize(m.full, false);
  g.there = false;
}

// Gathers the unit, unless it was prefetched, and begins to gather the one that left forward before it.
void FullyShard::pre_backward(Group& g) {
  if (g.state == State::pre_backward) return;
  g.state = State::pre_backward;
  unshard(g);
  wait(g);
  if (g.forward_order.empty()) return;
  const std::size_t here = g.forward_order.back();
  g.forward_order.pop_back();
  if (here > 0) unshard(*order_[here - 1]);
}

void FullyShard::post_backward(Group& g) {
  g.state = State::post_backward;
  std::vector<Tensor> gradients;
  std::vector<Member*> members;
  for (Member& m : g.members) {
    Tensor whole = m.trains ? t_.gradient(m.full) : Tensor();
    if (m.accumulated.defined() && whole.defined()) {
      t_.zero_grad(m.full);
      whole.reset();
    }
    if (!reduces_) {
      if (whole.defined() && whole.dtype() != options_.reduced) {
        t_.zero_grad(m.full);
        m.accumulated = t_.buffer(m.role, whole.dims().numel(), options_.reduced, Category::gradients, compute);
      }
      continue;
    }
    if (m.accumulated.defined()) {
      gradients.push_back(std::move(m.accumulated));
    } else if (whole.defined()) {
      gradients.push_back(std::move(whole));
      t_.zero_grad(m.full);
    } else {
      continue;
    }
    members.push_back(&m);
  }
  reshard(g);
  if (members.empty()) return;
  reduce_input_.reset();
  reduce(g, std::move(gradients), members);
}

// foreach_reduce: whole gradients into one flat input, its shard of the sum, the shard in the stored dtype; all .grad are views of it.
void FullyShard::reduce(Group& g, std::vector<Tensor> gradients, const std::vector<Member*>& members) {
  t_.at(g.layer);
  std::int64_t padded = 0;
  for (const Member* m : members) padded += m->padded;
  reduce_input_ = t_.buffer("fsdp.reduce_scatter_input", padded, options_.reduced, Category::communication, compute);
  gradients.clear();
  t_.tell_traffic("fsdp.copy_in", static_cast<double>(2 * padded * size_of(options_.reduced)));
  t_.send("fsdp.reduce_scatter", static_cast<double>(padded * size_of(options_.reduced)), Work::Beside::later);
  const bool cast = options_.reduced != options_.stored;
  Tensor output = t_.buffer("fsdp.reduce_scatter", padded / options_.shards, options_.reduced, cast ? Category::communication : Category::gradients, reducing);
  if (cast) output = t_.buffer("fsdp.gradients", padded / options_.shards, options_.stored, Category::gradients, reducing);
  if (!options_.host) {  // there copies are added
    for (Member* m : members) {
      if (!t_.gradient(m->shard).defined()) t_.set_gradient(m->shard, t_.slice(output, 0, m->padded / options_.shards));
      t_.kept_gradient(m->shard);
    }
  }
  t_.at(-1);
}

void FullyShard::after_backward() {
  for (Group& g : groups_) {
    if (g.state != State::post_backward) post_backward(g);
    g.state = State::idle;
    g.gathered.reset();
    g.forward_order.clear();
  }
  order_.clear();
  reduce_input_.reset();
}

}  // namespace dryfit::eager
