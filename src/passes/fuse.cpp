// Realisation, fusion into kernels, their order, and Inductor's plan of buffer lifetimes. See fuse.hpp.
#include "passes/fuse.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <iterator>
#include <span>
#include <tuple>
#include <unordered_map>

#include "passes/loops.hpp"
#include "workload/workload.hpp"

namespace dryfit {

namespace {

constexpr std::size_t kReadsThreshold = 4;    // inductor.config.realize_reads_threshold: with several users
constexpr std::size_t kMostReads = 8;         // inductor.config.realize_acc_reads_threshold: with any number
constexpr std::int32_t kMostOperations = 30;  // inductor.config.realize_opcount_threshold
constexpr std::int32_t kTooDeep = 100;        // graph.py, run_node: whatever it reads

struct Read {
  NodeId node;
  bool natural;              // element by element in its own order, not shifted or gathered: a condition for writing in place
  std::uint32_t shift = 0;   // which slice of it: each is loaded for itself
};

struct Kernel {
  std::vector<NodeId> members;   // the stored values it computes, in the order of the generated code
  std::vector<NodeId> writes;    // those of them that get memory
  std::vector<Read> reads;       // storages that exist before the kernel runs
  std::int32_t step = 0;         // its index among Inductor's scheduler nodes, where every result of a kernel counts as one more
  bool external = false;
  bool reduces = false;
};

class Fuser {
 public:
  Fuser(const FuseInput& input, bool eager) : in_(input), nodes_(input.graph->nodes), eager_(eager) {
    position_.assign(nodes_.size(), -1);
    available_.assign(nodes_.size(), false);
    output_.assign(nodes_.size(), false);
    users_.assign(nodes_.size(), 0);
    feeds_external_.assign(nodes_.size(), false);
    first_external_.assign(nodes_.size(), -1);
    stored_at_.assign(nodes_.size(), 0);
    read_by_attention_.assign(nodes_.size(), false);
    read_as_.assign(nodes_.size(), 0);
    for (std::size_t i = 0; i < in_.compute.size(); ++i) position_[at(in_.compute[i])] = static_cast<std::int32_t>(i);
    for (NodeId v : in_.borrowed) available_[at(v)] = true;
    for (NodeId v : in_.given) available_[at(v)] = true;
    for (NodeId v : in_.outputs) output_[at(owner(v))] = true;
    for (NodeId v : in_.compute) {
      const Node& n = node(v);
      for (std::uint8_t k = 0; k < n.inputs; ++k) {
        ++users_[at(n.in[k])];
        if (n.fn == Fn::cosine) read_as_[at(n.in[k])] = n.shape.numel();
        if (n.fn == Fn::attention_backward) {
          read_by_attention_[at(n.in[k])] = true;
          attention_ = v;
        }
        if (!external(v)) continue;
        feeds_external_[at(owner(n.in[k]))] = true;
        std::int32_t& first = first_external_[at(owner(n.in[k]))];
        if (first < 0) first = position_[at(v)];
      }
    }
  }

  FuseResult run() {
    realize();
    make_kernels();
    sort_kernels();
    plan();
    FuseResult result{std::move(steps_), {}, std::move(launches_)};
    for (NodeId v : in_.outputs) result.outputs.push_back(owner(v));
    return result;
  }

