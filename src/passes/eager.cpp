// Reference counts of the eager engine: values, storages, autograd nodes, and the events that follow from them. See eager.hpp.
#include "passes/eager.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace dryfit::eager {

Tensor::Tensor(const Tensor& o) : tape_(o.tape_), id_(o.id_) {
  if (tape_ != nullptr) tape_->keep(id_);
}
Tensor::~Tensor() {
  if (tape_ != nullptr) tape_->drop(id_);
}
Dims Tensor::dims() const { return tape_->value(*this).dims; }
Dtype Tensor::dtype() const { return tape_->value(*this).dtype; }
bool Tensor::requires_grad() const { return tape_->value(*this).requires_grad; }

Tape::Tape(std::int64_t device_batch, TapeOptions options) : options_(options) { p_.device_batch = device_batch, p_.gpu = options.gpu; }

// Handles inside the tape go before what they point to.
Tape::~Tape() {
  casts_.clear();
  hooks_.clear();
  blocks_.clear();  // with what selective checkpoints kept
  functions_.clear();
  for (Leaf& leaf : leaves_) leaf.grad.reset(), leaf.call = nullptr;
  for (std::int32_t n = 0; n < node_count_; ++n) node(n).grad.clear(), node(n).opened.clear();
}

Program Tape::take() { return std::move(p_); }

void Tape::segment(const char* phase, const char* part, int micro_step, Provenance provenance) {
  p_.segments.push_back({static_cast<std::int32_t>(p_.events.size()), phase, part, micro_step, provenance});
}

void Tape::leave_autocast() {
  autocast_.reset();
  std::vector<Cast> gone = std::move(casts_);
  casts_.clear();
}

std::int32_t Tape::new_value(const Value& v) {
  if (v.storage >= 0) keep_storage(v.storage);
  if (v.node >= 0) ++node(v.node).refs;
  if (free_values_.empty()) {
    free_values_.push_back(static_cast<std::int32_t>(values_.size()));
    values_.emplace_back();
  }
  const std::int32_t id = free_values_.back();
  free_values_.pop_back();
  values_[static_cast<std::size_t>(id)] = v;
  values_[static_cast<std::size_t>(id)].refs = 1;
  return id;
}

void Tape::drop(std::int32_t id) {
  Value& v = values_[static_cast<std::size_t>(id)];
  if (--v.refs > 0) return;
  const std::int32_t storage = v.storage, grad_fn = v.node;
  free_values_.push_back(id);
  if (storage >= 0) drop_storage(storage);
  if (grad_fn >= 0) drop_node(grad_fn);
}

void Tape::drop_storage(std::int32_t s) {
  if (--storage_refs_[static_cast<std::size_t>(s)] > 0 || hollow_[static_cast<std::size_t>(s)]) return;
  p_.events.push_back({Event::Kind::free, s, last_op_ < 0 ? s : last_op_});
}

// A node that nothing reaches any more lets its saved tensors and its edges go, and so on down.
void Tape::drop_node(std::int32_t first) {
  if (node(first).refs > 1) {
    --node(first).refs;
    return;
  }
  const std::size_t outer = dropped_.size();  // what goes here may drop nodes of its own
  dropped_.push_back(first);
  while (dropped_.size() > outer) {
    const std::int32_t n = dropped_.back();
    dropped_.pop_back();
    Node& gone = node(n);
    if (--gone.refs > 0) continue;
    release_saved(n);
    for (const std::int32_t s : gone.held) drop_storage(s);
    gone.held.clear();
    for (const Input& in : gone.inputs) {
      if (in.edge.node >= 0) dropped_.push_back(in.edge.node);
    }
    gone.inputs.clear();
    gone.grad.clear();
    if (gone.rule == Rule::function) functions_[static_cast<std::size_t>(gone.call)] = nullptr;
    if (gone.rule == Rule::accumulate) leaves_[static_cast<std::size_t>(gone.call)].node = -1;
    free_nodes_.push_back(n);
  }
}

void Tape::release_saved(std::int32_t n) {
  for (const Saved& s : node(n).saved) {
    if (s.storage >= 0) drop_storage(s.storage);
  }
  node(n).saved.clear();
}

Tensor Tape::empty(const char* role, Dims d, Dtype dtype, std::int64_t padding) { return place(role, d, d.numel() + padding, dtype, false); }

