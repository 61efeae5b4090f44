// See megatron_arguments.hpp.
#include "workload/megatron_arguments.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <set>

#include "base/text.hpp"

namespace dryfit {

namespace {

constexpr std::int64_t kWidest = std::int64_t{1} << 24, kMostWords = std::int64_t{1} << 28, kLongest = std::int64_t{1} << 24, kMostOnOneGpu = std::int64_t{1} << 15;

// Not laid out: a run with one of these is refused, with what it is.
struct Refused { std::string_view name, what, hint; };
constexpr std::array kRefused = {
    Refused{"mla-down-proj-fusion", "latent attention's fused projection down", ""}, Refused{"mtp-num-layers", "multi-token prediction", ""},
    Refused{"fp8-format", "fp8", "leave --fp8-format out for the bf16 run"}, Refused{"fp4-format", "fp4", ""}, Refused{"use-megatron-fsdp", "Megatron's FSDP", "--use-distributed-optimizer shares out the optimizer's states"},
    Refused{"use-torch-fsdp2", "PyTorch's FSDP2 in Megatron", ""}, Refused{"optimizer-cpu-offload", "an optimizer on the host", ""}, Refused{"cpu-offloading-num-layers", "offloading of activations", ""},
    Refused{"fine-grained-activation-offloading", "offloading of activations", ""}, Refused{"pipeline-model-parallel-layout", "a pipeline layout of one's own", ""},
    Refused{"cuda-graph-impl", "CUDA graphs", ""},
    Refused{"enable-cuda-graph", "CUDA graphs", ""}, Refused{"tp-comm-overlap", "user buffers for tensor-parallel communication", ""}, Refused{"window-size", "sliding windows", ""},
    Refused{"defer-embedding-wgrad-compute", "a deferred gradient of the embedding", ""}, Refused{"delay-wgrad-compute", "deferred gradients of weights", ""}, Refused{"fp32-residual-connection", "an fp32 residual stream", ""},
    Refused{"use-transformer-engine-op-fuser", "TransformerEngine's op fuser", ""}, Refused{"quick-geglu", "the quick GeGLU", ""}, Refused{"perform-rl-step", "reinforcement learning", ""},
    Refused{"experimental-attention-variant", "an experimental attention", ""}, Refused{"linear-attention-freq", "linear attention", ""},
    Refused{"overlap-moe-expert-parallel-comm", "two micro-batches at a time", ""}, Refused{"moe-latent-size", "experts of a narrower width", ""}, Refused{"moe-use-grouped-tensor", "grouped tensors", ""}, Refused{"moe-paged-stash", "stashed activations of experts", ""},
    Refused{"moe-router-padding-for-fp8", "routing padded for fp8", ""}, Refused{"moe-router-padding-for-quantization", "routing padded for fp8", ""}, Refused{"moe-enable-deepep", "DeepEP's dispatcher", "--moe-token-dispatcher-type alltoall is laid out"},
    Refused{"moe-use-legacy-grouped-gemm", "the older grouped product", ""}, Refused{"moe-expert-rank-capacity-factor", "a capacity of ranks", ""}, Refused{"overlap-dispatch-backward-with-experts-wgrad", "deferred gradients of experts", ""},
    Refused{"moe-apply-probs-on-input", "weights of experts' inputs", ""}, Refused{"use-te-activation-func", "TransformerEngine's activation", ""}, Refused{"use-fused-weighted-squared-relu", "a fused squared ReLU", ""}, Refused{"distribute-saved-activations", "checkpoints shared out over ranks", ""}};

// Arguments that move no memory on the GPU, by their beginning.
constexpr std::array<std::string_view, 47> kWithoutMemory = {
    "log-", "tensorboard-", "wandb-", "save", "load", "ckpt-", "dist-ckpt-", "data-", "split", "lr", "min-lr", "weight-decay", "adam-", "eval-", "train-", "exit-", "init-method", "seed", "clip-grad", "distributed-", "timing-log", "use-mcore-models",
    "tokenizer-", "merge-file", "vocab-file", "mock-data", "num-workers", "async-", "use-persistent-ckpt-worker", "use-checkpoint-", "attention-softmax-in-fp32", "norm-epsilon", "rotary-base", "override-opt", "no-load-", "no-save-", "finetune", "manual-gc", "rerun-mode", "auto-detect-ckpt", "no-mmap-bin-files",
    "ddp-average-in-collective", "calculate-per-token-loss", "apply-query-key-layer-scaling", "decoupled-", "loss-scale", "initial-loss-scale"};
constexpr std::array<std::string_view, 28> kAlsoWithout = {
    "verify-integrity", "straggler-minmax-count", "no-check-for-nan-in-loss-and-grad", "use-tp-pp-dp-mapping", "te-rng-tracker", "check-weight-hash-across-dp-replicas-interval", "apply-wd-to-qk-layernorm", "no-persist-layer-norm", "disable-gloo-process-groups", "empty-unused-memory-level",
    "test-mode", "transformer-impl", "overlap-param-gather", "no-overlap-p2p-communication", "apply-layernorm-1p", "overlap-p2p-communication-warmup-flush", "rotary-interleaved", "logging-level", "rampup-batch-size", "optimizer",
    "moe-router-bias-update-rate", "moe-router-num-groups", "moe-router-group-topk", "moe-token-drop-policy", "moe-per-layer-logging", "moe-router-force-load-balancing", "moe-use-upcycling", "moe-upcycling-granularity"};

// The arguments, and which of them were asked for.
class Given {
 public:
  explicit Given(const MegatronArguments& a) : a_(a) {}

