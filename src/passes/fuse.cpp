// Fusion into kernels, their order, and Inductor's plan of buffer lifetimes. See fuse.hpp; what gets memory at all: realize.hpp.
#include "passes/fuse.hpp"

#include <algorithm>
#include <bit>
#include <functional>
#include <iterator>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "base/bytes.hpp"
#include "passes/reorder.hpp"
#include "passes/timed_kernels.hpp"
#include "workload/workload.hpp"

namespace dryfit {

namespace {

class Fuser : TimedKernels {
 public:
  Fuser(const FuseInput& input, bool eager) : TimedKernels(input, eager), read_as_(nodes_.size(), 0) {
    for (NodeId v : in_.compute) {
      const Node& n = node(v);
      for (std::uint8_t k = 0; k < n.inputs; ++k) {
        if (n.fn == Fn::cosine) read_as_[at(n.in[k])] = n.shape.numel();
      }
    }
  }

  FuseResult run() {
    make_kernels();
    sort_kernels();
    if (!eager_) reorder();
    plan();
    FuseResult result{std::move(steps_), {}, std::move(launches_), {spread_.begin(), spread_.end()}, std::move(timings_)};
    for (NodeId v : in_.outputs) result.outputs.push_back(owner(v));
    return result;
  }

 private:
  // Bytes of what is given, as Inductor counts them: what the last load loads (memory.py, get_freeable_input_buf).
  std::vector<std::int64_t> bytes_as_read() const {
    std::vector<std::int64_t> bytes(nodes_.size(), 0);
    std::vector<std::pair<NodeId, std::uint32_t>> seen;
    for (std::int32_t k : schedule_) {
      seen.clear();
      for (NodeId v : kernels_[at(k)].members) {
        for (const Read& r : reads_of(v)) {
          const std::pair<NodeId, std::uint32_t> access{owner(r.node), slice_of(v, r)};
          if (!given_[at(access.first)] || std::ranges::find(seen, access) != seen.end()) continue;
          seen.push_back(access);
          const std::int64_t elements = read_as_[at(access.first)] > 0 ? read_as_[at(access.first)] : loaded(v, r, std::max(extent(v), node(v).shape.numel()));
          bytes[at(access.first)] = elements * size_of(node(access.first).dtype);
        }
      }
    }
    return bytes;
  }

  static std::vector<std::vector<std::int32_t>> each_alone(std::size_t loops) {
    std::vector<std::vector<std::int32_t>> kernels;
    for (std::size_t i = 0; i < loops; ++i) kernels.push_back({static_cast<std::int32_t>(i)});
    return kernels;
  }

