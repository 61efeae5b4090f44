// solve_min_cut: node weights, bans, the cut. See partition.hpp for what it follows.
#include "passes/partition.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <queue>
#include <set>
#include <span>

#include "passes/max_flow.hpp"
#include "workload/workload.hpp"

namespace dryfit {

namespace {

class Partitioner {
 public:
  explicit Partitioner(const JointGraph& joint) : nodes_(joint.graph.nodes), forward_(joint.forward_count), checkpoints_(joint.graph.checkpoints), apart_(joint.graph.loops_apart) {
    list_users();
    kept_.assign(nodes_.size(), false);
    for (NodeId v : joint.graph.kept) kept_[at(v)] = true;
    returned_.assign(nodes_.size(), false);
    for (NodeId v : joint.graph.outputs) returned_[at(v)] = true;
    needed_.assign(nodes_.size(), false);
    for (NodeId v : joint.graph.outputs) needed_[at(v)] = true;
    if (joint.graph.loss != kNone) needed_[at(joint.graph.loss)] = true;
    for (NodeId v = forward_; v-- > 0;) {
      for (std::uint8_t k = 0; needed_[at(v)] && k < node(v).inputs; ++k) needed_[at(node(v).in[k])] = true;
    }
    banned_.assign(at(forward_), false);
    free_.assign(at(forward_), false);
    // parameters and the rotary tables live anyway (treat_parameters_as_free_to_save); token ids come anew each step
    for (const GraphInput& input : joint.graph.inputs) free_[at(input.node)] = !node(input.node).shape.batched;
    measure_distance();
    for (std::size_t d = 0; d < growth_.size(); ++d) growth_[d] = std::pow(1.1, static_cast<double>(d));
  }

  std::vector<NodeId> run() {
    for (NodeId v = 0; v < forward_; ++v) {
      if (node(v).kind == Kind::input || should_ban(v)) ban(v);
    }
    ban_used_far_apart();
    ban_long_chains();
    return cut();
  }

 private:
  static std::size_t at(NodeId v) { return static_cast<std::size_t>(v); }
  const Node& node(NodeId v) const { return nodes_[at(v)]; }
  bool in_forward(NodeId v) const { return v < forward_; }
  bool needed(NodeId v) const { return in_forward(v) && needed_[at(v)]; }

  // All users of all nodes in one array, ascending; users_of(v) is v's stretch of it.
  void list_users() {
    first_user_.assign(nodes_.size() + 1, 0);
    for (const Node& n : nodes_) {
      for (std::uint8_t k = 0; k < n.inputs; ++k) ++first_user_[at(n.in[k]) + 1];
    }
    for (std::size_t i = 0; i < nodes_.size(); ++i) first_user_[i + 1] += first_user_[i];
    users_.resize(at(first_user_.back()));
    std::vector<std::int32_t> next(first_user_.begin(), first_user_.end() - 1);
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      for (std::uint8_t k = 0; k < nodes_[i].inputs; ++k) users_[at(next[at(nodes_[i].in[k])]++)] = static_cast<NodeId>(i);
    }
  }
  std::span<const NodeId> users_of(NodeId v) const { return std::span(users_).subspan(at(first_user_[at(v)]), at(first_user_[at(v) + 1] - first_user_[at(v)])); }

  // What Inductor could put into one kernel. An embedding lookup counts as a kernel of its own here, a cat only as a consumer.
  bool fusible(NodeId v) const {
    const Node& n = node(v);
    return (n.kind == Kind::pointwise || n.kind == Kind::reduction || n.kind == Kind::view) && n.fn != Fn::embedding &&
           n.fn != Fn::scatter_rows && n.fn != Fn::random && !(n.fn == Fn::shift && n.variant == kShiftPads);
  }
  bool recomputable(NodeId v) const { return fusible(v) && node(v).fn != Fn::shift; }
  bool fuses(NodeId a, NodeId b) const {
    if (node(b).fn == Fn::nll_grad && node(a).dtype == Dtype::int64 && !apart_) return false;  // a scatter at these places, until the joint graph is written without (joint_graph.py, 2.10)
    return node(b).kind == Kind::cat || (fusible(a) && fusible(b));
  }

