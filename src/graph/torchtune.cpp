// See torchtune.hpp. Source: pytorch/torchtune v0.6.1, modules/{transformer,attention,rms_norm,position_embeddings,feed_forward}.py.
// B device batch, T length, D width, F MLP width, H heads, K KV heads, h head size.
#include "graph/torchtune.hpp"

#include <algorithm>
#include <array>

#include "workload/workload.hpp"

namespace dryfit {

namespace {

class BlockWriter {
 public:
  BlockWriter(const Architecture& a, const Training& r, Attention attention, bool first, Graph& graph) : a_(a), r_(r), attention_(attention), x_trains_(!first || !r.lora), g_(graph), b_(graph) {
    g_.compute = r.weights;
    B = r.device_batch_size, T = r.seq_len, D = a.width, F = a.ffn, H = a.heads, K = a.kv_heads, h = a.head_dim;
  }

  void write(TorchtunePart part) {
    b_.at(0);
    const bool whole = part == TorchtunePart::whole;
    NodeId x = kNone;
    if (part != TorchtunePart::output) x = declare(tokens(D), "x", x_trains_);
    NodeId normed = x, attended = kNone;
    if (whole || part == TorchtunePart::norm) normed = norm(x, weight({D}), "attn.norm");
    if (part == TorchtunePart::norm) g_.outputs.push_back(normed);
    if (whole || part == TorchtunePart::heads) {
      const std::array<NodeId, 3> qkv = heads_of(normed);
      if (whole) attended = attend(qkv);
      else g_.outputs.assign(qkv.begin(), qkv.end());
    }
    if (part == TorchtunePart::output) attended = declare(tokens(H * h), "attn.out", heads_train());
    if (whole || part == TorchtunePart::output) attended = project(attended, linear("attn.o", "o_proj", H * h, D, a_.out_bias));
    if (part == TorchtunePart::output) g_.outputs.push_back(attended);
    if (part == TorchtunePart::rest) attended = declare(tokens(D), "attn.o", heads_train() || torchtune_adapts(r_, "o_proj"));
    if (whole || part == TorchtunePart::rest) rest(x, attended);
    if (seeds_ != kNone) b_.viewed(seeds_, shape({adapters_}, false));
  }

 private:
  struct Linear { NodeId weight = kNone, bias = kNone, a = kNone, b = kNone; std::int64_t in = 0, out = 0; const char* role = ""; };
  Shape tokens(std::int64_t width) const { return shape({B, T, width}, true); }
  Shape heads(std::int64_t n) const { return shape({B, T, n, h}, true); }

  NodeId declare(Shape s, const char* role, bool trains) {
    const NodeId id = b_.input(s, r_.weights, role, place_++);
    g_.inputs.back().trains = trains;
    return id;
  }
  NodeId weight(std::initializer_list<std::int64_t> sizes) { return declare(shape(sizes, false), "weight", !r_.lora); }
  NodeId adapter(std::initializer_list<std::int64_t> sizes) { return declare(shape(sizes, false), "weight", true); }
  Linear linear(const char* role, const char* module, std::int64_t in, std::int64_t out, bool bias) {
    Linear l;
    l.role = role;
    l.in = in, l.out = out;
    l.weight = r_.quantized ? b_.input(shape({out, in / 2}, false), Dtype::uint8, "weight", -1) : weight({out, in});
    if (bias) l.bias = weight({out});
    if (!torchtune_adapts(r_, module)) return l;
    l.a = adapter({r_.lora->rank, in});
    l.b = adapter({out, r_.lora->rank});
    ++adapters_;
    return l;
  }

  NodeId norm(NodeId x, NodeId w, const char* role) {
    const NodeId scaled = b_.over_rms(x, role);
    if (r_.torchtune.date < TorchtuneRun::kNormOfTorch) return b_.times(b_.convert(scaled, g_.compute, role), w, g_.compute, role);
    return b_.convert(b_.times(scaled, w, Dtype::fp32, role), g_.compute, role);
  }

  NodeId product(NodeId x, NodeId w, const char* role) { return b_.matmul(x, w, tokens(b_[w].shape.dim[0]), g_.compute, 0, role); }

  // Of a weight in 4 bits one kernel makes the whole: its values are looked up, which is not done a second time for backward, so it is kept.
  NodeId whole(const Linear& l) { return r_.quantized ? b_.pointwise(Fn::embedding, std::array{l.weight}, shape({l.out, l.in}, false), g_.compute, l.role) : l.weight; }

  NodeId project(NodeId x, const Linear& l) {
    const NodeId y = l.bias == kNone ? product(x, whole(l), l.role) : b_.addmm(l.bias, x, l.weight, tokens(b_[l.weight].shape.dim[0]), g_.compute, 0, l.role);
    if (l.bias != kNone) g_.linears.push_back({x, l.weight, l.bias, y, y});
    if (l.a == kNone) return y;
    const NodeId low = product(product(dropout(x), l.a, "lora.A"), l.b, "lora.B");
    return b_.binary(Fn::add, y, b_.unary(Fn::scale, low, g_.compute, "lora.scaled"), g_.compute, l.role);
  }