 private:
  static std::size_t at(NodeId v) { return static_cast<std::size_t>(v); }
  const Node& node(NodeId v) const { return nodes_[at(v)]; }
  bool external(NodeId v) const { return node(v).kind == Kind::matmul || node(v).kind == Kind::kernel || node(v).kind == Kind::result; }
  // FlashAttention 3 writes its gradients into buffers that are made for it before; other kernels bring their results along.
  bool made_before(NodeId v) const {
    if (node(v).kind != Kind::result) return false;
    const Node& kernel = node(node(v).in[0]);
    return kernel.fn == Fn::attention_backward && static_cast<Attention>(kernel.variant) == Attention::fa3;
  }
  // A view that is computed here shares its source's storage.
  NodeId owner(NodeId v) const {
    while (node(v).kind == Kind::view && !available_[at(v)]) v = node(v).in[0];
    return v;
  }
  bool moves_elements(NodeId v) const {
    return node(v).kind == Kind::cat || node(v).kind == Kind::view || node(v).fn == Fn::embedding || moves_along(node(v).fn) || node(v).fn == Fn::expand || node(v).fn == Fn::sum_groups || node(v).fn == Fn::shift;
  }
  // What its readers read through it is read at another place.
  static bool moves_along(Fn fn) { return fn == Fn::slice || fn == Fn::pad || fn == Fn::rotate_half; }
  // What a consumer cannot share a kernel with: it needs the finished value.
  bool closes(NodeId v) const { return node(v).fn == Fn::scatter_rows || node(v).fn == Fn::sum_all || node(v).fn == Fn::amax_all; }

  // Operations of a node's own in the expression that Inductor inlines (lowering.py), without the loads of what it reads.
  struct Operations { std::int32_t own, constants; };
  Operations operations(const Node& n) const {
    switch (n.fn) {
      case Fn::scale: return {1, 1};
      case Fn::rsqrt: return {2, 1};         // of x + epsilon
      case Fn::nll_grad: return {14, 0};
      case Fn::relu_grad: return {2, 2};     // where(x <= 0, 0, g)
      case Fn::sigmoid_grad: case Fn::tanh_grad: return {3, 1};
      case Fn::pad:                          // index, bound, comparison, masked load, choice; and the zero. One element: no load, one index for all
        return node(n.in[0]).shape.numel() == 1 ? Operations{4, 0} : Operations{5, 1};
      case Fn::silu: return {2, 0};          // in fp32, between two casts
      case Fn::silu_grad: return {6, 2};     // g s (1 + x (1 - s))
      case Fn::rotate_half: return {11, 3};  // two masked loads of which one is chosen, and a sign
      case Fn::mask: return {6, 2};
      case Fn::sum_groups: return {static_cast<std::int32_t>(std::min<std::int64_t>(node(n.in[0]).shape.numel() / n.shape.numel(), 8)) - 1, 0};
      case Fn::expand: case Fn::shift: return {0, 0};
      case Fn::fill: return {0, 1};
      case Fn::slice: return {0, 0};
      default: return {1, 0};
    }
  }

  // How a reader of `reader` that stands at `shift` indexes `source`: slices and pads move along; what is broadcast does not.
  std::uint32_t shifted(NodeId reader, NodeId source, std::uint32_t shift) const {
    const Node& n = node(reader);
    if (n.fn == Fn::slice) return shift * 31 + static_cast<std::uint32_t>(n.variant) + 1;
    if (n.fn == Fn::pad) return shift * 31 + 17;
    if (n.fn == Fn::rotate_half) return shift * 31 + 19;
    return node(source).shape.numel() < n.shape.numel() ? 0 : shift;
  }

  // Operations of the whole expression, equal ones once (ops_handler.py, OpCounterCSE). Only asked where a count without merging is too high.
  std::int32_t count_operations(NodeId v, std::int32_t limit) const {
    std::vector<std::pair<NodeId, std::uint32_t>> seen{{v, 0}};
    std::vector<NodeId> constants;
    std::vector<std::pair<NodeId, std::uint32_t>> loads;
    std::int32_t count = 0;
    for (std::size_t i = 0; i < seen.size() && count <= limit; ++i) {
      const auto [u, shift] = seen[i];
      const Operations mine = operations(node(u));
      count += mine.own;
      if (mine.constants > 0 && std::ranges::find(constants, u) == constants.end()) {
        count += mine.constants;
        constants.push_back(u);
      }
      for (std::uint8_t k = 0; k < node(u).inputs; ++k) {
        const std::pair<NodeId, std::uint32_t> next{node(u).in[k], shifted(u, node(u).in[k], shift)};
        auto& list = stored_for(next.first, u) ? loads : seen;
        if (std::ranges::find(list, next) == list.end()) list.push_back(next);
      }
    }
    return count + static_cast<std::int32_t>(loads.size());
  }