  // Everything stored, in the order in which Inductor writes it down, and the kernels that its fusion makes of it.
  void make_kernels() {
    std::vector<NodeId> stored, read;
    readers_.assign(nodes_.size(), 0);
    for (NodeId v : in_.compute) {
      if (!realized_[at(v)] || outlives(v)) continue;
      stored.push_back(v);
      read.clear();
      for (const Read& r : reads_of(v)) {
        if (std::ranges::find(read, owner(r.node)) != read.end()) continue;
        read.push_back(owner(r.node));
        ++readers_[at(read.back())];
      }
    }
    std::ranges::stable_sort(stored, {}, [&](NodeId v) { return stored_at_[at(v)]; });
    std::vector<Loop> loops;
    loops.reserve(stored.size());
    for (NodeId v : stored) loops.push_back(loop_of(v));
    kernel_of_.assign(nodes_.size(), -1);
    give_names(stored);
    for (const std::vector<std::int32_t>& fused : eager_ ? each_alone(loops.size()) : fuse_loops(std::move(loops), static_cast<std::int32_t>(nodes_.size()), in_.graph->loops_apart)) {
      const NodeId first = stored[at(fused.front())];
      if (node(first).kind == Kind::result) {  // belongs to the kernel that brings it along
        kernel_of_[at(first)] = kernel_of_[at(node(first).in[0])];
        if (handed_on(first)) written_.push_back(~first);
      } else {
        written_.push_back(static_cast<std::int32_t>(kernels_.size()));
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
    for (Kernel& kernel : kernels_) mark_mixed(kernel);
  }

  void mark_mixed(Kernel& kernel) {
    kernel.mixed = in_.graph->loops_apart && std::ranges::any_of(kernel.members, [&](NodeId v) { return sums_in_parts(v); }) &&
                   std::ranges::any_of(kernel.members, [&](NodeId v) { return node(v).kind == Kind::reduction && node(v).fn != Fn::sum_columns; });
    if (kernel.mixed) kernel.workspace = workspace_of(kernel);
  }

  // Elements that the sums of a kernel in both orders take, rows in as many parts as keep eight for each multiprocessor, of 16 to 128 (codegen/simd.py, _codegen_mix_order_reduction).
  std::int64_t workspace_of(const Kernel& kernel) const {
    std::int64_t elements = 0;
    for (NodeId v : kernel.members) {
      if (!sums_in_parts(v)) continue;
      const std::int64_t columns = node(v).shape.dim[1], rows = node(node(v).in[0]).shape.numel() / columns;
      const auto each = std::bit_floor(static_cast<std::uint64_t>(rows / (in_.graph->multiprocessors * 8)));
      elements += columns * ceil_div(rows, std::clamp<std::int64_t>(static_cast<std::int64_t>(each), 16, 128));
    }
    return elements;
  }

  // What adds sums in parts up.
  NodeId whole_of(NodeId parts) const {
    return *std::ranges::find_if(in_.compute, [&](NodeId v) { return node(v).fn == Fn::sum_columns && node(v).in[0] == parts; });
  }

  // Whether `read` is computed by the kernel that computes v.
  bool inside(NodeId read, NodeId v) const { return position_[at(read)] >= 0 && kernel_of_[at(read)] == kernel_of_[at(v)]; }

  // A result that a kernel hands on: to Inductor an operation of its own, which comes when it is needed.
  bool handed_on(NodeId v) const { return node(v).kind == Kind::result && !made_before(v); }

  // By first loop, dependencies first.
  void sort_kernels() {
    std::vector<std::uint8_t> state(kernels_.size(), 0);
    std::vector<bool> placed(nodes_.size(), false);
    for (std::int32_t operation : written_) visit(operation, state, placed);
    std::ranges::copy_if(sequence_, std::back_inserter(schedule_), [](std::int32_t operation) { return operation >= 0; });
  }

  void visit(std::int32_t start, std::vector<std::uint8_t>& state, std::vector<bool>& placed) {
    std::vector<std::int32_t> stack{start};
    while (!stack.empty()) {
      const std::int32_t k = stack.back();
      const NodeId result = k < 0 ? ~k : kNone;
      if (k < 0 ? placed[at(result)] : state[at(k)] == 2) {
        stack.pop_back();
        continue;
      }
      if (k < 0 && state[at(kernel_of_[at(result)])] < 2) {
        stack.push_back(kernel_of_[at(result)]);
        continue;
      }
      if (k < 0 || state[at(k)] == 1) {
        if (k < 0) placed[at(result)] = true;
        else state[at(k)] = 2;
        sequence_.push_back(k);
        stack.pop_back();
        continue;
      }
      state[at(k)] = 1;
      std::vector<NodeId> needed;
      for (const Read& r : kernels_[at(k)].reads) {
        if (position_[at(r.node)] >= 0 && (handed_on(r.node) ? !placed[at(r.node)] : state[at(kernel_of_[at(r.node)])] == 0)) needed.push_back(r.node);
      }
      std::ranges::sort(needed, std::greater(), [&](NodeId v) { return written_name_[at(v)]; });  // the last put on the stack is visited first
      for (NodeId v : needed) stack.push_back(handed_on(v) ? ~v : kernel_of_[at(v)]);
    }
  }

  // A part of a saved value that is saved beside it is to Inductor's count a buffer of its own, which a product reads instead of the whole.
  std::vector<NodeId> parts_read_by(const Kernel& kernel) const {
    std::vector<NodeId> parts;
    for (NodeId v : kernel.members) {
      for (std::uint8_t k = 0; external(v) && k < node(v).inputs; ++k) {
        if (std::ranges::find(in_.parts, node(v).in[k]) != in_.parts.end()) parts.push_back(node(v).in[k]);
      }
    }
    return parts;
  }

  // What autograd hands in: from 2.10 on no buffer to Inductor's count (utils.py, is_nonfreeable_buffers).
  bool is_tangent(NodeId v) const { return node(v).kind == Kind::input && node(v).backward; }

  // Inductor's view of the kernels in their order. `node_of`, by kernel: its place there; made_step_: the node that makes a value's memory.
  Schedule described(std::vector<std::int32_t>& node_of) {
    Schedule all;
    const std::vector<std::int64_t> as_read = bytes_as_read();
    std::vector<std::int32_t> buffer(nodes_.size(), -1), after(nodes_.size(), -1);  // of a value; of what is written into another's memory: its new name
    const auto add_node = [&] {
      all.nodes.emplace_back();
      return static_cast<std::int32_t>(all.nodes.size()) - 1;
    };
    const auto add_buffer = [&](std::int32_t maker, std::int64_t made, std::int64_t freed, bool output) {
      const auto b = static_cast<std::int32_t>(all.buffers.size());
      all.buffers.push_back({made, freed, output, maker, {}});
      if (maker >= 0) all.nodes[at(maker)].makes.push_back(b);
      return b;
    };
    const auto reads = [&](std::int32_t reader, std::int32_t b, bool waits) {
      if (all.buffers[at(b)].readers.empty() || all.buffers[at(b)].readers.back() != reader) all.buffers[at(b)].readers.push_back(reader);
      if (waits) all.nodes[at(reader)].needs.push_back(b);
    };
    std::vector<std::int32_t> tuple(kernels_.size(), -1);  // what a kernel that hands results on makes
    for (std::int32_t k : sequence_) {
      if (k < 0) {
        const NodeId v = ~k;
        if (readers_[at(v)] == 0 && !output_[at(v)]) continue;
        const std::int32_t item = add_node();
        reads(item, tuple[at(kernel_of_[at(v)])], true);
        buffer[at(v)] = add_buffer(item, 0, node(v).bytes(), output_[at(v)]);
        continue;
      }
      const Kernel& kernel = kernels_[at(k)];
      std::vector<NodeId> results;
      std::ranges::copy_if(kernel.members, std::back_inserter(results), [&](NodeId v) { return node(v).kind == Kind::result && !outlives(v) && (readers_[at(v)] > 0 || output_[at(v)]); });
      const bool before = !results.empty() && made_before(results.front());
      for (NodeId v : results) {
        if (before) buffer[at(v)] = add_buffer(add_node(), node(v).bytes(), node(v).bytes(), output_[at(v)]);
      }
      const std::int32_t me = node_of[at(k)] = add_node();
      const std::vector<NodeId> parts = parts_read_by(kernel);
      for (NodeId v : parts) {
        if (buffer[at(v)] < 0) buffer[at(v)] = add_buffer(-1, node(v).bytes(), node(v).bytes(), false);
        reads(me, buffer[at(v)], true);
      }
      for (const Read& r : kernel.reads) {
        if (std::ranges::find(parts, r.node, [&](NodeId v) { return owner(v); }) != parts.end()) continue;
        std::int32_t& b = buffer[at(r.node)];
        if (b < 0 && given_[at(r.node)] && !(in_.graph->loops_apart && is_tangent(r.node))) {
          b = add_buffer(-1, as_read[at(r.node)], as_read[at(r.node)], output_[at(r.node)]);
        }
        if (b < 0) continue;
        const std::int32_t renamed = after[at(r.node)];
        if (renamed >= 0) reads(me, renamed, true);
        reads(me, b, renamed < 0);
      }
      for (NodeId v : kernel.members) {
        if (node(v).kind == Kind::kernel || node(v).kind == Kind::result) continue;
        if (node(v).fn == Fn::scatter_rows) {
          buffer[at(v)] = buffer[at(node(v).in[0])];
          all.buffers[at(buffer[at(v)])].output = output_[at(v)];
          after[at(v)] = add_buffer(me, 0, 0, false);
        } else {
          buffer[at(v)] = add_buffer(me, node(v).bytes(), node(v).bytes(), output_[at(v)]);
        }
      }
      for (NodeId v : results) {
        if (!before) continue;
        reads(me, buffer[at(v)], true);
        after[at(v)] = add_buffer(me, 0, 0, false);
      }
      if (before || results.empty()) continue;
      std::int64_t bytes = 0;
      for (NodeId v : results) bytes += node(v).bytes();
      tuple[at(k)] = add_buffer(me, bytes, 0, false);
    }
    made_step_ = std::move(buffer);
    for (std::int32_t& b : made_step_) b = b < 0 ? -1 : all.buffers[at(b)].node;
    return all;
  }

  // The order that Inductor takes, and its own count of memory along it.
  void reorder() {
    std::vector<std::int32_t> node_of(kernels_.size(), -1);
    const Schedule all = described(node_of);
    auto [order, memory] = least_peak_order(all);
    std::vector<std::int32_t> step(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) step[at(order[i])] = static_cast<std::int32_t>(i);
    for (std::int32_t k : schedule_) kernels_[at(k)].step = step[at(node_of[at(k)])];
    for (std::int32_t& n : made_step_) n = n < 0 ? -1 : step[at(n)];
    std::ranges::sort(schedule_, {}, [&](std::int32_t k) { return kernels_[at(k)].step; });
    peak_ = std::move(memory);
    overall_peak_ = peak_of(peak_);
  }

  struct Freed { NodeId node; std::int32_t step; };

  void plan() {
    last_use_.assign(nodes_.size(), -1);
    for (std::size_t s = 0; s < schedule_.size(); ++s) {
      for (const Read& r : kernels_[at(schedule_[s])].reads) last_use_[at(r.node)] = static_cast<std::int32_t>(s);
      for (NodeId v : kernels_[at(schedule_[s])].members) last_use_[at(v)] = std::max(last_use_[at(v)], static_cast<std::int32_t>(s));
    }
    for (std::size_t s = 0; s < schedule_.size(); ++s) add_up_at_once(static_cast<std::int32_t>(s));
    taken_over_.assign(nodes_.size(), kNone);
    freed_as_.assign(nodes_.size(), kNone);
    for (std::size_t s = 0; s < schedule_.size(); ++s) {
      if (!eager_) overwrite_inputs(static_cast<std::int32_t>(s));
      choose_writes(kernels_[at(schedule_[s])], static_cast<std::int32_t>(s));
    }
    if (!eager_) {
      for (std::size_t s = 0; s < schedule_.size(); ++s) plan_kernel(static_cast<std::int32_t>(s));
    }
    emit();
  }

  // The sums of a kernel in both orders are whole when it ends, and their kernels are no more.
  void add_up_at_once(std::int32_t s) {
    Kernel& kernel = kernels_[at(schedule_[at(s)])];
    bool first = true;
    for (NodeId parts : kernel.mixed ? std::vector<NodeId>(kernel.members) : std::vector<NodeId>{}) {
      if (!sums_in_parts(parts)) continue;
      last_use_[at(parts)] = s;
      if (std::exchange(first, false)) kernel.holds = parts, spread_[parts] = kernel.workspace;
      const NodeId whole = whole_of(parts);
      kernel.sums.push_back(whole);
      Kernel& its = kernels_[at(kernel_of_[at(whole)])];
      std::erase(its.members, whole);
      std::erase_if(its.reads, [&](const Read& r) { return r.node == parts; });
      its.gone = its.members.empty();
    }
  }

  bool owned(NodeId v) const { return given_[at(v)] || position_[at(v)] >= 0; }
  bool dies_at(NodeId v, std::int32_t s) const { return owned(v) && !output_[at(v)] && last_use_[at(v)] == s; }

  // Which values of a kernel are written onto an input (scheduler.py, decide_inplace_update): the first read whose last use this is.
  void overwrite_inputs(std::int32_t s) {
    const Kernel& kernel = kernels_[at(schedule_[at(s)])];
    if (kernel.external || kernel.gone) return;
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

  static constexpr std::int32_t kBetween = -1;  // two passes: a value for each row

  // Which pass over its rows a kernel computes each member in (codegen/simd.py, generate_node_schedule): what needs a row's finished sum waits for the next
  // pass. Rows that fit into registers are gone over once: none.
  std::vector<std::int32_t> passes_of(const Kernel& kernel) const {
    if (eager_ || kernel.external || !kernel.reduces || kernel.mixed) return {};
    const auto sum = std::ranges::find_if(kernel.members, [&](NodeId v) { return node(v).kind == Kind::reduction; });
    const std::int64_t rows = node(*sum).shape.numel();
    if (extent(*sum) / rows <= longest_in_registers(kernel)) return {};
    std::vector<std::int32_t> pass(kernel.members.size(), 0);
    std::vector<NodeId> unfinished;  // sums of this pass
    std::vector<NodeId> used;        // buffers that it has loaded or written
    std::int32_t current = 0;
    std::size_t split = 0;           // from this member on nothing is shared with what stands before it in the pass
    const auto next_pass = [&](std::size_t i) {
      if (split > 0) {
        ++current;
        for (std::size_t j = split; j < i; ++j) pass[j] = current;
      }
      ++current;
      split = 0;
      unfinished.clear();
      used.clear();
    };
    for (std::size_t i = 0; i < kernel.members.size(); ++i) {
      const NodeId v = kernel.members[i];
      const bool reduces = node(v).kind == Kind::reduction;
      if (!reduces && extent(v) == rows) {
        next_pass(i);
        pass[i] = kBetween;
        continue;
      }
      if (std::ranges::any_of(unfinished, [&](NodeId u) { return needs(v, u); })) next_pass(i);
      const auto reads = reads_of(v);
      if (used.empty() || std::ranges::any_of(reads, [&](const Read& r) { return std::ranges::find(used, owner(r.node)) != used.end(); })) split = 0;
      else if (split == 0) split = i;
      pass[i] = current;
      for (const Read& r : reads) used.push_back(owner(r.node));
      (reduces ? unfinished : used).push_back(v);
    }
    return pass;
  }

  // Whether a later pass over the rows of the kernel reads its i-th member, which is then in memory (codegen/common.py, remove_kernel_local_buffers).
  bool read_again(const Kernel& kernel, const std::vector<std::int32_t>& pass, std::size_t i) const {
    const NodeId v = kernel.members[i];
    if (pass.empty() || node(v).kind == Kind::reduction || pass[i] == kBetween) return false;
    for (std::size_t j = i + 1; j < kernel.members.size(); ++j) {
      if (pass[j] != pass[i] && std::ranges::any_of(reads_of(kernel.members[j]), [&](const Read& r) { return owner(r.node) == v; })) return true;
    }
    return false;
  }

  // A value read only inside its own kernel gets no memory, unless one that does is written onto it.
  void choose_writes(Kernel& kernel, std::int32_t s) {
    if (kernel.gone) return;
    const std::vector<std::int32_t> pass = passes_of(kernel);
    std::vector<bool> kept(kernel.members.size());
    for (std::size_t i = kernel.members.size(); i-- > 0;) {
      const NodeId v = kernel.members[i];
      kept[i] = eager_ || kernel.external || output_[at(v)] || last_use_[at(v)] != s || read_again(kernel, pass, i);
      for (std::size_t j = 0; !kept[i] && j < kernel.members.size(); ++j) kept[i] = kept[j] && taken_over_[at(kernel.members[j])] == v;
      kept[i] = kept[i] && node(v).kind != Kind::kernel;
      if (!kept[i] && taken_over_[at(v)] != kNone) freed_as_[at(taken_over_[at(v)])] = v;
      if (!kept[i]) taken_over_[at(v)] = kNone;
    }
    for (std::size_t i = 0; i < kernel.members.size(); ++i) {
      if (!kept[i]) continue;
      kernel.writes.push_back(kernel.members[i]);
      if (taken_over_[at(kernel.members[i])] != kNone) kernel.in_place.push_back(kernel.members[i]);
    }
    std::ranges::stable_partition(kernel.in_place, [&](NodeId v) { return node(v).fn != Fn::scatter_rows; });  // as the kernel's arguments stand
    if (kernel.holds != kNone) kernel.writes.push_back(kernel.holds);
    kernel.writes.insert(kernel.writes.end(), kernel.sums.begin(), kernel.sums.end());
  }

  // The step at which v is allocated.
  std::int32_t made_at(NodeId v, const Kernel& kernel) const { return made_before(v) && !outlives(v) ? made_step_[at(v)] : kernel.step; }

  void plan_kernel(std::int32_t s) {
    const Kernel& kernel = kernels_[at(schedule_[at(s)])];
    if (kernel.gone) return;
    std::vector<NodeId> used;
    for (NodeId v : kernel.writes) {
      if (std::ranges::find(kernel.sums, v) != kernel.sums.end()) continue;  // torch's own sum of the workspace makes it
      if (taken_over_[at(v)] == kNone && (node(v).kind != Kind::result || (made_before(v) && !outlives(v)))) reuse(v, made_at(v, kernel));
      if (taken_over_[at(v)] != kNone) used.push_back(taken_over_[at(v)]);
    }
    std::vector<NodeId> freed;
    const auto consider = [&](NodeId v) {
      if (dies_at(v, s) && !given_[at(v)] && !outlives(v) && std::ranges::find(used, v) == used.end()) freed.push_back(v);
    };
    for (const Read& r : kernel.reads) consider(r.node);
    for (NodeId v : kernel.writes) consider(v);
    std::ranges::sort(freed, {}, [&](NodeId v) { return name_[at(last_name(v))]; });
    for (NodeId v : freed) pool_[memory_key(v)].push_back({v, kernel.step});
  }

  // With the workspace that a sum in parts stands for.
  std::int64_t bytes_of(NodeId v) const {
    const auto it = spread_.find(v);
    return it == spread_.end() ? node(v).bytes() : it->second * size_of(Dtype::fp32);
  }
  std::int64_t memory_key(NodeId v) const { return bytes_of(v) * 16 + static_cast<std::int64_t>(node(v).dtype); }

  // Take a freed buffer of the same size and type, the latest first (wrapper.py, AllocateLine): always one that the step before freed, an older one
  // only where the estimate, counted as at least nothing, does not rise above its peak by keeping it.
  void reuse(NodeId v, std::int32_t step) {
    auto& shelf = pool_[memory_key(v)];
    if (shelf.empty()) return;
    const Freed candidate = shelf.back();
    if (candidate.step + 1 != step) {
      std::int64_t between = 0;
      for (std::int32_t i = candidate.step + 1; i < step; ++i) between = std::max(between, peak_[at(i)]);
      if (bytes_of(v) + between > overall_peak_) return;
      for (std::int32_t i = candidate.step + 1; i < step; ++i) peak_[at(i)] += bytes_of(v);
    }
    shelf.pop_back();
    taken_over_[at(v)] = candidate.node;
  }

  // What was to be written onto an input keeps the input's memory under its own name, even where it is not written after all.
  NodeId last_name(NodeId v) const {
    while (freed_as_[at(v)] != kNone) v = freed_as_[at(v)];
    return v;
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
      if (kernel.gone) continue;
      const NodeId op = kernel.writes.empty() ? kernel.reads.front().node : kernel.writes.back();
      launch(kernel, op);
      for (NodeId v : kernel.writes) {
        if (taken_over_[at(v)] != kNone) steps_.push_back({false, taken_over_[at(v)], op});
        steps_.push_back({true, v, op, taken_over_[at(v)]});
      }
      if (!eager_ && timed_first(kernel)) timings_.push_back({static_cast<std::int32_t>(steps_.size()), kernel.in_place});
      std::vector<NodeId> freed;
      for (const Read& r : kernel.reads) {
        if (dies_at(r.node, static_cast<std::int32_t>(s)) && !handed[at(r.node)]) freed.push_back(r.node);
      }
      for (NodeId v : kernel.writes) {
        if (dies_at(v, static_cast<std::int32_t>(s)) && !handed[at(v)]) (outlives(v) ? late : freed).push_back(v);
      }
      std::ranges::sort(freed, {}, [&](NodeId v) { return std::tuple(name_rank(last_name(v)), name_[at(last_name(v))], v); });
      for (NodeId v : freed) steps_.push_back({false, v, op});
    }
    for (NodeId v : late) steps_.push_back({false, v, v});
  }

  void launch(const Kernel& kernel, NodeId op) {
    Launch l{op, 0, 0, kernel.reduces};
    std::int64_t elements = 0;  // what the kernel's loops run over
    bool batched = false;
    for (NodeId v : kernel.members) elements = std::max(elements, external(v) ? std::int64_t{1} << 62 : extent(v));
    for (NodeId v : kernel.writes) batched = batched || node(v).shape.batched;
    const auto add = [&](NodeId v) {
      const Node& n = node(v);
      const bool part = elements < n.shape.numel();  // as many rows of a table as there are tokens
      (n.shape.batched || (part && batched) ? l.batched_bytes : l.fixed_bytes) += static_cast<double>(std::min(n.shape.numel(), elements) * size_of(n.dtype));
    };
    for (const Read& r : kernel.reads) add(r.node);
    for (NodeId v : kernel.writes) add(v);
    launches_.push_back(l);
  }

  std::vector<std::int32_t> kernel_of_, schedule_, last_use_;
  std::vector<std::int32_t> written_, sequence_;  // operations as they are written down, and in their order: kernels, and of those handed on ~ the result
  std::vector<Kernel> kernels_;
  std::vector<std::int32_t> made_step_;           // by value: when its memory is made
  std::vector<std::int64_t> peak_;                // Inductor's count, by its steps
  std::vector<std::int64_t> read_as_;             // elements, where a value is read twice over: Inductor's count takes what is read, not what there is
  std::int64_t overall_peak_ = 0;
  std::vector<NodeId> taken_over_, freed_as_;
  std::unordered_map<std::int64_t, std::vector<Freed>> pool_;
  std::unordered_map<NodeId, std::int64_t> spread_;  // of sums in parts that stand for a workspace: its elements
  std::vector<BufferStep> steps_;
  std::vector<Launch> launches_;
  std::vector<Timing> timings_;
};

}  // namespace

FuseResult fuse(const FuseInput& input) { return Fuser(input, false).run(); }
FuseResult run_eagerly(const FuseInput& input) { return Fuser(input, true).run(); }

}  // namespace dryfit