  bool has(std::string_view name) { return find(name) != nullptr; }
  std::optional<std::string> text(const std::string& name) {
    const auto* values = find(name);
    if (values == nullptr) return std::nullopt;
    if (values->empty()) {
      note(fail("bad_value", "--" + name + " has no value", "write --" + name + " VALUE", "--" + name));
      return std::nullopt;
    }
    return values->back();
  }
  std::vector<std::string> texts(std::string_view name) {
    const auto* values = find(name);
    return values == nullptr ? std::vector<std::string>{} : *values;
  }
  std::optional<std::int64_t> whole(const std::string& name, std::int64_t low, std::int64_t high) {
    const auto word = text(name);
    if (!word) return std::nullopt;
    const auto n = parse_int(*word, "--" + name);
    if (!n) note(std::unexpected(n.error()));
    else if (*n < low || *n > high) note(fail("bad_value", "--" + name + " " + word->substr(0, 40) + " is out of range", "use " + std::to_string(low) + " to " + std::to_string(high), "--" + name));
    return n && !error_ ? std::optional(*n) : std::nullopt;
  }
  std::int64_t needed(const std::string& name, std::int64_t high) {
    const auto n = whole(name, 1, high);
    if (!n) note(fail("missing_value", "the command has no --" + name, "paste all of it, with its environment's $ARGS written out", "--" + name));
    return n.value_or(1);
  }
  double real(const std::string& name, double usual) {
    const auto word = text(name);
    if (!word) return usual;
    const auto x = parse_real(*word, "--" + name);
    if (!x) note(std::unexpected(x.error()));
    else if (!(*x >= 0 && *x < 1.0000001)) note(fail("bad_value", "--" + name + " " + word->substr(0, 40) + " is out of range", "use 0 to 1", "--" + name));
    return x && !error_ ? *x : usual;
  }
  template <class Value>
  Value word(const std::string& name, std::initializer_list<std::pair<std::string_view, Value>> known, Value usual) {
    const auto given = text(name);
    if (!given) return usual;
    std::string all;
    for (const auto& [w, value] : known) {
      if (w == *given) return value;
      all += (all.empty() ? "" : ", ") + std::string(w);
    }
    note(fail("bad_value", "--" + name + " " + given->substr(0, 40) + " is not described", "described are: " + all, "--" + name));
    return usual;
  }
  template <class Failure>
  void note(Failure failure) {
    if (!error_) error_ = failure.error();
  }
  const std::optional<Error>& error() const { return error_; }

  std::vector<std::string> unused() const {
    std::vector<std::string> out;
    for (const auto& [name, values] : a_.given) {
      const auto begins = [&, &n = name](std::string_view prefix) { return n.starts_with(prefix); };
      if (used_.contains(name) || std::ranges::any_of(kWithoutMemory, begins) || std::ranges::find(kAlsoWithout, name) != kAlsoWithout.end()) continue;
      out.push_back("--" + name.substr(0, 60));
    }
    return out;
  }

 private:
  const std::vector<std::string>* find(std::string_view name) {
    used_.insert(std::string(name));
    const std::vector<std::string>* out = nullptr;
    for (const auto& [n, values] : a_.given) {
      if (n == name) out = &values;
    }
    return out;
  }

  const MegatronArguments& a_;
  std::set<std::string, std::less<>> used_;
  std::optional<Error> error_;
};

class Resolver {
 public:
  explicit Resolver(const MegatronArguments& a) : g_(a), gpus_(a.gpus), environment_(a.workspaces) {}