  // Whether v gets memory, or may only be inlined; and whether that is decided as soon as it is written down.
  enum class Store : std::uint8_t { never, at_once, for_external };
  Store store(NodeId v, std::span<const Read> reads) const {
    const Node& n = node(v);
    if (n.kind == Kind::view) return Store::never;
    if (n.fn == Fn::fill && n.shape.numel() <= 1) return Store::never;
    if (eager_ || external(v) || n.kind == Kind::reduction || n.kind == Kind::cat || n.fn == Fn::scatter_rows || n.fn == Fn::fill) return Store::at_once;
    const bool used_again = users_[at(v)] > 1;
    if (used_again && reads.size() > kReadsThreshold) return Store::at_once;
    // what reads nothing but single elements is inlined for longer
    const bool tensors = std::ranges::count_if(reads, [&](const Read& r) { return node(r.node).shape.numel() > 1; }) > 1;
    if (tensors && reads.size() > kMostReads) return Store::at_once;
    const std::int32_t limit = tensors || used_again ? kMostOperations : kTooDeep;
    if (operations_[at(v)] > limit && count_operations(v, limit) > limit) return Store::at_once;
    const bool cast_weight = !n.shape.batched && node(n.in[0]).kind == Kind::input;  // saved in another layout: stored with its own view
    if (output_[at(v)] && (!feeds_external_[at(v)] || cast_weight)) return Store::at_once;
    return feeds_external_[at(v)] ? Store::for_external : Store::never;
  }

  // Whether `reader` finds `source` in memory. What only an opaque kernel needs is stored when that kernel is written down: who was written
  // down before has it inlined.
  bool stored_for(NodeId source, NodeId reader) const {
    return available_[at(source)] || (realized_[at(source)] && stored_at_[at(source)] <= 2 * position_[at(reader)]);
  }

  // Adds to the list that begins at `from`, once per node and slice.
  static void add_read(std::vector<Read>& reads, Read r, std::size_t from = 0) {
    for (std::size_t i = from; i < reads.size(); ++i) {
      if (reads[i].node != r.node || reads[i].shift != r.shift) continue;
      reads[i].natural = reads[i].natural && r.natural;
      return;
    }
    reads.push_back(r);
  }
  std::span<const Read> reads_of(NodeId v) const { return std::span(reads_).subspan(reads_begin_[at(v)], reads_end_[at(v)] - reads_begin_[at(v)]); }

  // For every node: the stored values it reads, through what is computed on the fly.
  void realize() {
    reads_.reserve(nodes_.size() * 4);
    reads_begin_.assign(nodes_.size(), 0);
    reads_end_.assign(nodes_.size(), 0);
    realized_.assign(nodes_.size(), false);
    operations_.assign(nodes_.size(), 0);
    for (NodeId v : in_.compute) {
      const Node& n = node(v);
      const std::size_t from = reads_.size();
      const bool straight = !moves_elements(v);
      operations_[at(v)] = operations(n).own + operations(n).constants;
      for (std::uint8_t k = 0; k < n.inputs; ++k) {
        const NodeId source = n.in[k];
        const bool stored = stored_for(source, v);
        operations_[at(v)] += stored ? 1 : operations_[at(source)];
        if (stored) {
          add_read(reads_, {source, straight, shifted(v, source, 0)}, from);
          continue;
        }
        for (std::size_t i = reads_begin_[at(source)]; i < reads_end_[at(source)]; ++i) {
          const Read r = reads_[i];
          const bool along = moves_along(n.fn) && node(r.node).shape.numel() >= node(source).shape.numel();
          const bool kept = straight || (moves_along(n.fn) && !along);  // a row's value is the same for every slice of the row
          add_read(reads_, {r.node, r.natural && kept, along ? shifted(v, source, r.shift) : r.shift}, from);
        }
      }
      reads_begin_[at(v)] = from;
      reads_end_[at(v)] = reads_.size();
      const Store how = store(v, std::span(reads_).subspan(from));
      realized_[at(v)] = how != Store::never;
      stored_at_[at(v)] = how == Store::for_external ? 2 * first_external_[at(v)] - 1 : 2 * position_[at(v)];
    }
  }

