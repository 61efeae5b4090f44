// Load, first step, two steady steps of a transformers run. See training_program.hpp.
#include "passes/training_program.hpp"

#include <algorithm>
#include <array>
#include <memory>

#include "passes/compiled_transformer.hpp"
#include "passes/data_parallel.hpp"
#include "passes/efficient_attention.hpp"
#include "passes/flat_shard.hpp"
#include "passes/fully_shard.hpp"
#include "passes/litgpt.hpp"
#include "passes/megatron_step.hpp"
#include "passes/pair_losses.hpp"
#include "passes/preference.hpp"
#include "passes/reference_model.hpp"
#include "passes/rollouts.hpp"
#include "passes/torch_optimizer.hpp"
#include "passes/torchtitan.hpp"
#include "passes/torchtune.hpp"
#include "passes/trainer_evaluation.hpp"
#include "passes/whole_states.hpp"
#include "passes/zero_gather.hpp"
#include "passes/zero_partition.hpp"

namespace dryfit {

namespace {

// accelerate's fully_shard: with --bf16 or --fp16 shards are fp32, and what computes is 16 bits wide without autocast (utils/fsdp_utils.py
// fsdp2_prepare_model; utils/dataclasses.py set_mixed_precision).
bool is_fully_sharded(const Training& r) { return r.sharding == Sharding::fsdp2; }
// DeepSpeed's engine casts the model to the 16-bit type, buffers and adapters too. Around FSDP1's 16-bit weights accelerate leaves autocast on.
Training computed(const Training& r) {
  Training out = r;
  if (!(is_fully_sharded(r) || is_fsdp1(r.sharding) || is_deepspeed(r.sharding)) || r.mixed == MixedPrecision::none || r.framework == Framework::litgpt) return out;
  out.weights = *half_of(r.mixed);
  if (!is_fsdp1(r.sharding)) out.mixed = MixedPrecision::none;
  if (out.lora && is_deepspeed(r.sharding)) out.lora->upcast_rest = false;
  return out;
}
Dtype stored(const Training& r) { return r.mixed == MixedPrecision::none ? r.weights : Dtype::fp32; }  // of FSDP's shards
// Of adapters' under FSDP: as peft or TRL made them, until accelerate has them in fp32 for --bf16, which FSDP2 beside 4-bit weights leaves out.
Dtype stored_adapters(const Training& r) {
  const bool raised = r.mixed != MixedPrecision::none && !(r.quantized && is_fully_sharded(r));
  return raised ? Dtype::fp32 : r.lora->dtype.value_or(Dtype::fp32);
}
// Trainer's _fsdp_qlora_plugin_updates sets FSDP1's MixedPrecision to the dtype that 4-bit values are packed into, asked for or not.
bool computes_in_16_bits(const Training& r) { return r.mixed != MixedPrecision::none || (r.quantized && is_fsdp1(r.sharding)); }
eager::FullyShardOptions fully_shard_options(const Architecture& a, const Training& r) {
  const bool torchtune = r.framework == Framework::torchtune;
  const Dtype trains = r.lora && r.framework == Framework::transformers ? stored_adapters(r) : stored(r);
  const Dtype reduced = r.lora && r.mixed == MixedPrecision::none && r.framework == Framework::transformers ? trains : computed(r).weights;
  eager::FullyShardOptions out{r.world_size, trains, r.weights, reduced, r.reshard_after_forward, r.wrap_blocks, a.tied_head && !torchtune, !r.lora && !torchtune, torchtune, !torchtune || r.torchtune.embedding_apart, !torchtune || r.torchtune.head_apart};
  out.host = r.offload_parameters;
  if (r.framework != Framework::torchtitan) return out;
  out.reduced = Dtype::fp32;
  out.norm_in_tail = out.embedding_apart = out.head_apart = out.last_block_reshards = r.torchtitan.wraps_ends();
  out.tail_reshards = r.torchtitan.reshards_head;
  return out;
}
eager::FlatShardOptions flat_shard_options(const Training& r) {
  const bool apart = r.flat.adapters_apart;
  eager::FlatShardOptions out{r.world_size, stored(r), apart ? r.weights : stored(r), apart ? stored_adapters(r) : stored(r), r.framework == Framework::transformers, {}, {}, computed(r).weights, r.flat.reduced, r.sharding == Sharding::fsdp1, r.wrap_blocks, r.flat};
  out.loaded = r.framework == Framework::transformers ? r.weights : out.stored;
  out.loaded_adapters = apart ? r.lora->dtype.value_or(Dtype::fp32) : out.adapters;
  if (apart && !computes_in_16_bits(r)) out.computed.reset();
  out.graph_stays = r.recompute == Recompute::full && !r.reentrant;
  out.host = r.offload_parameters;
  // Lightning's "bf16-mixed" gathers fp32 weights, for autocast to cast, and reduces in 16 bits (fabric/plugins/precision/fsdp.py)
  if (!out.reduced) out.reduced = half_of(r.mixed);
  return out;
}

using eager::Tape;
using eager::Tensor;
using eager::CompiledTransformer;
using eager::Litgpt;
using eager::Torchtitan;
using eager::Torchtune;
using eager::Transformer;

void lay_out(eager::ForwardOptions& forward, const Training& r) {
  if (r.lora && r.lora->dtype) forward.adapters = *r.lora->dtype;
  if (is_fully_sharded(r)) forward.shards = r.world_size, forward.adapters = r.mixed != MixedPrecision::none ? computed(r).weights : r.lora ? stored_adapters(r) : Dtype::fp32;
  using Loading = eager::ForwardOptions::Loading;
  if (r.quantized && (is_fully_sharded(r) || is_fsdp1(r.sharding))) forward.loading = is_fsdp1(r.sharding) && r.flat.loads_on_host ? Loading::on_host : Loading::whole;
  if (r.sharding == Sharding::zero0) forward.adapters = computed(r).weights;
  if (!is_zero(r.sharding) && !is_fsdp1(r.sharding)) return;
  forward.flat = true;
  forward.gathered = r.sharding == Sharding::zero3 || is_fsdp1(r.sharding);
  forward.adapters = computed(r).weights;
  forward.leaf_units = is_fsdp1(r.sharding) && r.flat.adapters_apart;
  if (forward.leaf_units && !computes_in_16_bits(r)) forward.adapters = stored_adapters(r);
}

// half: of 16-bit heads, else of fp32 ones.
Attention attention_of(const Architecture& a, const Training& r, const Target& target, bool half) {
  if (is_flash(r.attention)) return r.attention == AttentionCode::flash_attention_2 ? Attention::flash : Attention::fa3;
  if (half && prefers_cudnn(target, r.torch) && a.head_dim % 8 == 0 && a.head_dim <= (target.compute_major == 9 ? 256 : 128)) return Attention::cudnn;
  if (r.compile && r.framework == Framework::transformers) return Attention::efficient;  // traced, it always gets a mask
  if (r.framework == Framework::torchtitan && r.torchtitan.date >= TorchtitanRun::kAsksForCudnn && a.head_dim % 8 == 0 && a.head_dim <= 128) return Attention::cudnn;  // sdpa_kernel's first
  if (a.latent && a.latent->value_head_dim != a.head_dim) return Attention::efficient;  // flash wants heads of one size
  if (half && target.compute_major >= 8 && a.head_dim <= 256) return Attention::flash;
  // transformers passes enable_gqa, which the efficient kernel does not take (integrations/sdpa_attention.py)
  if (r.framework == Framework::transformers && a.kv_heads < a.heads && !eager::repeats_keys_itself(a, r)) return Attention::math;
  return Attention::efficient;
}

// transformers 5.17, integrations/moe.py (_can_use_grouped_mm): torch has the product from 2.8 on, until 2.9 for Hopper alone, where it is one kernel.
Tape::Grouping grouping_of(const Training& r, const Target& target) {
  const bool hopper = target.compute_major == 9;
  const bool of_torch = version_from(r.torch, 2, 9) ? target.compute_major >= 8 : version_from(r.torch, 2, 8) && hopper;
  return {hopper && of_torch ? target.multiprocessors : 0, !of_torch};
}

bool is_embedding(std::string_view role) { return role == "wte" || role == "wpe" || role == "token_types"; }

std::vector<eager::Trained> trained_weights(const std::vector<Transformer::Weight>& weights, Framework framework) {
  std::vector<eager::Trained> out;
  const bool as_it_comes = framework == Framework::torchtune;  // bitsandbytes, which transformers tells to keep embeddings' states in 32 bits
  for (const Transformer::Weight& w : weights) {
    if (w.trains) out.push_back({w.tensor, w.role, w.layer, is_embedding(w.role) && !as_it_comes});
  }
  return out;
}

constexpr std::size_t kEventsOfLayer = 1200;  // of three steps, about

class Trainer {
 public:
  Trainer(const Architecture& a, const Training& r, const Target& target, eager::TapeOptions options)
      : a_(a), r_(r), computed_(computed(r)), target_(target), tape_(r.device_batch_size, options) { tape_.expect(static_cast<std::size_t>(a.layers) * kEventsOfLayer); }

