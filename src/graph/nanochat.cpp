// nanochat's forward pass as a graph, in the order nanochat/gpt.py runs it. Features come from NanochatVersion.
// B device batch, T sequence length, D width, H heads, h head size, V vocabulary; N = B*T tokens.
#include "graph/nanochat.hpp"

#include <cstring>
#include <map>

#include "base/text.hpp"

namespace dryfit {

namespace {

class Writer {
 public:
  Writer(const Workload& workload, Attention attention, bool evaluated, Graph& graph)
      : m_(workload.model), run_(workload.run), attention_(attention), evaluated_(evaluated), fp8_(run_.fp8 && !evaluated), g_(graph), b_(graph) {
    g_.compute = run_.compute;
    g_.sums_in_fp32 = m_.version.autocast;
    g_.checkpoints = run_.checkpoints && !evaluated;
    g_.loops_apart = version_from(run_.torch, 2, 10);
    B = run_.device_batch_size, T = run_.max_seq_len, D = m_.width, H = m_.heads, h = m_.head_dim, N = B * T;
  }

  void write() {
    declare_inputs();
    NodeId x = b_.convert(embed(wte_, "wte"), run_.compute, "wte");
    x = norm(x, "norm_embed");
    if (m_.version.smear_backout) x = smear(x);
    const NodeId x0 = x;
    NodeId kept = kNone;
    for (std::int64_t layer = 0; layer < m_.depth; ++layer) {
      b_.at(static_cast<int>(layer));
      if (m_.version.lambdas) {
        const NodeId a = scalar_times(resid_lambdas_, x, "resid", layer);
        x = b_.binary(Fn::add, a, scalar_times(x0_lambdas_, x0, "x0", layer), run_.compute, "x_in");
      }
      x = block(x, layer);
      if (m_.version.smear_backout && layer == m_.depth / 2) kept = x;
    }
    b_.at(-1);
    if (kept != kNone) x = b_.binary(Fn::sub, x, scalar_times(backout_lambda_, kept, "backout"), run_.compute, "x_out");
    x = norm(x, "norm_out");
    loss(x);
  }

 private:
  struct Layer { NodeId q = kNone, k = kNone, v = kNone, proj = kNone, gate = kNone, fc = kNone, down = kNone, table = kNone; };

  Shape tokens(std::int64_t width) const { return shape({B, T, width}, true); }

  NodeId parameter(std::size_t index, const char* role) {
    const Parameter& p = m_.parameters[index];
    return b_.input(shape(p.shape, false), p.dtype, role, static_cast<std::int32_t>(index));
  }

  void declare_inputs() {
    const Dtype table = run_.compute;
    idx_ = b_.input(shape({B, T}, true), Dtype::int32, "idx", -1);
    cos_ = b_.input(shape({1, 10 * m_.sequence_len, 1, h / 2}, false), table, "cos", -1);
    sin_ = b_.input(shape({1, 10 * m_.sequence_len, 1, h / 2}, false), table, "sin", -1);
    targets_ = b_.input(shape({B, T}, true), Dtype::int64, "targets", -1);
    layers_.resize(static_cast<std::size_t>(m_.depth));
    for (std::size_t i = 0; i < m_.parameters.size(); ++i) {
      const Parameter& p = m_.parameters[i];
      b_.at(p.layer);
      const auto ends = [&](const char* tail) { return p.name.ends_with(tail); };
      if (p.name == "resid_lambdas") resid_lambdas_ = parameter(i, "resid_lambdas");
      else if (p.name == "x0_lambdas") x0_lambdas_ = parameter(i, "x0_lambdas");
      else if (p.name == "smear_lambda") smear_lambda_ = parameter(i, "smear_lambda");
      else if (p.name == "backout_lambda") backout_lambda_ = parameter(i, "backout_lambda");
      else if (p.name == "transformer.wte.weight") wte_ = parameter(i, "wte.weight");
      else if (p.name == "lm_head.weight") lm_head_ = parameter(i, "lm_head.weight");
      else if (p.name == "smear_gate.weight") smear_gate_ = parameter(i, "smear_gate.weight");
      else {
        Layer& l = layers_[static_cast<std::size_t>(p.layer)];
        if (ends("c_q.weight")) l.q = parameter(i, "attn.c_q.weight");
        else if (ends("c_k.weight")) l.k = parameter(i, "attn.c_k.weight");
        else if (ends("c_v.weight")) l.v = parameter(i, "attn.c_v.weight");
        else if (ends("attn.c_proj.weight")) l.proj = parameter(i, "attn.c_proj.weight");
        else if (ends("ve_gate.weight")) l.gate = parameter(i, "attn.ve_gate.weight");
        else if (ends("c_fc.weight")) l.fc = parameter(i, "mlp.c_fc.weight");
        else if (ends("mlp.c_proj.weight")) l.down = parameter(i, "mlp.c_proj.weight");
        else l.table = parameter(i, "value_embed.weight");
      }
    }
    b_.at(-1);
  }