  // The loops of a value: what it runs over, what it reads and how.
  Loop loop_of(NodeId v) const {
    const Node& n = node(v);
    Loop l;
    l.writes = v;
    l.external = external(v) || eager_;
    l.closed = closes(v);
    l.reduction = n.kind == Kind::reduction || n.fn == Fn::amax_all;
    l.rows = n.fn == Fn::scatter_rows ? node(n.in[1]).shape.numel() : n.shape.numel();
    if (l.reduction) l.columns = node(n.fn == Fn::nll_loss ? n.in[1] : n.in[0]).shape.numel() / l.rows;
    l.write_bytes = l.elements = n.shape.numel();
    l.write_bytes *= size_of(n.dtype);
    l.reuse_key = key(v);
    l.readers = readers_[at(v)] + (output_[at(v)] ? 1 : 0);
    for (const Read& r : reads_of(v)) {
      const NodeId from = owner(r.node);
      const std::int64_t most = std::max(l.rows * l.columns, n.shape.numel());
      const std::int64_t elements = r.natural ? node(from).shape.numel() : std::min(most, node(from).shape.numel());
      const std::uint32_t slice = r.natural && r.shift == 0 ? 0 : r.shift + 1;
      l.reads.push_back({from, slice, elements * size_of(node(from).dtype)});
    }
    return l;
  }

  static std::vector<std::vector<std::int32_t>> each_alone(std::size_t loops) {
    std::vector<std::vector<std::int32_t>> kernels;
    for (std::size_t i = 0; i < loops; ++i) kernels.push_back({static_cast<std::int32_t>(i)});
    return kernels;
  }

  // Everything stored, in the order in which Inductor writes it down, and the kernels that its fusion makes of it.
  void make_kernels() {
    std::vector<NodeId> stored;
    readers_.assign(nodes_.size(), 0);
    for (NodeId v : in_.compute) {
      if (!realized_[at(v)] || outlives(v)) continue;
      stored.push_back(v);
      for (const Read& r : reads_of(v)) ++readers_[at(owner(r.node))];
    }
    std::ranges::stable_sort(stored, {}, [&](NodeId v) { return stored_at_[at(v)]; });
    std::vector<Loop> loops;
    loops.reserve(stored.size());
    for (NodeId v : stored) loops.push_back(loop_of(v));
    kernel_of_.assign(nodes_.size(), -1);
    number_.assign(nodes_.size(), 0);
    for (std::size_t i = 0; i < stored.size(); ++i) number_[at(stored[i])] = static_cast<std::int32_t>(i);
    for (const std::vector<std::int32_t>& fused : eager_ ? each_alone(loops.size()) : fuse_loops(loops, static_cast<std::int32_t>(nodes_.size()))) {
      const NodeId first = stored[at(fused.front())];
      if (node(first).kind == Kind::result) {  // belongs to the kernel that brings it along
        kernel_of_[at(first)] = kernel_of_[at(node(first).in[0])];
      } else {
        for (std::int32_t i : fused) kernel_of_[at(stored[at(i)])] = static_cast<std::int32_t>(kernels_.size());
        kernels_.push_back({{}, {}, {}, 0, external(first)});
      }
      for (std::int32_t i : fused) kernels_[at(kernel_of_[at(first)])].members.push_back(stored[at(i)]);
    }
    for (NodeId v : in_.compute) {
      if (!outlives(v)) continue;
      kernel_of_[at(v)] = kernel_of_[at(node(v).in[0])];
      kernels_[at(kernel_of_[at(v)])].members.push_back(v);
    }
    for (std::size_t k = 0; k < kernels_.size(); ++k) {
      for (NodeId v : kernels_[k].members) {
        kernels_[k].reduces = kernels_[k].reduces || node(v).kind == Kind::reduction;
        for (const Read& r : reads_of(v)) {
          if (!inside(r.node, v)) add_read(kernels_[k].reads, {owner(r.node), r.natural});
        }
      }
    }
  }

