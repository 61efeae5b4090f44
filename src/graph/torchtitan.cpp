// See torchtitan.hpp. Source: pytorch/torchtitan v0.2.2, models/llama3/model/model.py, distributed/activation_checkpoint.py; torch/_decomp (2.9.1) for the norm.
// B device batch, T length, D width, F MLP width, H heads, K KV heads, h head size.
#include "graph/torchtitan.hpp"

#include <array>
#include <map>

namespace dryfit {

namespace {

class TitanBlockWriter {
 public:
  TitanBlockWriter(const Architecture& a, const Training& r, Attention attention, TitanCheckpoint checkpoint, Graph& graph) : r_(r), attention_(attention), checkpoint_(checkpoint), g_(graph), b_(graph) {
    g_.compute = Dtype::bf16;
    g_.checkpoints = checkpoint != TitanCheckpoint::none;
    B = r.device_batch_size, T = r.seq_len, D = a.width, F = a.ffn, H = a.heads, K = a.kv_heads, h = a.head_dim;
  }

  void write() {
    b_.at(0);
    const NodeId x = declare(tokens(D), "x");
    const NodeId wq = weight({H * h, D}), wk = weight({K * h, D}), wv = weight({K * h, D}), wo = weight({D, H * h});
    const NodeId gate = weight({F, D}), down = weight({D, F}), up = weight({F, D}), norm1 = weight({D}), norm2 = weight({D});
    table_ = b_.input(shape({T, h}, false), Dtype::fp32, "rotary.table", -1);

    const NodeId middle = b_.binary(Fn::add, x, attend(norm(x, norm1, "attn.norm"), wq, wk, wv, wo), r_.weights, "x_mid");
    const NodeId normed = norm(middle, norm2, "mlp.norm");
    const NodeId act = b_.unary(Fn::silu, project(normed, gate, "mlp.gate"), g_.compute, "mlp.act");
    const NodeId product = b_.times(act, project(normed, up, "mlp.up"), g_.compute, "mlp.product");
    g_.outputs.push_back(b_.binary(Fn::add, middle, project(product, down, "mlp.down"), r_.weights, "x"));
  }

 private:
  Shape tokens(std::int64_t width) const { return shape({B, T, width}, true); }
  Shape heads(std::int64_t n) const { return shape({B, T, n, h}, true); }
  NodeId declare(Shape s, const char* role) { return b_.input(s, r_.weights, role, place_++); }
  NodeId weight(std::initializer_list<std::int64_t> sizes) { return declare(shape(sizes, false), "weight"); }

  // aten._fused_rms_norm, decomposed; its gradient is one formula, the weight's within.
  NodeId norm(NodeId x, NodeId w, const char* role) {
    const Dtype f = Dtype::fp32;
    const NodeId up = b_.convert(x, f, role);
    const NodeId variance = b_.reduce(Fn::mean_rows, b_.unary(Fn::power, up, f, role), rows_of(b_[x].shape), f, role);
    const NodeId rstd = b_.unary(Fn::rsqrt, variance, f, role), xhat = b_.binary(Fn::mul, up, rstd, f, role);
    const NodeId out = b_.convert(b_.binary(Fn::mul, xhat, w, f, role), r_.weights, role);
    g_.norms.push_back({x, up, rstd, xhat, out, w});
    return out;
  }

  // Under autocast what several products read is cast once.
  NodeId project(NodeId x, NodeId w, const char* role) {
    const auto [cast, fresh] = casts_.try_emplace(x, kNone);
    const bool casts = b_[w].dtype != g_.compute;
    const NodeId narrow = casts ? b_.convert(w, g_.compute, role) : w;
    if (fresh) cast->second = b_.convert(x, g_.compute, role);
    const NodeId y = b_.matmul(cast->second, narrow, tokens(b_[w].shape.dim[0]), g_.compute, 0, role);
    if (casts) g_.linears.push_back({x, w, kNone, y, y});
    if (checkpoint_ == TitanCheckpoint::but_ops && ++products_ % 2 == 1) g_.kept.push_back(y);
    return y;
  }

  // Inductor writes no code for complex numbers: the product is aten's own.
  NodeId turned(NodeId up, std::int64_t n, const char* role) { return b_.result(b_.kernel(Fn::turn, std::array{up, table_}, role), 0, heads(n), Dtype::fp32, role); }

  NodeId attend(NodeId x, NodeId wq, NodeId wk, NodeId wv, NodeId wo) {
    NodeId q = b_.viewed(project(x, wq, "attn.q"), heads(H));
    NodeId k = b_.viewed(project(x, wk, "attn.k"), heads(K));
    NodeId v = b_.viewed(project(x, wv, "attn.v"), heads(K));
    const NodeId q32 = b_.convert(q, Dtype::fp32, "attn.q_rot");
    const NodeId k32 = b_.convert(k, Dtype::fp32, "attn.k_rot");
    const NodeId q_turned = turned(q32, H, "attn.q_rot");
    const NodeId k_turned = turned(k32, K, "attn.k_rot");
    q = b_.convert(q_turned, g_.compute, "attn.q_rot");
    k = b_.convert(k_turned, g_.compute, "attn.k_rot");
    if (K != H && r_.torchtitan.date < TorchtitanRun::kSharesKeys) {
      k = b_.pointwise(Fn::expand, std::array{k}, heads(H), g_.compute, "attn.k");
      v = b_.pointwise(Fn::expand, std::array{v}, heads(H), g_.compute, "attn.v");
    }
    const AttentionCall call = b_.attention(static_cast<int>(attention_), q, k, v, kNone, tokens(H * h), shape({B, H, T}, true), 1, T);
    if (checkpoint_ == TitanCheckpoint::but_ops) g_.kept.insert(g_.kept.end(), {call.kernel, call.out, call.lse, call.seed, call.offset});
    return project(call.out, wo, "attn.o");
  }

  const Training& r_;
  Attention attention_;
  TitanCheckpoint checkpoint_;
  Graph& g_;
  GraphBuilder b_;
  std::map<NodeId, NodeId> casts_;
  NodeId table_ = kNone;
  std::int32_t place_ = 0;
  int products_ = 0;
  std::int64_t B = 0, T = 0, D = 0, F = 0, H = 0, K = 0, h = 0;
};

}  // namespace

Graph torchtitan_block(const Architecture& a, const Training& r, Attention attention, TitanCheckpoint checkpoint, int multiprocessors) {
  Graph graph;
  graph.multiprocessors = multiprocessors;
  TitanBlockWriter(a, r, attention, checkpoint, graph).write();
  return graph;
}

}  // namespace dryfit
