// Lays the compiled micro-step, the optimizer and what surrounds them end to end: load, validation, first step, two steady steps,
// CORE evaluation.
// Order and lifetimes: scripts/base_train.py of the version. See program.hpp.
#include "passes/program.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "graph/nanochat.hpp"
#include "passes/compile.hpp"
#include "passes/evaluation.hpp"
#include "passes/optimizer.hpp"

namespace dryfit {

namespace {

using Optimizer = NanochatVersion::Optimizer;

class Layout {
 public:
  Layout(const Workload& workload, const Target& target, bool accumulate)
      : w_(workload), m_(workload.model), run_(workload.run), target_(target), accumulate_(accumulate),
        step_(compile_step(nanochat_forward(workload, resolve_attention(workload, target)), workload.run.compile)) {
    p_.device_batch = run_.device_batch_size;
    p_.work = step_work(workload, step_);
  }

  Program build() {
    add_graph_tensors();
    load();
    validation();  // base_train evaluates before its first step
    training_step("first_step");
    for (int step = 0; step < 2; ++step) training_step("train_step");  // the second meets the cache the first left
    if (evaluates_core(w_)) core_evaluation();
    return std::move(p_);
  }

 private:
  const Graph& graph() const { return step_.joint.graph; }
  const Node& node(NodeId v) const { return graph().nodes[static_cast<std::size_t>(v)]; }

  std::int32_t tensor(const char* role, Category category, Dtype dtype, Shape s, int layer = -1) {
    TensorInfo t;
    t.role = role;
    t.layer = static_cast<std::int16_t>(layer);
    t.dtype = dtype;
    t.category = category;
    t.batched = s.batched;
    t.shape = s;
    t.bytes = s.numel() * size_of(dtype);
    p_.tensors.push_back(t);
    return static_cast<std::int32_t>(p_.tensors.size()) - 1;
  }

  void alloc(std::int32_t t, std::int32_t op = -1) { p_.events.push_back({Event::Kind::alloc, t, op < 0 ? t : op}); }
  void free(std::int32_t t, std::int32_t op = -1) { p_.events.push_back({Event::Kind::free, t, op < 0 ? t : op}); }
  void segment(const char* phase, const char* part, int micro = 0, Provenance provenance = Provenance::modelled) {
    p_.segments.push_back({static_cast<std::int32_t>(p_.events.size()), phase, part, micro, provenance});
  }

  // Tensor i stands for graph node i, so that events of the compiled step need no table.
  void add_graph_tensors() {
    p_.tensors.reserve(graph().nodes.size() + 2048);
    for (const Node& n : graph().nodes) {
      Category category = Category::activations;
      if (std::strcmp(n.role, "logits") == 0 && n.kind == Kind::matmul && n.variant == 0) category = Category::logits;
      if (n.fn == Fn::input) category = Category::weights;
      tensor(n.role, category, n.dtype, n.shape, n.layer);
    }
    for (NodeId g : step_.gradients) {
      if (g != kNone) p_.tensors[static_cast<std::size_t>(g)].category = Category::gradients;
    }
    mark_gradient_logits();
  }

  // The gradient of the logits overwrites them: it is the same memory and belongs to the same row of the account.
  void mark_gradient_logits() {
    for (const BufferStep& s : step_.backward) {
      const Node& n = node(s.node);
      if (n.backward && n.dtype != Dtype::fp32 && std::strcmp(n.role, "logits") == 0 && n.kind == Kind::pointwise && n.shape.batched &&
          n.shape.numel() >= node(graph().cross_entropy.logits).shape.numel()) {
        p_.tensors[static_cast<std::size_t>(s.node)].category = Category::logits;
      }
    }
  }