  // Whether `read` is computed by the kernel that computes v.
  bool inside(NodeId read, NodeId v) const { return position_[at(read)] >= 0 && kernel_of_[at(read)] == kernel_of_[at(v)]; }

  // By first loop, dependencies first.
  void sort_kernels() {
    std::vector<std::uint8_t> state(kernels_.size(), 0);
    for (std::size_t k = 0; k < kernels_.size(); ++k) visit(static_cast<std::int32_t>(k), state);
  }

  void visit(std::int32_t start, std::vector<std::uint8_t>& state) {
    std::vector<std::int32_t> stack{start};
    while (!stack.empty()) {
      const std::int32_t k = stack.back();
      if (state[at(k)] == 2) {
        stack.pop_back();
        continue;
      }
      if (state[at(k)] == 1) {
        state[at(k)] = 2;
        schedule_.push_back(k);
        stack.pop_back();
        continue;
      }
      state[at(k)] = 1;
      std::vector<NodeId> needed;
      for (const Read& r : kernels_[at(k)].reads) {
        if (position_[at(r.node)] >= 0 && state[at(kernel_of_[at(r.node)])] == 0) needed.push_back(r.node);
      }
      std::ranges::sort(needed, std::greater(), [&](NodeId v) { return number_[at(v)]; });  // the last put on the stack is visited first
      for (NodeId v : needed) stack.push_back(kernel_of_[at(v)]);
    }
  }

  struct Freed { NodeId node; std::int32_t step; };

  void plan() {
    last_use_.assign(nodes_.size(), -1);
    given_.assign(nodes_.size(), false);
    for (NodeId v : in_.given) given_[at(v)] = true;
    for (std::size_t s = 0; s < schedule_.size(); ++s) {
      for (const Read& r : kernels_[at(schedule_[s])].reads) last_use_[at(r.node)] = static_cast<std::int32_t>(s);
      for (NodeId v : kernels_[at(schedule_[s])].members) last_use_[at(v)] = std::max(last_use_[at(v)], static_cast<std::int32_t>(s));
    }
    taken_over_.assign(nodes_.size(), kNone);
    std::ranges::copy_if(in_.compute, std::back_inserter(scattered_), [&](NodeId v) { return node(v).fn == Fn::scatter_rows; });
    for (std::size_t s = 0; s < schedule_.size(); ++s) {
      if (!eager_) overwrite_inputs(static_cast<std::int32_t>(s));
      choose_writes(kernels_[at(schedule_[s])], static_cast<std::int32_t>(s));
    }
    if (!eager_) {
      estimate_peaks();
      for (std::size_t s = 0; s < schedule_.size(); ++s) plan_kernel(static_cast<std::int32_t>(s));
    }
    emit();
  }

  bool owned(NodeId v) const { return given_[at(v)] || position_[at(v)] >= 0; }
  bool dies_at(NodeId v, std::int32_t s) const { return owned(v) && !output_[at(v)] && last_use_[at(v)] == s; }

  // Which values of a kernel are written onto an input (scheduler.py, decide_inplace_update): the first read whose last use this is.
  void overwrite_inputs(std::int32_t s) {
    const Kernel& kernel = kernels_[at(schedule_[at(s)])];
    if (kernel.external) return;
    std::vector<NodeId> used;
    for (NodeId v : kernel.members) {
      for (const Read& r : reads_of(v)) {
        const NodeId x = owner(r.node);
        const bool forced = node(v).fn == Fn::scatter_rows && node(x).fn == Fn::fill;
        if (!dies_at(x, s) || node(x).fn == Fn::scatter_rows || std::ranges::find(in_.shared, x) != in_.shared.end() || node(x).bytes() != node(v).bytes() || node(x).dtype != node(v).dtype) continue;
        if (std::ranges::find(used, x) != used.end() || (!forced && (scatters(v) || !read_last_by(kernel, x, v)))) continue;
        used.push_back(x);
        taken_over_[at(v)] = x;
        break;
      }
    }
  }