  void measure_distance() {
    distance_.assign(nodes_.size(), 0);
    for (NodeId v = forward_ - 1; v >= 0; --v) {
      std::int64_t d = 1'000'000'000;
      for (NodeId user : users_of(v)) d = std::min(d, distance_[at(user)] + 1);
      distance_[at(v)] = needed(v) ? d : 0;
    }
  }

  bool materialized_in_backward(NodeId v) const {
    if (node(v).kind == Kind::view) return false;
    std::vector<NodeId> open{v};
    while (!open.empty()) {
      const NodeId current = open.back();
      open.pop_back();
      for (NodeId user : users_of(current)) {
        if (!needed(user) && !fuses(current, user)) return true;
        if (node(user).kind == Kind::view) open.push_back(user);
      }
    }
    return false;
  }

  // A checkpoint's region is its layer. What a later region is given stands between both and is saved (cleanup_recompute_tags).
  bool in_checkpoint(NodeId v) const { return checkpoints_ && in_forward(v) && node(v).layer >= 0 && node(v).kind != Kind::input; }
  bool leaves_checkpoint(NodeId v) const {
    const auto expands = [&](NodeId user) { return node(user).fn == Fn::attention && static_cast<Attention>(node(user).variant) == Attention::efficient; };
    if (node(v).fn == Fn::mask && std::ranges::any_of(users_of(v), expands)) return false;  // all layers share the first one's, through a view for all heads that is taken again
    return std::ranges::any_of(users_of(v), [&](NodeId user) { return in_checkpoint(user) && node(user).layer > node(v).layer; });
  }
  bool must_recompute(NodeId v) const { return in_checkpoint(v) && !leaves_checkpoint(v) && !kept_[at(v)]; }

  bool should_ban(NodeId v) const {
    const Node& n = node(v);
    if (n.kind == Kind::input || n.kind == Kind::result || !needed(v)) return false;
    if (in_checkpoint(v)) return true;  // where it is not computed again for certain, it is saved
    if (!recomputable(v) || materialized_in_backward(v) || returned_[at(v)]) return true;
    std::int64_t in = 0;
    for (std::uint8_t k = 0; k < n.inputs; ++k) in += node(n.in[k]).bytes();
    return n.bytes() * 4 < in;
  }

  void ban(NodeId v) {
    if (node(v).kind != Kind::view && !must_recompute(v)) banned_[at(v)] = true;
  }

  NodeId first_unfusible(const std::vector<NodeId>& start, NodeId range) const {
    std::set<std::pair<NodeId, bool>> open;
    for (NodeId v : start) open.insert({v, true});
    while (!open.empty()) {
      const auto [v, fuses_here] = *open.begin();
      open.erase(open.begin());
      if (!fuses_here) return v;
      for (NodeId user : users_of(v)) {
        if (needed(user) && user <= range) open.insert({user, fuses(v, user)});
      }
    }
    return range;
  }

  // A value used both nearby and far down: what is far down cannot fuse with it, so it is not worth recomputing.
  void ban_used_far_apart() {
    for (NodeId v = 0; v < forward_; ++v) {
      std::vector<NodeId> users;
      for (NodeId user : users_of(v)) {
        if (needed(user)) users.push_back(user);
      }
      if (users.size() < 2) continue;
      const NodeId limit = first_unfusible(users, *std::ranges::max_element(users));
      for (NodeId user : users) {
        if (user > limit && fuses(v, user)) ban(user);
      }
    }
  }

  void ban_long_chains() {
    std::vector<bool> visited(at(forward_), false);
    for (NodeId start = 0; start < forward_; ++start) {
      if (!needed(start)) continue;
      std::priority_queue<NodeId, std::vector<NodeId>, std::greater<>> open;
      open.push(start);
      while (!open.empty()) {
        const NodeId v = open.top();
        open.pop();
        if (visited[at(v)]) continue;
        visited[at(v)] = true;
        if (v > start + 100 && open.empty()) {
          ban(v);
          break;
        }
        for (NodeId user : users_of(v)) {
          if (needed(user) && fuses(v, user) && !banned_[at(user)]) open.push(user);
        }
      }
    }
  }