  // Rows of a table picked by token id: (B, T, width), in the table's dtype.
  NodeId embed(NodeId table, const char* role) { return b_.pointwise(Fn::embedding, std::array{table, idx_}, tokens(b_[table].shape.dim[1]), b_[table].dtype, role); }

  // F.rms_norm without weight, over the last dimension: fp32 inside, row statistics in fp32.
  NodeId norm(NodeId x, const char* role) {
    const Dtype d = b_[x].dtype;
    const Shape s = b_[x].shape;
    const NodeId up = b_.convert(x, Dtype::fp32, role);
    const NodeId mean = b_.reduce(Fn::mean_rows, b_.unary(Fn::square, up, Dtype::fp32, role), rows_of(s), Dtype::fp32, role);
    const NodeId rstd = b_.unary(Fn::rsqrt, mean, Dtype::fp32, role);
    const NodeId xhat = b_.binary(Fn::mul, up, rstd, Dtype::fp32, role);
    const NodeId out = b_.convert(xhat, d, role);
    g_.norms.push_back({x, up, rstd, xhat, out});
    return out;
  }

  // Element `which` of an fp32 parameter times a tensor, in the tensor's dtype.
  NodeId scalar_times(NodeId vector, NodeId x, const char* role, std::int64_t which = 0) {
    const NodeId s = b_.slice(vector, shape({1}, false), static_cast<int>(which % 128), role);
    return b_.binary(Fn::mul, s, x, b_[x].dtype, role);
  }

  // x: (..., K) times weight (M, K): (..., M) in the compute dtype. Master weights in fp32 are cast first, at 2 bytes each.
  NodeId linear(NodeId x, NodeId weight, const char* role) {
    Shape s = b_[x].shape;
    s.dim[s.rank - 1] = b_[weight].shape.dim[0];
    if (fp8_ && fp8_fits(b_[weight].shape.dim[0], b_[weight].shape.dim[1])) return float8_linear(x, weight, s, role);
    const NodeId w = b_.convert(weight, run_.compute, role);
    return b_.matmul(b_.convert(x, run_.compute, role), w, s, run_.compute, 0, role);
  }

  // One cast per tensor: torch.compile merges the equal casts that q, k and v ask for.
  Float8 to_fp8(NodeId x, const char* role) {
    const auto [it, fresh] = cast_.try_emplace(x);
    if (fresh) it->second = b_.to_float8(x, Dtype::fp8_e4m3, role);
    return it->second;
  }

  NodeId float8_linear(NodeId x, NodeId weight, Shape s, const char* role) {
    const Float8 x8 = to_fp8(x, role), w8 = to_fp8(weight, role);
    const NodeId y = b_.scaled_matmul(x8, w8, s, run_.compute, 0, role);
    g_.float8.push_back({x, x8, weight, w8, y});
    return y;
  }

  // Mixes the previous token's embedding in: x[1:] + sigmoid gate * x[:-1], with the first token kept.
  NodeId smear(NodeId x) {
    const Shape shifted = shape({B, T - 1, D}, true);
    const NodeId head = b_.slice(x, shape({B, T - 1, 24}, true), 2, "smear");
    // a matrix product needs its rows evenly spaced: with several sequences the shifted slice must be copied, with one it need not; nor without gradients, where it is a product for
    // each sequence (aten/src/ATen/native/LinearAlgebra.cpp, should_fold)
    const Shape rows = shape({B, T - 1, 24}, true), stored = padded_texts(rows, run_.compute);
    const NodeId weight = b_.convert(smear_gate_, run_.compute, "smear_gate");
    NodeId packed = B == 1 || evaluated_ ? head : b_.pointwise(Fn::transpose, std::array{head}, stored, run_.compute, "smear");
    if (stored != rows && !evaluated_) packed = b_.even_rows(packed, rows, "smear");
    const NodeId gate = b_.unary(Fn::sigmoid, linear(packed, weight, "smear_gate"), run_.compute, "smear");
    const NodeId scaled = scalar_times(smear_lambda_, gate, "smear");
    const NodeId first = b_.slice(x, shape({B, 1, D}, true), 0, "smear");
    const NodeId others = b_.slice(x, shifted, 1, "smear"), before = b_.slice(x, shifted, 0, "smear");
    const NodeId mixed = b_.binary(Fn::add, others, b_.binary(Fn::mul, scaled, before, run_.compute, "smear"), run_.compute, "smear");
    return b_.cat(first, mixed, tokens(D), "x0");
  }