  // Reads in order but writes elsewhere.
  bool scatters(NodeId v) const { return node(v).fn == Fn::scatter_rows || node(v).fn == Fn::transpose; }

  // In this kernel only v and what v itself needs read x, all of them in x's own order.
  bool read_last_by(const Kernel& kernel, NodeId x, NodeId v) const {
    for (NodeId u : kernel.members) {
      for (const Read& r : reads_of(u)) {
        if (owner(r.node) == x && (!r.natural || (u != v && !needs(v, u)))) return false;
      }
    }
    return true;
  }

  // Whether v is computed from u, inside one kernel.
  bool needs(NodeId v, NodeId u) const {
    if (v == u) return true;
    if (position_[at(v)] < position_[at(u)]) return false;
    return std::ranges::any_of(reads_of(v), [&](const Read& r) { return inside(r.node, v) && needs(r.node, u); });
  }

  // A value read only inside its own kernel gets no memory, unless one that does is written onto it.
  void choose_writes(Kernel& kernel, std::int32_t s) {
    std::vector<bool> kept(kernel.members.size());
    for (std::size_t i = kernel.members.size(); i-- > 0;) {
      const NodeId v = kernel.members[i];
      kept[i] = eager_ || kernel.external || output_[at(v)] || last_use_[at(v)] != s;
      for (std::size_t j = 0; !kept[i] && j < kernel.members.size(); ++j) kept[i] = kept[j] && taken_over_[at(kernel.members[j])] == v;
      kept[i] = kept[i] && node(v).kind != Kind::kernel;
      if (!kept[i]) taken_over_[at(v)] = kNone;
    }
    for (std::size_t i = 0; i < kernel.members.size(); ++i) {
      if (kept[i]) kernel.writes.push_back(kernel.members[i]);
    }
  }

  // Inductor's own estimate of memory at each of its steps (memory.py, estimate_peak_memory): every stored value counts, even one that
  // lives inside a kernel; nothing is in place or reused; and what the graph returns is taken off from the start, so it may be negative.
  void estimate_peaks() {
    std::int32_t steps = 0;
    for (std::int32_t k : schedule_) {
      const auto results = static_cast<std::int32_t>(std::ranges::count_if(kernels_[at(k)].members, [&](NodeId v) { return node(v).kind == Kind::result && !outlives(v); }));
      kernels_[at(k)].step = steps + (results > 0 && made_before(kernels_[at(k)].members.back()) ? results : 0);
      steps += 1 + results;
    }
    peak_.assign(at(steps) + 1, 0);
    const auto step_of_last_use = [&](NodeId v) { return at(kernels_[at(schedule_[at(last_use_[at(v)])])].step); };
    for (NodeId v : in_.given) {
      if (last_use_[at(v)] < 0) continue;
      const std::int64_t bytes = read_as_[at(v)] > 0 ? read_as_[at(v)] * size_of(node(v).dtype) : node(v).bytes();
      peak_[0] += bytes;
      peak_[output_[at(v)] ? 0 : step_of_last_use(v) + 1] -= bytes;
    }
    for (std::int32_t k : schedule_) {
      for (NodeId v : kernels_[at(k)].members) {
        if (node(v).fn == Fn::scatter_rows || node(v).kind == Kind::kernel) continue;  // onto the zeros; results count for themselves
        NodeId last = v;
        for (NodeId onto : scattered_) last = taken_over_[at(onto)] == v ? onto : last;
        peak_[at(made_at(v, kernels_[at(k)]))] += node(v).bytes();
        peak_[output_[at(last)] ? 0 : step_of_last_use(last) + 1] -= node(v).bytes();
      }
    }
    overall_peak_ = 0;
    for (std::size_t i = 0; i < peak_.size(); ++i) {
      peak_[i] += i > 0 ? peak_[i - 1] : 0;
      overall_peak_ = std::max(overall_peak_, peak_[i]);
    }
  }

