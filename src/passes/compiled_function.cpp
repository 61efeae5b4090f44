// See compiled_function.hpp.
#include "passes/compiled_function.hpp"

#include <algorithm>
#include <utility>

#include "passes/efficient_attention.hpp"

namespace dryfit::eager {

namespace {

Dims dims_of(const Shape& s) {
  Dims d;
  d.rank = s.rank;
  for (std::uint8_t i = 0; i < s.rank; ++i) d.size[i] = s.dim[i];
  d.batched = s.batched;
  return contiguous(d);
}

}  // namespace

CompiledFunction::CompiledFunction(Tape& tape, Graph forward, std::int64_t parameters) : t_(tape), step_(compile_step(std::move(forward), true)) {
  std::vector<Work> work = micro_step_work(step_, parameters);
  const auto middle = work.begin() + static_cast<std::ptrdiff_t>(step_.forward_launches.size());
  forward_work_.assign(work.begin(), middle);
  backward_work_.assign(middle, work.end());
  if (tape.options().host_seeds) std::erase_if(step_.saved, [&](NodeId v) { return is_seed(step_.joint.graph, v); });
  kept_ = step_.saved;
  kept_.insert(kept_.end(), step_.read_again.begin(), step_.read_again.end());
  gradient_.assign(step_.joint.graph.nodes.size(), false);
  for (NodeId g : step_.gradients) {
    if (g != kNone) gradient_[static_cast<std::size_t>(g)] = true;
  }
}

// The memory of one value. Gradients and logits are shown as such.
Tensor CompiledFunction::made(NodeId v, Tensor onto) {
  const Graph& g = step_.joint.graph;
  const Node& n = g.nodes[static_cast<std::size_t>(v)];
  const Category before = t_.category();
  const std::string_view role = n.role;
  t_.category(gradient_[static_cast<std::size_t>(v)] ? Category::gradients : role.starts_with("logits") || role.starts_with("loss") ? Category::logits : before);
  t_.at(n.layer);
  Tensor t = onto.defined() ? t_.onto(std::move(onto), n.role, dims_of(n.shape), n.dtype, n.padding) : t_.empty(n.role, dims_of(n.shape), n.dtype, n.padding);
  t_.at(-1);
  t_.category(before);
  return t;
}

// spares: see Tape::time_kernel.
void CompiledFunction::play(const std::vector<BufferStep>& steps, TimingsToCome timings, bool spares, Buffers& buffers) {
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const BufferStep& s = steps[i];
    Tensor& here = buffers[static_cast<std::size_t>(s.node)];
    if (t_.options().host_seeds && is_seed(step_.joint.graph, s.node)) {
      // nothing of the GPU's
    } else if (s.alloc) {
      here = made(s.node, s.from == kNone ? Tensor() : std::move(buffers[static_cast<std::size_t>(s.from)]));
      after(s);
    } else if (i + 1 == steps.size() || steps[i + 1].from != s.node) {  // else the next takes it over
      here.reset();
    }
    while (const Timing* timing = timings.after(i + 1)) {
      std::vector<Tensor> in_place;
      for (NodeId v : timing->in_place) in_place.push_back(buffers[static_cast<std::size_t>(v)]);
      t_.time_kernel(in_place, spares);
    }
  }
}

// What kernels take beside their results: cuBLAS its workspace once, attention's backward kernel sums of rows.
void CompiledFunction::after(const BufferStep& s) {
  const Graph& g = step_.joint.graph;
  const Node& n = g.nodes[static_cast<std::size_t>(s.node)];
  if (n.fn == Fn::matmul) t_.multiplied();
  if (n.kind != Kind::result) return;
  const Node& kernel = g.nodes[static_cast<std::size_t>(n.in[0])];
  if (kernel.fn != Fn::attention_backward || n.variant != 2) return;
  const auto by_heads = [&](std::size_t i) {
    const Shape& of = g.nodes[static_cast<std::size_t>(kernel.in[i])].shape;
    return dims({of.dim[0], of.dim[2], of.dim[1], of.dim[3]}, of.batched);
  };
  t_.attention_scratch(static_cast<Attention>(kernel.variant), by_heads(1), by_heads(2), by_heads(3), n.dtype, false);
}

// Zeros for every output that the loss does not come from: the frame of backward() names them, and what it was given, to its end.
std::vector<Tensor> CompiledFunction::backward(std::span<const Tensor> given, std::vector<Tensor>& saved) {
  const JointGraph& joint = step_.joint;
  const std::span<const Tensor> of_outputs = given.subspan(step_.loss == kNone ? 0 : 1);
  std::vector<Tensor> gradients, tangents;
  Buffers buffers(joint.graph.nodes.size());
  for (std::size_t i = 0; i < joint.tangents.size(); ++i) {
    const NodeId tangent = joint.tangents[i];
    if (tangent == kNone) continue;
    tangents.push_back(of_outputs[i].defined() ? of_outputs[i] : made(tangent, {}));
    buffers[static_cast<std::size_t>(tangent)] = tangents.back();
  }
  for (std::size_t i = 0; i < kept_.size(); ++i) buffers[static_cast<std::size_t>(kept_[i])] = std::move(saved[i]);
  play(step_.backward, {std::exchange(step_.backward_timings, {})}, true, buffers);
  for (const Work& w : backward_work_) t_.tell(w);
  const NoGrad inside(t_);
  for (std::size_t i = 0; i < joint.graph.inputs.size(); ++i) {
    if (joint.graph.inputs[i].parameter < 0) continue;
    const NodeId g = step_.gradients[i];
    gradients.push_back(g == kNone ? Tensor() : t_.view(buffers[static_cast<std::size_t>(g)], wanted_[gradients.size()]));
  }
  return gradients;
}

std::vector<Tensor> CompiledFunction::operator()(std::span<const Tensor> inputs) {
  const Graph& g = step_.joint.graph;
  Buffers buffers(g.nodes.size());
  std::vector<Tensor> outs, wanting, saved;
  {
    const NoGrad inside(t_);
    play(step_.forward, {std::exchange(step_.forward_timings, {})}, false, buffers);
    for (const Work& w : forward_work_) t_.tell(w);
  }
  for (NodeId v : step_.saved) saved.push_back(buffers[static_cast<std::size_t>(v)]);
  for (NodeId v : step_.read_again) saved.push_back(inputs[static_cast<std::size_t>(std::ranges::find(g.inputs, v, &GraphInput::node) - g.inputs.begin())]);
  if (step_.loss != kNone) outs.push_back(buffers[static_cast<std::size_t>(step_.loss)]);
  for (NodeId v : step_.outputs) outs.push_back(buffers[static_cast<std::size_t>(v)]);
  for (std::size_t i = 0; i < g.inputs.size(); ++i) {
    if (g.inputs[i].parameter >= 0) wanting.push_back(inputs[i]);
  }
  wanted_.clear();
  for (const Tensor& t : wanting) wanted_.push_back(t.dims());
  buffers.clear();
  std::vector<Tensor> made = t_.function(outs, wanting, saved, "compiled", [this](std::span<const Tensor> given, std::vector<Tensor>& kept) { return backward(given, kept); });
  const std::size_t first = outs.size() - step_.outputs.size();
  for (std::size_t i = first; i < outs.size(); ++i) {  // what wants no gradient is no output of the node
    if (step_.joint.tangents[i - first] == kNone) made[i] = outs[i];
  }
  return made;
}

}  // namespace dryfit::eager
