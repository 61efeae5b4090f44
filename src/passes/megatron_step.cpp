// See megatron_step.hpp. DP: GPUs that hold the same weights, W/(TP*PP), those of context parallelism among them; of experts W/(ETP*EP*PP).
#include "passes/megatron_step.hpp"

#include <algorithm>
#include <deque>
#include <iterator>
#include <memory>
#include <numeric>

#include "passes/megatron.hpp"

namespace dryfit {

namespace {

using eager::MegatronChunk;
using eager::MegatronWeight;
using eager::Tape;
using eager::Tensor;

std::int64_t replicas(const Training& r) { return std::max<std::int64_t>(1, r.world_size / (r.megatron.tensor * r.megatron.pipeline)); }

std::int64_t expert_replicas(const Training& r) { return std::max<std::int64_t>(1, r.world_size / r.megatron.expert_model_parallel()); }

// Where each parameter of a chunk lies in its flat buffer: last parameter first; buckets that end where DP and the kernels like it. Experts with
// replicas of their own have a buffer of their own.
struct BufferLayout {
  struct Bucket { std::int64_t begin, end; };
  std::vector<std::pair<std::int64_t, std::int64_t>> parameters;  // of its weights: [begin, end)
  std::vector<Bucket> buckets;
  std::int64_t shards = 1;              // ranks that share an optimizer's states
  std::int64_t elements() const { return buckets.empty() ? 0 : buckets.back().end; }
};

// param_and_grad_buffer.py _compute_default_per_buffer_param_layout; distrib_optimizer.py _compute_per_buffer_param_layout.
BufferLayout buffer_layout(const std::vector<MegatronWeight>& weights, const MegatronRun& m, std::int64_t shards, std::optional<std::int64_t> bucket_size) {
  BufferLayout out;
  out.parameters.resize(weights.size());
  out.shards = shards;
  const bool padded = m.distributed_optimizer;
  std::int64_t at = 0, begin = 0;
  const auto close = [&](std::int64_t end) {
    const std::int64_t unit = std::lcm(shards, m.high_bandwidth_padding ? std::int64_t{65536} : std::int64_t{128});
    const std::int64_t stop = padded ? round_up(end, unit) : end;
    out.buckets.push_back({begin, stop});
    begin = at = stop;
  };
  for (std::size_t i = weights.size(); i-- > 0;) {
    if (padded) at = round_up(at, 64);
    const bool alone = padded && weights[i].shared_embedding;
    if (alone && at > begin) close(at);
    const std::int64_t end = at + weights[i].tensor.dims().numel();
    out.parameters[i] = {at, end};
    at = end;
    if (alone || (bucket_size && end - begin >= *bucket_size)) close(end);
  }
  if (at > begin) close(at);
  return out;
}

class MegatronTrainer {
 public:
  MegatronTrainer(const Architecture& a, const Training& r, const Target& target, std::int64_t stage, eager::TapeOptions options)
      : a_(a), r_(r), m_(r.megatron), target_(target), stage_(stage), tape_(r.device_batch_size, options) {
    shared_.te_workspace = target.compute_major >= 9 ? 33554432 + 1024 : 4194304;
    shared_.cublas_workspace = cublas_workspace_bytes(target, r.workspaces);
  }

  Program run() {
    tape_.segment("load", "weights", 0, Provenance::exact);
    load();
    for (const char* phase : {"first_step", "train_step", "train_step"}) step(phase);
    return tape_.take();
  }

  StaticBytes static_bytes() {
    load();
    optimizer_step();
    StaticBytes out;
    out.weights = Bytes(weight_bytes_), out.gradients = Bytes(gradient_bytes_), out.optimizer = Bytes(state_bytes_);
    return out;
  }

 private:
  bool half() const { return r_.weights != Dtype::fp32; }
  Dtype gradient_dtype() const { return m_.grads_in_fp32 ? Dtype::fp32 : r_.weights; }
  std::int64_t shards(bool expert) const { return std::max<std::int64_t>(1, (expert ? expert_replicas(r_) : replicas(r_)) / m_.optimizer_instances); }

  Tensor kept(const char* role, std::int64_t elements, Dtype d, Category c, std::int64_t& account) {
    account += elements * size_of(d);
    return tape_.buffer(role, elements, d, c);
  }