  void load() {
    segment("load", "weights", 0, Provenance::exact);
    for (const GraphInput& input : graph().inputs) {
      if (input.parameter >= 0 || input.node == input_named("cos") || input.node == input_named("sin")) alloc(input.node);
    }
    alloc(tensor("token_bytes", Category::workspace, Dtype::int32, shape({m_.vocab}, false)));
    const std::int64_t B = run_.device_batch_size, T = run_.max_seq_len;
    if (m_.version.loader_gpu_buffer) {
      alloc(tensor("loader_buffer", Category::workspace, Dtype::int64, shape({2, B, T}, true)));
    } else {
      alloc(tensor("idx", Category::workspace, Dtype::int32, shape({B, T}, true)));
      alloc(tensor("targets", Category::workspace, Dtype::int64, shape({B, T}, true)));
    }
    for (const StateTensor& s : optimizer_state(m_, run_.world_size)) {
      const std::int32_t t = tensor(s.role, Category::optimizer, s.dtype, shape({s.elements}, false));
      if (std::strcmp(s.role, "muon.zero_buffer") == 0) alloc(t);  // made with the optimizer, not with its first step
      else state_.push_back(t);
    }
    // one cuBLAS workspace for the main thread, one for autograd's: kept for the life of the process
    const std::int64_t workspace = target_.compute_major == 9 && target_.compute_minor == 0 ? 33554432 : 8519680;
    for (std::int32_t& t : workspaces_) t = tensor("cublas_workspace", Category::workspace, Dtype::uint8, shape({workspace}, false));
    loss_ = tensor("loss", Category::workspace, Dtype::fp32, shape({1}, false));
    for (NodeId g : step_.gradients) {
      if (g == kNone) {
        sums_.push_back(-1);
        continue;
      }
      sums_.push_back(static_cast<std::int32_t>(p_.tensors.size()));
      p_.tensors.push_back(p_.tensors[static_cast<std::size_t>(g)]);
    }
  }

  NodeId input_named(const char* role) const {
    for (const GraphInput& input : graph().inputs) {
      if (std::strcmp(node(input.node).role, role) == 0) return input.node;
    }
    return kNone;
  }

  void play(const std::vector<BufferStep>& steps) {
    for (const BufferStep& s : steps) p_.events.push_back({s.alloc ? Event::Kind::alloc : Event::Kind::free, s.node, s.op});
  }

  void workspace_once(int which) {
    if (have_workspace_[which]) return;
    have_workspace_[which] = true;
    alloc(workspaces_[which]);
  }

  void training_step(const char* phase) {
    const int micro_steps = accumulate_ ? 2 : 1;
    for (int micro = 1; micro <= micro_steps; ++micro) {
      segment(phase, "forward", micro, Provenance::exact);
      workspace_once(0);
      play(step_.forward);
      alloc(loss_);
      segment(phase, "backward", micro, Provenance::exact);
      workspace_once(1);
      play_backward();
      keep_gradients(micro);
      free(loss_);
      free(step_.loss);
    }
    segment(phase, "optimizer");
    optimizer_step();
  }

  // Attention's backward kernel needs scratch that no graph shows: row sums (FlashAttention 3 returns those), and dq in fp32.
  void play_backward() {
    for (const BufferStep& s : step_.backward) {
      const Node& n = node(s.node);
      if (s.alloc && n.kind == Kind::result && n.fn == Fn::result && node(n.in[0]).fn == Fn::attention_backward && n.variant == 0) scratch(n);
      p_.events.push_back({s.alloc ? Event::Kind::alloc : Event::Kind::free, s.node, s.op});
    }
  }

  void scratch(const Node& dq) {
    const std::int64_t B = run_.device_batch_size, T = run_.max_seq_len;
    const auto kind = static_cast<Attention>(node(dq.in[0]).variant);
    if (kind == Attention::math) return;
    if (scratch_[0] < 0) {
      const std::int64_t rows = round_up(T, kind == Attention::fa3 ? 64 : 128);
      scratch_[0] = tensor("attn.softmax_d", Category::workspace, Dtype::fp32, shape({B, m_.heads, rows}, true));
      scratch_[1] = tensor("attn.dq_accum", Category::workspace, Dtype::fp32, shape({B, rows, m_.heads, round_up(m_.head_dim, 32)}, true));
    }
    const std::size_t first = kind == Attention::fa3 ? 1 : 0;
    for (std::size_t i = first; i < std::size(scratch_); ++i) alloc(scratch_[i]);
    for (std::size_t i = first; i < std::size(scratch_); ++i) free(scratch_[i]);
  }

  // First micro-step: autograd keeps the new gradients. Later ones: added to what is there, then let go; compiled backward hands
  // all of them over at its end, so old and new live together there.
  void keep_gradients(int micro) {
    for (std::size_t i = 0; i < step_.gradients.size(); ++i) {
      const NodeId g = step_.gradients[i];
      if (g == kNone) continue;
      free(g);
      if (micro == 1) alloc(sums_[i], g);
    }
  }

  void free_gradients() {
    for (std::int32_t t : sums_) {
      if (t >= 0) free(t);
    }
  }

  std::int32_t temporary(const char* role, Dtype d, std::int64_t elements, Category category = Category::optimizer) {
    return tensor(role, category, d, shape({elements}, false));
  }