  // All calls share one buffer of seeds, which is as long as there are calls in the end.
  NodeId dropout(NodeId x) {
    if (!r_.dropout || r_.lora->dropout == 0) return x;
    if (seeds_ == kNone) seeds_ = b_.pointwise(Fn::fill, {}, shape({adapters_}, false), Dtype::int64, "lora.seeds");
    return b_.dropped(x, seeds_, "lora.dropout");
  }

  // Neighbours as pairs, in fp32.
  NodeId rotate(NodeId x, std::int64_t n, const char* role) {
    const NodeId up = b_.convert(b_.viewed(x, heads(n)), Dtype::fp32, role);
    return b_.convert(b_.pointwise(Fn::rotate_pairs, std::array{up, table_}, heads(n), Dtype::fp32, role), g_.compute, role);
  }

  // Whether queries, keys or values want a gradient.
  bool heads_train() const { return x_trains_ || torchtune_adapts(r_, "q_proj") || torchtune_adapts(r_, "k_proj") || torchtune_adapts(r_, "v_proj"); }

  void rest(NodeId x, NodeId attended) {
    const NodeId middle = b_.binary(Fn::add, attended, x, g_.compute, "x_mid");
    const NodeId norm2 = weight({D});
    const Linear gate = linear("mlp.gate", "mlp", D, F, false), down = linear("mlp.down", "mlp", F, D, false), up = linear("mlp.up", "mlp", D, F, false);
    const NodeId normed = norm(middle, norm2, "mlp.norm");
    const NodeId act = b_.unary(Fn::silu, project(normed, gate), g_.compute, "mlp.act");
    const NodeId product = b_.times(act, project(normed, up), g_.compute, "mlp.product");
    g_.outputs.push_back(b_.binary(Fn::add, middle, project(product, down), g_.compute, "x"));
  }

  NodeId expand(NodeId x, const char* role) { return K == H ? x : b_.pointwise(Fn::expand, std::array{x}, heads(H), g_.compute, role); }

  std::array<NodeId, 3> heads_of(NodeId x) {
    const Linear wq = linear("attn.q", "q_proj", D, H * h, a_.qkv_bias), wk = linear("attn.k", "k_proj", D, K * h, a_.qkv_bias), wv = linear("attn.v", "v_proj", D, K * h, a_.qkv_bias);
    const std::int64_t rows = r_.torchtune.positions > 0 ? r_.torchtune.positions : a_.max_positions;
    table_ = b_.input(shape({rows, h}, false), Dtype::fp32, "rotary.table", -1);
    const NodeId q = rotate(project(x, wq), H, "attn.q_rot");
    NodeId k = project(x, wk);
    NodeId v = b_.viewed(project(x, wv), heads(K));
    k = expand(rotate(k, K, "attn.k_rot"), "attn.k");
    return {q, k, expand(v, "attn.v")};
  }

  NodeId attend(const std::array<NodeId, 3>& qkv) {
    const auto [q, k, v] = qkv;
    return b_.attention(static_cast<int>(attention_), q, k, v, kNone, tokens(H * h), shape({B, H, T}, true), 2, T).out;
  }

  const Architecture& a_;
  const Training& r_;
  Attention attention_;
  bool x_trains_;
  Graph& g_;
  GraphBuilder b_;
  NodeId table_ = kNone, seeds_ = kNone;
  std::int32_t place_ = 0;
  std::int64_t adapters_ = 0;
  std::int64_t B = 0, T = 0, D = 0, F = 0, H = 0, K = 0, h = 0;
};

}  // namespace

bool has_torchtune_graph(const Architecture& a, const Training& r) {
  const bool family = a.family == Family::llama || a.family == Family::mistral;
  return family && r.torchtune.date >= TorchtuneRun::kTurnsKeysFirst && r.torchtune.packing != TorchtuneRun::Packing::mask && r.weights != Dtype::fp32;
}

bool torchtune_adapts(const Training& r, std::string_view module) { return r.lora && std::ranges::find(r.lora->targets, module) != r.lora->targets.end(); }

Graph torchtune_block(const Architecture& a, const Training& r, Attention attention, int multiprocessors, TorchtunePart part, bool first) {
  Graph graph;
  graph.multiprocessors = multiprocessors;
  BlockWriter(a, r, attention, first, graph).write(part);
  return graph;
}

Graph torchtune_loss(std::int64_t rows, std::int64_t vocab, Dtype dtype, bool mean) {
  Graph graph;
  GraphBuilder b(graph);
  const Dtype f = Dtype::fp32;
  graph.compute = dtype;
  const NodeId logits = b.input(shape({rows, vocab}, true), dtype, "logits", 0);
  const NodeId labels = b.input(shape({rows}, true), Dtype::int64, "loss.targets", -1);
  const NodeId y = b.convert(logits, f, "logits");
  const NodeId lp = b.log_softmax(y);
  NodeId loss = b.reduce(Fn::nll_loss, lp, shape({1}, false), f, "loss", labels);
  CrossEntropy& entropy = graph.cross_entropy = {y, lp, labels, loss};
  if (mean) {
    entropy.valid = b.unary(Fn::compare, labels, Dtype::bool8, "loss.valid");
    entropy.count = b.reduce(Fn::sum_all, entropy.valid, shape({1}, false), f, "loss.count");
    entropy.loss = loss = b.binary(Fn::mul, loss, entropy.count, f, "loss");
  }
  graph.loss = loss;
  return graph;
}

}  // namespace dryfit