Tensor Tape::place(const char* role, Dims d, std::int64_t elements, Dtype dtype, bool hollow) {
  TensorInfo t;
  t.role = role;
  t.layer = layer_;
  t.dtype = dtype;
  t.category = category_;
  t.stream = stream_;
  t.batched = d.batched && !evaluates_;
  t.shape = shown(d);
  t.bytes = elements * size_of(dtype);
  p_.tensors.push_back(t);
  storage_refs_.push_back(0);
  hollow_.push_back(hollow);
  const auto s = static_cast<std::int32_t>(p_.tensors.size()) - 1;
  if (!hollow) {
    p_.events.push_back({Event::Kind::alloc, s, s});
    last_op_ = s;
    if (told_ != nullptr) made_.push_back(s);
  }
  return wrap({d, s, 0, -1, 0, -1, dtype, false});
}

Tensor Tape::onto(Tensor old, const char* role, Dims d, Dtype dtype, std::int64_t padding) {
  const std::int32_t s = storage_of(old);
  old.reset();
  Tensor t = empty(role, d, dtype, padding);
  const Event& before = p_.events[p_.events.size() - 2];
  if (before.kind == Event::Kind::free && before.tensor == s) p_.events.back().from = s;
  return t;
}

void Tape::resize(const Tensor& t, bool full) {
  const auto s = static_cast<std::size_t>(value(t).storage);
  if (hollow_[s] != full) return;
  hollow_[s] = !full;
  const auto id = static_cast<std::int32_t>(s);
  p_.events.push_back({full ? Event::Kind::alloc : Event::Kind::free, id, full || last_op_ < 0 ? id : last_op_});
  if (full) last_op_ = id;
}

void Tape::rename(const Tensor& name, const Tensor& meaning) {
  Value now = value(meaning);
  now.refs = value(name).refs;
  if (now.storage >= 0) keep_storage(now.storage);
  if (now.node >= 0) ++node(now.node).refs;
  const Value before = std::exchange(value(name), now);
  if (before.storage >= 0) drop_storage(before.storage);
  if (before.node >= 0) drop_node(before.node);
}

void Tape::leave_to_saved(const Tensor& t, bool all) {
  const std::int32_t s = value(t).storage;
  std::vector<Saved*> held;
  for (std::int32_t n = 0; (all || parts_of_weights_) && n < node_count_; ++n) {
    for (Saved& one : node(n).saved) {
      if (one.storage == s && (all || one.part)) held.push_back(&one);
    }
  }
  if (hollow_[static_cast<std::size_t>(s)]) return;
  resize(t, false);
  if (held.empty()) return;
  const TensorInfo info = p_.tensors[static_cast<std::size_t>(s)];
  const std::int16_t layer = layer_;
  const Category category = category_;
  layer_ = info.layer, category_ = info.category;
  const Tensor kept = place(info.role, value(t).dims, info.bytes / size_of(info.dtype), info.dtype, false);
  p_.events.back().from = s;  // it never left
  layer_ = layer, category_ = category;
  for (Saved* one : held) {
    drop_storage(s);
    one->storage = value(kept).storage;
    keep_storage(one->storage);
  }
}

Tensor Tape::empty(const char* role, Dims d, Dtype dtype, Category category) {
  const Category outer = std::exchange(category_, category);
  Tensor made = empty(role, d, dtype);
  category_ = outer;
  return made;
}

Tensor Tape::buffer(const char* role, std::int64_t elements, Dtype dtype, Category category, int on_stream) {
  const std::int8_t outer = std::exchange(stream_, static_cast<std::int8_t>(on_stream));
  Tensor made = empty(role, eager::dims({elements}, false), dtype, category);
  stream_ = outer;
  return made;
}

Tensor Tape::parameter(const char* role, Dims d, Dtype dtype, bool requires_grad) {
  Tensor t = empty(role, d, dtype);
  return requires_grad ? leaf(t) : t;
}

Tensor Tape::hollow_parameter(const char* role, Dims d, std::int64_t stored, Dtype dtype, bool requires_grad) {
  Tensor t = place(role, d, stored, dtype, true);
  return requires_grad ? leaf(t) : t;
}

Tensor Tape::gradient(const Tensor& parameter) const {
  const std::int32_t leaf = value(parameter).leaf;
  return leaf < 0 ? Tensor() : leaves_[static_cast<std::size_t>(leaf)].grad;
}

void Tape::set_gradient(const Tensor& parameter, Tensor g) { leaves_[static_cast<std::size_t>(value(parameter).leaf)].grad = std::move(g); }

void Tape::zero_grad(const Tensor& parameter) {
  if (value(parameter).leaf >= 0) leaves_[static_cast<std::size_t>(value(parameter).leaf)].grad.reset();
}

void Tape::on_gradient(const Tensor& parameter, std::function<void()> call) { leaves_[static_cast<std::size_t>(value(parameter).leaf)].call = std::move(call); }