  // Modules make their parameters; DistributedDataParallel then makes the gradients' buffer, and with the distributed optimizer one for the parameters, which
  // move there; the optimizer clones what it masters.
  void load() {
    const MegatronAttention attention = resolve_attention(a_, m_, target_);
    for (std::int64_t c = 0; c < m_.virtual_stages; ++c) {
      const bool first = stage_ == 0 && c == 0, last = stage_ == m_.pipeline - 1 && c == m_.virtual_stages - 1;
      chunks_.push_back(std::make_unique<MegatronChunk>(tape_, a_, r_, attention, layers_of(m_, a_.layers, stage_, c), first, last, shared_));
    }
    std::vector<std::vector<Tensor>> initial;
    for (const auto& chunk : chunks_) {
      auto& made = initial.emplace_back();
      std::int64_t ignored = 0;
      for (const MegatronWeight& w : chunk->weights()) made.push_back(kept(w.role, w.tensor.dims().numel(), r_.weights, Category::weights, m_.distributed_optimizer ? ignored : weight_bytes_));
    }
    for (std::size_t c = 0; c < chunks_.size(); ++c) {
      const bool buckets = m_.overlap_grad_reduce && stage_ == 0 && c == 0;
      const std::int64_t usual = std::max<std::int64_t>(40'000'000, 1'000'000 * replicas(r_));
      for (const bool expert : {false, true}) {
        std::vector<MegatronWeight> weights;
        std::ranges::copy_if(chunks_[c]->weights(), std::back_inserter(weights), [expert](const MegatronWeight& w) { return w.expert == expert; });
        if (weights.empty()) continue;
        layouts_.push_back(buffer_layout(weights, m_, shards(expert), buckets ? std::optional(m_.ddp_bucket_size.value_or(usual)) : std::nullopt));
        const std::int64_t n = layouts_.back().elements();
        if (m_.distributed_optimizer) buffers_.push_back(kept("param_data", n, r_.weights, Category::weights, weight_bytes_));
        buffers_.push_back(kept("grad_data", n, gradient_dtype(), Category::gradients, gradient_bytes_));
      }
      if (!m_.distributed_optimizer) {
        for (Tensor& t : initial[c]) buffers_.push_back(std::move(t));
      }
      initial[c].clear();
      for (const MegatronWeight& w : chunks_[c]->weights()) tape_.on_gradient(w.tensor, [this, t = w.tensor] { tape_.zero_grad(t); });  // added to main_grad
    }
    if (half()) {
      for_states([&](std::int64_t elements) { buffers_.push_back(kept("main_param", elements, m_.main_params, Category::optimizer, state_bytes_)); });
    }
  }

  // Every tensor whose states this rank has: each parameter, or the part of it in this rank's share of each bucket. The last rank's.
  template <class Visit>
  void for_states(Visit visit) {
    for (const BufferLayout& layout : layouts_) {
      for (const auto& [begin, end] : layout.parameters) {
        if (!m_.distributed_optimizer) {
          visit(end - begin);
          continue;
        }
        for (const BufferLayout::Bucket& b : layout.buckets) {
          const std::int64_t from = b.end - (b.end - b.begin) / layout.shards;
          const std::int64_t part = std::min(end, b.end) - std::max(begin, from);
          if (part > 0) visit(part);
        }
      }
    }
  }

  // Gradients of 16 bits are widened for the step, and stay until the next begins.
  void optimizer_step() {
    if (half() && gradient_dtype() != Dtype::fp32) {
      for_states([&](std::int64_t elements) { widened_.push_back(tape_.buffer("main_param.grad", elements, Dtype::fp32, Category::gradients)); });
    }
    if (begun_) return;
    begun_ = true;
    for_states([&](std::int64_t elements) {
      buffers_.push_back(kept("adam.exp_avg", elements, m_.exp_avg, Category::optimizer, state_bytes_));
      buffers_.push_back(kept("adam.exp_avg_sq", elements, m_.exp_avg_sq, Category::optimizer, state_bytes_));
    });
  }

  MegatronChunk::Batch batch_of(const MegatronChunk& chunk) {
    MegatronChunk::Batch out;
    if (!chunk.first() && !chunk.last()) return out;
    const eager::Dims d = eager::dims({r_.device_batch_size, r_.seq_len / m_.context}, true);
    const auto made = [&](const char* role, eager::Dims dims, Dtype dtype) { return tape_.empty(role, dims, dtype, Category::workspace); };
    if (chunk.first()) out.tokens = made("batch.tokens", d, Dtype::int64), out.positions = made("batch.positions", d, Dtype::int64);
    if (chunk.last()) out.labels = made("batch.labels", d, Dtype::int64), out.loss_mask = made("batch.loss_mask", d, Dtype::fp32);
    if (m_.mask_in_loader) out.mask = made("batch.attention_mask", eager::dims({r_.device_batch_size, 1, r_.seq_len / m_.context, r_.seq_len}, true), Dtype::bool8);
    return out;
  }

  // A router's product is TransformerEngine's whatever the rest is.
  void te_workspace() {
    if ((!m_.transformer_engine && !a_.moe) || te_workspace_.defined()) return;
    te_workspace_ = tape_.buffer("te_workspace", shared_.te_workspace, Dtype::uint8, Category::workspace);
  }

  // One of the schedule's tensors between stages.
  Tensor between(const char* role, const MegatronChunk& chunk) { return tape_.empty(role, chunk.hidden_dims(), r_.weights, Category::communication); }

  struct Open { Tensor input, output; };  // a forward pass whose backward pass is to come

  void forward(const char* phase, int micro, MegatronChunk& chunk, std::deque<Open>& open, Tensor& held) {
    tape_.segment(phase, "forward", micro);
    shared_.backward = false;
    te_workspace();
    Open one;
    if (!chunk.first()) {
      one.input = tape_.leaf(between("pipeline.input", chunk));
      if (held.defined()) tape_.zero_grad(held);
      held = one.input;  // set_input_tensor: the decoder names its last input, and so its gradient, until the next
    }
    Tensor output;
    {
      const MegatronChunk::Batch batch = batch_of(chunk);
      output = chunk.forward(batch, one.input);
    }
    one.output = chunk.last() ? output : tape_.graph_only(output);  // sent, and its memory given back
    open.push_back(std::move(one));
  }

