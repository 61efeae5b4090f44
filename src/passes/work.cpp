// See work.hpp. Optimizer: nanochat/{muon,adamw,optim}.py by version; bytes are counted statement by statement (docs/speed.md).
#include "passes/work.hpp"

#include <algorithm>

#include "passes/optimizer.hpp"

namespace dryfit {

namespace {

using Optimizer = NanochatVersion::Optimizer;

constexpr std::int64_t kAdamwFills = 6, kMuonFills = 4;  // numbers written to the host's tensors before each compiled update
constexpr int kOrthogonalizeSteps = 5;  // Newton-Schulz, later Polar Express: ns_steps of nanochat's Muon

class MicroStep {
 public:
  MicroStep(const CompiledStep& step, std::int64_t parameters) : step_(step), graph_(step.joint.graph), parameters_(parameters) {
    call_of_query_.assign(graph_.nodes.size(), -1);
    for (std::size_t i = 0; i < graph_.attentions.size(); ++i) call_of_query_[at(graph_.attentions[i].q)] = static_cast<std::int32_t>(i);
  }

  std::vector<Work> all() {
    out_.reserve(step_.forward_launches.size() + step_.backward_launches.size());
    for (const Launch& l : step_.forward_launches) add(l, false);
    const std::size_t backward = out_.size();
    for (const Launch& l : step_.backward_launches) add(l, true);
    if (!out_.empty()) out_.front().graphs = 1, out_.front().guards = parameters_;
    if (backward < out_.size()) out_[backward].graphs = 1;
    return std::move(out_);
  }

 private:
  static std::size_t at(NodeId v) { return static_cast<std::size_t>(v); }
  const Node& node(NodeId v) const { return graph_.nodes[at(v)]; }

  void add(const Launch& l, bool backward) {
    const Node& n = node(l.op);
    Work w;
    w.role = n.role;
    w.backward = backward;
    w.reduces = l.reduces;
    w.fixed_bytes = l.fixed_bytes;
    w.batched_bytes = l.batched_bytes;
    if (n.kind == Kind::matmul) product(w, n);
    else if (n.kind == Kind::result) attention(w, node(n.in[0]), backward);
    out_.push_back(w);
  }

  // variant 0: y = x W^T; 1: dx = g W; 2: dW = g^T x. Rows of x are tokens.
  void product(Work& w, const Node& n) const {
    w.kind = WorkKind::matmul;
    const Node& a = node(n.in[0]);
    w.operands = a.dtype;
    const Shape &x = node(n.in[n.variant == 2 ? 1 : 0]).shape, &weight = n.variant == 2 ? n.shape : node(n.in[1]).shape;
    const std::int64_t out = weight.dim[0], in = weight.dim[1], rows = x.numel() / (n.variant == 1 ? out : in);
    w.m = n.variant == 2 ? out : rows;
    w.n = n.variant == 0 ? out : in;
    w.k = n.variant == 0 ? in : n.variant == 1 ? out : rows;
    (n.variant == 2 ? w.k_batched : w.m_batched) = x.batched;
  }

  // Arguments: (q, k, v, ...), backward (gradient, q, k, v, ...). q: (B, T, H, h).
  void attention(Work& w, const Node& kernel, bool backward) const {
    const bool gradient = kernel.fn == Fn::attention_backward;
    const NodeId query = kernel.in[gradient ? 1 : 0];
    if (call_of_query_[at(query)] < 0) return;
    const AttentionCall& c = graph_.attentions[static_cast<std::size_t>(call_of_query_[at(query)])];
    const Shape& q = node(query).shape;
    w.kind = WorkKind::attention;
    w.backward = backward && gradient;
    w.attention = static_cast<Attention>(kernel.variant);
    w.masked = c.bias != kNone;
    w.length = q.dim[1];
    w.head_dim = q.dim[3];
    w.heads = q.dim[0] * q.dim[2];
    w.window = c.window > 0 ? std::min(c.window, w.length) : w.length;
    // backward also forms row sums of dO * O, and gathers dq in fp32 before it is cast
    if (w.backward && w.attention != Attention::math) {
      w.batched_bytes += static_cast<double>(q.numel()) * 14;
      w.launches = 3;
    }
  }

