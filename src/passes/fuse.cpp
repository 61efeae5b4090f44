// Realisation, fusion into kernels, their order, and Inductor's plan of buffer lifetimes. See fuse.hpp.
#include "passes/fuse.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <span>
#include <unordered_map>

namespace dryfit {

namespace {

constexpr std::size_t kReadsThreshold = 4;    // inductor.config.realize_reads_threshold: with several users
constexpr std::size_t kMostReads = 8;         // inductor.config.realize_acc_reads_threshold: with any number
constexpr std::int32_t kMostOperations = 30;  // inductor.config.realize_opcount_threshold

struct Read {
  NodeId node;
  bool aligned;  // element i of the result reads element i: the condition for writing in place
};

struct Kernel {
  std::vector<NodeId> writes;
  std::vector<Read> reads;       // storages that exist before the kernel runs
  std::int32_t order = 0;        // smallest position of its nodes
  bool external = false;
};

// (stage, node) -> the first kernel that asked. Open addressing: filled once, never erased from, thrown away.
class FirstReader {
 public:
  explicit FirstReader(std::size_t most) : slots_(std::bit_ceil(2 * most + 1), Slot{-1, 0}) {}
  // The value already there, or `mine` after putting it there.
  std::int32_t try_emplace(std::int32_t stage, NodeId node, std::int32_t mine) {
    const std::int64_t key = (static_cast<std::int64_t>(stage) << 32) | node;
    for (std::size_t i = static_cast<std::size_t>(static_cast<std::uint64_t>(key) * 0x9e3779b97f4a7c15ULL >> 20);; ++i) {
      Slot& slot = slots_[i & (slots_.size() - 1)];
      if (slot.key == key) return slot.value;
      if (slot.key >= 0) continue;
      slot = {key, mine};
      return mine;
    }
  }

 private:
  struct Slot { std::int64_t key; std::int32_t value; };
  std::vector<Slot> slots_;
};

class Fuser {
 public:
  Fuser(const FuseInput& input, bool eager) : in_(input), nodes_(input.graph->nodes), eager_(eager) {
    position_.assign(nodes_.size(), -1);
    available_.assign(nodes_.size(), false);
    output_.assign(nodes_.size(), false);
    users_.assign(nodes_.size(), 0);
    feeds_external_.assign(nodes_.size(), false);
    for (std::size_t i = 0; i < in_.compute.size(); ++i) position_[at(in_.compute[i])] = static_cast<std::int32_t>(i);
    for (NodeId v : in_.borrowed) available_[at(v)] = true;
    for (NodeId v : in_.given) available_[at(v)] = true;
    for (NodeId v : in_.outputs) output_[at(owner(v))] = true;
    for (NodeId v : in_.compute) {
      const Node& n = node(v);
      for (std::uint8_t k = 0; k < n.inputs; ++k) {
        ++users_[at(n.in[k])];
        if (external(v)) feeds_external_[at(owner(n.in[k]))] = true;
      }
    }
  }

  FuseResult run() {
    realize();
    make_kernels();
    sort_kernels();
    plan();
    FuseResult result{std::move(steps_), {}};
    for (NodeId v : in_.outputs) result.outputs.push_back(owner(v));
    return result;
  }

 private:
  static std::size_t at(NodeId v) { return static_cast<std::size_t>(v); }
  const Node& node(NodeId v) const { return nodes_[at(v)]; }
  bool external(NodeId v) const { return node(v).kind == Kind::matmul || node(v).kind == Kind::kernel || node(v).kind == Kind::result; }
  // A view that is computed here shares its source's storage.
  NodeId owner(NodeId v) const {
    while (node(v).kind == Kind::view && !available_[at(v)]) v = node(v).in[0];
    return v;
  }
  bool moves_elements(NodeId v) const {
    return node(v).kind == Kind::cat || node(v).kind == Kind::view || node(v).fn == Fn::pad || node(v).fn == Fn::transpose || node(v).fn == Fn::scatter_rows;
  }
  // What a consumer cannot share a kernel with: it needs the finished value.
  bool closes(NodeId v) const { return node(v).fn == Fn::scatter_rows || node(v).fn == Fn::sum_all || node(v).fn == Fn::amax_all; }

  // Operations of a node's own in the expression Inductor inlines: constants and index tests count.
  static std::int32_t operations(const Node& n) {
    switch (n.fn) {
      case Fn::scale: return 2;
      case Fn::nll_grad: return 14;
      case Fn::slice: return 0;
      default: return 1;
    }
  }