  Program run() {
    tape_.segment("load", "weights", 0, Provenance::exact);
    eager::ForwardOptions forward;
    forward.attention = resolve_attention(a_, r_, target_);
    forward.wide_attention = attention_of(a_, r_, target_, false);
    forward.use_cache = r_.use_cache;
    forward.multiprocessors = target_.multiprocessors;
    forward.memory = target_.memory;
    forward.fuses_products = target_.compute_major >= 8;
    tape_.groups(grouping_of(r_, target_));
    forward.eager_attention = r_.attention == AttentionCode::eager;
    const bool prepared_first = is_deepspeed(r_.sharding) || gathers_weights(r_.sharding);  // by DPOTrainer.__init__, while what trains is on the host
    if (r_.has_reference_model() && prepared_first) reference_ = std::make_unique<eager::ReferenceModel>(tape_, a_, r_, forward);
    const eager::ForwardOptions whole = forward;
    lay_out(forward, r_);
    if (r_.framework == Framework::litgpt) litgpt_ = std::make_unique<Litgpt>(tape_, a_, computed_, forward);
    else if (r_.framework == Framework::torchtune) tune_ = std::make_unique<Torchtune>(tape_, a_, computed_, forward);
    else if (r_.framework == Framework::torchtitan) titan_ = std::make_unique<Torchtitan>(tape_, a_, computed_, forward);
    else model_ = std::make_unique<Transformer>(tape_, a_, computed_, forward);
    if (r_.has_reference_model() && !prepared_first) reference_ = std::make_unique<eager::ReferenceModel>(tape_, a_, r_, whole);
    if (r_.rollouts && r_.rollouts->by_vllm && !r_.rollouts->elsewhere && target_.memory > 0) vllm_ = tape_.buffer("vllm", static_cast<std::int64_t>(r_.rollouts->share * static_cast<double>(target_.memory)), Dtype::uint8, Category::workspace);
    if (r_.rollouts) rollouts_ = std::make_unique<eager::RolloutLoop>(tape_, a_, r_, computed_, *model_, reference_.get());
    if (r_.compile && model_) compiled_ = std::make_unique<CompiledTransformer>(tape_, a_, r_, *model_, CompileTarget{target_.multiprocessors, forward.attention});
    if (r_.ema) copy_model();
    std::vector<eager::Trained> trained = trained_weights(weights(), r_.framework);
    if (is_fully_sharded(r_)) {
      sharded_ = std::make_unique<eager::FullyShard>(tape_, tune_ ? tune_->loading_order() : weights(), fully_shard_options(a_, r_));
      if (tune_) tune_->around_units(sharded_->hooks());
      else if (titan_) titan_->around_units(sharded_->hooks());
      else model_->around_units(sharded_->hooks());
      if (model_) model_->forget_whole();  // accelerate holds the state_dict of before until every unit is made
      trained = sharded_->trained();
    }
    if (is_fsdp1(r_.sharding)) {
      if (model_) model_->forget_whole();  // a unit's as it is made
      flat_ = std::make_unique<eager::FlatShard>(tape_, weights(), flat_shard_options(r_));
      if (litgpt_) litgpt_->around_units(flat_->hooks());
      else model_->around_units(flat_->hooks());
      trained = flat_->trained();
    }
    if (r_.sharding == Sharding::ddp) replicated_ = std::make_unique<eager::DataParallel>(tape_, trained, litgpt_ ? litgpt_->buffer_bytes() : model_->buffer_bytes(), r_.ddp_find_unused.value_or(!litgpt_ && r_.recompute == Recompute::none));
    if (r_.sharding == Sharding::zero3) {
      gathered_ = std::make_unique<eager::ZeroGather>(tape_, model_->weights(), computed_);
      model_->around_modules(gathered_->hooks());
    } else if (r_.sharding == Sharding::zero0) {
      whole_ = std::make_unique<eager::WholeStates>(tape_, std::move(trained), computed_);
    } else if (is_zero(r_.sharding)) {
      zero_ = std::make_unique<eager::ZeroPartition>(tape_, std::move(trained), computed_);
    } else if (tune_ && r_.torchtune.optimizer_in_backward) {
      step_in_backward(trained);
    } else {
      optimizer_ = std::make_unique<eager::Optimizer>(tape_, r_.optimizer, std::move(trained), r_.weight_decay);
    }
    for (const bool inside : {false, true}) tape_.on_first_product(inside, [this, inside] { workspaces_[inside ? 1 : 0] = workspace("cublas_workspace", cublas_workspace_bytes(target_, r_.workspaces)); });
    if (r_.framework != Framework::litgpt) {
      for (const bool inside : {false, true}) tape_.on_first_biased_product(inside, [this, inside] { lt_workspaces_[inside ? 1 : 0] = workspace("cublaslt_workspace", cublaslt_workspace_bytes(r_.workspaces)); });
    }
    tape_.causal(a_.causal);
    tape_.sequences(r_.sequences(r_.rows()));
    work_.laid_out.reserve(3);  // lists keep their places
    if (r_.lays_out_evaluation() && r_.evaluation->on_start) lay_out_evaluation(tape_, a_, r_, computed_, *model_);
    step("first_step", false);
    const auto steady = static_cast<std::int32_t>(tape_.events());
    step("train_step", true);
    if (replicated_ || !tape_.repeat(steady)) step("train_step", true);  // DistributedDataParallel lays its buckets out anew in the second
    if (r_.lays_out_evaluation()) lay_out_evaluation(tape_, a_, r_, computed_, *model_);
    Program p = tape_.take();
    p.work = std::move(work_);
    p.work.device_batch = r_.device_batch_size;
    return p;
  }