  Result<Workload> resolve(std::vector<std::string>& unused) {
    for (const Refused& r : kRefused) {
      if (g_.has(r.name)) return fail("unsupported_training", std::string(r.what) + " (--" + std::string(r.name) + ") in Megatron-LM is not laid out yet", r.hint.empty() ? "leave it out; the rest of the run is" : std::string(r.hint), "--" + std::string(r.name));
    }
    shape();
    if (g_.has("multi-latent-attention")) latent();
    parallel();
    step();
    experts();
    if (g_.error()) return std::unexpected(*g_.error());
    if (auto ok = check(); !ok) return std::unexpected(ok.error());
    unused = g_.unused();
    return workload();
  }

 private:
  void assume(std::string key, std::string value, std::string source) { w_.assumptions.push_back({std::move(key), std::move(value), std::move(source)}); }

  void shape() {
    a_.family = Family::megatron;
    a_.model_type = "megatron";
    a_.class_name = "GPTModel";
    a_.layers = g_.needed("num-layers", 4096);
    a_.width = g_.needed("hidden-size", 1 << 20);
    a_.heads = g_.needed("num-attention-heads", 1 << 16);
    a_.head_dim = g_.whole("kv-channels", 1, 1 << 16).value_or(a_.width / a_.heads);
    const bool grouped = g_.has("group-query-attention");
    const auto groups = g_.whole("num-query-groups", 1, 1 << 16);
    a_.kv_heads = grouped ? groups.value_or(1) : a_.heads;
    a_.gated_mlp = g_.has("swiglu");
    a_.activation = a_.gated_mlp ? Activation::silu : g_.has("squared-relu") ? Activation::relu_squared : Activation::gelu;
    a_.ffn = g_.whole("ffn-hidden-size", 1, kWidest).value_or(a_.gated_mlp ? a_.width * 8 / 3 / 64 * 64 : 4 * a_.width);
    a_.norm = g_.word("normalization", {{"LayerNorm", NormKind::layer_norm}, {"RMSNorm", NormKind::rms_norm}}, NormKind::layer_norm);
    a_.norm_bias = a_.norm == NormKind::layer_norm;
    const bool biased = !g_.has("disable-bias-linear"), qkv_biased = g_.has("add-qkv-bias");
    a_.qkv_bias = biased || qkv_biased;
    a_.out_bias = a_.mlp_bias = biased;
    a_.fused_qkv = true;
    a_.qk_norm = g_.has("qk-layernorm") ? QkNorm::per_head : QkNorm::none;
    a_.tied_head = !g_.has("untie-embeddings-and-output-weights");
    const bool rotary = g_.has("use-rotary-position-embeddings");
    a_.position = g_.word("position-embedding-type", {{"learned_absolute", Position::learned}, {"rope", Position::rotary}, {"none", Position::none}}, rotary ? Position::rotary : Position::learned);
    const double part = g_.real("rotary-percent", 1.0);
    if (a_.position == Position::rotary) a_.rotary_dims = static_cast<std::int64_t>(static_cast<double>(a_.head_dim) * part);
    a_.max_positions = g_.whole("max-position-embeddings", 1, std::int64_t{1} << 32).value_or(0);
    a_.residual_dropout = a_.embedding_dropout = g_.real("hidden-dropout", 0.1);
    a_.attention_dropout = g_.real("attention-dropout", 0.1);
  }

  // --multi-latent-attention: rotated in part, inside, whatever the embedding of positions is.
  void latent() {
    LatentAttention m;
    m.q_lora_rank = g_.whole("q-lora-rank", 1, 1 << 20).value_or(0);
    m.kv_lora_rank = g_.whole("kv-lora-rank", 1, 1 << 20).value_or(32);
    m.nope_head_dim = g_.whole("qk-head-dim", 1, 1 << 16).value_or(128);
    m.rope_head_dim = g_.whole("qk-pos-emb-head-dim", 1, 1 << 16).value_or(64);
    m.value_head_dim = g_.whole("v-head-dim", 1, 1 << 16).value_or(128);
    m_.yarn = g_.word("rope-type", {{"yarn", true}, {"rope", false}}, true);
    const bool fuses = !g_.has("no-rope-fusion");
    m_.rope_fusion = fuses && a_.position == Position::rotary;
    if (m_.rope_fusion && !m_.yarn) g_.note(fail("bad_value", "latent attention's fused rotation is YaRN's alone", "add --no-rope-fusion", "--rope-type"));
    for (const char* scaling : {"rotary-scaling-factor", "mscale", "mscale-all-dim"}) g_.has(scaling);
    a_.kv_heads = a_.heads;
    a_.head_dim = m.nope_head_dim + m.rope_head_dim;
    a_.rotary_dims = m.rope_head_dim;
    a_.qkv_bias = false;
    a_.latent = m;
  }

