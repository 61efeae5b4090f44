// See model_writer.hpp.
#include "graph/model_writer.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "base/text.hpp"
#include "workload/workload.hpp"

namespace dryfit {

ModelWriter::ModelWriter(const Architecture& a, const Training& r, std::span<const std::int32_t> adapted, CompileTarget target, Graph& graph, std::string prefix, std::string blocks)
    : a_(a), r_(r), g_(graph), b_(graph), adapted_(adapted), prefix_(std::move(prefix)), blocks_(std::move(blocks)), parameters_(parameters_of(a)), masked_(target.masked) {
  g_.multiprocessors = target.multiprocessors;
  g_.checkpoints = r.recompute == Recompute::full;
  g_.loops_apart = version_from(r.torch, 2, 10);
  mixed_ = r.mixed != MixedPrecision::none;
  stored_ = r.stored();
  g_.compute = half_of(r.mixed).value_or(stored_);
  B = r.device_batch_size, T = r.seq_len, D = a.width, H = a.heads, K = a.kv_heads, h = a.head_dim;
}

NodeId ModelWriter::declare(Shape s, Dtype d, const char* role, bool trains) {
  const NodeId id = b_.input(s, d, role, place_++);
  g_.inputs.back().trains = trains;
  return id;
}

void ModelWriter::declare_adapter(const std::string& module, Shape weight) {
  const Dtype d = r_.lora->dtype.value_or(Dtype::fp32);
  declare_weight(module + ".lora_A.weight", shape({r_.lora->rank, weight.dim[1]}, false), d, true);
  declare_weight(module + ".lora_B.weight", shape({weight.dim[0], r_.lora->rank}, false), d, true);
}

bool ModelWriter::is_adapted(const std::string& name) const {
  return std::ranges::any_of(adapted_, [&](std::int32_t place) { return parameters_[static_cast<std::size_t>(place)].name == name; });
}

void ModelWriter::declare_parameters() {
  std::string adapted;  // the module whose adapter comes next
  std::vector<std::pair<int, std::string>> last;  // those beside weights in 4 bits, which are no parameters of the graph, come after all
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& p = parameters_[i];
    b_.at(p.layer);
    Shape s = shape(p.shape, false);
    if (a_.conv1d && p.group == ParamGroup::transformer_matrices) std::swap(s.dim[0], s.dim[1]);  // written as nn.Linear has it
    const std::string module = p.name.substr(0, p.name.rfind('.'));
    if (is_quantized(p)) quantized_[module] = s;
    else declare_weight(p.name, s, stored_, !r_.lora);
    if (std::ranges::binary_search(adapted_, static_cast<std::int32_t>(i))) adapted = module;
    const bool bias_follows = i + 1 < parameters_.size() && parameters_[i + 1].name == adapted + ".bias";
    if (adapted.empty() || bias_follows) continue;
    if (is_quantized(p)) last.emplace_back(p.layer, adapted);
    else declare_adapter(adapted, shape_of(adapted));
    adapted.clear();
  }
  for (const auto& [layer, module] : last) {
    b_.at(layer);
    declare_adapter(module, shape_of(module));
  }
  b_.at(-1);
}

Shape ModelWriter::shape_of(const std::string& module) const {
  const auto it = quantized_.find(module);
  return it != quantized_.end() ? it->second : b_[inputs_.at(module + ".weight")].shape;
}

std::array<std::string, 2> ModelWriter::names_of(const std::string& module) const {
  return {layer_ >= 0 ? prefix_ + blocks_ + std::to_string(layer_) + "." + module : prefix_ + module, module};
}

NodeId ModelWriter::parameter(const std::string& module, const char* which) const {
  for (const std::string& name : names_of(module)) {
    const auto it = inputs_.find(name + "." + which);
    if (it != inputs_.end()) return it->second;
  }
  return kNone;
}

NodeId ModelWriter::project(NodeId x, const std::string& module, const char* role, ReadBy readers) {
  const bool adapted = weight(module + ".lora_A") != kNone;
  const NodeId base = linear(x, module, role, adapted ? ReadBy::pointwise : readers);
  if (!adapted) return base;
  const bool casts = !r_.quantized || !mixed_;  // beside 4-bit weights it leaves that to autocast (tuners/lora/bnb.py)
  const auto [it, fresh] = lora_inputs_.try_emplace(x, kNone);
  if (fresh) it->second = casts ? b_.convert(x, b_[weight(module + ".lora_A")].dtype, "lora.x") : x;
  NodeId low = dropout(it->second, r_.dropout ? r_.lora->dropout : 0, "lora.dropout");
  low = linear(linear(low, module + ".lora_A", "lora.A"), module + ".lora_B", "lora.B");
  low = b_.unary(Fn::scale, low, b_[low].dtype, "lora.scaled");
  if (r_.quantized && casts) low = b_.convert(low, b_[base].dtype, "lora.scaled");
  return b_.convert(b_.binary(Fn::add, base, low, wider(b_[base].dtype, b_[low].dtype), role), b_[base].dtype, role);
}

NodeId ModelWriter::dropout(NodeId x, double p, const char* role) {
  if (p == 0) return x;
  if (seeds_ == kNone) seeds_ = b_.pointwise(Fn::fill, {}, shape({1}, false), Dtype::int64, "lora.seeds");
  ++dropouts_;
  return b_.dropped(x, seeds_, role);
}

void ModelWriter::finish() {
  if (seeds_ != kNone) b_.viewed(seeds_, shape({dropouts_}, false));
}

