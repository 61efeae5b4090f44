// See lower.hpp.
#include "passes/lower.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/bytes.hpp"

namespace dryfit {

namespace {

class Lowering {
 public:
  Lowering(Graph& graph, const std::vector<NodeId>& compute) : g_(graph), compute_(compute), computed_(graph.nodes.size(), false) {
    for (NodeId v : compute) computed_[at(v)] = true;
  }

  std::vector<NodeId> run() {
    for (NodeId v : compute_) {
      const Node n = g_.nodes[at(v)];
      if (n.fn == Fn::amax_all) in_two_steps(v);
      if (is_scaled(n)) {
        for (std::size_t k = 0; k < 2; ++k) {
          const Node& x = g_.nodes[at(n.in[k])];
          if (x.fn != Fn::laid_out) insert(v, k, Fn::laid_out, Kind::view, x.shape);
          else order_.push_back(n.in[k]);
        }
      }
      order_.push_back(v);
    }
    return std::move(order_);
  }

 private:
  static std::size_t at(NodeId v) { return static_cast<std::size_t>(v); }

  // Puts a node between `reader` and its operand k.
  void insert(NodeId reader, std::size_t k, Fn fn, Kind kind, Shape shape) {
    Node n = g_.nodes[at(reader)];
    const NodeId from = n.in[k];
    n.fn = fn;
    n.kind = kind;
    n.shape = shape;
    n.dtype = g_.nodes[at(from)].dtype;
    n.inputs = 1;
    n.in.fill(kNone);
    n.in[0] = from;
    n.variant = 0;
    if (fn == Fn::laid_out) n.variant = static_cast<std::int8_t>(k), n.flat = true, n.role = g_.nodes[at(from)].role, n.layer = g_.nodes[at(from)].layer;
    const auto id = static_cast<NodeId>(g_.nodes.size());
    g_.nodes.push_back(n);
    g_.nodes[at(reader)].in[k] = id;
    order_.push_back(id);
  }

  void in_two_steps(NodeId v) {
    const NodeId from = g_.nodes[at(v)].in[0];
    const Node& x = g_.nodes[at(from)];
    if (x.fn == Fn::amax_rows) return order_.push_back(from);
    const std::int64_t elements = x.shape.numel(), parts = inner_splits(elements, g_.multiprocessors);
    if (parts == 1) return;
    const std::optional<Node> before = reduced_before(from);
    insert(v, 0, Fn::amax_rows, Kind::reduction, before ? before->shape : dryfit::shape({parts}, false));
    g_.nodes.back().flat = before && before->flat;
    if (!before) g_.nodes.back().variant = kInParts;
  }

  // A reduction that x is made of in this half, where all such have as many rows and the same (dependencies.py, extract_input_node_reduction_ranges).
  std::optional<Node> reduced_before(NodeId x) {
    std::optional<Node> found;
    std::vector<NodeId> open{x};
    seen_.resize(g_.nodes.size(), 0);
    ++searches_;
    while (!open.empty()) {
      const NodeId v = open.back();
      open.pop_back();
      if (std::exchange(seen_[at(v)], searches_) == searches_) continue;
      const Node& n = g_.nodes[at(v)];
      if (!computed_[at(v)] || n.kind == Kind::matmul || n.kind == Kind::kernel || n.kind == Kind::result) continue;
      if (n.kind != Kind::reduction && n.fn != Fn::amax_all) {
        open.insert(open.end(), n.in.begin(), n.in.begin() + n.inputs);
        continue;
      }
      if (n.shape.numel() == 1 || g_.nodes[at(n.in[0])].shape.numel() != g_.nodes[at(x)].shape.numel() || (found && !(found->shape == n.shape))) return std::nullopt;
      found = n;
    }
    return found;
  }

  Graph& g_;
  const std::vector<NodeId>& compute_;
  std::vector<bool> computed_;
  std::vector<NodeId> order_;
  std::vector<std::int32_t> seen_;  // per node: the search that last came by
  std::int32_t searches_ = 0;
};

}  // namespace

std::vector<NodeId> lower(Graph& graph, const std::vector<NodeId>& compute) { return Lowering(graph, compute).run(); }

}  // namespace dryfit