  // Newton-Schulz / Polar Express on K matrices of m x n in bf16, compiled: X the iterates, A the Gram matrices of the smaller side,
  // in the order Inductor makes (+) and frees (-) them, the oldest of a kind first. Recorded: tests/golden/oracle/recordings.jsonl.
  void orthogonalize(std::int64_t count, std::int64_t m, std::int64_t n) {
    std::string_view order = "+X+A+A+X+X+X+X-A+X-X-X-X-X+A-A-A-X-X";
    if (m_.version.optimizer == Optimizer::muon_all_groups) order = "+X+X+A+A+X+X+X-X-A-X-A-X-X-X";
    if (m_.version.optimizer == Optimizer::torch_adamw_muon || m_.version.optimizer == Optimizer::muon_per_param) order = "+X+X+A+A+A+A-A-A-A+X-X-X-X-A";
    const std::int64_t small = std::min(m, n);
    std::vector<std::int32_t> iterates, grams;
    std::size_t oldest_iterate = 0, oldest_gram = 0;
    for (std::size_t i = 0; i < order.size(); i += 2) {
      const bool gram = order[i + 1] == 'A';
      std::vector<std::int32_t>& kind = gram ? grams : iterates;
      std::size_t& oldest = gram ? oldest_gram : oldest_iterate;
      if (order[i] == '-') {
        free(kind[oldest++]);
        continue;
      }
      kind.push_back(gram ? temporary("muon.gram", Dtype::bf16, count * small * small) : temporary("muon.iterate", Dtype::bf16, count * m * n));
      alloc(kind.back());
    }
  }

  void make_state() {
    if (have_state_) return;
    have_state_ = true;
    for (std::int32_t t : state_) alloc(t);
  }

  void optimizer_step() {
    if (run_.world_size == 1) single_gpu_step();
    else if (m_.version.optimizer == Optimizer::torch_adamw_muon || m_.version.optimizer == Optimizer::muon_per_param) distributed_lists();
    else distributed_stacks();
  }

  void single_gpu_step() {
    make_state();
    std::vector<std::int32_t> held;
    for (const MuonGroup& g : muon_groups(m_)) {
      if (m_.version.optimizer == Optimizer::torch_adamw_muon || m_.version.optimizer == Optimizer::muon_per_param) {
        orthogonalize(1, g.rows, g.cols);
        continue;
      }
      const std::int32_t grads = temporary("muon.stacked_grads", Dtype::fp32, g.count * g.elements());
      const std::int32_t params = temporary("muon.stacked_params", Dtype::fp32, g.count * g.elements());
      alloc(grads);
      if (m_.version.optimizer == Optimizer::muon_stacked_by_group) {
        alloc(params);
        orthogonalize(g.count, g.rows, g.cols);
        free(grads);
        free(params);
      } else {
        held.push_back(grads);
        later_.push_back({params, g});
      }
    }
    for (const auto& [params, g] : later_) {  // E7: every group is stacked first, and updated stacks wait for the last phase
      alloc(params);
      orthogonalize(g.count, g.rows, g.cols);
      held.push_back(params);
    }
    later_.clear();
    for (std::int32_t t : held) free(t);
    free_gradients();
  }

  // E1..E3b on several GPUs: reduce-scatter and all-gather over lists, which NCCL flattens into padded copies.
  void distributed_lists() {
    const std::int64_t world = run_.world_size;
    std::vector<std::int32_t> kept;
    for (std::size_t i : adamw_parameters(m_)) {
      const Parameter& p = m_.parameters[i];
      if (m_.version.epoch == "E1") {  // a tensor like the whole gradient, made for its first slice and let go
        const std::int32_t whole = temporary("adamw.empty_like", p.dtype, p.count(), Category::communication);
        alloc(whole);
        free(whole);
      }
      kept.push_back(temporary("adamw.grad_slice", p.dtype, std::max<std::int64_t>(1, p.count() / world), Category::communication));
      alloc(kept.back());
      release_stash();  // at the first collective
    }
    make_state();
    for (const MuonGroup& g : muon_groups(m_)) {
      const std::int64_t rounds = ceil_div(g.count, world), padding = rounds * world - g.count;
      for (std::int64_t r = 0; r < rounds; ++r) {
        for (const char* role : {"muon.reduce_flat", "muon.gather_flat"}) {
          kept.push_back(temporary(role, Dtype::fp32, world * g.elements(), Category::communication));
          alloc(kept.back());
        }
      }
      for (std::int64_t r = 0; r < padding; ++r) {
        kept.push_back(temporary("muon.gather_padding", Dtype::fp32, g.elements(), Category::communication));
        alloc(kept.back());
      }
      orthogonalize(1, g.rows, g.cols);
    }
    stash(std::move(kept), true);
  }