void Tape::kept_gradient(const Tensor& parameter) {
  const Leaf& leaf = leaves_[static_cast<std::size_t>(value(parameter).leaf)];
  if (leaf.call) leaf.call();
}

Tensor Tape::alias(const Tensor& x, Dims d) {
  d.batched = value(x).dims.batched;
  return wrap({d, value(x).storage, 0, -1, 0, -1, value(x).dtype, false});
}

Tensor Tape::view_of(const Tensor& x, Dims d) {
  Tensor out = alias(x, d);
  value(out).view = true;
  return out;
}

// One that was used up, or another.
std::int32_t Tape::new_node() {
  if (free_nodes_.empty()) {
    if (static_cast<std::size_t>(node_count_) == nodes_.size() * kNodesAPiece) nodes_.push_back(std::make_unique<Node[]>(kNodesAPiece));
    return node_count_++;
  }
  const std::int32_t n = free_nodes_.back();
  free_nodes_.pop_back();
  return n;
}

Edge Tape::edge_of(const Tensor& t) {
  const Value& v = value(t);
  if (!v.requires_grad) return {};
  if (v.leaf < 0) return {v.node, v.slot};
  Leaf& leaf = leaves_[static_cast<std::size_t>(v.leaf)];
  if (leaf.node < 0) {
    const std::int32_t n = new_node();
    const TensorInfo& info = p_.tensors[static_cast<std::size_t>(v.storage)];
    Node& made = node(n);
    made.rule = Rule::accumulate;
    made.sequence = std::numeric_limits<std::int64_t>::max();
    made.call = v.leaf;
    made.layer = info.layer;
    made.role = info.role;
    made.out = v.dims;
    made.dtype = v.dtype;
    made.category = Category::gradients;
    made.refs = 0;
    made.walk = 0;
    leaf.node = n;
  }
  return {leaf.node, 0};
}

// A node with edges to the inputs that want gradients, or -1 when none does (unless it is made `always`) or gradients are off.
std::int32_t Tape::record(Rule rule, std::span<const Tensor> inputs, const char* role, bool always) {
  if (told_ != nullptr) ask(rule, inputs);
  const bool wanted = always || std::ranges::any_of(inputs, [](const Tensor& t) { return t.defined() && t.requires_grad(); });
  if (!grad_) unrecorded_ = unrecorded_ || wanted;
  if (!grad_ || !wanted) return -1;
  edges_.clear();
  for (const Tensor& t : inputs) {
    const Edge edge = t.defined() ? edge_of(t) : Edge();
    if (edge.node >= 0) ++node(edge.node).refs;
    edges_.push_back(edge);
  }
  const std::int32_t n = new_node();
  Node& made = node(n);
  made.rule = rule;
  made.category = category_;
  made.layer = layer_;
  made.role = role;
  made.refs = 0;
  made.walk = 0;
  made.call = -1;
  made.detail = 0;
  made.sequence = ++sequence_;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Input& in = made.inputs.emplace_back();
    if (!inputs[i].defined()) continue;
    in.dims = value(inputs[i]).dims;
    in.edge = edges_[i];
    in.dtype = value(inputs[i]).dtype;
  }
  return n;
}

void Tape::save(std::int32_t n, const Tensor& t) {
  if (n < 0) return;
  if (first_saver_ < 0) first_saver_ = n;
  keep_storage(value(t).storage);
  tensors_at_last_save_ = p_.tensors.size();
  if (told_ != nullptr) work_at_last_save_ = told_->size() + (std::ranges::find(made_, value(t).storage) != made_.end() ? 1 : 0);
  const TensorInfo& whole = p_.tensors[static_cast<std::size_t>(value(t).storage)];
  const bool part = whole.category == Category::weights && value(t).dims.numel() * size_of(value(t).dtype) < whole.bytes;
  parts_of_weights_ = parts_of_weights_ || part;
  const Saved s{value(t).dims, value(t).storage, value(t).dtype, 0, part};
  node(n).saved.push_back(offloads_ ? packed(s) : s);
}

Tensor Tape::saved(std::int32_t n, int i) {
  const Saved& s = node(n).saved[static_cast<std::size_t>(i)];
  return wrap({s.dims, s.storage, 0, -1, 0, -1, s.dtype, false});
}

Tensor Tape::attach(Tensor out, std::int32_t n, int slot) {
  if (asked_.open) tell_forward(out);
  if (n < 0) return out;
  Value& v = value(out);
  v.node = n;
  v.slot = slot;
  v.requires_grad = true;
  ++node(n).refs;
  if (slot == 0) {
    node(n).out = v.dims;
    node(n).dtype = v.dtype;
  }
  return out;
}

}  // namespace dryfit::eager