  void parallel() {
    m_.tensor = g_.whole("tensor-model-parallel-size", 1, 1 << 16).value_or(1);
    m_.pipeline = g_.whole("pipeline-model-parallel-size", 1, 1 << 16).value_or(1);
    m_.context = g_.whole("context-parallel-size", 1, 1 << 16).value_or(1);
    const auto each = g_.whole("num-layers-per-virtual-pipeline-stage", 1, 4096);
    m_.virtual_stages = g_.whole("num-virtual-stages-per-pipeline-rank", 1, 4096).value_or(each ? std::max<std::int64_t>(1, a_.layers / m_.pipeline / *each) : 1);
    m_.first_layers = g_.whole("decoder-first-pipeline-num-layers", 1, 4096);
    m_.last_layers = g_.whole("decoder-last-pipeline-num-layers", 1, 4096);
    m_.embedding_counts = g_.has("account-for-embedding-in-pipeline-split");
    m_.loss_counts = g_.has("account-for-loss-in-pipeline-split");
    m_.group_size = g_.whole("microbatch-group-size-per-virtual-pipeline-stage", 1, 1 << 16).value_or(0);
    m_.sequence_parallel = g_.has("sequence-parallel") && m_.tensor > 1;
    m_.distributed_optimizer = g_.has("use-distributed-optimizer");
    m_.optimizer_instances = g_.whole("num-distributed-optimizer-instances", 1, 1 << 16).value_or(1);
    m_.overlap_grad_reduce = g_.has("overlap-grad-reduce");
    m_.ddp_bucket_size = g_.whole("ddp-bucket-size", 1, std::int64_t{1} << 40);
    m_.high_bandwidth_padding = g_.has("ddp-pad-buckets-for-high-nccl-busbw");
  }

  void step() {
    t_.framework = Framework::megatron;
    const bool bf16 = g_.has("bf16"), fp16 = g_.has("fp16");
    t_.weights = bf16 ? Dtype::bf16 : fp16 ? Dtype::fp16 : Dtype::fp32;
    const bool wide = g_.has("accumulate-allreduce-grads-in-fp32"), narrow = g_.has("grad-reduce-in-bf16");
    m_.grads_in_fp32 = t_.weights == Dtype::fp32 || wide || (bf16 && !narrow);
    const auto moment = [&](const char* name) { return g_.word(name, {{"fp32", Dtype::fp32}, {"fp16", Dtype::fp16}, {"bf16", Dtype::bf16}}, Dtype::fp32); };
    if (g_.has("use-precision-aware-optimizer")) m_.exp_avg = moment("exp-avg-dtype"), m_.exp_avg_sq = moment("exp-avg-sq-dtype"), m_.main_params = moment("main-params-dtype");
    m_.accumulation_fusion = !g_.has("no-gradient-accumulation-fusion");
    m_.transformer_engine = g_.word("transformer-impl", {{"transformer_engine", true}, {"local", false}}, true);
    m_.attention = g_.word("attention-backend", {{"auto", MegatronAttention::automatic}, {"fused", MegatronAttention::fused}, {"flash", MegatronAttention::flash}, {"unfused", MegatronAttention::unfused}, {"local", MegatronAttention::unfused}}, MegatronAttention::automatic);
    if (g_.text("attention-backend") == "local") m_.transformer_engine = false;
    const bool gelu_fusion = !g_.has("no-bias-gelu-fusion"), swiglu_fusion = !g_.has("no-bias-swiglu-fusion");
    m_.bias_activation_fusion = a_.gated_mlp ? swiglu_fusion : gelu_fusion && a_.mlp_bias && a_.activation == Activation::gelu;
    m_.bias_dropout_fusion = !g_.has("no-bias-dropout-fusion");
    m_.masked_softmax_fusion = !g_.has("no-masked-softmax-fusion");
    m_.cross_entropy_fusion = g_.has("cross-entropy-loss-fusion");
    g_.word("cross-entropy-fusion-impl", {{"native", 0}, {"te", 1}}, 0);
    m_.deterministic = g_.has("deterministic-mode");
    m_.mask_in_loader = !g_.has("no-create-attention-mask-in-dataloader");
    recompute();
    if (auto workspaces = product_workspaces(environment_, t_.torch)) t_.workspaces = std::move(*workspaces);
    else g_.note(std::unexpected(workspaces.error()));
    t_.device_batch_size = g_.needed("micro-batch-size", 1 << 20);
    t_.seq_len = g_.whole("seq-length", 1, kLongest).value_or(g_.whole("encoder-seq-length", 1, kLongest).value_or(0));
    t_.dropout = true;
    global_ = g_.whole("global-batch-size", 1, std::int64_t{1} << 40);
  }