  // E3c on, several GPUs: one padded stack of gradients per shape, this rank's chunk, its updated chunk.
  void distributed_stacks() {
    const std::int64_t world = run_.world_size;
    std::vector<std::int32_t> kept;
    for (std::size_t i : adamw_parameters(m_)) {
      const Parameter& p = m_.parameters[i];
      if (p.count() < 1024) continue;
      kept.push_back(temporary("adamw.grad_slice", p.dtype, p.count() / world, Category::communication));
      alloc(kept.back());
      release_stash();  // at the first collective
    }
    for (const MuonGroup& g : muon_groups(m_)) {
      const std::int64_t chunk = ceil_div(g.count, world);
      const std::int32_t grad_stack = temporary("muon.grad_stack", Dtype::fp32, g.count * g.elements());
      alloc(grad_stack);
      kept.push_back(temporary("muon.stacked_grads", Dtype::fp32, chunk * world * g.elements(), Category::communication));
      alloc(kept.back());
      kept.push_back(temporary("muon.grad_chunk", Dtype::fp32, chunk * g.elements(), Category::communication));
      alloc(kept.back());
      free(grad_stack);
    }
    make_state();
    for (const MuonGroup& g : muon_groups(m_)) {
      const std::int64_t chunk = ceil_div(g.count, world);
      const std::int32_t owned = temporary("muon.stacked_owned", Dtype::fp32, std::min(chunk, g.count) * g.elements());
      kept.push_back(temporary("muon.updated_params", Dtype::fp32, chunk * g.elements(), Category::communication));
      const bool made_late = m_.version.optimizer == Optimizer::muon_all_groups;
      if (!made_late) alloc(kept.back());
      alloc(owned);
      orthogonalize(std::min(chunk, g.count), g.rows, g.cols);
      if (made_late) alloc(kept.back());
      free(owned);
    }
    stash(std::move(kept), false);
  }

  // nanochat waits on futures, never on works, so nothing unstashes what an asynchronous collective holds: inputs and outputs of a
  // step's collectives live until the next step's first collective (one step later still where a step is shorter than the
  // watchdog's 100 ms). Gradients that were handed to a collective live as long; the others die at zero_grad.
  void stash(std::vector<std::int32_t> kept, bool matrices_too) {
    for (std::size_t i = 0; i < step_.gradients.size(); ++i) {
      if (sums_[i] < 0) continue;
      const Parameter& p = m_.parameters[static_cast<std::size_t>(graph().inputs[i].parameter)];
      const bool handed = p.group != ParamGroup::transformer_matrices || matrices_too;
      free(sums_[i]);
      if (!handed) continue;
      TensorInfo copy = p_.tensors[static_cast<std::size_t>(sums_[i])];
      copy.category = Category::communication;
      p_.tensors.push_back(copy);
      kept.push_back(static_cast<std::int32_t>(p_.tensors.size()) - 1);
      alloc(kept.back());
    }
    stashes_.push_back(std::move(kept));
    released_ = false;
    if (stashes_.size() < sets()) {  // the steady state, reached after a few steps: two sets
      std::vector<std::int32_t> older;
      for (std::int32_t t : stashes_.back()) {
        p_.tensors.push_back(p_.tensors[static_cast<std::size_t>(t)]);
        older.push_back(static_cast<std::int32_t>(p_.tensors.size()) - 1);
        alloc(older.back());
      }
      stashes_.insert(stashes_.begin(), std::move(older));
    }
  }

  // Called at each collective: only the first of a step finds sets to let go.
  void release_stash() {
    if (released_) return;
    released_ = true;
    while (stashes_.size() >= sets() && !stashes_.empty()) {
      for (std::int32_t t : stashes_.front()) free(t);
      stashes_.erase(stashes_.begin());
    }
  }

  // How many steps' worth of stashes are alive during forward and backward.
  std::size_t sets() const {
    if (target_.bf16_tflops <= 0) return 1;
    const double matmul = static_cast<double>(m_.param_count(ParamGroup::transformer_matrices) + m_.param_count(ParamGroup::lm_head));
    const double attention = 12.0 * static_cast<double>(m_.depth * m_.width * run_.max_seq_len);
    const double flops = (6 * matmul + attention) * static_cast<double>(run_.total_batch_size) / static_cast<double>(run_.world_size);
    constexpr double kUtilization = 0.4, kWatchdogSeconds = 0.1;
    return flops / (target_.bf16_tflops * 1e12 * kUtilization) < kWatchdogSeconds ? 2 : 1;
  }