  void backward(const char* phase, int micro, MegatronChunk& chunk, std::deque<Open>& open, const Tensor& held) {
    tape_.segment(phase, "backward", micro);
    shared_.backward = true;
    Open one = std::move(open.front());
    open.pop_front();
    if (chunk.last()) tape_.backward(one.output);
    else tape_.backward(one.output, between("pipeline.gradient", chunk));
    if (!one.input.defined()) return;
    sent_ = tape_.gradient(one.input);
    if (tape_.storage_of(one.input) != tape_.storage_of(held)) tape_.zero_grad(one.input);
  }

  // Micro-batches beyond those that bring the pipeline into its steady state repeat it.
  std::int64_t micro_batches() const {
    const std::int64_t all = std::max<std::int64_t>(1, r_.grad_accum_steps);
    if (m_.pipeline == 1) return std::min<std::int64_t>(all, 2);
    if (m_.virtual_stages == 1) return std::min(all, m_.pipeline + 2);
    return std::min(all, 2 * m_.group() + round_up(m_.pipeline, m_.group()));
  }

  void step(const char* phase) {
    widened_.clear();
    sent_.reset();
    const std::int64_t n = micro_batches();
    const std::vector<Pass> passes = schedule_of(m_, n);
    const auto total = static_cast<std::int64_t>(passes.size()), warmup = warmup_passes(m_, n, stage_);
    std::vector<std::deque<Open>> open(chunks_.size());
    held_.resize(chunks_.size());
    const auto go = [&](std::int64_t k) {
      const Pass& p = passes[static_cast<std::size_t>(k)];
      const auto chunk = static_cast<std::size_t>(p.chunk);
      forward(phase, static_cast<int>(p.micro_batch) + 1, *chunks_[chunk], open[chunk], held_[chunk]);
    };
    const auto back = [&](std::int64_t k) {
      const Pass& p = passes[static_cast<std::size_t>(k)];
      const auto chunk = static_cast<std::size_t>(m_.virtual_stages - 1 - p.chunk);
      backward(phase, static_cast<int>(p.micro_batch) + 1, *chunks_[chunk], open[chunk], held_[chunk]);
    };
    for (std::int64_t k = 0; k < warmup; ++k) go(k);
    for (std::int64_t k = warmup; k < total; ++k) {
      go(k);
      back(k - warmup);
    }
    for (std::int64_t k = total - warmup; k < total; ++k) back(k);
    tape_.segment(phase, "optimizer");
    optimizer_step();
  }

  const Architecture& a_;
  const Training& r_;
  const MegatronRun& m_;
  Target target_;
  std::int64_t stage_;
  Tape tape_;                           // outlives every tensor below
  MegatronChunk::Shared shared_;
  std::vector<std::unique_ptr<MegatronChunk>> chunks_;
  std::vector<BufferLayout> layouts_;   // of all chunks
  std::vector<Tensor> buffers_, widened_;
  std::vector<Tensor> held_;            // by chunk: its last input, which has its gradient still
  Tensor te_workspace_, sent_;
  std::int64_t weight_bytes_ = 0, gradient_bytes_ = 0, state_bytes_ = 0;
  bool begun_ = false;
};

}  // namespace

MegatronAttention resolve_attention(const Architecture& a, const MegatronRun& run, const Target& target) {
  if (!run.transformer_engine) return MegatronAttention::unfused;
  if (run.attention != MegatronAttention::automatic) return run.attention;
  return a.latent || target.compute_major >= 9 ? MegatronAttention::fused : MegatronAttention::flash;
}

Result<Program> build_megatron_program(const Architecture& a, const Training& r, const Target& target, eager::TapeOptions options) {
  const MegatronRun& m = r.megatron;
  if (m.stage) return MegatronTrainer(a, r, target, *m.stage, options).run();
  // The first stage has the embedding and the most micro-batches in flight, the last the logits; the second has the most of those between, which have less
  // than the first where all have the same layers.
  Program worst = MegatronTrainer(a, r, target, 0, options).run();
  const bool alike = !m.first_layers && !m.last_layers && !m.embedding_counts && !m.loss_counts && (!a.moe || std::ranges::count(a.moe->layers, false) == 0);
  for (const std::int64_t stage : {std::int64_t{1}, m.pipeline - 1}) {
    if (stage >= m.pipeline || (stage != m.pipeline - 1 && alike)) continue;
    Program other = MegatronTrainer(a, r, target, stage, options).run();
    if (peak_of(other) > peak_of(worst)) worst = std::move(other);
  }
  return worst;
}

StaticBytes megatron_static_bytes(const Architecture& a, const Training& r) { return MegatronTrainer(a, r, {}, r.megatron.stage.value_or(r.megatron.pipeline - 1), {}).static_bytes(); }

}  // namespace dryfit