  NodeId block(NodeId x, std::int64_t layer) {
    const Layer& l = layers_[static_cast<std::size_t>(layer)];
    const NodeId ve = l.table == kNone ? kNone : embed(l.table, "attn.ve");  // looked up before the block runs
    const NodeId a = norm(x, "attn.norm");
    x = b_.binary(Fn::add, x, attend(a, ve, l, layer), run_.compute, "x_mid");
    const NodeId c = linear(norm(x, "mlp.norm"), l.fc, "mlp.c_fc");
    const NodeId r = b_.unary(Fn::relu, c, run_.compute, "mlp.relu");
    const NodeId y = linear(b_.unary(Fn::square, r, run_.compute, "mlp.square"), l.down, "mlp.c_proj");
    return b_.binary(Fn::add, x, y, run_.compute, "x_out");
  }

  NodeId attend(NodeId x, NodeId ve, const Layer& l, std::int64_t layer);
  NodeId rotate(NodeId x, const char* role);
  // -sin, for all layers the first one's: equal nodes become one (fx_graph_cse), and what one checkpoint has for a later one is saved.
  NodeId negated(NodeId sine, const char* role) {
    if (negated_ == kNone || !g_.checkpoints) negated_ = b_.unary(Fn::scale, sine, run_.compute, role);
    return negated_;
  }
  NodeId attention_call(NodeId q, NodeId k, NodeId v, std::int64_t window);
  void loss(NodeId x);