  // The step at which v is allocated.
  std::int32_t made_at(NodeId v, const Kernel& kernel) const { return made_before(v) && !outlives(v) ? kernel.step - 3 + node(v).variant : kernel.step; }

  std::int64_t key(NodeId v) const { return node(v).bytes() * 16 + static_cast<std::int64_t>(node(v).dtype); }

  void plan_kernel(std::int32_t s) {
    const Kernel& kernel = kernels_[at(schedule_[at(s)])];
    std::vector<NodeId> used;
    for (NodeId v : kernel.writes) {
      if (taken_over_[at(v)] == kNone && (node(v).kind != Kind::result || (made_before(v) && !outlives(v)))) reuse(v, made_at(v, kernel));
      if (taken_over_[at(v)] != kNone) used.push_back(taken_over_[at(v)]);
    }
    std::vector<NodeId> freed;
    const auto consider = [&](NodeId v) {
      if (dies_at(v, s) && !given_[at(v)] && !outlives(v) && std::ranges::find(used, v) == used.end()) freed.push_back(v);
    };
    for (const Read& r : kernel.reads) consider(r.node);
    for (NodeId v : kernel.writes) consider(v);
    std::ranges::sort(freed, {}, [&](NodeId v) { return number_[at(v)]; });
    for (NodeId v : freed) pool_[key(v)].push_back({v, kernel.step});
  }

  // Take a freed buffer of the same size and type, the latest first (wrapper.py, AllocateLine): always one that the step before freed, an older one
  // only where the estimate, counted as at least nothing, does not rise above its peak by keeping it.
  void reuse(NodeId v, std::int32_t step) {
    auto& shelf = pool_[key(v)];
    if (shelf.empty()) return;
    const Freed candidate = shelf.back();
    if (candidate.step + 1 != step) {
      std::int64_t between = 0;
      for (std::int32_t i = candidate.step + 1; i < step; ++i) between = std::max(between, peak_[at(i)]);
      if (node(v).bytes() + between > overall_peak_) return;
      for (std::int32_t i = candidate.step + 1; i < step; ++i) peak_[at(i)] += node(v).bytes();
    }
    shelf.pop_back();
    taken_over_[at(v)] = candidate.node;
  }

  // Buffers are freed by name (scheduler.py, free_buffers): "buf7" of this graph before the names that values of the other graph have there.
  int name_rank(NodeId v) const {
    if (!given_[at(v)]) return 0;
    enum Name { add = 1, amax, cat, convert, embedding, getitem, log, mm, mul, permute, rsqrt, sub, view };
    const Node& n = node(v);
    const bool attention = read_by_attention_[at(v)], fa3 = attention && static_cast<Attention>(node(attention_).variant) == Attention::fa3;
    if (attention && n.kind != Kind::result && !fa3) return permute;
    switch (n.fn) {
      case Fn::add: return add;
      case Fn::amax_rows: return amax;
      case Fn::cat: return cat;
      case Fn::convert: return fa3 ? convert : n.shape.batched ? view : permute;  // named after its view, a weight after its permutation
      case Fn::embedding: return embedding;
      case Fn::result: return getitem;
      case Fn::log: return log;
      case Fn::matmul: return fa3 ? view : mm;
      case Fn::scale: return mul;
      case Fn::rsqrt: return rsqrt;
      case Fn::sub: return sub;
      default: return view;
    }
  }

  // FlashAttention 3 hands back row sums that nobody reads: no line of the wrapper drops them, its end does.
  bool outlives(NodeId v) const { return !eager_ && made_before(v) && node(v).variant > 2; }