 private:
  Tensor ids() {
    const std::int64_t rows = r_.packed ? 1 : r_.rows();
    return tape_.empty("batch.ids", eager::dims({rows, r_.rows() * r_.seq_len / rows}, true), Dtype::int64);
  }

  Transformer::Batch load_batch() {
    if (!r_.preference && a_.classifies()) return Transformer::batch_of_classes(tape_, a_, r_.rows(), r_.seq_len);
    if (r_.preference && r_.preference->trainer == Preference::Trainer::reward) return {ids(), ids(), {}, {}};
    Transformer::Batch batch{ids(), ids(), ids(), {}};  // packed: positions in place of the mask
    if (!r_.preference) return batch;
    if (r_.preference->of_others()) batch.others = {ids(), ids(), ids()};
    if (r_.preference->precomputed) batch.computed = {score(), score()};
    if (r_.preference->trainer == Preference::Trainer::kto) batch.liked = tape_.empty("batch.liked", eager::dims({r_.device_batch_size}, true), Dtype::bool8);
    return batch;
  }

  Tensor score() { return tape_.empty("batch.score", eager::dims({r_.device_batch_size}, true), Dtype::fp32); }

  const std::vector<Transformer::Weight>& weights() const { return litgpt_ ? litgpt_->weights() : tune_ ? tune_->weights() : titan_ ? titan_->weights() : model_->weights(); }