  const Model& m_;
  const Run& run_;
  Attention attention_;
  bool evaluated_, fp8_;
  Graph& g_;
  GraphBuilder b_;
  std::int64_t B = 0, T = 0, D = 0, H = 0, h = 0, N = 0;
  NodeId idx_ = kNone, cos_ = kNone, sin_ = kNone, targets_ = kNone, wte_ = kNone, lm_head_ = kNone, smear_gate_ = kNone;
  NodeId resid_lambdas_ = kNone, x0_lambdas_ = kNone, smear_lambda_ = kNone, backout_lambda_ = kNone;
  std::vector<Layer> layers_;
  NodeId mask_ = kNone, negated_ = kNone;
  std::int64_t mask_window_ = -1;
  std::map<NodeId, Float8> cast_;
};

NodeId Writer::attend(NodeId x, NodeId ve, const Layer& l, std::int64_t layer) {
  NodeId q = linear(x, l.q, "attn.q");
  NodeId k = linear(x, l.k, "attn.k");
  NodeId v = linear(x, l.v, "attn.v");
  if (ve != kNone) {
    if (b_[ve].dtype != run_.compute) {  // an fp32 table's: the block views it by heads, and that is what is stored
      ve = b_.convert(ve, run_.compute, "attn.ve");
      g_.nodes[static_cast<std::size_t>(ve)].variant = kViewed;
    }
    const NodeId head = b_.slice(x, tokens(m_.version.ve_gate_channels), 0, "attn.ve_gate");
    const NodeId gate = b_.unary(Fn::scale, b_.unary(Fn::sigmoid, linear(head, l.gate, "attn.ve_gate"), run_.compute, "attn.ve_gate"), run_.compute, "attn.ve_gate");
    const Shape seen = g_.loops_apart ? shape({B, T, m_.kv_heads, h}, true) : b_[v].shape;  // by heads, which only loops that stay apart tell
    const NodeId gated = b_.viewed(b_.binary(Fn::mul, gate, ve, run_.compute, "attn.v"), seen);
    v = b_.viewed(b_.binary(Fn::add, v, gated, run_.compute, "attn.v"), seen);
  }
  q = rotate(q, "attn.q_rot");
  k = rotate(k, "attn.k_rot");
  q = norm(q, "attn.q_norm");
  k = norm(k, "attn.k_norm");
  if (m_.version.sharper_attention()) {
    q = b_.unary(Fn::scale, q, run_.compute, "attn.q_norm");
    k = b_.unary(Fn::scale, k, run_.compute, "attn.k_norm");
  }
  return linear(attention_call(q, k, v, m_.windows[static_cast<std::size_t>(layer)]), l.proj, "attn.c_proj");
}

// Rotary embedding on (B, T, H, h): two halves, each mixed with cos and sin, put together again.
NodeId Writer::rotate(NodeId x, const char* role) {
  const Shape half = shape({B, T, H, h / 2}, true);
  const Dtype d = run_.compute;
  const NodeId x1 = b_.slice(x, half, 0, role), x2 = b_.slice(x, half, 1, role);
  const NodeId c = b_.slice(cos_, shape({1, T, 1, h / 2}, false), 0, role), s = b_.slice(sin_, shape({1, T, 1, h / 2}, false), 0, role);
  const NodeId y1 = b_.binary(Fn::add, b_.binary(Fn::mul, x1, c, d, role), b_.binary(Fn::mul, x2, s, d, role), d, role);
  const NodeId y2 = b_.binary(Fn::add, b_.binary(Fn::mul, x1, negated(s, role), d, role), b_.binary(Fn::mul, x2, c, d, role), d, role);
  return b_.cat(y1, y2, shape({B, T, H, h}, true), role);
}

NodeId Writer::attention_call(NodeId q, NodeId k, NodeId v, std::int64_t window) {
  NodeId bias = kNone;
  if (attention_ != Attention::fa3 && window < T) {
    // SDPA gets a (T, T) boolean mask and turns it into an additive one; layers with one window share it, unless torch.tril made it: its decomposition unsqueezes at -2 and
    // at -1, two numbers of one hash in Python, so that the second is never found again (functorch/_functorch/compile_utils.py, fx_graph_cse)
    if (mask_window_ != window || m_.version.mask_each_layer) mask_ = b_.pointwise(Fn::fill, {}, shape({T, T}, false), run_.compute, "attn.mask");
    mask_window_ = window;
    bias = mask_;
  }
  const Attention kind = bias == kNone ? attention_ : with_mask(attention_);
  // math keeps the probabilities; the others one log-sum per row, which the efficient kernel pads to 32 rows, and makes only for gradients
  const Shape sums = kind == Attention::efficient && evaluated_ ? shape({1}, false) : shape({B, H, kind == Attention::efficient ? round_up(T, 32) : T}, true);
  const Shape stats = kind == Attention::math ? shape({B, H, T, T}, true) : sums;
  return b_.attention(static_cast<int>(kind), q, k, v, bias, tokens(D), stats, kind == Attention::fa3 || kind == Attention::math ? 0 : 2, window, kind == Attention::math ? "attn.probabilities" : "attn.lse").out;
}

// Logits, soft-cap, cross-entropy: fp32 exists only inside fused kernels.
void Writer::loss(NodeId x) {
  const Dtype f = Dtype::fp32;
  NodeId y = linear(x, lm_head_, "logits");
  if (m_.padded_vocab != m_.vocab) y = b_.slice(y, tokens(m_.vocab), 0, "logits");
  const Dtype capped = m_.version.float_before_softcap ? f : run_.compute;
  y = b_.convert(y, capped, "logits");
  y = b_.unary(Fn::scale, y, capped, "logits");
  y = b_.unary(Fn::tanh, y, capped, "logits");
  y = b_.unary(Fn::scale, y, capped, "logits");
  y = b_.convert(y, f, "logits");
  const NodeId lp = b_.log_softmax(y);
  b_.flat(true);
  g_.loss = b_.reduce(Fn::nll_loss, lp, shape({1}, false), f, "loss", targets_);
  b_.flat(false);
  g_.cross_entropy = {y, lp, targets_, g_.loss};
}

}  // namespace

Graph nanochat_forward(const Workload& workload, Attention attention, bool evaluated) {
  Graph graph;
  graph.nodes.reserve(static_cast<std::size_t>(workload.model.depth) * 320 + 64);
  Writer(workload, attention, evaluated, graph).write();
  return graph;
}

}  // namespace dryfit