  void emit() {
    std::vector<bool> handed(nodes_.size(), false);
    for (NodeId old : taken_over_) {
      if (old != kNone) handed[at(old)] = true;
    }
    for (NodeId v : in_.given) {
      if (last_use_[at(v)] < 0 && !output_[at(v)]) steps_.push_back({false, v, v});
    }
    std::vector<NodeId> late;
    for (std::size_t s = 0; s < schedule_.size(); ++s) {
      const Kernel& kernel = kernels_[at(schedule_[s])];
      const NodeId op = kernel.writes.empty() ? kernel.reads.front().node : kernel.writes.back();
      launch(kernel, op);
      for (NodeId v : kernel.writes) {
        if (taken_over_[at(v)] != kNone) steps_.push_back({false, taken_over_[at(v)], op});
        steps_.push_back({true, v, op, taken_over_[at(v)]});
      }
      std::vector<NodeId> freed;
      for (const Read& r : kernel.reads) {
        if (dies_at(r.node, static_cast<std::int32_t>(s)) && !handed[at(r.node)]) freed.push_back(r.node);
      }
      for (NodeId v : kernel.writes) {
        if (dies_at(v, static_cast<std::int32_t>(s)) && !handed[at(v)]) (outlives(v) ? late : freed).push_back(v);
      }
      std::ranges::sort(freed, {}, [&](NodeId v) { return std::tuple(name_rank(v), number_[at(v)], v); });
      for (NodeId v : freed) steps_.push_back({false, v, op});
    }
    for (NodeId v : late) steps_.push_back({false, v, v});
  }

  // What the loop that stores a value runs over: its own elements, or those it reduces.
  std::int64_t extent(NodeId v) const {
    std::int64_t most = node(v).shape.numel();
    for (const Read& r : reads_of(v)) {
      if (node(r.node).fn != Fn::input) most = std::max(most, node(r.node).shape.numel());
    }
    return most;
  }

  void launch(const Kernel& kernel, NodeId op) {
    Launch l{op, 0, 0, kernel.reduces};
    std::int64_t elements = 0;  // what the kernel's loops run over
    bool batched = false;
    for (NodeId v : kernel.writes) {
      elements = std::max(elements, external(v) ? std::int64_t{1} << 62 : extent(v));
      batched = batched || node(v).shape.batched;
    }
    const auto add = [&](NodeId v) {
      const Node& n = node(v);
      const bool part = elements < n.shape.numel();  // as many rows of a table as there are tokens
      (n.shape.batched || (part && batched) ? l.batched_bytes : l.fixed_bytes) += static_cast<double>(std::min(n.shape.numel(), elements) * size_of(n.dtype));
    };
    for (const Read& r : kernel.reads) add(r.node);
    for (NodeId v : kernel.writes) add(v);
    launches_.push_back(l);
  }

  const FuseInput& in_;
  const std::vector<Node>& nodes_;
  bool eager_;
  std::vector<std::int32_t> position_, operations_, users_, readers_, kernel_of_, schedule_, last_use_, number_, first_external_, stored_at_;
  std::vector<bool> available_, output_, feeds_external_, read_by_attention_, realized_, given_;
  std::vector<Read> reads_;                       // every node's list after the other
  std::vector<std::size_t> reads_begin_, reads_end_;
  std::vector<Kernel> kernels_;
  std::vector<std::int64_t> peak_;
  std::vector<std::int64_t> read_as_;             // elements, where a value is read twice over: Inductor's count takes what is read, not what there is
  std::int64_t overall_peak_ = 0;
  NodeId attention_ = kNone;                      // some attention's backward kernel
  std::vector<NodeId> taken_over_, scattered_;
  std::unordered_map<std::int64_t, std::vector<Freed>> pool_;
  std::vector<BufferStep> steps_;
  std::vector<Launch> launches_;
};

}  // namespace

FuseResult fuse(const FuseInput& input) { return Fuser(input, false).run(); }
FuseResult run_eagerly(const FuseInput& input) { return Fuser(input, true).run(); }

}  // namespace dryfit
