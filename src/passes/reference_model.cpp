// See reference_model.hpp.
#include "passes/reference_model.hpp"

#include <utility>

namespace dryfit::eager {

namespace {

// DeepSpeed casts all of it to the 16-bit type; FSDP's policies cast what is gathered. accelerate's autocast is around models that it prepares itself, on one GPU and under DDP.
Training computed_by_reference(const Training& r) {
  Training out = r;
  out.recompute = Recompute::none;
  out.dropout = false;
  if (r.preference && r.preference->reference) out.weights = *r.preference->reference;
  if (r.preference && r.preference->zero) out.zero = *r.preference->zero;
  if (r.sharding == Sharding::none || r.sharding == Sharding::ddp || r.mixed == MixedPrecision::none) return out;
  out.weights = *half_of(r.mixed);
  out.mixed = MixedPrecision::none;
  return out;
}

ForwardOptions held(const Training& r, ForwardOptions forward) {
  if (r.sharding == Sharding::fsdp2) forward.shards = r.world_size;
  forward.flat = forward.gathered = r.sharding == Sharding::zero3 || is_fsdp1(r.sharding);
  return forward;
}

}  // namespace

ReferenceModel::ReferenceModel(Tape& tape, const Architecture& architecture, const Training& training, ForwardOptions forward)
    : t_(tape), computes_(computed_by_reference(training)), output_(half_of(training.mixed).value_or(Dtype::fp32)), model_(std::make_unique<Transformer>(tape, architecture, computes_, held(training, forward))) {
  if (training.sharding == Sharding::zero3) {
    gathered_ = std::make_unique<ZeroGather>(t_, model_->weights(), computes_, true);
    model_->around_modules(gathered_->hooks());
  } else if (training.sharding == Sharding::fsdp2 || is_fsdp1(training.sharding)) {
    share_out(training);
  }
}

// Shards are of the dtype it was loaded in: accelerate raises what it prepares itself alone. FSDP1 wraps as the plugin does; fully_shard is called once, on the model, which comes to this GPU whole.
void ReferenceModel::share_out(const Training& r) {
  const Dtype loaded = r.weights;
  if (is_fsdp1(r.sharding)) {
    FlatShardOptions options{.shards = r.world_size, .stored = loaded, .frozen = loaded, .adapters = loaded, .joins = true, .loaded = loaded, .loaded_adapters = loaded, .computed = computes_.weights, .reduced = std::nullopt, .reshard_after_forward = r.sharding == Sharding::fsdp1, .wrap_blocks = r.wrap_blocks, .config = r.flat, .host = r.offload_parameters};
    flat_ = std::make_unique<FlatShard>(t_, model_->weights(), std::move(options));
    flat_->reads(true);
    model_->around_units(flat_->hooks());
    return;
  }
  std::vector<Tensor> whole;
  for (const Transformer::Weight& w : model_->weights()) whole.push_back(t_.buffer("load.weight", w.tensor.dims().numel(), loaded, Category::weights));
  sharded_ = std::make_unique<FullyShard>(t_, model_->weights(), FullyShardOptions{.shards = r.world_size, .stored = loaded, .frozen = loaded, .reduced = computes_.weights, .reshard_after_forward = r.reshard_after_forward, .one_unit = true, .host = r.offload_parameters});
  model_->around_units(sharded_->hooks());
}

FusedOutput ReferenceModel::scores(const Transformer::Batch& batch, FusedAsked asked) {
  if (gathered_) gathered_->before_forward();
  if (const auto half = half_of(computes_.mixed)) t_.enter_autocast(*half);
  FusedOutput out = model_->scores_as_reference(batch, asked);
  t_.leave_autocast();
  if (sharded_) {  // MixedPrecisionPolicy.output_dtype, where there is a policy
    const NoGrad inside(t_);
    for (Tensor* each : {&out.loss, &out.log_probs}) *each = t_.to(*each, output_, "loss");
  }
  return out;
}

Tensor ReferenceModel::logits(const Transformer::Batch& batch) {
  if (const auto half = half_of(computes_.mixed)) t_.enter_autocast(*half);
  Tensor out = model_->without_graph(true, [&] { return model_->logits(batch); });
  t_.leave_autocast();
  return out;
}

std::int64_t ReferenceModel::weight_bytes() const {
  if (sharded_) return sharded_->weight_bytes();
  if (flat_) return flat_->weight_bytes();
  if (gathered_) return gathered_->weight_bytes();
  std::int64_t sum = 0;
  for (const Transformer::Weight& w : model_->weights()) sum += w.tensor.dims().numel() * size_of(w.tensor.dtype());
  return sum;
}

}  // namespace dryfit::eager
