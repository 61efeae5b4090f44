// The backward pass of the eager engine: the queue, input buffers, what each rule allocates, and AccumulateGrad. Sources:
// torch/csrc/autograd/{engine,input_buffer,FunctionsManual}.cpp, functions/accumulate_grad.h, aten/src/ATen/native/cuda (torch 2.9).
#include <algorithm>
#include <array>
#include <utility>

#include "passes/attention_scratch.hpp"
#include "passes/eager.hpp"

namespace dryfit::eager {

namespace {

bool expands_to(const Dims& from, const Dims& to) { return !from.same_sizes(to); }

}  // namespace

// How many gradients each node reached from the root waits for.
void Tape::count_dependencies(std::int32_t root) {
  const std::int32_t walk = ++walk_;
  std::vector<std::int32_t> stack{root};
  node(root).walk = walk;
  node(root).pending = 0;
  while (!stack.empty()) {
    const std::int32_t n = stack.back();
    stack.pop_back();
    for (const Input& in : node(n).inputs) {
      if (in.edge.node < 0) continue;
      Node& next = node(in.edge.node);
      if (next.walk != walk) {
        next.walk = walk;
        next.pending = 0;
        stack.push_back(in.edge.node);
      }
      ++next.pending;
    }
  }
}

void Tape::backward(const Tensor& loss) {
  const bool outer_grad = grad_;
  grad_ = false;
  settle_made();
  {
    const Tensor one = empty("loss", loss.dims(), loss.dtype());
    run_from(value(loss).node, one);
  }
  forget_unpacked();
  grad_ = outer_grad;
}

// python_engine.cpp's list of gradients, which validate_outputs changes in place, names them to the end.
void Tape::backward(const Tensor& out, Tensor gradient) {
  const Value root = value(out);  // its memory may be gone
  if (root.node < 0) return;
  validate({root.dims, {root.node, root.slot}, root.dtype}, gradient, node(root.node).role);
  run_from(root.node, gradient);
}

// Runs every node between `root` and the leaves, latest first; leaves as soon as they have all they wait for. Nodes older than `floor` are left to
// the pass around this one: they wait there for what is younger.
void Tape::run_from(std::int32_t root, Tensor g, std::int64_t floor, std::function<void()> before_saved) {
  if (root < 0) return;
  const bool outer_grad = grad_;
  grad_ = false;
  Ready* outer = ready_;
  Ready ready;
  ready_ = &ready;
  const auto around = std::exchange(around_, {outer, floor});
  count_dependencies(root);
  node(root).grad.assign(1, Tensor());
  node(root).grad[0] = std::move(g);
  ready.push({node(root).sequence, root});
  while (!ready.empty()) {
    const std::int32_t n = ready.top().second;
    ready.pop();
    if (before_saved && !node(n).saved.empty()) std::exchange(before_saved, nullptr)();
    run(n);
  }
  ready_ = outer;
  around_ = around;
  grad_ = outer_grad;
}

void Tape::run(std::int32_t n) {
  if (node(n).rule == Rule::accumulate) return accumulate(n);
  ++node(n).refs;  // stays while it runs
  const std::int16_t outer_layer = layer_;
  const Category outer_category = category_;
  layer_ = node(n).layer;
  category_ = node(n).category;
  Node& at = node(n);
  if (running_ == given_.size()) given_.emplace_back();
  std::vector<Tensor>& given = given_[running_++];
  given.resize(at.inputs.size());
  if (told_ != nullptr) settle_made();
  const Operand gradient = told_ != nullptr && !at.grad.empty() && at.grad[0].defined() ? described(at.grad[0]) : Operand{};
  const bool opens = !at.saved.empty() && at.rule != Rule::checkpoint;
  if (opens) unpack(n);
  apply(n, given);
  if (opens && unpacker_ >= 0) after_unpacking();
  if (told_ != nullptr) tell_backward(n, gradient, given);
  if (in_newer_) {  // its hook hands out what came back and keeps nothing: gone with the node's own names, before gradients are cast
    at.opened.clear();
    release_saved(n);
  }
  for (std::size_t i = 0; i < at.inputs.size(); ++i) {
    if (given[i].defined()) validate(at.inputs[i], given[i], at.role);
  }
  at.grad.clear();
  at.opened.clear();
  if (!options_.retain_graph) release_saved(n);
  for (std::size_t i = 0; i < at.inputs.size(); ++i) {
    if (at.inputs[i].edge.node >= 0) deliver(at.inputs[i].edge, std::move(given[i]));
  }
  given.clear();
  --running_;
  layer_ = outer_layer;
  category_ = outer_category;
  drop_node(n);
}

// engine.cpp validate_outputs: a gradient is summed to the input's shape and cast to its dtype.
void Tape::validate(const Input& wanted, Tensor& g, const char* role) {
  if (wanted.edge.node < 0) return g.reset();
  const bool sums = expands_to(value(g).dims, wanted.dims);
  if (!sums && value(g).dtype == wanted.dtype) return;
  const bool leaf = node(wanted.edge.node).rule == Rule::accumulate;
  const Category before = category_;
  if (leaf) category_ = Category::gradients;
  const char* name = leaf ? node(wanted.edge.node).role : role;
  if (sums) g = sum_to(g, wanted.dims, name);
  if (value(g).dtype != wanted.dtype) g = to(g, wanted.dtype, name);
  category_ = before;
}

Tensor Tape::sum_to(const Tensor& g, const Dims& d, const char* role) {
  ask(Rule::sum, std::array{g});
  return attach(summed(g, d, role), -1);
}

Tensor Tape::summed(const Tensor& x, const Dims& d, const char* role, std::optional<Dtype> dtype) {
  Tensor out = empty(role, eager::contiguous(d), dtype.value_or(x.dtype()));
  const Dims from = x.dims();
  const std::int64_t columns = d.numel(), rows = from.numel() / columns;
  const ColumnSum own = from.back() == d.back() ? column_sum(rows, columns, options_.gpu) : ColumnSum();
  if (own.partials == 0) return out;
  const Tensor partials = scratch("sum.partials", eager::dims({own.partials / columns / size_of(Dtype::fp32), columns}, false), Dtype::fp32);
  if (from.batched) p_.tensors.back().summed_rows = static_cast<std::int32_t>(rows / p_.device_batch);
  const Tensor counters = scratch("sum.counters", eager::dims({own.counters}, false), Dtype::uint8);
  return out;
}

// input_buffer.cpp: the second gradient is added onto the first when nobody else holds it or its storage, as what a view was made of does; otherwise a sum
// is made.
void Tape::deliver(Edge edge, Tensor g) {
  Node& next = node(edge.node);
  if (next.grad.size() <= static_cast<std::size_t>(edge.slot)) next.grad.resize(static_cast<std::size_t>(edge.slot) + 1);
  Tensor& slot = next.grad[static_cast<std::size_t>(edge.slot)];
  if (g.defined()) {
    if (!slot.defined()) {
      // what waits for a flat parameter's gradient is one
      if (next.category == Category::gradients && value(g).refs == 1) p_.tensors[static_cast<std::size_t>(value(g).storage)].category = Category::gradients;
      slot = std::move(g);
    } else {
      const Value& old = value(slot);
      ask(Rule::pass, std::array{slot, g});
      const bool alone = old.refs == 1 && !old.view && storage_refs_[static_cast<std::size_t>(old.storage)] == 1 && is_dense(old.dims);
      if (!alone || !options_.add_in_place) slot = pointwise(std::array{slot, g}, next.role);
      slot = attach(std::move(slot), -1);
    }
  }
  if (--next.pending == 0) (next.sequence < around_.floor ? around_.ready : ready_)->push({next.sequence, edge.node});
}

// accumulate_grad.h: the first gradient is kept as it is when nothing else names it and its layout is the parameter's, else copied;
// later ones are added onto it.
void Tape::accumulate(std::int32_t n) {
  const auto leaf_index = static_cast<std::size_t>(node(n).call);
  if (node(n).grad.empty() || !node(n).grad[0].defined()) return;
  Tensor g = std::move(node(n).grad[0]);
  node(n).grad.clear();
  const Dims d = node(n).out;
  if (!leaves_[leaf_index].grad.defined()) {
    const bool same_layout = is_dense(d) ? g.dims().stride == d.stride || (is_contiguous(d) && is_contiguous(g.dims())) : is_contiguous(g.dims());
    if (value(g).refs == 1 && same_layout) {
      p_.tensors[static_cast<std::size_t>(value(g).storage)].category = Category::gradients;
      leaves_[leaf_index].grad = std::move(g);
    } else {
      const std::int16_t outer_layer = layer_;
      const Category outer = category_;
      layer_ = node(n).layer;
      category_ = Category::gradients;
      leaves_[leaf_index].grad = empty(node(n).role, eager::contiguous(d), node(n).dtype);
      category_ = outer;
      layer_ = outer_layer;
    }
  } else {
    ask(Rule::pass, std::array{leaves_[leaf_index].grad, g});
    attach(leaves_[leaf_index].grad, -1);
  }
  g.reset();
  if (leaves_[leaf_index].call) leaves_[leaf_index].call();
}

// out: one for each input, undefined.
void Tape::apply(std::int32_t n, std::vector<Tensor>& out) {
  const Node& at = node(n);
  if (at.rule == Rule::checkpoint) {
    out[0] = backward_checkpoint(n);
    return;
  }
  const char* role = at.role;
  Tensor g;  // undefined where only a later output got one
  if (!at.grad.empty()) g = at.grad[0];
  node(n).grad.resize(std::max<std::size_t>(1, at.grad.size()));
  switch (at.rule) {
    case Rule::pass:
      for (std::size_t i = 0; i < out.size(); ++i) {
        if (wants(n, i)) out[i] = g;
      }
      g.reset();
      break;
    case Rule::negate_second:
      if (wants(n, 0)) out[0] = g;
      if (wants(n, 1)) out[1] = empty(role, like(g.dims()), g.dtype());
      break;
    case Rule::view: out[0] = reshape(g, input(n, 0).dims, role); break;
    case Rule::transpose: out[0] = transpose(g, static_cast<int>(at.detail / 8), static_cast<int>(at.detail % 8)); break;
    case Rule::slice: out[0] = empty(role, eager::contiguous(input(n, 0).dims), g.dtype()); break;
    case Rule::split: out[0] = backward_split(n); break;
    case Rule::cat:
      for (std::size_t i = 0; i < out.size(); ++i) {
        if (!wants(n, i)) continue;
        Dims part = g.dims();
        part.size = input(n, i).dims.size;
        out[i] = view_of(g, part);
      }
      break;
    case Rule::scale: out[0] = empty(role, like(g.dims()), g.dtype()); break;
    case Rule::product: backward_product(n, out); break;
    case Rule::power: {
      const Tensor x = saved(n, 0);
      const Tensor raised = empty(role, like(x.dims()), x.dtype());
      const Tensor times = empty(role, like(x.dims()), x.dtype());
      out[0] = pointwise(std::array{g, times}, role);
      break;
    }
    case Rule::rsqrt: {
      const Tensor half = empty(role, like(g.dims()), g.dtype());
      const Tensor cube = empty(role, like(g.dims()), g.dtype());
      out[0] = pointwise(std::array{half, cube}, role);
      break;
    }
    case Rule::mean: {
      const Tensor wide = view_of(g, expanded(g.dims(), input(n, 0).dims));
      out[0] = pointwise(std::array{wide}, role);
      break;
    }
    case Rule::sum: out[0] = view_of(g, expanded(g.dims(), input(n, 0).dims)); break;
    case Rule::matmul: backward_matmul(n, out); break;
    case Rule::grouped: backward_grouped(n, out); break;
    case Rule::embedding: backward_embedding(n, out); break;
    case Rule::gather: {
      if (at.detail != 0) return backward_index(n, out);
      out[0] = added_to_zeros(n);
      break;
    }
    case Rule::index_add:
      if (wants(n, 0)) out[0] = g;
      if (wants(n, 1)) out[1] = empty(role, eager::contiguous(input(n, 1).dims), g.dtype());
      break;
    case Rule::pad: out[0] = empty(role, like(narrowed(g.dims(), -1, input(n, 0).dims.back())), g.dtype()); break;
    case Rule::layer_norm:
    case Rule::rms_norm: backward_norm(n, out); break;
    case Rule::attention: backward_attention(n, out); break;
    case Rule::nll: out[0] = empty(role, eager::contiguous(input(n, 0).dims), input(n, 0).dtype); break;
    case Rule::checkpoint: break;
    case Rule::quantized: {
      const Dims d = input(n, 0).dims;
      const Dtype given = input(n, 0).dtype;
      {
        const Tensor full = dequantized(eager::dims({at.detail / 4, d.back()}, false), (at.detail & 1) != 0 ? Dtype::fp16 : given, g.dtype(), (at.detail & 2) != 0, role);
        out[0] = empty(role, eager::contiguous(d), g.dtype());
        multiplied();
      }
      if (g.dtype() != given) out[0] = empty(role, eager::contiguous(d), given);  // as the input is
      break;
    }
    case Rule::hook:
      hooks_[static_cast<std::size_t>(at.call)]();
      out[0] = g;
      break;
    case Rule::function: {
      std::vector<Tensor>& opened = node(n).opened;
      for (std::size_t i = 0; i < at.saved.size(); ++i) opened.push_back(saved(n, static_cast<int>(i)));
      if (!options_.retain_graph) release_saved(n);
      const BackwardOfAll backward = functions_[static_cast<std::size_t>(at.call)];
      std::vector<Tensor> given = at.grad;
      given.resize(static_cast<std::size_t>(at.detail));
      out = backward(given, opened);
      out.resize(at.inputs.size());
      for (std::size_t i = 0; i < out.size(); ++i) {
        if (!wants(n, i)) out[i].reset();
      }
      break;
    }
    case Rule::accumulate: break;
  }
}

// mul: alphabetical order of the operands' names, so `other` first.
void Tape::backward_product(std::int32_t n, std::vector<Tensor>& out) {
  const Tensor g = node(n).grad[0];
  const char* role = node(n).role;
  const int second = wants(n, 0) ? 1 : 0;
  if (wants(n, 1)) out[1] = pointwise(std::array{g, saved(n, second)}, role);
  if (wants(n, 0)) out[0] = pointwise(std::array{g, saved(n, 0)}, role);
}

// The products' own layout: a column-major operand (a transposed weight) gets its gradient as the transpose of a row-major one.
void Tape::backward_matmul(std::int32_t n, std::vector<Tensor>& out) {
  const Tensor g = node(n).grad[0];
  const char* role = node(n).role;
  const auto made = [&](std::size_t i) {
    const Dims d = input(n, i).dims;
    const bool column = d.rank == 2 && d.stride[0] == 1 && d.stride[1] == d.size[0] && d.size[1] != 1;
    const Category before = category_;
    if (i == 1 && !d.batched) category_ = Category::gradients;
    Dims wanted = column ? swapped(eager::contiguous(swapped(d, 0, 1)), 0, 1) : eager::contiguous(d);
    Tensor t = empty(role, wanted, g.dtype());
    category_ = before;
    multiplied();
    return t;
  };
  const bool biased = node(n).detail == 1;  // addmm goes from mat1 to mat2, mm and bmm from mat2 to self
  if (biased && wants(n, 0)) out[0] = made(0);
  if (wants(n, 1)) out[1] = made(1);
  if (!biased && wants(n, 0)) out[0] = made(0);
  if (out.size() > 2 && wants(n, 2)) out[2] = g;
}

// FunctionsManual.cpp split_with_sizes_backward: where an output has no gradient zeros are made, to join all.
Tensor Tape::backward_split(std::int32_t n) {
  const Node& at = node(n);
  const auto given = std::ranges::find_if(at.grad, [](const Tensor& g) { return g.defined(); });
  const Dtype d = given == at.grad.end() ? at.dtype : given->dtype();
  const Dims whole = input(n, 0).dims;
  const Cut& cut = cuts_[static_cast<std::size_t>(at.detail)];
  std::vector<Tensor> zeros;
  for (std::size_t i = 0; i < cut.lengths.size(); ++i) {
    if (i >= at.grad.size() || !at.grad[i].defined()) zeros.push_back(empty(at.role, eager::contiguous(narrowed(whole, cut.dim, cut.lengths[i])), d));
  }
  return empty(at.role, eager::contiguous(whole), d);
}

// Written into, where tensors are not subclasses.
Tensor Tape::added_to_zeros(std::int32_t n) {
  const Tensor& g = node(n).grad[0];
  const char* role = node(n).role;
  Tensor zeros = empty(role, eager::contiguous(input(n, 0).dims), g.dtype());
  return options_.add_in_place ? zeros : empty(role, zeros.dims(), g.dtype());
}

// Indexing.cu, index_put_with_sort_kernel: places as one number each, sorted with where they were before; rows of zeros are added to in their order.
void Tape::backward_index(std::int32_t n, std::vector<Tensor>& out) {
  out[0] = added_to_zeros(n);
  const Dims index = saved(n, 0).dims();
  const auto places = [&] { return scratch("index.sorted", index, Dtype::int64); };
  Tensor linear;
  {
    const Tensor wrapped = places();
    linear = places();
  }
  const Tensor sorted = places(), original = places(), range = places();
  const Tensor keys = places(), values = places();  // of the radix sort, whose inputs stay as they are
}

// Embedding.cu, EmbeddingBackwardKernel.cu: with more than kUnsortedIds they are sorted and partial sums are made in fp32.
void Tape::backward_embedding(std::int32_t n, std::vector<Tensor>& out) {
  const Tensor g = node(n).grad[0];
  const char* role = node(n).role;
  const Dims table = input(n, 0).dims;
  const std::int64_t ids = saved(n, 0).dims().numel(), V = table.size[0], D = table.size[1];
  const bool batched = g.dims().batched;
  const auto make = [&] { out[0] = empty(role, eager::contiguous(table), g.dtype(), Category::gradients); };
  if (ids <= kUnsortedIds) return make();
  const auto indices = [&](std::int64_t count, bool grows) { return scratch("wte.sorted", eager::dims({count}, grows), Dtype::int64); };
  const auto counter = [&] { return scratch("wte.sorted", eager::dims({}, false), Dtype::int64); };
  const Tensor sorted = indices(ids, batched), original = indices(ids, batched);
  {
    const Tensor range = indices(ids, batched);
  }
  make();
  const auto [segments, partials] = sorted_gradients(ids, V);
  const bool grows = batched && segments == ids;
  const Tensor offsets = indices(ids, batched), number_of_segments = counter(), per_segment = indices(segments, grows), per_segment_offset = indices(segments, grows), number_of_partials = counter();
  const std::int64_t always = grows ? 0 : segments;
  const auto scales = [&](std::int64_t row) {
    if (!batched) return;
    p_.tensors.back().fixed = always * row;
    p_.tensors.back().sorted_ids = static_cast<std::int32_t>(ids / p_.device_batch);
  };
  const Tensor partial_offset = indices(partials, batched);
  scales(size_of(Dtype::int64));
  const Tensor sums = scratch("wte.partial_sums", eager::dims({partials, D}, batched), Dtype::fp32);
  scales(D * size_of(Dtype::fp32));
}

void Tape::backward_norm(std::int32_t n, std::vector<Tensor>& out) {
  const Tensor g = contiguous(node(n).grad[0], node(n).role);
  const char* role = node(n).role;
  const Tensor rows = contiguous_inside(saved(n, 0), role);
  if (wants(n, 0)) out[0] = empty(role, eager::contiguous(input(n, 0).dims), input(n, 0).dtype);
  for (std::size_t i = 1; i < out.size(); ++i) {
    if (!wants(n, i)) continue;
    const Category before = category_;
    category_ = Category::gradients;
    out[i] = empty(role, eager::contiguous(input(n, i).dims), input(n, i).dtype);
    category_ = before;
  }
}

// q, k, v, out, lse, [seed, offset], [mask]. FlashAttention's row sums and fp32 dq, and its expanded dk and dv where heads share keys.
void Tape::backward_attention(std::int32_t n, std::vector<Tensor>& out) {
  const Node& at = node(n);
  const auto kind = static_cast<Attention>(at.detail / 4);
  const char* const roles[3] = {"attn.dq", "attn.dk", "attn.dv"};
  const Dims q = input(n, 0).dims, k = input(n, 1).dims;
  for (std::size_t i = 0; i < 3; ++i) {
    const Dims d = input(n, i).dims;
    const Dims written = swapped(d, 1, 2);
    out[i] = empty(roles[i], swapped(kind == Attention::efficient ? eager::contiguous(written) : like(written), 1, 2), input(n, i).dtype);
  }
  attention_scratch(kind, q, k, input(n, 2).dims, input(n, 1).dtype, (at.detail & 2) != 0);
}

void Tape::attention_scratch(Attention kind, const Dims& q, const Dims& k, const Dims& v, Dtype dtype, bool dropout) {
  const EfficientCall of{q.size[0], q.size[1], q.size[2], k.size[2], q.size[3], v.back(), dtype, dropout};
  const AttentionScratch taken = backward_scratch({kind, of, k.size[1], causal_, sequences_, false, options_.capability});
  const auto made = [&](const ScratchTensor& t) { return scratch(t.role, eager::dims(t.size, q.batched), t.dtype); };
  play_scratch(taken.before, taken.beside, made, [](Tensor& t) { t.reset(); });
}

// The block runs again on a detached input, then backward through it; the gradient of that input is what comes out.
Tensor Tape::backward_checkpoint(std::int32_t n) {
  const Checkpointed call = blocks_[static_cast<std::size_t>(node(n).call)];
  Tensor g = node(n).grad[0];
  node(n).grad[0].reset();
  const Category outer = category_;
  category_ = Category::activations;
  const std::size_t first_event = p_.events.size();
  const auto first_tensor = p_.tensors.size();
  const bool offloaded = node(n).saved[0].packed != 0;
  unpack(n);
  Tensor x = saved(n, 0);
  const bool wanted = wants(n, 0);
  if (wanted) x = leaf(x);
  const std::int32_t index = value(x).leaf;
  const bool reentrant = node(n).detail == 1;
  if (wanted && !reentrant) leaves_[static_cast<std::size_t>(index)].made = true;  // only the older form detaches it
  tensors_at_last_save_ = first_tensor;
  work_at_last_save_ = told_ != nullptr ? told_->size() : 0;
  grad_ = true;
  autocast_ = node(n).autocast;
  first_saver_ = -1;
  if (call.selection) call.selection->again = true, call.selection->counts = {};
  Selection* const around = std::exchange(selecting_, call.selection.get());
  Tensor y = call.block(x);
  selecting_ = around;
  leave_autocast();
  grad_ = false;
  const std::int32_t root = value(y).node;
  if (!reentrant) {
    // the newer form stops, unless it is told not to, once everything saved is there again: what the block makes after that is never made
    ++node(root).refs;
    y.reset();
    if (call.early_stop) forget_after_last_save(first_event);
    // its frame holds what it was given until the last of what it saved is taken; nobody else holds the gradient
    const auto give = [&](Tensor& name, bool stays) {
      if (!name.defined()) return;
      if (first_saver_ >= 0 && stays) {
        node(first_saver_).held.push_back(value(name).storage);
        keep_storage(value(name).storage);
      }
      name.reset();
    };
    give(x, !offloaded);
    for (Tensor* name : call.gives) give(*name, true);
    release_saved(n);
    const auto again = std::pair(first_event, p_.events.size());
    const bool was_newer = std::exchange(in_newer_, true);
    run_from(root, std::move(g), node(n).sequence, [this, again] { bring_forward(again.first, again.second); });
    in_newer_ = was_newer;
    drop_node(root);
  } else {
    run_from(root, g);  // the function's arguments hold it
  }
  category_ = outer;
  return wanted ? std::exchange(leaves_[static_cast<std::size_t>(index)].grad, Tensor()) : Tensor();
}

// The newer form runs its block again when backward first asks for something saved: what came from `middle` on, of nodes that had saved nothing, came
// before the block, whose events begin at `first`.
void Tape::bring_forward(std::size_t first, std::size_t middle) {
  const auto begin = p_.events.begin() + static_cast<std::ptrdiff_t>(first), cut = p_.events.begin() + static_cast<std::ptrdiff_t>(middle);
  const bool apart = std::none_of(cut, p_.events.end(), [&](const Event& e) {
    return e.kind == Event::Kind::free && std::any_of(begin, cut, [&](const Event& made) { return made.tensor == e.tensor; });
  });
  if (apart) std::rotate(begin, cut, p_.events.end());
}

// Takes back the events, from first_event on, of storages that were made after the last save.
void Tape::forget_after_last_save(std::size_t first_event) {
  if (told_ != nullptr) told_->resize(std::min(told_->size(), work_at_last_save_)), made_.clear();
  const auto made_later = [this](const Event& e) {
    return static_cast<std::size_t>(e.tensor) >= tensors_at_last_save_ && storage_refs_[static_cast<std::size_t>(e.tensor)] == 0;
  };
  p_.events.erase(std::remove_if(p_.events.begin() + static_cast<std::ptrdiff_t>(first_event), p_.events.end(), made_later), p_.events.end());
}

}  // namespace dryfit::eager