NodeId ModelWriter::linear(NodeId x, const std::string& module, const char* role, ReadBy readers) {
  const NodeId bias = parameter(module, "bias"), w = weight(module) != kNone ? weight(module) : whole(module);
  const bool four_bit = b_[w].fn == Fn::result;
  Shape s = b_[x].shape;
  s.dim[s.rank - 1] = b_[w].shape.dim[0];
  const Dtype d = mixed_ ? g_.compute : b_[w].dtype;
  const NodeId in = cast(x, d, role), by = cast(w, d, role), added = bias == kNone ? kNone : cast(bias, d, role);
  if (four_bit && b_[x].dtype != d) readers = ReadBy::pointwise;  // its product is cast back
  const bool adds_16_bits = version_from(r_.torch, 2, 11) && size_of(d) == 2;  // which it then never takes out (unfuse_bias_add_to_pointwise)
  const bool within = bias != kNone && (readers == ReadBy::others || adds_16_bits);
  const NodeId product = within ? b_.addmm(added, in, by, s, d, 0, role) : b_.matmul(in, by, s, d, 0, role);
  const NodeId y = within || bias == kNone ? product : b_.binary(Fn::add, product, added, d, role);
  if (b_[x].dtype != d || b_[w].dtype != d || bias != kNone) g_.linears.push_back({x, w, bias, y, product});
  return four_bit ? b_.convert(y, b_[x].dtype, role) : y;
}

NodeId ModelWriter::whole(const std::string& module) {
  const std::array<std::string, 2> names = names_of(module);
  const Shape s = quantized_.at(quantized_.contains(names[0]) ? names[0] : names[1]);
  const std::int64_t count = s.numel(), scales = ceil_div(count, 64);
  const auto given = [&](std::int64_t n, Dtype d, const char* role) { return b_.input(shape({n}, false), d, role, -1); };
  const NodeId packed = b_.input(shape({ceil_div(count, 2), 1}, false), Dtype::uint8, "weight", -1);
  NodeId absmax = given(scales, r_.double_quantized ? Dtype::uint8 : Dtype::fp32, "quant.absmax");
  if (r_.double_quantized) {
    const std::array nested{absmax, given(256, Dtype::fp32, "quant.nested_code"), given(ceil_div(scales, 256), Dtype::fp32, "quant.absmax_scale")};
    const NodeId offset = given(1, Dtype::fp32, "quant.offset");
    absmax = b_.result(b_.kernel(Fn::dequantize, nested, "quant.scales"), 0, shape({scales}, false), Dtype::fp32, "quant.scales");
    absmax = b_.binary(Fn::add, absmax, offset, Dtype::fp32, "quant.scales");
  }
  return b_.result(b_.kernel(Fn::dequantize, std::array{packed, absmax}, "quant.whole"), 0, s, r_.weights, "quant.whole");
}

NodeId ModelWriter::cast(NodeId x, Dtype d, const char* role) {
  if (b_[x].dtype == d) return x;
  const auto [it, fresh] = casts_.try_emplace(x, kNone);
  if (fresh) it->second = b_.convert(x, d, role);
  return it->second;
}

NodeId ModelWriter::attention_call(NodeId q, NodeId k, NodeId v, bool by_heads) {
  const bool efficient = masked_ == Attention::efficient;  // whose keys stand at multiples of 8, rows of its statistics of 32 (transformers/attention.cpp, pad_bias)
  if (mask_ == kNone) mask_ = b_.pointwise(Fn::mask, std::array{counted_}, shape({B, 1, T, efficient ? round_up(T, 8) : T}, true), g_.compute, "attn.mask");
  const NodeId out = b_.attention(static_cast<int>(masked_), q, k, v, mask_, tokens(H * h), shape({B, H, efficient ? round_up(T, 32) : T}, true), 1, T).out;
  return by_heads && masked_ == Attention::cudnn ? b_.by_rows(out, "attn.out") : out;
}

void ModelWriter::loss(NodeId logits, NodeId labels) {
  const Dtype f = Dtype::fp32;
  const NodeId y = b_.convert(logits, f, "logits");
  // of several texts a copy, which is banned from being made again where a scatter at its places is (until 2.9; fx_passes/joint_graph.py, scatter_upon_const_tensor)
  const bool pads = B == 1 || g_.loops_apart;
  NodeId targets = b_.with_number(Fn::shift, labels, pads ? kShiftPads : 0, Dtype::int64, "loss.targets");
  b_.viewed(targets, pads ? shape({B, T + 1}, true) : tokens(1));
  if (pads) targets = b_.slice(targets, tokens(1), 0, "loss.targets");
  const NodeId lp = b_.log_softmax(y);
  const auto valid = [&] { return b_.unary(Fn::compare, targets, Dtype::bool8, "loss.valid"); };  // compared for the count, and for the gradient in another shape
  const NodeId counts = b_.reduce(Fn::sum_all, valid(), shape({1}, false), f, "loss.count");
  const NodeId total = b_.reduce(Fn::nll_loss, lp, shape({1}, false), f, "loss", targets);
  g_.loss = b_.binary(Fn::mul, total, counts, f, "loss");
  const NodeId counted = valid();
  const NodeId safe = b_.unary(Fn::compare, targets, Dtype::int64, "loss.targets");
  g_.cross_entropy = {y, lp, safe, g_.loss, counted, counts};
}

}  // namespace dryfit