  const CompiledStep& step_;
  const Graph& graph_;
  std::int64_t parameters_;          // of the model: what the guards of its compiled form look at
  std::vector<std::int32_t> call_of_query_;
  std::vector<Work> out_;
};

Work traffic(WorkKind kind, const char* role, double bytes, std::int64_t launches = 1) {
  Work w;
  w.kind = kind;
  w.role = role;
  w.fixed_bytes = bytes;
  w.launches = launches;
  return w;
}

Work product(const char* role, std::int64_t count, std::int64_t m, std::int64_t n, std::int64_t k) {
  Work w;
  w.kind = WorkKind::optimizer;
  w.role = role;
  w.count = count;
  w.m = m, w.n = n, w.k = k;
  w.fixed_bytes = 2.0 * static_cast<double>(count) * static_cast<double>(m * k + k * n + m * n);
  return w;
}

// `count` matrices of rows x cols made orthogonal in bf16, and the update around it.
void muon(std::vector<Work>& out, std::int64_t count, std::int64_t rows, std::int64_t cols, bool second_moment) {
  const std::int64_t small = std::min(rows, cols), large = std::max(rows, cols);
  const double elements = static_cast<double>(count) * static_cast<double>(rows * cols), gram = static_cast<double>(count) * static_cast<double>(small * small);
  // momentum and Nesterov (read g, m; write m, g: 16), cast (2), norm and division (6); after: apply (read X, p, write p: 10), and the
  // factored second moment with its scaling, two more passes over X (4 + 6)
  out.push_back(traffic(WorkKind::optimizer, "muon.update", elements * (second_moment ? 44 : 34), second_moment ? 8 : 5));
  out.back().graphs = 1, out.back().calls = kMuonFills;
  for (int i = 0; i < kOrthogonalizeSteps; ++i) {
    out.push_back(product("muon.gram", count, small, small, large));
    out.push_back(product("muon.gram_squared", count, small, small, small));
    out.push_back(traffic(WorkKind::optimizer, "muon.polynomial", gram * 6));
    out.push_back(product("muon.iterate", count, small, large, small));
    out.push_back(traffic(WorkKind::optimizer, "muon.iterate_sum", elements * 6));
  }
}

class OptimizerStep {
 public:
  explicit OptimizerStep(const Workload& workload) : m_(workload.model), world_(workload.run.world_size) {}

  std::vector<OptimizerUnit> all() {
    const bool stacked = !updates_each_matrix(m_.version.optimizer);
    for (std::size_t i : adamw_parameters(m_)) adamw(m_.parameters[i]);
    for (const MuonGroup& g : muon_groups(m_)) {
      if (stacked) stack(g);
      else lists(g);
    }
    return std::move(out_);
  }

 private:
  // p, g and both moments read; p and both moments written
  void adamw(const Parameter& p) {
    OptimizerUnit u;
    const double bytes = static_cast<double>(p.bytes().count);
    const bool whole = world_ == 1 || is_replicated(p, m_);
    if (world_ > 1) {
      u.all_reduce = whole;
      u.reduce_bytes = bytes;
      u.gather_bytes = whole ? 0 : bytes;
    }
    u.work.push_back(traffic(WorkKind::optimizer, "adamw.update", 7 * bytes / (whole ? 1.0 : static_cast<double>(world_))));
    u.work.back().graphs = 1, u.work.back().calls = kAdamwFills;
    out_.push_back(std::move(u));
  }