  bool must_realize(NodeId v, std::size_t reads) const {
    const Node& n = node(v);
    if (n.kind == Kind::view) return false;
    if (eager_ || external(v) || n.kind == Kind::reduction || n.kind == Kind::cat || n.fn == Fn::scatter_rows || n.fn == Fn::fill) return n.fn != Fn::fill || n.shape.numel() > 1;
    if (output_[at(v)] || feeds_external_[at(v)]) return true;
    return reads > kMostReads || operations_[at(v)] > kMostOperations || (users_[at(v)] > 1 && reads > kReadsThreshold);
  }

  // Adds to the list that begins at `from`, once per node.
  static void add_read(std::vector<Read>& reads, Read r, std::size_t from = 0) {
    for (std::size_t i = from; i < reads.size(); ++i) {
      if (reads[i].node != r.node) continue;
      reads[i].aligned = reads[i].aligned && r.aligned;
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
      operations_[at(v)] = operations(n);
      for (std::uint8_t k = 0; k < n.inputs; ++k) {
        const NodeId source = n.in[k];
        const bool stored = available_[at(source)] || realized_[at(source)];
        operations_[at(v)] += stored ? 1 : operations_[at(source)];
        if (stored) {
          add_read(reads_, {source, straight && node(source).shape.numel() == n.shape.numel()}, from);
          continue;
        }
        for (std::size_t i = reads_begin_[at(source)]; i < reads_end_[at(source)]; ++i) {
          const Read r = reads_[i];
          add_read(reads_, {r.node, r.aligned && straight && node(r.node).shape.numel() == n.shape.numel()}, from);
        }
      }
      reads_begin_[at(v)] = from;
      reads_end_[at(v)] = reads_.size();
      realized_[at(v)] = must_realize(v, reads_.size() - from);
    }
  }

  std::int32_t find(std::int32_t i) {
    while (parent_[at(i)] != i) i = parent_[at(i)] = parent_[at(parent_[at(i)])];
    return i;
  }
  void unite(std::int32_t a, std::int32_t b) { parent_[at(std::max(find(a), find(b)))] = std::min(find(a), find(b)); }

  std::int64_t extent(NodeId v) const {
    std::int64_t most = node(v).shape.numel();
    for (const Read& r : reads_of(v)) {
      if (node(r.node).fn != Fn::input) most = std::max(most, node(r.node).shape.numel());
    }
    return most;
  }

  // Stage: how many kernels that cannot be fused lie above. Fusible values of one stage that feed each other, or read the same
  // memory over the same range, become one kernel.
  void make_kernels() {
    std::vector<std::int32_t> stage(nodes_.size(), 0);
    std::vector<NodeId> stored;
    for (NodeId v : in_.compute) {
      if (!realized_[at(v)]) continue;
      for (const Read& r : reads_of(v)) {
        if (position_[at(r.node)] >= 0) stage[at(v)] = std::max(stage[at(v)], stage[at(r.node)] + (closes(r.node) ? 1 : 0));
      }
      if (external(v) && node(v).kind != Kind::result) ++stage[at(v)];
      stored.push_back(v);
    }
    sink_to_readers(stored, stage);
    parent_.resize(stored.size());
    kernel_of_.assign(nodes_.size(), -1);
    for (std::size_t i = 0; i < stored.size(); ++i) {
      parent_[i] = static_cast<std::int32_t>(i);
      kernel_of_[at(stored[i])] = static_cast<std::int32_t>(i);
    }
    FirstReader reader(reads_.size());
    for (std::size_t i = 0; i < stored.size(); ++i) {
      const NodeId v = stored[i];
      const auto me = static_cast<std::int32_t>(i);
      if (node(v).kind == Kind::result) {
        unite(kernel_of_[at(node(v).in[0])], me);
        continue;
      }
      if (external(v) || eager_) continue;
      const std::int64_t mine = extent(v);
      for (const Read& r : reads_of(v)) {
        const bool computed_here = position_[at(r.node)] >= 0;
        if (computed_here && !external(r.node) && !closes(r.node) && stage[at(r.node)] == stage[at(v)]) unite(kernel_of_[at(r.node)], me);
        if (node(r.node).fn == Fn::input && node(r.node).shape.batched) continue;  // token ids are read everywhere
        const std::int32_t first = reader.try_emplace(stage[at(v)], r.node, me);
        if (first != me && extent(stored[at(first)]) == mine) unite(first, me);
      }
    }
    std::vector<std::int32_t> kernel_of_root(stored.size(), -1);
    kernels_.reserve(stored.size());
    for (std::size_t i = 0; i < stored.size(); ++i) {
      const NodeId v = stored[i];
      std::int32_t& kernel = kernel_of_root[at(find(static_cast<std::int32_t>(i)))];
      if (kernel < 0) {
        kernel = static_cast<std::int32_t>(kernels_.size());
        kernels_.push_back({{}, {}, position_[at(v)], external(v)});
      }
      kernel_of_[at(v)] = kernel;
      kernels_[at(kernel)].writes.push_back(v);
    }
    for (std::size_t k = 0; k < kernels_.size(); ++k) {
      for (NodeId v : kernels_[k].writes) {
        for (const Read& r : reads_of(v)) {
          if (position_[at(r.node)] < 0 || kernel_of_[at(r.node)] != static_cast<std::int32_t>(k)) add_read(kernels_[k].reads, {owner(r.node), r.aligned});
        }
      }
    }
    remove_inner_buffers();
  }

