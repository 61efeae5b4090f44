// What the writers of transformers' models share: inputs, parameters by name, products with adapters and casts, dropout, attention, loss.
// B device batch, T length, D width, H heads, K KV heads, h head size, R rotary dimensions, V vocabulary.
#pragma once

#include <array>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "graph/graph.hpp"
#include "workload/architecture.hpp"
#include "workload/training.hpp"

namespace dryfit {

class ModelWriter {
 public:
  // adapted: places in parameters_of(a) of weights with adapters, ascending. prefix: what the names of all parameters but the head's begin with, "model.";
  // blocks: how those of a block go on, "layers.".
  ModelWriter(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, CompileTarget target, Graph& graph, std::string prefix, std::string blocks);

 protected:
  // Who reads a product: only pointwise operations, or others too. Inductor adds the bias of the first kind where it is read.
  enum class ReadBy : std::uint8_t { pointwise, others };
  static Dtype wider(Dtype a, Dtype b) { return a == Dtype::fp32 || b == Dtype::fp32 ? Dtype::fp32 : a; }
  Shape tokens(std::int64_t width) const { return shape({B, T, width}, true); }
  Shape heads(std::int64_t n) const { return shape({B, T, n, h}, true); }
  // Whether the run has its keys and values handed out.
  bool caches() const { return r_.use_cache && r_.recompute == Recompute::none; }

  NodeId declare_ids() { return b_.input(shape({B, T}, true), Dtype::int64, "batch.ids", -1); }
  void declare_parameters();
  // One by one: what the caller has made, which may want a gradient, and a weight by its name, with peft's adapter after a module's where it has one.
  NodeId declare(Shape s, Dtype d, const char* role, bool trains = true);
  void declare_weight(const std::string& name, Shape s, Dtype d, bool trains) { inputs_[name] = declare(s, d, "weight", trains); }
  void declare_adapter(const std::string& module, Shape weight);
  // Whether a weight has an adapter, by its name in parameters_of().
  bool is_adapted(const std::string& name) const;
  // What of the mask the layers will look at.
  void read_padding() { counted_ = b_.pointwise(Fn::shift, std::array{padding_}, shape({B, T}, true), Dtype::bool8, "attn.mask"); }
  // Call at the end: there are as many seeds as calls of dropout.
  void finish();
  // The parameter of a module of this layer, or outside of all; kNone where there is none.
  NodeId parameter(const std::string& module, const char* which) const;
  NodeId weight(const std::string& module) const { return parameter(module, "weight"); }

  // A module's product, and what peft adds to it (peft 0.21, tuners/lora/layer.py).
  NodeId project(NodeId x, const std::string& module, const char* role, ReadBy readers = ReadBy::others);
  // nn.Linear, or bitsandbytes' Linear4bit. Under autocast what is not in the compute dtype is cast: an input once for all who read it, each with a gradient of its own.
  NodeId linear(NodeId x, const std::string& module, const char* role, ReadBy readers = ReadBy::others);
  // All calls share one buffer of seeds.
  NodeId dropout(NodeId x, double p, const char* role);
  // While it is traced the mask's values are not looked at: scaled_dot_product_attention always gets one.
  // by_heads: q lies in memory head by head, as what was joined does; cuDNN's output lies like it.
  NodeId attention_call(NodeId q, NodeId k, NodeId v, bool by_heads = false);
  // ForCausalLMLoss of logits in any dtype.
  void loss(NodeId logits, NodeId labels);

  const Architecture& a_;
  const Training& r_;
  Graph& g_;
  GraphBuilder b_;
  bool mixed_ = false;
  Dtype stored_ = Dtype::bf16;
  std::int64_t B = 0, T = 0, D = 0, H = 0, K = 0, h = 0, layer_ = -1;
  NodeId padding_ = kNone;             // the batch's attention mask
  NodeId counted_ = kNone;             // what of it the layers look at

 private:
  NodeId cast(NodeId x, Dtype d, const char* role);
  // What a module of this layer, or outside of all, may be called.
  std::array<std::string, 2> names_of(const std::string& module) const;
  Shape shape_of(const std::string& module) const;  // of its weight
  bool is_quantized(const Parameter& p) const { return r_.quantized && p.layer >= 0 && p.group == ParamGroup::transformer_matrices; }
  // A weight of bitsandbytes' in its own dtype, made by two kernels where its scales are in 8 bits. No op of a graph makes it a second time: where a gradient goes
  // through it, backward is handed the whole of it (torch/_functorch/partitioners.py knows no rule for such kernels).
  NodeId whole(const std::string& module);

  std::span<const std::int32_t> adapted_;
  std::string prefix_, blocks_;
  std::vector<Parameter> parameters_;
  std::unordered_map<std::string, NodeId> inputs_;
  std::unordered_map<std::string, Shape> quantized_;  // of weights in 4 bits, by their modules
  std::unordered_map<NodeId, NodeId> casts_, lora_inputs_;
  std::int64_t dropouts_ = 0;          // calls so far
  NodeId seeds_ = kNone, mask_ = kNone;
  Attention masked_;                   // the kernel that takes a mask
  std::int32_t place_ = 0;             // of the next input that wants a gradient
};

// The graph of one pass that a writer of these writes.
template <class Writer>
Graph written_by(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, CompileTarget target) {
  Graph graph;
  graph.nodes.reserve(static_cast<std::size_t>(a.layers) * 320 + 64);
  Writer(a, r, adapted, target, graph).write();
  return graph;
}

}  // namespace dryfit
