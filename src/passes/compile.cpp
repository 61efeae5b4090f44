// Joins the passes: autograd, partition, fusion of each half. Holds no rules of its own but the order of recomputation.
#include "passes/compile.hpp"

#include <algorithm>
#include <utility>

#include "passes/lower.hpp"
#include "passes/partition.hpp"

namespace dryfit {

namespace {

// The backward pass in order, each recomputed forward node right before its first reader.
std::vector<NodeId> backward_order(const JointGraph& joint, const std::vector<bool>& available) {
  const auto& nodes = joint.graph.nodes;
  std::vector<bool> placed(available);
  std::vector<bool> needed(nodes.size(), false);
  for (NodeId g : joint.gradients) {
    if (g != kNone) needed[static_cast<std::size_t>(g)] = true;
  }
  for (std::size_t i = nodes.size(); i-- > 0;) {
    if (!needed[i] || available[i]) continue;
    for (std::uint8_t k = 0; k < nodes[i].inputs; ++k) needed[static_cast<std::size_t>(nodes[i].in[k])] = true;
  }
  for (std::size_t i = static_cast<std::size_t>(joint.forward_count); i < nodes.size(); ++i) {  // an opaque kernel brings all of its results
    if (nodes[i].kind == Kind::result) needed[i] = needed[static_cast<std::size_t>(nodes[i].in[0])];
  }
  std::vector<NodeId> order, stack;
  for (std::size_t i = static_cast<std::size_t>(joint.forward_count); i < nodes.size(); ++i) {
    if (!needed[i]) continue;
    stack.push_back(static_cast<NodeId>(i));
    while (!stack.empty()) {
      const NodeId v = stack.back();
      if (placed[static_cast<std::size_t>(v)]) {
        stack.pop_back();
        continue;
      }
      bool ready = true;
      const Node& n = nodes[static_cast<std::size_t>(v)];
      for (std::uint8_t k = n.inputs; k-- > 0;) {
        if (!placed[static_cast<std::size_t>(n.in[k])]) {
          stack.push_back(n.in[k]);
          ready = false;
        }
      }
      if (!ready) continue;
      placed[static_cast<std::size_t>(v)] = true;
      order.push_back(v);
      stack.pop_back();
    }
  }
  return order;
}

// Those of `compute`, which is in order, that `outputs` are made of. An opaque kernel brings all of its results.
std::vector<NodeId> needed_by(const std::vector<Node>& nodes, const std::vector<NodeId>& outputs, std::vector<NodeId> compute) {
  std::vector<bool> needed(nodes.size(), false);
  for (NodeId v : outputs) needed[static_cast<std::size_t>(v)] = true;
  for (auto v = compute.rbegin(); v != compute.rend(); ++v) {
    const Node& n = nodes[static_cast<std::size_t>(*v)];
    for (std::uint8_t k = 0; needed[static_cast<std::size_t>(*v)] && k < n.inputs; ++k) needed[static_cast<std::size_t>(n.in[k])] = true;
  }
  std::erase_if(compute, [&](NodeId v) {
    const Node& n = nodes[static_cast<std::size_t>(v)];
    return !needed[static_cast<std::size_t>(n.kind == Kind::result ? n.in[0] : v)];
  });
  return compute;
}

// A tensor's dimensions in memory: products, and nanochat/fp8.py, make matrices of texts, and that also copies of them with rows and columns exchanged.
Shape in_memory(const Node& n) {
  if ((size_of(n.dtype) > 1 && n.kind != Kind::matmul) || n.shape.rank < 2) return n.shape;
  const std::int64_t columns = n.shape.dim[static_cast<std::size_t>(n.shape.rank - 1)], rows = n.shape.numel() / columns;
  return n.fn == Fn::transpose ? shape({columns, rows}, false) : shape({rows, columns}, n.shape.batched);
}

// What Inductor lays out as it likes (ir.py, FlexibleLayout) has padded rows and texts: neither what kernels and products in fp8 write, nor what is handed to
// the user, nor the operands of products in fp8, whose strides are fixed (graph.py, run_node).
void pad(Graph& graph, const std::vector<NodeId>& compute, const std::vector<NodeId>& users) {
  std::vector<NodeId> fixed(users);
  for (NodeId v : compute) {
    const Node& n = graph.nodes[static_cast<std::size_t>(v)];
    if (n.fn == Fn::laid_out) fixed.push_back(n.in[0]);
  }
  std::ranges::sort(fixed);
  for (NodeId v : compute) {
    Node& n = graph.nodes[static_cast<std::size_t>(v)];
    const bool free = (n.kind == Kind::pointwise || n.kind == Kind::reduction || n.kind == Kind::cat || (n.kind == Kind::matmul && !is_scaled(n))) && n.fn != Fn::fill && n.fn != Fn::scatter_rows &&
                      !(n.fn == Fn::transpose && n.variant == kEvenRows);
    if (free && !std::ranges::binary_search(fixed, v)) n.padding = padding_of(in_memory(n), n.dtype);
  }
}

}  // namespace

CompiledForward compile_forward(Graph forward) {
  CompiledForward out{std::move(forward), {}, kNone, {}};
  FuseInput fw{&out.graph, {}, {}, {}, {out.graph.loss}};
  for (NodeId v = 0; v < static_cast<NodeId>(out.graph.nodes.size()); ++v) (out.graph.nodes[static_cast<std::size_t>(v)].kind == Kind::input ? fw.borrowed : fw.compute).push_back(v);
  fw.compute = lower(out.graph, needed_by(out.graph.nodes, fw.outputs, std::move(fw.compute)));
  pad(out.graph, fw.compute, fw.outputs);
  FuseResult done = fuse(fw);
  out.steps = std::move(done.steps);
  out.output = done.outputs.front();
  out.timings = std::move(done.timings);
  return out;
}

CompiledStep compile_step(Graph forward, bool compile) {
  CompiledStep step;
  step.joint = differentiate(std::move(forward), compile);
  const JointGraph& joint = step.joint;
  const auto& nodes = joint.graph.nodes;
  const std::vector<NodeId> cut = compile ? min_cut_saved(joint) : eager_saved(joint);

  FuseInput fw{&joint.graph, {}, {}, {}, {}, {}};
  if (joint.graph.loss != kNone) fw.outputs.push_back(joint.graph.loss);
  const auto first = static_cast<std::ptrdiff_t>(fw.outputs.size());
  for (NodeId v = 0; v < joint.forward_count; ++v) {
    if (nodes[static_cast<std::size_t>(v)].kind == Kind::input) fw.borrowed.push_back(v);
    else fw.compute.push_back(v);
  }
  fw.outputs.insert(fw.outputs.end(), joint.graph.outputs.begin(), joint.graph.outputs.end());
  // a view that is saved keeps its source's storage alive
  std::vector<bool> stored(nodes.size(), false);
  const auto storage = [&](NodeId v) {
    while (nodes[static_cast<std::size_t>(v)].kind == Kind::view) v = nodes[static_cast<std::size_t>(v)].in[0];
    return v;
  };
  const auto is_of_one_call = [&](NodeId v) {
    return nodes[static_cast<std::size_t>(v)].shape.batched || std::ranges::any_of(joint.graph.inputs, [&](const GraphInput& in) { return in.node == v && in.passing; });
  };
  for (NodeId v : cut) {
    const NodeId owner = storage(v);
    if (owner != v) fw.views.push_back(v);
    if (nodes[static_cast<std::size_t>(owner)].kind == Kind::input && is_of_one_call(owner)) step.read_again.push_back(owner);
    if (nodes[static_cast<std::size_t>(owner)].kind == Kind::input || stored[static_cast<std::size_t>(owner)]) continue;
    stored[static_cast<std::size_t>(owner)] = true;
    step.saved.push_back(owner);
    fw.outputs.push_back(owner);
  }
  if (compile) {
    fw.compute = lower(step.joint.graph, needed_by(nodes, fw.outputs, std::move(fw.compute)));
    pad(step.joint.graph, fw.compute, joint.graph.outputs);
  }
  FuseResult done = compile ? fuse(fw) : run_eagerly(fw);
  step.forward = std::move(done.steps);
  step.forward_launches = std::move(done.launches);
  step.forward_timings = std::move(done.timings);
  if (first > 0) step.loss = done.outputs.front();
  step.outputs.assign(done.outputs.begin() + first, done.outputs.begin() + first + static_cast<std::ptrdiff_t>(joint.graph.outputs.size()));

  FuseInput bw{&joint.graph, {}, fw.borrowed, step.saved, {}, {}};
  bw.shared = step.outputs;
  if (joint.tangent != kNone) bw.borrowed.push_back(joint.tangent);
  for (NodeId t : joint.tangents) {  // to Inductor's own count their last reader frees them
    if (t == kNone) continue;
    bw.given.push_back(t);
    bw.shared.push_back(t);
  }
  std::vector<bool> available(nodes.size(), false);
  for (NodeId v : bw.borrowed) available[static_cast<std::size_t>(v)] = true;
  for (NodeId v : bw.given) available[static_cast<std::size_t>(v)] = true;
  bw.compute = backward_order(joint, available);
  for (NodeId v : bw.compute) {  // a product's operand is saved as its view of two dimensions, from which no slice is taken again
    const Node& n = nodes[static_cast<std::size_t>(v)];
    for (std::uint8_t k = 0; n.kind == Kind::matmul && k < n.inputs; ++k) {
      if (nodes[static_cast<std::size_t>(n.in[k])].kind == Kind::view && stored[static_cast<std::size_t>(storage(n.in[k]))]) bw.parts.push_back(n.in[k]);
    }
  }
  for (NodeId g : joint.gradients) {
    if (g != kNone) bw.outputs.push_back(g);
  }
  if (compile) {
    bw.compute = lower(step.joint.graph, bw.compute);
    pad(step.joint.graph, bw.compute, bw.outputs);
  }
  FuseResult back = compile ? fuse(bw) : run_eagerly(bw);
  for (const auto& [v, elements] : back.spread) {
    Node& n = step.joint.graph.nodes[static_cast<std::size_t>(v)];
    n.padding = elements - n.shape.numel();
  }
  step.backward = std::move(back.steps);
  step.backward_launches = std::move(back.launches);
  step.backward_timings = std::move(back.timings);
  std::size_t next = 0;
  for (NodeId g : joint.gradients) step.gradients.push_back(g == kNone ? kNone : back.outputs[next++]);
  return step;
}

}  // namespace dryfit