  // A value that only fusible kernels of later stages read is computed there: a producer may always move into its first reader.
  void sink_to_readers(const std::vector<NodeId>& stored, std::vector<std::int32_t>& stage) const {
    constexpr std::int32_t kNoReader = 1 << 30;
    std::vector<std::int32_t> first_reader(nodes_.size(), kNoReader);
    for (auto it = stored.rbegin(); it != stored.rend(); ++it) {
      const NodeId v = *it;
      if (!external(v) && !output_[at(v)] && !closes(v) && !feeds_external_[at(v)] && first_reader[at(v)] != kNoReader) stage[at(v)] = std::max(stage[at(v)], first_reader[at(v)]);
      for (const Read& r : reads_of(v)) first_reader[at(r.node)] = std::min(first_reader[at(r.node)], external(v) ? 0 : stage[at(v)]);
    }
  }

  // A value read only inside its own kernel never gets memory.
  void remove_inner_buffers() {
    std::vector<bool> leaves(nodes_.size(), false);
    for (const Kernel& kernel : kernels_) {
      for (const Read& r : kernel.reads) leaves[at(r.node)] = true;
    }
    for (Kernel& kernel : kernels_) {
      if (eager_) continue;
      std::erase_if(kernel.writes, [&](NodeId v) { return !leaves[at(v)] && !output_[at(v)] && !kernel.external; });
      std::erase_if(kernel.writes, [&](NodeId v) { return node(v).kind == Kind::kernel; });
    }
  }

  // By first node, dependencies first.
  void sort_kernels() {
    std::vector<std::int32_t> by_order(kernels_.size());
    for (std::size_t i = 0; i < by_order.size(); ++i) by_order[i] = static_cast<std::int32_t>(i);
    std::ranges::sort(by_order, {}, [&](std::int32_t k) { return kernels_[at(k)].order; });
    std::vector<std::uint8_t> state(kernels_.size(), 0);
    for (std::int32_t k : by_order) visit(k, state);
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
      const auto& reads = kernels_[at(k)].reads;
      for (auto r = reads.rbegin(); r != reads.rend(); ++r) {
        const std::int32_t dependency = position_[at(r->node)] >= 0 ? kernel_of_[at(r->node)] : -1;
        if (dependency >= 0 && state[at(dependency)] == 0) stack.push_back(dependency);
      }
    }
  }

  struct Freed { NodeId node; std::int32_t step; };

  void plan() {
    last_use_.assign(nodes_.size(), -1);
    given_.assign(nodes_.size(), false);
    for (NodeId v : in_.given) given_[at(v)] = true;
    for (std::size_t s = 0; s < schedule_.size(); ++s) {
      for (const Read& r : kernels_[at(schedule_[s])].reads) last_use_[at(r.node)] = static_cast<std::int32_t>(s);
      for (NodeId v : kernels_[at(schedule_[s])].writes) last_use_[at(v)] = std::max(last_use_[at(v)], static_cast<std::int32_t>(s));
    }
    estimate_peaks();
    taken_over_.assign(nodes_.size(), kNone);
    for (std::size_t s = 0; s < schedule_.size(); ++s) plan_kernel(static_cast<std::int32_t>(s));
    emit();
  }

  bool owned(NodeId v) const { return given_[at(v)] || position_[at(v)] >= 0; }
  bool dies_at(NodeId v, std::int32_t s) const { return owned(v) && !output_[at(v)] && last_use_[at(v)] == s; }

  // Inductor's own estimate of memory at each kernel (no reuse, nothing in place): reuse must not raise its maximum.
  void estimate_peaks() {
    peak_.assign(schedule_.size(), 0);
    std::int64_t live = 0;
    for (NodeId v : in_.given) live += node(v).bytes();
    for (std::size_t s = 0; s < schedule_.size(); ++s) {
      const Kernel& kernel = kernels_[at(schedule_[s])];
      for (NodeId v : kernel.writes) live += node(v).bytes();
      peak_[s] = live;
      overall_peak_ = std::max(overall_peak_, live);
      for (const Read& r : kernel.reads) live -= dies_at(r.node, static_cast<std::int32_t>(s)) ? node(r.node).bytes() : 0;
      for (NodeId v : kernel.writes) live -= dies_at(v, static_cast<std::int32_t>(s)) ? node(v).bytes() : 0;
    }
  }