  Tensor workspace(const char* role, std::int64_t size) { return size == 0 ? Tensor() : tape_.empty(role, eager::dims({size}, false), Dtype::uint8, Category::workspace); }

  // AveragedModel's deepcopy.
  void copy_model() {
    for (const Transformer::Weight& w : weights()) {
      tape_.at(w.layer);
      average_.push_back(tape_.empty("ema", eager::contiguous(w.tensor.dims()), w.tensor.dtype(), Category::weights));
    }
    tape_.at(-1);
    for (const Tensor& b : model_->buffers()) average_.push_back(tape_.empty("ema", eager::contiguous(b.dims()), b.dtype(), Category::weights));
  }

  // update_parameters: at first a copy in place, then torch._foreach_lerp_, for which the count goes to the GPU.
  void update_average(bool first) {
    double bytes = 0;
    for (const Tensor& t : average_) bytes += static_cast<double>(t.dims().numel() * size_of(t.dtype()));
    if (!first) tape_.empty("ema.count", eager::dims({}, false), Dtype::int64, Category::workspace);
    tape_.tell_traffic("ema", (first ? 2 : 3) * bytes);
  }

  // torchtune's register_optim_in_bwd_hooks: an optimizer for each parameter.
  void step_in_backward(const std::vector<eager::Trained>& trained) {
    for (const eager::Trained& p : trained) {
      eager::Optimizer* own = in_backward_.emplace_back(std::make_unique<eager::Optimizer>(tape_, r_.optimizer, std::vector{p}, r_.weight_decay)).get();
      tape_.on_gradient(p.parameter, [own] {
        own->step();
        own->zero_grad();
      });
    }
  }