  void recompute() {
    enum class Granularity : std::uint8_t { none, full, selective };
    auto kind = g_.word("recompute-granularity", {{"full", Granularity::full}, {"selective", Granularity::selective}}, Granularity::none);
    if (g_.has("recompute-activations")) kind = Granularity::selective;
    const auto method = g_.word("recompute-method", {{"uniform", MegatronRecompute::uniform}, {"block", MegatronRecompute::block}}, MegatronRecompute::none);
    m_.recompute_layers = g_.whole("recompute-num-layers", 1, 4096).value_or(1);
    if (kind == Granularity::full) {
      m_.recompute = method;
      if (method == MegatronRecompute::none) g_.note(fail("missing_value", "--recompute-granularity full needs a --recompute-method", "add --recompute-method uniform --recompute-num-layers 1", "--recompute-method"));
      t_.recompute = Recompute::full;
    }
    if (kind != Granularity::selective) return;
    m_.recompute = MegatronRecompute::selective;
    const auto modules = g_.texts("recompute-modules");
    for (const std::string& module : modules.empty() ? std::vector<std::string>{"core_attn"} : modules) {
      if (module == "core_attn") m_.recompute_attention = true;
      else if (module == "mlp") m_.recompute_mlp = true;
      else if (module == "moe") m_.experts.recompute_layer = true;
      else if (module == "moe_act") m_.experts.recompute_activation = true;
      else if (module == "shared_experts") m_.experts.recompute_shared = true;
      else g_.note(fail("unsupported_training", "--recompute-modules " + module.substr(0, 40) + " is not laid out yet", "core_attn, mlp, moe, moe_act and shared_experts are", "--recompute-modules"));
    }
  }

  void experts() {
    m_.experts.parallel = g_.whole("expert-model-parallel-size", 1, 1 << 16).value_or(1);
    m_.experts.tensor = g_.whole("expert-tensor-parallel-size", 1, 1 << 16).value_or(m_.tensor);
    const std::int64_t count = g_.whole("num-experts", 0, 4096).value_or(0);
    const auto frequency = g_.text("moe-layer-freq");
    if (count == 0) {
      if (m_.experts.parallel > 1) g_.note(fail("bad_value", "--expert-model-parallel-size without --num-experts has nothing to share out", "add --num-experts N", "--expert-model-parallel-size"));
      m_.experts.tensor = m_.tensor;
      return;
    }
    MixtureOfExperts moe;
    moe.experts = count;
    moe.top_k = g_.whole("moe-router-topk", 1, 1 << 16).value_or(2);
    moe.expert_ffn = g_.whole("moe-ffn-hidden-size", 1, kWidest).value_or(a_.ffn);
    moe.shared_ffn = g_.whole("moe-shared-expert-intermediate-size", 0, kWidest).value_or(0);
    moe.shared_gate = g_.has("moe-shared-expert-gate");
    auto layers = expert_layers_of(frequency.value_or("1"), a_.layers, "--moe-layer-freq");
    if (!layers) g_.note(std::unexpected(layers.error()));
    else moe.layers = std::move(*layers);
    if (const auto factor = g_.text("moe-expert-capacity-factor")) {
      const auto x = parse_real(*factor, "--moe-expert-capacity-factor");
      if (!x) g_.note(std::unexpected(x.error()));
      else if (*x >= 0 && *x <= 65536) moe.capacity_factor = *x;
      else if (!(*x < 0)) g_.note(fail("bad_value", "--moe-expert-capacity-factor " + factor->substr(0, 40) + " is out of range", "use 1 to 2, or leave it out", "--moe-expert-capacity-factor"));
    }
    router(moe);
    MegatronExperts& m = m_.experts;
    m.dispatcher = g_.word("moe-token-dispatcher-type", {{"allgather", MegatronDispatcher::allgather}, {"alltoall", MegatronDispatcher::alltoall}}, MegatronDispatcher::allgather);
    m.grouped = g_.has("moe-grouped-gemm") && m_.transformer_engine;
    m.permute_fusion = g_.has("moe-permute-fusion");
    m.pad_to_capacity = g_.has("moe-pad-expert-input-to-capacity");
    m.shared_overlap = g_.has("moe-shared-expert-overlap");
    a_.moe = std::move(moe);
  }