  // Validation: the compiled forward pass without gradients; only the loss of each token comes out.
  void validation() {
    segment("validation", "forward");
    FuseInput fw{&graph(), {}, {}, {}, {graph().loss}};
    for (NodeId v = 0; v < step_.joint.forward_count; ++v) (node(v).kind == Kind::input ? fw.borrowed : fw.compute).push_back(v);
    const FuseResult done = run_.compile ? fuse(fw) : run_eagerly(fw);
    const std::int64_t B = run_.device_batch_size, T = run_.max_seq_len;
    // base_train keeps the name of the validation loader until the next one: its batch stays
    if (m_.version.loader_gpu_buffer) {
      alloc(tensor("val_loader_buffer", Category::workspace, Dtype::int64, shape({2, B, T}, true)));
    } else {
      alloc(tensor("val_idx", Category::workspace, Dtype::int32, shape({B, T}, true)));
      alloc(tensor("val_targets", Category::workspace, Dtype::int64, shape({B, T}, true)));
    }
    play(done.steps);
    free(done.outputs.front());
  }

  // CORE: the largest prompts that rank 0 meets. The collectives of the evaluations before it have emptied the stash.
  void core_evaluation() {
    segment("core_evaluation", "forward");
    for (const auto& set : stashes_) {
      for (std::int32_t t : set) free(t);
    }
    stashes_.clear();
    const CorePrompts prompts = core_prompts(run_);
    const EagerForward forward = core_forward(w_, resolve_attention(w_, target_), prompts.choices, std::min(prompts.middle, 10 * run_.max_seq_len));
    const auto first = static_cast<std::int32_t>(p_.tensors.size());
    p_.tensors.insert(p_.tensors.end(), forward.tensors.begin(), forward.tensors.end());
    for (Event e : forward.events) p_.events.push_back({e.kind, e.tensor + first, e.op + first});
  }

  const Workload& w_;
  const Model& m_;
  const Run& run_;
  Target target_;
  bool accumulate_;
  CompiledStep step_;
  Program p_;
  std::vector<std::int32_t> state_, sums_;
  std::int32_t workspaces_[2] = {-1, -1}, scratch_[2] = {-1, -1}, loss_ = -1;
  bool have_workspace_[2] = {false, false}, have_state_ = false, released_ = false;
  std::vector<std::vector<std::int32_t>> stashes_;
  std::vector<std::pair<std::int32_t, MuonGroup>> later_;
};

}  // namespace

std::string_view name_of(Category category) {
  static constexpr std::string_view kNames[] = {"weights", "gradients", "optimizer", "activations", "logits", "workspace", "communication", "context", "fragmentation"};
  return kNames[static_cast<std::size_t>(category)];
}

std::string_view name_of(Provenance provenance) {
  static constexpr std::string_view kNames[] = {"exact", "modelled", "calibrated", "unknown"};
  return kNames[static_cast<std::size_t>(provenance)];
}

std::string TensorInfo::name() const { return (layer >= 0 ? "h." + std::to_string(layer) + "." : std::string()) + role; }

const Segment& Program::segment_of(std::int32_t event) const {
  const auto after = std::ranges::upper_bound(segments, event, {}, &Segment::first_event);
  return *(after - 1);
}

Attention resolve_attention(const Workload& workload, const Target& target) {
  const Run& run = workload.run;
  if (run.attention != Attention::automatic) return run.attention;
  if (workload.model.version.flash_attention3 && target.compute_major == 9 && run.compute == Dtype::bf16) return Attention::fa3;
  const bool half = run.compute != Dtype::fp32;
  if (half && target.compute_major >= 8) return Attention::flash;  // masked layers fall to the efficient kernel one by one
  return Attention::efficient;
}

Program build_program(const Workload& workload, const Target& target, bool accumulate) { return Layout(workload, target, accumulate).build(); }

StaticBytes static_bytes(const Workload& workload) {
  StaticBytes total;
  for (const Parameter& p : workload.model.parameters) total.weights += p.bytes();
  total.gradients = total.weights;
  for (const StateTensor& s : optimizer_state(workload.model, workload.run.world_size)) total.optimizer += Bytes(s.elements) * size_of(s.dtype);
  return total;
}

}  // namespace dryfit