  // Of torchtune and torchtitan: their models bring their own batches and losses, and every micro-step reduces.
  template <class Model>
  void own_micro_step(const char* phase, int micro, Model& model) {
    tape_.segment(phase, "data", micro, Provenance::exact);
    tape_.category(Category::workspace);
    model.load_batch();
    tape_.category(Category::activations);
    tape_.segment(phase, "forward", micro);
    if (titan_ && computed_.mixed != MixedPrecision::none) tape_.enter_autocast(Dtype::bf16);
    loss_ = model.loss();
    tape_.leave_autocast();
    tape_.segment(phase, "backward", micro);
    tape_.backward(loss_);
    if (sharded_) sharded_->after_backward();
  }

  // As DistributedDataParallel hands them out.
  eager::FusedOutput outputs_of(eager::FusedOutput out) {
    for (Tensor* each : {&out.loss, &out.log_probs, &out.entropy, &out.mean_logits, &out.top, &out.mask}) {
      if (each->defined()) *each = replicated_->output(*each);
    }
    return out;
  }

  // Of a micro-step of another trainer of pairs or of liked answers; autocast as below.
  Tensor loss_of_pairs(const Transformer::Batch& batch) {
    using Trainer = Preference::Trainer;
    const Preference& p = *r_.preference;
    const auto under_autocast = [this](auto call) {
      if (const auto half = half_of(computed_.mixed)) tape_.enter_autocast(*half);
      auto out = call();
      tape_.leave_autocast();
      return out;
    };
    const auto full = [this](const Tensor& x, const char* role) {
      tape_.category(Category::logits);
      Tensor out = tape_.to(x, Dtype::fp32, role);
      tape_.category(Category::activations);
      return out;
    };
    switch (p.trainer) {
      case Trainer::reward: {
        Tensor said = under_autocast([&] { return model_->rewards(batch); });
        if (computed_.mixed != MixedPrecision::none) said = tape_.to(said, Dtype::fp32, "logits");
        if (replicated_) said = replicated_->output(said);
        return eager::reward_loss(tape_, said);
      }
      case Trainer::factory_rm: {
        const Tensor said = full(under_autocast([&] { return model_->values(batch); }).values, "value_head");
        return eager::last_values_loss(tape_, said);
      }
      case Trainer::factory_dpo: {
        eager::FactoryPairs in{batch, p.loss, [&](const Transformer::Batch& b) {
          Tensor said = under_autocast([&] { return model_->logits(b); });
          if (computed_.mixed != MixedPrecision::none) said = full(said, "logits");  // accelerate's, within DistributedDataParallel
          return full(replicated_ ? replicated_->output(said) : said, "logits");
        }};
        if (p.asks_reference()) {
          in.reference = [&](const Transformer::Batch& b) {
            if (reference_) return full(reference_->logits(b), "logits");
            const Tensor said = under_autocast([&] { return model_->without_graph(true, [&] { return model_->logits(b); }); });
            return full(replicated_ ? replicated_->output(said) : said, "logits");
          };
        }
        return eager::factory_preference_loss(tape_, std::move(in));
      }
      default: break;
    }
    constexpr eager::FusedAsked kAsked{.entropy = true, .mean_logits = true};
    eager::LikedAnswers in{batch, p.of_others(), [&](const Transformer::Batch& b, bool graph) {
      eager::FusedOutput out = under_autocast([&] { return graph ? model_->scores(b, kAsked) : model_->without_graph(false, [&] { return model_->scores(b, kAsked); }); });
      return replicated_ ? outputs_of(std::move(out)) : out;
    }};
    if (reference_) in.reference = [&](const Transformer::Batch& b) { return reference_->scores(b); };
    else if (!p.precomputed) in.reference = [&](const Transformer::Batch& b) { return under_autocast([&] { return model_->scores_as_reference(b, kAsked); }); };
    return eager::liked_answers_loss(tape_, in);
  }