  void router(const MixtureOfExperts& moe) {
    MegatronExperts& m = m_.experts;
    m.router_fusion = g_.has("moe-router-fusion");
    m.router_dtype = g_.word<std::optional<Dtype>>("moe-router-dtype", {{"fp32", Dtype::fp32}, {"fp64", Dtype::fp64}}, std::nullopt);
    m.score = g_.word("moe-router-score-function", {{"softmax", MegatronScore::softmax}, {"sigmoid", MegatronScore::other}, {"sqrtsoftplus", MegatronScore::other}}, MegatronScore::softmax);
    m.softmax_first = g_.has("moe-router-pre-softmax");
    m.scaled = g_.has("moe-router-topk-scaling-factor");
    m.expert_bias = g_.has("moe-router-enable-expert-bias");
    m.z_loss = g_.has("moe-z-loss-coeff");
    m.jitter = g_.has("moe-input-jitter-eps");
    const auto kinds = g_.texts("moe-router-load-balancing-type");
    const auto weights = g_.texts("moe-aux-loss-coeff");
    for (std::size_t i = 0; i < std::max<std::size_t>(1, kinds.size()); ++i) {
      const std::string kind = kinds.empty() ? "aux_loss" : kinds[i];
      if (kind == "sinkhorn") m.sinkhorn = true;
      else if (kind == "aux_loss" || kind == "seq_aux_loss" || kind == "global_aux_loss") {
        const auto x = i < weights.size() ? parse_real(weights[i], "--moe-aux-loss-coeff") : Result<double>(0.0);
        if (!x) g_.note(std::unexpected(x.error()));
        else if (*x > 0) ++m.balancing_losses;
      } else if (kind != "none") g_.note(fail("unsupported_training", "--moe-router-load-balancing-type " + kind.substr(0, 40) + " is not laid out", "aux_loss, seq_aux_loss, global_aux_loss, sinkhorn and none are", "--moe-router-load-balancing-type"));
    }
    if (moe.top_k > moe.experts) g_.note(fail("bad_value", "--moe-router-topk " + std::to_string(moe.top_k) + " is more than --num-experts " + std::to_string(moe.experts), "use at most that", "--moe-router-topk"));
  }

  // What Megatron-LM itself refuses, and what is not laid out.
  Result<void> check_experts(std::int64_t W) {
    const auto bad = [](std::string message, std::string hint, std::string where) { return fail("bad_value", std::move(message), std::move(hint), std::move(where)); };
    if (!a_.moe) return {};
    const MixtureOfExperts& moe = *a_.moe;
    const MegatronExperts& m = m_.experts;
    if (moe.experts % m.parallel != 0) return bad(std::to_string(moe.experts) + " experts do not divide by --expert-model-parallel-size " + std::to_string(m.parallel), "use a divisor", "--expert-model-parallel-size");
    if (moe.experts / m.parallel * (a_.layers / m_.pipeline) > kMostOnOneGpu) return bad("a GPU would have " + std::to_string(moe.experts / m.parallel * (a_.layers / m_.pipeline)) + " experts, which is more than are laid out", "use a larger --expert-model-parallel-size", "--num-experts");
    if (W % m_.expert_model_parallel() != 0) return bad(std::to_string(W) + " GPUs are no multiple of expert tensor x expert x pipeline parallel size = " + std::to_string(m_.expert_model_parallel()), "give --gpus N before the --, or other sizes", "--expert-model-parallel-size");
    if (moe.expert_ffn % m.tensor != 0) return bad("the experts' width " + std::to_string(moe.expert_ffn) + " does not divide by --expert-tensor-parallel-size " + std::to_string(m.tensor), "use a divisor", "--expert-tensor-parallel-size");
    if (moe.shared_ffn % m_.tensor != 0) return bad("--moe-shared-expert-intermediate-size does not divide by --tensor-model-parallel-size", "use a multiple", "--moe-shared-expert-intermediate-size");
    if (m_.tensor > 1 && !m_.sequence_parallel) return bad("a mixture of experts under tensor parallelism trains with --sequence-parallel alone", "add --sequence-parallel", "--sequence-parallel");
    if (m_.bias_activation_fusion && !a_.gated_mlp) return bad("experts have no fused gelu with a bias", "add --no-bias-gelu-fusion", "--no-bias-gelu-fusion");
    if (m.pad_to_capacity && !moe.capacity_factor) return bad("--moe-pad-expert-input-to-capacity needs a capacity", "add --moe-expert-capacity-factor 1.0", "--moe-expert-capacity-factor");
    if (m.sinkhorn && moe.capacity_factor) return bad("--moe-expert-capacity-factor does not go with sinkhorn", "use --moe-router-load-balancing-type aux_loss", "--moe-expert-capacity-factor");
    if (m.shared_overlap && m.dispatcher != MegatronDispatcher::alltoall) return bad("--moe-shared-expert-overlap needs --moe-token-dispatcher-type alltoall", "add it", "--moe-shared-expert-overlap");
    if (moe.shared_ffn > 0 && a_.mlp_bias) return bad("shared experts have no biases", "add --disable-bias-linear", "--disable-bias-linear");
    if (m.grouped && a_.mlp_bias) return fail("unsupported_training", "--moe-grouped-gemm with biases is not laid out yet", "add --disable-bias-linear", "--moe-grouped-gemm");
    assume("experts", "each gets as many rows as another", "which rows go where is decided in the run: a rank that gets more needs more");
    return {};
  }