  // Cost of saving a value: its bytes, more the farther it is from the backward pass, doubled when forward would not write it anyway.
  double weight(NodeId v) const {
    const Node& n = node(v);
    if (n.kind == Kind::kernel) return MaxFlow::kInfinite;
    if (free_[at(v)]) return 0;
    const double grown = std::floor(static_cast<double>(n.bytes()) * growth_[at(static_cast<NodeId>(std::clamp<std::int64_t>(distance_[at(v)], 1, 100)))]);
    const bool written = n.kind == Kind::input || returned_[at(v)] || !std::ranges::all_of(users_of(v), [&](NodeId user) { return fuses(v, user); });
    return written ? grown : 2 * grown;
  }

  std::vector<NodeId> cut() const {
    const std::int32_t source = 2 * forward_, sink = source + 1;
    MaxFlow flow(sink + 1);
    for (NodeId v = 0; v < forward_; ++v) {
      if (must_recompute(v)) {
        flow.add(2 * v, sink, MaxFlow::kInfinite);
        continue;
      }
      if (banned_[at(v)]) flow.add(source, 2 * v, MaxFlow::kInfinite);
      flow.add(2 * v, 2 * v + 1, weight(v));
      bool to_backward = false;
      for (NodeId user : users_of(v)) {
        if (in_forward(user)) flow.add(2 * v + 1, 2 * user, MaxFlow::kInfinite);
        else to_backward = true;
      }
      if (to_backward) flow.add(2 * v + 1, sink, MaxFlow::kInfinite);
    }
    flow.run(source, sink);
    const std::vector<bool> below = flow.reaches(sink);
    std::vector<NodeId> saved;
    for (NodeId v = 0; v < forward_; ++v) {
      if (!below[at(2 * v)] && below[at(2 * v + 1)]) saved.push_back(v);
    }
    return saved;
  }

  const std::vector<Node>& nodes_;
  NodeId forward_;
  bool checkpoints_, apart_;
  std::vector<std::int32_t> first_user_;
  std::vector<NodeId> users_;
  std::vector<std::int64_t> distance_;
  std::vector<bool> banned_, free_, kept_;
  std::vector<bool> needed_;       // by what forward returns: what is written down beside it, of backward alone, may be computed there
  std::vector<bool> returned_;     // by the function: in memory anyway, and never computed again
  std::array<double, 101> growth_{};
};

}  // namespace

namespace {

// What a policy saves and no backward node comes to read is not saved after all (partitioners.py, _extract_fwd_bwd_modules).
std::vector<NodeId> read_again(const JointGraph& joint, std::vector<NodeId> saved) {
  const auto& nodes = joint.graph.nodes;
  std::vector<bool> stops(nodes.size(), false), seen(nodes.size(), false);
  for (NodeId v : saved) stops[static_cast<std::size_t>(v)] = true;
  std::vector<NodeId> open(joint.gradients.begin(), joint.gradients.end());
  while (!open.empty()) {
    const NodeId v = open.back();
    open.pop_back();
    if (v == kNone || seen[static_cast<std::size_t>(v)]) continue;
    seen[static_cast<std::size_t>(v)] = true;
    const Node& n = nodes[static_cast<std::size_t>(v)];
    if (!stops[static_cast<std::size_t>(v)]) open.insert(open.end(), n.in.begin(), n.in.begin() + n.inputs);
  }
  std::erase_if(saved, [&](NodeId v) { return !seen[static_cast<std::size_t>(v)]; });
  return saved;
}

}  // namespace

std::vector<NodeId> min_cut_saved(const JointGraph& joint) {
  std::vector<NodeId> saved = Partitioner(joint).run();
  return joint.graph.kept.empty() ? saved : read_again(joint, std::move(saved));
}

std::vector<NodeId> eager_saved(const JointGraph& joint) {
  // every forward value that some backward node reads, as autograd keeps it
  std::vector<bool> read(static_cast<std::size_t>(joint.forward_count), false);
  const auto& nodes = joint.graph.nodes;
  for (std::size_t i = static_cast<std::size_t>(joint.forward_count); i < nodes.size(); ++i) {
    for (std::uint8_t k = 0; k < nodes[i].inputs; ++k) {
      if (nodes[i].in[k] < joint.forward_count) read[static_cast<std::size_t>(nodes[i].in[k])] = true;
    }
  }
  std::vector<NodeId> saved;
  for (NodeId v = 0; v < joint.forward_count; ++v) {
    if (read[static_cast<std::size_t>(v)]) saved.push_back(v);
  }
  return saved;
}

}  // namespace dryfit