  // Of a micro-step of DPOTrainer. accelerate's prepare_model wraps the forward pass of each model alone in autocast; DistributedDataParallel is not around the pass without adapters.
  Tensor preference_loss(const Transformer::Batch& batch) {
    const auto under_autocast = [this](auto call) {
      return [this, call] {
        if (const auto half = half_of(computed_.mixed)) tape_.enter_autocast(*half);
        eager::FusedOutput out = call();
        tape_.leave_autocast();
        return out;
      };
    };
    constexpr eager::FusedAsked kAll{.entropy = true, .mean_logits = true, .top = true};
    const auto handed_out = [this](eager::FusedOutput out) {
      const auto half = half_of(r_.mixed);
      for (Tensor* each : {&out.loss, &out.log_probs, &out.entropy, &out.mean_logits}) {
        if (half && sharded_) *each = tape_.to(*each, *half, "loss");  // MixedPrecisionPolicy.output_dtype
      }
      return out;
    };
    eager::PreferenceInputs in{batch.ids.dims(), [&] {
      eager::FusedOutput out = handed_out(under_autocast([&] { return model_->scores(batch, kAll); })());
      return replicated_ ? outputs_of(std::move(out)) : out;
    }};
    if (r_.preference->precomputed) in.computed_before = batch.computed;
    else if (reference_) in.reference = [&] { return reference_->scores(batch); };
    else in.reference = [&] {
      if (gathered_) gathered_->before_forward();
      if (flat_) flat_->reads(true);
      eager::FusedOutput out = handed_out(under_autocast([&] { return model_->scores_as_reference(batch, kAll); })());
      if (flat_) flat_->reads(false);
      return out;
    };
    return eager::preference_loss(tape_, in);
  }

  void micro_step(const char* phase, int micro, bool told) {
    if (told && !rollouts_) tape_.tell_work_to(&work_.laid_out.emplace_back());
    if (tune_) return own_micro_step(phase, micro, *tune_);
    if (titan_) return own_micro_step(phase, micro, *titan_);
    if (rollouts_) rollouts_->before(micro);
    else tape_.segment(phase, "data", micro, Provenance::exact);
    tape_.category(Category::workspace);
    Transformer::Batch batch = rollouts_ ? Transformer::Batch{} : load_batch();
    if (r_.holds_batches) held_.at(micro == 1 ? 0 : 1) = batch;
    tape_.category(Category::activations);
    tape_.segment(phase, "forward", micro);
    const bool reduces = micro == micro_steps();
    if (replicated_) replicated_->before_forward(reduces);
    if (sharded_) sharded_->reduces(reduces);
    if (flat_) flat_->reduces(reduces || !r_.flat.no_sync);
    if (zero_) zero_->before_backward(reduces);
    if (gathered_) {
      gathered_->before_backward(reduces);
      gathered_->before_forward();
    }
    if (r_.preference) loss_ = r_.preference->trainer == Preference::Trainer::dpo ? preference_loss(batch) : loss_of_pairs(batch);
    else if (rollouts_) loss_ = rollouts_->loss();
    else take_loss(batch);
    batch = {};
    if (r_.grad_accum_steps > 1 && !rollouts_) loss_ = tape_.scale(loss_, "loss");
    tape_.segment(phase, "backward", micro);
    tape_.backward(loss_);
    if (replicated_) replicated_->after_backward();
    if (sharded_) sharded_->after_backward();
    if (flat_) flat_->after_backward();
    if (zero_) zero_->after_backward();
    if (whole_) whole_->after_backward(reduces);
    if (gathered_) gathered_->after_backward();
    if (graph_stays() && reduces) return;
    if (model_) model_->finish(is_deepspeed(r_.sharding) && reduces);
    if (!r_.holds_outputs) loss_ = tape_.detach(loss_);  // Trainer.training_step
  }

  // The model's own loss.
  void take_loss(const Transformer::Batch& batch) {
    if (const auto half = half_of(computed_.mixed); half && !compiled_) tape_.enter_autocast(*half);
    outputs_ = litgpt_ ? litgpt_->forward(batch) : compiled_ ? compiled_->forward(batch) : model_->forward(batch);  // what the name held until now goes
    tape_.leave_autocast();
    if (r_.converts_outputs && !compiled_ && outputs_.logits.defined()) {
      tape_.category(Category::logits);
      outputs_.logits = tape_.to(outputs_.logits, Dtype::fp32, "logits");
      if (outputs_.end_logits.defined()) outputs_.end_logits = tape_.to(outputs_.end_logits, Dtype::fp32, "logits");
      tape_.category(Category::activations);
    }
    if (replicated_) {
      outputs_.loss = replicated_->output(outputs_.loss);
      if (outputs_.logits.defined()) outputs_.logits = replicated_->output(outputs_.logits);
      if (outputs_.end_logits.defined()) outputs_.end_logits = replicated_->output(outputs_.end_logits);
    }
    loss_ = outputs_.loss;
    if (!r_.holds_outputs) outputs_ = {};
  }