  // Until E3b: matrix by matrix; on several GPUs one matrix each in every round.
  void lists(const MuonGroup& g) {
    const bool second = m_.version.optimizer == Optimizer::muon_per_param;
    const std::int64_t rounds = ceil_div(g.count, world_);
    const double bytes = 4.0 * static_cast<double>(world_ * g.elements());
    for (std::int64_t r = 0; r < rounds; ++r) {
      OptimizerUnit u;
      u.phase = 1;
      if (world_ > 1) u.reduce_bytes = u.gather_bytes = bytes;
      muon(u.work, 1, g.rows, g.cols, second);
      out_.push_back(std::move(u));
    }
  }

  // From E3c: all matrices of one shape in one stack; on several GPUs a chunk of the stack each.
  void stack(const MuonGroup& g) {
    const std::int64_t chunk = ceil_div(g.count, world_);
    const double all = 4.0 * static_cast<double>(g.count * g.elements()), padded = 4.0 * static_cast<double>(chunk * world_ * g.elements());
    OptimizerUnit u;
    u.work.push_back(traffic(WorkKind::optimizer, "muon.stack_gradients", 2 * all));
    if (world_ > 1) {
      u.reduce_bytes = u.gather_bytes = padded;
      u.work.push_back(traffic(WorkKind::optimizer, "muon.stack_parameters", 2 * padded / static_cast<double>(world_)));
    } else {
      u.work.push_back(traffic(WorkKind::optimizer, "muon.stack_parameters", 2 * all));
    }
    muon(u.work, std::min(chunk, g.count), g.rows, g.cols, true);
    u.work.push_back(traffic(WorkKind::optimizer, "muon.copy_back", 2 * all, g.count));
    out_.push_back(std::move(u));
  }

  const Model& m_;
  std::int64_t world_;
  std::vector<OptimizerUnit> out_;
};

}  // namespace

std::string_view name_of(WorkKind kind) {
  static constexpr std::string_view kNames[] = {"matmul", "attention", "elementwise", "optimizer", "communication"};
  return kNames[static_cast<std::size_t>(kind)];
}

double Work::flops() const {
  if (k > 0) return 2.0 * static_cast<double>(count) * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  if (length == 0) return 0;
  const double T = static_cast<double>(length), w = static_cast<double>(window);
  const double scores = causal ? w * (w + 1) / 2 + (T - w) * w : T * T;  // query t sees min(t + 1, window) keys
  return scores * static_cast<double>(heads) * static_cast<double>(head_dim) * (backward ? 10 : 4);
}

std::vector<Work> micro_step_work(const CompiledStep& step, std::int64_t parameters) { return MicroStep(step, parameters).all(); }

StepWork step_work(const Workload& workload, const CompiledStep& step) {
  StepWork out;
  out.device_batch = workload.run.device_batch_size;
  out.micro_step = micro_step_work(step, static_cast<std::int64_t>(workload.model.parameters.size()));
  double gradients = 0;
  for (const Parameter& p : workload.model.parameters) gradients += static_cast<double>(p.bytes().count);
  out.accumulate.push_back(traffic(WorkKind::elementwise, "accumulate gradients", 3 * gradients, static_cast<std::int64_t>(workload.model.parameters.size())));
  if (workload.model.version.grad_clip) out.before_step.push_back(traffic(WorkKind::optimizer, "clip gradients", 3 * gradients, 4));
  out.optimizer = OptimizerStep(workload).all();
  return out;
}

StepWork at_batch(StepWork work, std::int64_t device_batch) {
  const auto scale = [&](std::vector<Work>& list) {
    const auto scaled = [&](std::int64_t x) { return x * device_batch / work.device_batch; };
    for (Work& w : list) {
      w.batched_bytes *= static_cast<double>(device_batch) / static_cast<double>(work.device_batch);
      if (w.m_batched) w.m = scaled(w.m);
      if (w.k_batched) w.k = scaled(w.k);
      if (w.count_batched) w.count = scaled(w.count);
      if (w.length > 0) w.heads = scaled(w.heads);
    }
  };
  scale(work.micro_step);
  for (std::vector<Work>& list : work.laid_out) scale(list);
  work.device_batch = device_batch;
  return work;
}

}  // namespace dryfit