  Result<void> check() {
    const auto bad = [](std::string message, std::string hint, std::string where) { return fail("bad_value", std::move(message), std::move(hint), std::move(where)); };
    const std::int64_t W = gpus_.value_or(std::lcm(m_.model_parallel(), m_.expert_model_parallel()));
    if (W < 1 || W > (1 << 20) || W % m_.model_parallel() != 0) return bad(std::to_string(W) + " GPUs are no multiple of tensor x pipeline x context parallel size = " + std::to_string(m_.model_parallel()), "give --gpus N before the --, or other sizes", "--gpus");
    if (a_.heads % m_.tensor != 0 || a_.ffn % m_.tensor != 0) return bad("heads or the MLP's width do not divide by --tensor-model-parallel-size " + std::to_string(m_.tensor), "use a size that divides " + std::to_string(a_.heads) + " heads", "--tensor-model-parallel-size");
    if (a_.kv_heads > a_.heads || a_.heads % a_.kv_heads != 0) return bad("--num-query-groups " + std::to_string(a_.kv_heads) + " does not divide " + std::to_string(a_.heads) + " heads", "use a divisor", "--num-query-groups");
    if (a_.kv_heads % m_.tensor != 0) return fail("unsupported_training", "fewer query groups than tensor-parallel ranks are not laid out yet", "use --tensor-model-parallel-size up to " + std::to_string(a_.kv_heads), "--num-query-groups");
    if (auto ok = check_layers(m_, a_.layers); !ok) return ok;
    if (m_.context > 1 && (!m_.transformer_engine || m_.attention == MegatronAttention::unfused)) return bad("context parallelism needs TransformerEngine's fused or flash attention", "add --attention-backend flash, or leave --context-parallel-size out", "--context-parallel-size");
    if (a_.latent && (!m_.transformer_engine || m_.context > 1 || m_.attention == MegatronAttention::flash)) return fail("unsupported_training", "latent attention without TransformerEngine, under context parallelism or with flash attention is not laid out yet", "leave --transformer-impl, --context-parallel-size and --attention-backend out", "--multi-latent-attention");
    const auto way = g_.text("cp-comm-type");
    if (m_.context > 1 && way && *way != "p2p") return fail("unsupported_training", "--cp-comm-type " + way->substr(0, 30) + " is not laid out yet", "p2p is", "--cp-comm-type");
    if (t_.seq_len % (2 * m_.context) != 0 && m_.context > 1) return bad("--seq-length does not divide by twice the context parallel size", "use a multiple of " + std::to_string(2 * m_.context), "--seq-length");
    if (t_.seq_len == 0) return fail("missing_value", "the command has no --seq-length", "paste all of it", "--seq-length");
    if (m_.sequence_parallel && t_.seq_len / m_.context % m_.tensor != 0) return bad("--seq-length does not divide by --tensor-model-parallel-size under --sequence-parallel", "use a multiple", "--seq-length");
    if (a_.position == Position::learned && a_.max_positions == 0) return fail("missing_value", "the command has no --max-position-embeddings", "paste all of it", "--max-position-embeddings");
    a_.position_rows = a_.position == Position::learned ? a_.max_positions : 0;
    if (a_.position == Position::learned && t_.seq_len > a_.max_positions) return bad("--seq-length is more than --max-position-embeddings", "use at most " + std::to_string(a_.max_positions), "--seq-length");
    if (m_.pipeline == 1 && m_.virtual_stages > 1) return bad("virtual pipeline stages need a pipeline", "add --pipeline-model-parallel-size 2, or leave them out", "--num-layers-per-virtual-pipeline-stage");
    const auto optimizer = g_.text("optimizer");
    if (optimizer && *optimizer != "adam") return fail("unsupported_training", "--optimizer " + optimizer->substr(0, 30) + " in Megatron-LM is not laid out yet", "adam is", "--optimizer");
    if (auto ok = check_experts(W); !ok) return ok;
    t_.world_size = W;
    const std::int64_t replicas = W / m_.model_parallel(), all = t_.device_batch_size * replicas;
    if (m_.optimizer_instances > replicas * m_.context) return bad("--num-distributed-optimizer-instances is more than the replicas there are", "use at most " + std::to_string(replicas), "--num-distributed-optimizer-instances");
    if (global_ && *global_ % all != 0) return bad("--global-batch-size " + std::to_string(*global_) + " is no multiple of micro-batch x data parallel size = " + std::to_string(all), "use a multiple", "--global-batch-size");
    t_.grad_accum_steps = global_.value_or(all) / all;
    const std::int64_t left = t_.grad_accum_steps % m_.group();
    if (m_.virtual_stages > 1 && left > 0 && left < m_.pipeline) return bad("with virtual stages " + std::to_string(t_.grad_accum_steps) + " micro-batches leave " + std::to_string(left) + " in the last group, fewer than the pipeline's " + std::to_string(m_.pipeline) + " stages", "use another --global-batch-size", "--global-batch-size");
    return vocabulary();
  }