  // accelerate steps DeepSpeed's engine inside backward(), where the loss still has its graph; of reentrant checkpoints it holds what blocks were given.
  bool graph_stays() const { return is_deepspeed(r_.sharding) && r_.recompute == Recompute::full && r_.reentrant; }
  // The first and the last stand for all; where whole gradients stay until the last, those between begin with them and do not reduce.
  int micro_steps() const { return rollouts_ ? rollouts_->micro_steps() : static_cast<int>(std::min<std::int64_t>(r_.grad_accum_steps, sharded_ || (flat_ && r_.flat.no_sync) ? 3 : 2)); }

  // told: the work of this step, which is as those after it
  void step(const char* phase, bool told) {
    work_.laid_out.clear(), work_.before_step.clear();
    for (int micro = 1; micro <= micro_steps(); ++micro) micro_step(phase, micro, told);
    if (told && !rollouts_) tape_.tell_work_to(&work_.before_step);
    tape_.segment(phase, "optimizer");
    optimizer_step();
    if (r_.ema) update_average(std::string_view(phase) == "first_step");
    tape_.tell_work_to(nullptr);
  }

  void clip() {
    if (!r_.offload_parameters) optimizer_->clip();
    else if (flat_) flat_->clip_on_host();
  }

  void optimizer_step() {
    if (zero_) zero_->step();
    if (whole_) whole_->step();
    if (gathered_) gathered_->step();
    if (is_deepspeed(r_.sharding)) model_->finish();
    if (zero_ || gathered_ || whole_) return;
    if (!in_backward_.empty()) return tune_->log();
    if (tune_ && !r_.offload_parameters) tune_->scale_gradients();
    if (r_.max_grad_norm > 0) clip();
    optimizer_->step();
    if (titan_) titan_->end_step();  // gradients go when the next one begins
    optimizer_->zero_grad();
    if (tune_) tune_->log();
  }