  std::int64_t key(NodeId v) const { return node(v).bytes() * 16 + static_cast<std::int64_t>(node(v).dtype); }

  void plan_kernel(std::int32_t s) {
    const Kernel& kernel = kernels_[at(schedule_[at(s)])];
    std::vector<NodeId> used;
    for (NodeId v : kernel.writes) {
      if (node(v).kind == Kind::result || eager_) continue;
      if (!kernel.external && take_over(kernel, v, s, used)) continue;
      reuse(v, s);
    }
    std::vector<NodeId> freed;
    for (const Read& r : kernel.reads) {
      if (dies_at(r.node, s) && std::ranges::find(used, r.node) == used.end()) freed.push_back(r.node);
    }
    for (NodeId v : kernel.writes) {
      if (dies_at(v, s)) freed.push_back(v);
    }
    std::ranges::sort(freed);
    if (eager_) return;
    for (NodeId v : freed) {
      if (!given_[at(v)]) pool_[key(v)].push_back({v, s});
    }
  }

  // Write onto an input that dies here.
  bool take_over(const Kernel& kernel, NodeId v, std::int32_t s, std::vector<NodeId>& used) {
    for (const Read& r : kernel.reads) {
      const bool forced = node(v).fn == Fn::scatter_rows && node(r.node).fn == Fn::fill;
      if ((!r.aligned && !forced) || !dies_at(r.node, s) || node(r.node).bytes() != node(v).bytes() || node(r.node).dtype != node(v).dtype) continue;
      if (std::ranges::find(used, r.node) != used.end()) continue;
      used.push_back(r.node);
      taken_over_[at(v)] = r.node;
      return true;
    }
    return false;
  }

  // Take a freed buffer of the same size and type, the latest first, unless keeping it until now would raise the peak.
  void reuse(NodeId v, std::int32_t s) {
    auto& shelf = pool_[key(v)];
    if (shelf.empty()) return;
    const Freed candidate = shelf.back();
    if (candidate.step + 1 != s) {
      std::int64_t between = 0;
      for (std::int32_t i = candidate.step + 1; i < s; ++i) between = std::max(between, peak_[at(i)]);
      if (node(v).bytes() + between > overall_peak_) return;
      for (std::int32_t i = candidate.step + 1; i < s; ++i) peak_[at(i)] += node(v).bytes();
    }
    shelf.pop_back();
    taken_over_[at(v)] = candidate.node;
  }

  void emit() {
    std::vector<bool> handed(nodes_.size(), false);
    for (NodeId old : taken_over_) {
      if (old != kNone) handed[at(old)] = true;
    }
    for (NodeId v : in_.given) {
      if (last_use_[at(v)] < 0 && !output_[at(v)]) steps_.push_back({false, v, v});
    }
    for (std::size_t s = 0; s < schedule_.size(); ++s) {
      const Kernel& kernel = kernels_[at(schedule_[s])];
      const NodeId op = kernel.writes.empty() ? kernel.reads.front().node : kernel.writes.back();
      for (NodeId v : kernel.writes) {
        if (taken_over_[at(v)] != kNone) steps_.push_back({false, taken_over_[at(v)], op});
        steps_.push_back({true, v, op});
      }
      for (const Read& r : kernel.reads) {
        if (dies_at(r.node, static_cast<std::int32_t>(s)) && !handed[at(r.node)]) steps_.push_back({false, r.node, op});
      }
      for (NodeId v : kernel.writes) {
        if (dies_at(v, static_cast<std::int32_t>(s)) && !handed[at(v)]) steps_.push_back({false, v, op});
      }
    }
  }

  const FuseInput& in_;
  const std::vector<Node>& nodes_;
  bool eager_;
  std::vector<std::int32_t> position_, operations_, users_, parent_, kernel_of_, schedule_, last_use_;
  std::vector<bool> available_, output_, feeds_external_, realized_, given_;
  std::vector<Read> reads_;                       // every node's list after the other
  std::vector<std::size_t> reads_begin_, reads_end_;
  std::vector<Kernel> kernels_;
  std::vector<std::int64_t> peak_;
  std::int64_t overall_peak_ = 0;
  std::vector<NodeId> taken_over_;
  std::unordered_map<std::int64_t, std::vector<Freed>> pool_;
  std::vector<BufferStep> steps_;
};

}  // namespace

FuseResult fuse(const FuseInput& input) { return Fuser(input, false).run(); }
FuseResult run_eagerly(const FuseInput& input) { return Fuser(input, true).run(); }

}  // namespace dryfit