  Result<void> vocabulary() {
    const std::int64_t unit = g_.whole("make-vocab-size-divisible-by", 1, 1 << 20).value_or(128) * m_.tensor;
    const auto padded = g_.whole("padded-vocab-size", 1, kMostWords);
    auto size = g_.whole("vocab-size", 1, kMostWords);
    const auto tokenizer = g_.text("tokenizer-type");
    if (!size && !padded && (tokenizer == "GPT2BPETokenizer" || (!tokenizer && g_.has("merge-file")))) {
      size = 50257;
      assume("vocab_size", "50257", "GPT-2's tokenizer");
    }
    if (g_.error()) return std::unexpected(*g_.error());
    if (!size && !padded) return fail("missing_value", "the size of the vocabulary is not in the command: it comes from the tokenizer's files", "add --vocab-size N to it", "--vocab-size");
    a_.vocab = padded.value_or(round_up(size.value_or(1), unit));
    if (a_.vocab % m_.tensor != 0) return fail("bad_value", "--padded-vocab-size does not divide by --tensor-model-parallel-size", "use a multiple of " + std::to_string(m_.tensor), "--padded-vocab-size");
    return {};
  }

  Workload workload() {
    t_.megatron = m_;
    t_.holds_outputs = false;
    a_.dtype = t_.weights;
    w_.transformers = TransformersRun{a_, t_};
    Model& m = w_.model;
    m.depth = a_.layers, m.width = a_.width, m.heads = a_.heads, m.kv_heads = a_.kv_heads, m.head_dim = a_.head_dim, m.ffn = a_.ffn;
    m.vocab = m.padded_vocab = a_.vocab;
    m.parameters = parameters_of(a_);
    Run& run = w_.run;
    run.device_batch_size = t_.device_batch_size, run.max_seq_len = t_.seq_len, run.world_size = t_.world_size, run.grad_accum_steps = t_.grad_accum_steps;
    run.total_batch_size = t_.device_batch_size * t_.seq_len * t_.grad_accum_steps * (t_.world_size / m_.model_parallel());
    run.compute = t_.weights;
    run.torch = t_.torch;
    run.core_metric_every = -1;
    if (!gpus_) assume("gpus", std::to_string(t_.world_size), a_.moe ? "the least that the parallel sizes allow" : "tensor x pipeline x context parallel size");
    return std::move(w_);
  }

  Given g_;
  std::optional<std::int64_t> gpus_, global_;
  Variables environment_;
  Architecture a_;
  Training t_;
  MegatronRun m_;
  Workload w_;
};

}  // namespace

void MegatronArguments::set(const std::string& name, std::string value) {
  std::erase_if(given, [&](const auto& g) { return g.first == name; });
  given.emplace_back(name, std::vector<std::string>{std::move(value)});
}

Result<Workload> make_megatron_workload(const MegatronArguments& arguments, std::vector<std::string>& unused) {
  auto w = Resolver(arguments).resolve(unused);
  if (!w) return w;
  for (const auto& [name, values] : arguments.given) {
    w->passthrough.push_back("--" + name);
    w->passthrough.insert(w->passthrough.end(), values.begin(), values.end());
  }
  return w;
}

}  // namespace dryfit