  const Architecture& a_;
  const Training& r_;
  Training computed_;                 // what the modules see
  Target target_;
  Tape tape_;                         // outlives every tensor below
  std::unique_ptr<Transformer> model_;  // one of these four
  std::unique_ptr<eager::ReferenceModel> reference_;  // of preferences and rollouts
  std::unique_ptr<eager::RolloutLoop> rollouts_;
  std::unique_ptr<Torchtitan> titan_;
  std::unique_ptr<Litgpt> litgpt_;
  std::unique_ptr<CompiledTransformer> compiled_;  // what runs in place of the model's own code
  std::unique_ptr<Torchtune> tune_;
  std::unique_ptr<eager::DataParallel> replicated_;
  std::unique_ptr<eager::FullyShard> sharded_;
  std::unique_ptr<eager::FlatShard> flat_;
  std::unique_ptr<eager::WholeStates> whole_;    // DeepSpeed without ZeRO
  std::unique_ptr<eager::ZeroPartition> zero_;   // stages 1 and 2
  std::unique_ptr<eager::ZeroGather> gathered_;  // stage 3
  std::unique_ptr<eager::Optimizer> optimizer_;
  std::vector<std::unique_ptr<eager::Optimizer>> in_backward_;
  std::vector<Tensor> average_;       // EMA
  Tensor workspaces_[2], lt_workspaces_[2], loss_, vllm_;
  std::array<Transformer::Batch, 2> held_;  // of the first micro-step and the last
  Transformer::Outputs outputs_;
  StepWork work_;
};

}  // namespace

Attention resolve_attention(const Architecture& a, const Training& r, const Target& target) {
  return attention_of(a, r, target, r.mixed != MixedPrecision::none || r.weights != Dtype::fp32);
}

Result<Program> build_program(const Architecture& a, const Training& r, const Target& target, eager::TapeOptions options) {
  if (options.add_in_place) {
    options.gpu = {target.multiprocessors, threads_of_multiprocessor(target.compute_major, target.compute_minor)};
    if (r.cold_caches) options.l2_cache = target.l2_cache;
    options.capability = target.capability();
    options.host_seeds = makes_seeds_on_host(target, r.torch);
  }
  if (r.framework == Framework::megatron) return build_megatron_program(a, r, target, options);
  if (auto ok = is_laid_out(a, r, target); !ok) return std::unexpected(ok.error());
  return Trainer(a, r, target, options).run();
}

TrainingLayout layout_of(const Architecture& a, std::int64_t device_batch, std::int64_t seq_len, std::int64_t grad_accum_steps, std::int64_t attention_splits) {
  const std::int64_t ids = device_batch * seq_len;
  return {std::min<std::int64_t>(grad_accum_steps, 3), device_batch == 1, ids > kRowsOfOneBlock, ids <= kUnsortedIds ? TrainingLayout::Ids::unsorted : ids <= a.vocab ? TrainingLayout::Ids::fewer_than_rows : TrainingLayout::Ids::more_than_rows, attention_splits};
}

std::int64_t attention_splits(const Architecture& a, const Training& r, const Target& target, std::int64_t device_batch, std::int64_t seq_len) {
  const bool half = r.mixed != MixedPrecision::none || r.weights != Dtype::fp32;
  const bool masks = r.padded || std::ranges::any_of(a.windows, [&](std::int64_t window) { return window > 0 && window <= seq_len; });
  if (!half || !(masks || attention_of(a, r, target, half) == Attention::efficient)) return 1;
  const std::int64_t value_dim = a.latent ? a.latent->value_head_dim : a.head_dim;
  return efficient_backward({device_batch, a.heads, seq_len, seq_len, a.head_dim, value_dim, Dtype::bf16, a.attention_dropout > 0}, target.capability()).splits;
}

// Sums over the tensors that loading and the first optimizer step make; no activations are laid out.
StaticBytes static_bytes(const Architecture& a, const Training& r) {
  if (r.framework == Framework::megatron) return megatron_static_bytes(a, r);
  Tape tape(1);
  const Training computes = computed(r);
  eager::ForwardOptions forward;
  lay_out(forward, r);
  std::optional<Transformer> transformer;
  std::optional<Litgpt> litgpt;
  std::optional<Torchtune> tune;
  std::optional<Torchtitan> titan;
  if (r.framework == Framework::litgpt) litgpt.emplace(tape, a, computes, forward);
  else if (r.framework == Framework::torchtune) tune.emplace(tape, a, computes, forward);
  else if (r.framework == Framework::torchtitan) titan.emplace(tape, a, computes, forward);
  else transformer.emplace(tape, a, computes, forward);
  const auto& weights = litgpt ? litgpt->weights() : tune ? tune->weights() : titan ? titan->weights() : transformer->weights();
  StaticBytes out;
  const auto bytes_of = [](const eager::Tensor& t) { return Bytes(t.dims().numel() * size_of(t.dtype())); };
  std::vector<eager::Trained> trained = trained_weights(weights, r.framework);
  std::unique_ptr<eager::FullyShard> sharded;
  if (is_fully_sharded(r)) {
    sharded = std::make_unique<eager::FullyShard>(tape, tune ? tune->loading_order() : weights, fully_shard_options(a, r));
    trained = sharded->trained();
    out.weights += Bytes(sharded->weight_bytes());
  } else {
    for (const Transformer::Weight& w : weights) {
      if (!forward.gathered && !(forward.flat && w.trains)) out.weights += bytes_of(w.tensor);
      if (r.ema) out.weights += bytes_of(w.tensor);
    }
  }
  if (r.has_reference_model()) out.weights += Bytes(eager::ReferenceModel(tape, a, r, {}).weight_bytes());
  for (const eager::Trained& p : trained) out.gradients += bytes_of(p.parameter);
  out.weights += Bytes(litgpt ? litgpt->frozen_bytes() : tune ? tune->frozen_bytes() : titan ? 0 : transformer->frozen_bytes());
  const auto account = [&](auto zero) {
    zero.step();
    out.weights += Bytes(zero.weight_bytes());
    out.gradients = Bytes(zero.gradient_bytes());
    out.optimizer = Bytes(zero.state_bytes());
    return out;
  };
  if (r.sharding == Sharding::zero3) return account(eager::ZeroGather(tape, weights, computes));
  if (r.sharding == Sharding::zero0) {
    eager::WholeStates whole(tape, std::move(trained), computes);
    whole.step();
    out.gradients = Bytes(whole.gradient_bytes()), out.optimizer = Bytes(whole.state_bytes());
    return out;
  }
  if (is_zero(r.sharding)) return account(eager::ZeroPartition(tape, std::move(trained), computes));
  std::optional<eager::FlatShard> flat;
  if (is_fsdp1(r.sharding)) {
    flat.emplace(tape, weights, flat_shard_options(r));
    trained = flat->trained();
    out.weights += Bytes(flat->weight_bytes());
    out.gradients = Bytes(flat->gradient_bytes());
  }
  eager::Optimizer optimizer(tape, r.optimizer, std::move(trained));
  optimizer.step();
  out.optimizer = Bytes(optimizer.state_bytes());
  return out;
}

}  // namespace dryfit
