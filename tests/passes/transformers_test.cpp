// The eager engine against recordings of PyTorch running Hugging Face's models (tests/golden/oracle/transformers*.jsonl): bytes in order,
// saved tensors, peaks and ends of every part of two optimizer steps. docs/oracle.md
#include <gtest/gtest.h>

#include <sstream>

#include "passes/data_parallel.hpp"
#include "passes/flat_shard.hpp"
#include "eager_recordings.hpp"
#include "liveness.hpp"
#include "workload/class_heads.hpp"
#include "workload/probe_presets.hpp"
#include "workload/transformers.hpp"

namespace dryfit {
namespace {

using namespace eager_recordings;

// "reduce_bucket_size=300000,overlap_comm": fields of zero_optimization.
void set_zero(Training& t, const json& j) {
  t.zero.rank = j["rank"];
  std::istringstream words(j["zero"].get<std::string>());
  for (std::string word; std::getline(words, word, ',');) {
    const std::size_t equals = word.find('=');
    const std::string key = word.substr(0, equals), value = equals == std::string::npos ? "true" : word.substr(equals + 1);
    const bool yes = value == "true";
    const auto number = [&] { return static_cast<std::int64_t>(std::stoll(value)); };
    if (key == "reduce_bucket_size") t.zero.reduce_bucket_size = number();
    else if (key == "overlap_comm") t.zero.overlap_comm = yes;
    else if (key == "contiguous_gradients") t.zero.contiguous_gradients = yes;
    else if (key == "reduce_scatter") t.zero.reduce_scatter = yes;
    else if (key == "round_robin_gradients") t.zero.round_robin_gradients = yes;
    else if (key == "sub_group_size") t.zero.sub_group_size = number();
    else if (key == "stage3_prefetch_bucket_size") t.zero.prefetch_bucket_size = number();
    else if (key == "stage3_param_persistence_threshold") t.zero.param_persistence_threshold = number();
    else if (key == "stage3_max_live_parameters") t.zero.max_live_parameters = number();
    else if (key == "stage3_max_reuse_distance") t.zero.max_reuse_distance = number();
    else if (key == "auto") {  // by the model's width; the reference's engine has DeepSpeed's defaults
      const std::int64_t width = j["config"]["hidden_size"];
      t.preference->zero = t.zero;
      t.zero.reduce_bucket_size = width * width, t.zero.prefetch_bucket_size = width * width * 9 / 10, t.zero.param_persistence_threshold = 10 * width;
    } else if (key == "offload_optimizer") t.offload_optimizer = yes;
    else if (key == "offload_param") t.offload_parameters = yes;
    else throw std::runtime_error("a field of zero_optimization the test does not know: " + key);
  }
}

// "prefetch=none,orig=false": tools/oracle/fsdp_session.py.
void set_flat(Training& t, const json& j) {
  t.flat.rank = j["rank"];
  std::istringstream words(j["fsdp"].get<std::string>());
  for (std::string word; std::getline(words, word, ',');) {
    if (word == "prefetch=none") t.flat.backward_prefetch = FlatShardConfig::Prefetch::none;
    else if (word == "prefetch=post") t.flat.backward_prefetch = FlatShardConfig::Prefetch::post;
    else if (word == "orig=false") t.flat.original_parameters = false;
    else if (word == "no_sync=false") t.flat.no_sync = false;
    else if (word == "offload") t.offload_parameters = t.offload_optimizer = true;
    else if (word == "forward_prefetch") t.flat.forward_prefetch = true;
    else if (word == "reduce=fp32") t.flat.reduced = Dtype::fp32;
    else if (word == "wrap=none") t.wrap_blocks = false;
    else if (word == "wrap=peft") t.flat.adapters_apart = true;
    else if (word == "checkpoint=outside") t.recompute = Recompute::full, t.reentrant = false;
    else throw std::runtime_error("an argument of FSDP1 the test does not know: " + word);
  }
}

// "dora", "bias", "save=lm_head+embed_tokens", "prompt": tools/oracle/transformers_cases.py.
void set_adapter(Lora& lora, const std::string& adapter) {
  if (adapter == "dora") lora.dora = true;
  else if (adapter == "bf16") lora.dtype = Dtype::bf16;
  else if (adapter == "bias") lora.biases = Lora::Biases::lora_only;
  else if (adapter == "prompt") lora.virtual_tokens = std::exchange(lora.rank, 0);
  else if (adapter.starts_with("save=")) {
    std::istringstream modules(adapter.substr(5));
    for (std::string one; std::getline(modules, one, '+');) lora.saved_modules.push_back(one);
  } else if (!adapter.empty() && adapter != "kbit") throw std::runtime_error("an adapter the test does not know: " + adapter);
}

// All of Liger-Kernel's parts and its loss, or the parts that are named.
void set_liger(Training& t, const json& j) {
  if (!j.contains("liger")) return;
  const json& said = j["liger"];
  const auto has = [&](const char* part) { return said.is_boolean() ? said.get<bool>() : said.get<std::string>().find(part) != std::string::npos; };
  t.liger = {has("rope"), has("rms_norm"), has("swiglu"), said.is_string()};
  t.liger.heads_of_qwen3 = false;  // recorded with 0.8.4
  if (has("fused_linear_cross_entropy")) t.head = HeadLoss::liger;
}

// "batch=8,keeps=argmax,accumulation=2": tools/oracle/transformers_cases.py.
void set_evaluation(Training& t, const std::string& said) {
  EvaluationRun& e = t.evaluation.emplace();
  e.batches = 3;
  std::istringstream words(said);
  for (std::string word; std::getline(words, word, ',');) {
    const std::string key = word.substr(0, word.find('=')), value = word.substr(word.find('=') + 1);
    if (key == "batch") e.batch_size = std::stoll(value);
    else if (key == "accumulation") e.accumulation = std::stoll(value);
    else if (key == "keeps") e.keeps = value == "logits" ? EvaluationRun::Keeps::logits : value == "argmax" ? EvaluationRun::Keeps::choices : EvaluationRun::Keeps::loss;
    else throw std::runtime_error("an evaluation the test does not know: " + word);
  }
}

// "new=8,generations=2,beta=0.04": tools/oracle/transformers_cases.py (rollouts_of).
void set_rollouts(Training& t, const std::string& said) {
  t.head = HeadLoss::trl;
  t.filled = false;
  Rollouts& g = t.rollouts.emplace();
  g.completion = 8, g.generations = 2, g.steps = t.grad_accum_steps, g.alike = true;
  std::istringstream words(said);
  for (std::string word; std::getline(words, word, ',');) {
    const std::string key = word.substr(0, word.find('=')), value = word.substr(word.find('=') + 1);
    const auto number = [&] { return static_cast<std::int64_t>(std::stoll(value)); };
    if (key == "new") g.completion = number();
    else if (key == "generations") g.generations = number();
    else if (key == "steps") g.steps = number();
    else if (key == "iterations") g.iterations = number();
    else if (key == "beta") g.reference = value != "0";
    else if (key == "prompts") g.alike = value == "alike";
    else if (key == "temperature") g.scales_logits = value != "1";
    else if (key == "top_p") g.cuts_sum = true;
    else if (key == "top_k") g.cuts_most = true;
    else if (key == "min_p") g.cuts_least = true;
    else if (key == "penalty") g.penalizes = true;
    else if (key == "vllm") g.by_vllm = g.elsewhere = value == "1";
    else if (key != "loss") throw std::runtime_error("a word of rollouts the test does not know: " + word);
  }
}

// "reward", "kto_precomputed", "factory_orpo": tools/oracle/pairs.py. LLaMA-Factory loads its reference in the dtype that the model computes in.
void set_pairs(Training& t, const std::string& pairs) {
  using P = Preference;
  P& p = t.preference.emplace();
  p.trainer = pairs == "reward" ? P::Trainer::reward : pairs.starts_with("kto") ? P::Trainer::kto : pairs == "factory_rm" ? P::Trainer::factory_rm : P::Trainer::factory_dpo;
  p.loss = pairs == "factory_orpo" ? P::Loss::orpo : pairs == "factory_simpo" ? P::Loss::simpo : pairs == "kto_apo" ? P::Loss::unpaired : P::Loss::compared;
  p.precomputed = pairs == "kto_precomputed";
  if (p.in_tiles()) t.head = HeadLoss::trl;
  if (p.of_factory()) p.reference = t.mixed != MixedPrecision::none || t.weights == Dtype::bf16 ? Dtype::bf16 : Dtype::fp32;
  t.dropout = p.trainer == P::Trainer::factory_rm;
}

Training training_of(const json& j) {
  Training t;
  t.torch = j["torch"];
  t.device_batch_size = j["batch"];
  t.seq_len = j["length"];
  t.grad_accum_steps = j["accumulation"];
  const std::string precision = j["precision"];
  t.weights = precision.starts_with("bf16") ? Dtype::bf16 : Dtype::fp32;
  t.mixed = precision.ends_with("autocast") ? MixedPrecision::bf16 : precision == "fp16" ? MixedPrecision::fp16 : MixedPrecision::none;
  t.attention = *attention_code_of(j["attention"].get<std::string>(), "attention");
  t.packed = j.value("packed", false);
  t.padded = t.filled = j.value("padded", false);  // recorded are masks with zeros, of a single row too
  t.ema = j.value("ema", false);
  t.transformers = j.value("transformers", "4.57.1");
  if (j.value("by_transformers", false)) t.torch = "2.7.1";  // which has no grouped product of its own
  t.converts_outputs = j.value("trainer", false);
  t.max_grad_norm = j.value("clip", 1.0);
  t.use_cache = j["use_cache"];
  set_liger(t, j);
  t.compile = j.value("compiled", false);
  if (j.value("trl", false)) t.head = HeadLoss::trl;
  if (j.contains("dpo")) t.head = HeadLoss::trl, t.dropout = false, t.preference = Preference{j["dpo"] == "precomputed"};
  if (j.contains("pairs")) set_pairs(t, j["pairs"]);
  if (j.contains("grpo")) set_rollouts(t, j["grpo"]);
  if (j.value("cut", false)) t.head = HeadLoss::cut;
  t.recompute = j["checkpoint"] == "none" ? Recompute::none : Recompute::full;
  t.reentrant = j["checkpoint"] != "nonreentrant";
  static const std::map<std::string, OptimizerKind> kinds = {{"foreach", OptimizerKind::adamw}, {"fused", OptimizerKind::adamw_fused}, {"loop", OptimizerKind::adamw_loop},
                                                             {"sgd", OptimizerKind::sgd_momentum}, {"plain_sgd", OptimizerKind::sgd}, {"adafactor", OptimizerKind::adafactor}, {"muon", OptimizerKind::muon}};
  const std::string optimizer = j["optimizer"], bare = optimizer.substr(0, optimizer.find('+'));
  t.optimizer = kinds.contains(bare) ? kinds.at(bare) : *optimizer_of(bare.starts_with("bnb_") ? bare.substr(4) : bare, "");
  t.weight_decay = bare == optimizer ? 0 : 0.01;
  const std::string parallel = j.value("parallel", "none");
  t.world_size = j.value("gpus", 1);
  t.sharding = parallel.starts_with("fsdp1") ? (parallel == "fsdp1" ? Sharding::fsdp1 : Sharding::fsdp1_grad_op) : parallel.starts_with("ddp") ? Sharding::ddp : parallel.starts_with("fsdp2") ? Sharding::fsdp2 : parallel.starts_with("zero") ? *sharding_of(parallel, "") : Sharding::none;
  if (parallel.starts_with("zero")) set_zero(t, j);
  if (parallel.starts_with("fsdp1")) set_flat(t, j);
  t.reshard_after_forward = parallel != "fsdp2_keep";
  if (parallel == "fsdp2_offload") t.offload_parameters = t.offload_optimizer = true;
  t.ddp_find_unused = parallel == "ddp";
  if (j.contains("evaluation")) set_evaluation(t, j["evaluation"]);
  if (j["lora"] > 0) {
    t.lora.emplace();
    t.lora->rank = j["lora"];
    t.lora->dropout = j.value("lora_dropout", 0.05);
    std::istringstream targets(j["lora_targets"].get<std::string>());
    for (std::string one; std::getline(targets, one, ',');) t.lora->targets.push_back(one);
    set_adapter(*t.lora, j.value("adapter", ""));
    if (j.value("pairs", "") == "reward" && t.lora->saved_modules.empty()) t.lora->saved_modules = {"score"};  // by peft's task of classes
    if (j.value("kernels", false)) t.adapter_kernels = {true, true, true};
    t.quantized = t.double_quantized = j.value("quantized", false);
    if (t.quantized) t.lora->upcast_rest = j.value("adapter", "") == "kbit";
  }
  return t;
}

Program recorded(const json& j) { return program_of(j, training_of(j)); }

TEST(Transformers, stepsAreAsPyTorchRecordsThem) { expect_all_agree("transformers.jsonl", recorded, 40, "recordings"); }

TEST(Transformers, aStepThatIsCopiedIsAsOneThatRuns) {
  int copied = 0;
  for (const char* file : {"transformers.jsonl", "transformers_trl.jsonl", "transformers_dpo.jsonl", "transformers_dpo_parallel.jsonl", "transformers_grpo.jsonl", "transformers_reward.jsonl", "transformers_reward_parallel.jsonl", "transformers_kto.jsonl", "transformers_factory.jsonl", "transformers_heads.jsonl", "transformers_axolotl.jsonl", "transformers_shared_adapters.jsonl", "transformers_four_bit.jsonl", "transformers_compiled.jsonl", "transformers_torch_2_11.jsonl", "transformers_parallel.jsonl", "transformers_zero.jsonl", "transformers_fsdp1.jsonl", "transformers_drawn.jsonl", "transformers_5_experts.jsonl", "transformers_5_experts_parallel.jsonl", "transformers_evaluation.jsonl"}) {
    copied += expect_copies_as_run(file, training_of);
  }
  EXPECT_GT(copied, 250);
}

// Trainer's evaluation loop and SFTTrainer's after the steps.
TEST(Transformers, evaluationsAreAsPyTorchRecordsThem) { expect_all_agree("transformers_evaluation.jsonl", recorded, 20, "recordings of evaluations"); }

TEST(Transformers, unseenEvaluationsAreAsNear) { expect_all_agree("transformers_evaluation_unseen.jsonl", recorded, 10, "unseen recordings of evaluations"); }

TEST(Transformers, evaluationsOfTransformers5AreAsPyTorchRecordsThem) { expect_all_agree("transformers_5_evaluation.jsonl", recorded, 3, "recordings of evaluations of transformers 5"); }

TEST(Transformers, unseenEvaluationsOfTransformers5AreAsNear) { expect_all_agree("transformers_5_evaluation_unseen.jsonl", recorded, 2, "unseen recordings of evaluations of transformers 5"); }

// Recordings that nobody looks at while fixing the engine.
TEST(Transformers, unseenStepsAreAsNear) { expect_all_agree("transformers_unseen.jsonl", recorded, 6, "unseen recordings"); }

// transformers 5: no causal masks among GPT-2's buffers, the frequencies twice; what Trainer's forward pass hands out under autocast.
TEST(Transformers, stepsOfTransformers5AreAsPyTorchRecordsThem) { expect_all_agree("transformers_5.jsonl", recorded, 40, "recordings of transformers 5"); }

// transformers 5's mixtures: tokens sorted by expert, and products of groups of rows.
TEST(Transformers, mixturesOfTransformers5AreAsPyTorchRecordsThem) { expect_all_agree("transformers_5_experts.jsonl", recorded, 27, "recordings of transformers 5's mixtures"); }

TEST(Transformers, unseenMixturesOfTransformers5AreAsNear) { expect_all_agree("transformers_5_experts_unseen.jsonl", recorded, 13, "unseen recordings of transformers 5's mixtures"); }

// The same of a rank of several, and beside weights in 4 bits.
TEST(Transformers, mixturesOfTransformers5OnSeveralGpusAreAsPyTorchRecordsThem) { expect_all_agree("transformers_5_experts_parallel.jsonl", recorded, 18, "recordings of transformers 5's mixtures on several GPUs or in 4 bits"); }

TEST(Transformers, unseenMixturesOfTransformers5OnSeveralGpusAreAsNear) { expect_all_agree("transformers_5_experts_parallel_unseen.jsonl", recorded, 13, "unseen recordings of transformers 5's mixtures on several GPUs or in 4 bits"); }

TEST(Transformers, unseenStepsOfTransformers5AreAsNear) { expect_all_agree("transformers_5_unseen.jsonl", recorded, 10, "unseen recordings of transformers 5"); }
// Runs drawn blindly (tools/oracle/record.sh --transformers --draw), beside the engine: what is equal, what differs and how much, what is refused. With DRYFIT_RECORDING=TEXT those
// whose names contain it, tensor by tensor.
TEST(Transformers, drawnRecordings) {
  const char* file = std::getenv("DRYFIT_DRAWN");
  if (file == nullptr) GTEST_SKIP() << "DRYFIT_DRAWN names a file of recordings";
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const json j = json::parse(line);
    const std::string name = j["name"];
    const char* only = std::getenv("DRYFIT_RECORDING");
    if (only != nullptr && name.find(only) == std::string::npos) continue;
    try {
      if (only != nullptr) show(j, recorded(j));
      const Drawn d = look_at(j, recorded(j));
      std::printf("%s %s: worst peak of a part %.4f %%, of all %.4f %%, %lld events\n%s", d.verdict(), name.c_str(), 100 * d.part, 100 * d.step, static_cast<long long>(d.events), d.text.c_str());
    } catch (const std::exception& refused) {
      std::printf("refused %s\n", refused.what());
    }
  }
}

// Those of them that are kept: what was repaired, and others that nobody looks at.
TEST(Transformers, drawnStepsAreAsPyTorchRecordsThem) { expect_all_agree("transformers_drawn.jsonl", recorded, 18, "drawn recordings"); }

TEST(Transformers, unseenDrawnStepsAreAsNear) { expect_all_agree("transformers_drawn_unseen.jsonl", recorded, 19, "unseen drawn recordings"); }

// A mask that has zeros.
TEST(Transformers, paddedStepsAreAsPyTorchRecordsThem) { expect_all_agree("transformers_padded.jsonl", recorded, 12, "recordings of padded rows"); }

TEST(Transformers, unseenPaddedStepsAreAsNear) { expect_all_agree("transformers_padded_unseen.jsonl", recorded, 9, "unseen recordings of padded rows"); }

TEST(Transformers, paddedStepsOfTransformers5AreAsPyTorchRecordsThem) { expect_all_agree("transformers_5_padded.jsonl", recorded, 4, "recordings of padded rows under transformers 5"); }

TEST(Transformers, unseenPaddedStepsOfTransformers5AreAsNear) { expect_all_agree("transformers_5_padded_unseen.jsonl", recorded, 3, "unseen recordings of padded rows under transformers 5"); }

// Heads of classes in place of one of words.
TEST(Transformers, headsOfClassesAreAsPyTorchRecordsThem) { expect_all_agree("transformers_heads.jsonl", recorded, 31, "recordings of heads of classes"); }

TEST(Transformers, unseenHeadsOfClassesAreAsNear) { expect_all_agree("transformers_heads_unseen.jsonl", recorded, 15, "unseen recordings of heads of classes"); }

TEST(Transformers, headsOfClassesOfTransformers5AreAsPyTorchRecordsThem) { expect_all_agree("transformers_5_heads.jsonl", recorded, 6, "recordings of heads of classes of transformers 5"); }

TEST(Transformers, unseenHeadsOfClassesOfTransformers5AreAsNear) { expect_all_agree("transformers_5_heads_unseen.jsonl", recorded, 5, "unseen recordings of heads of classes of transformers 5"); }

// TRL's head in tiles.
TEST(Transformers, stepsOfTrlAreAsPyTorchRecordsThem) { expect_all_agree("transformers_trl.jsonl", recorded, 6, "recordings of TRL"); }

TEST(Transformers, unseenStepsOfTrlAreAsNear) { expect_all_agree("transformers_trl_unseen.jsonl", recorded, 3, "unseen recordings of TRL"); }

// Reward models, KTO, and LLaMA-Factory's trainers of both.
TEST(Transformers, stepsOfRewardModelsAreAsPyTorchRecordsThem) { expect_all_agree("transformers_reward.jsonl", recorded, 5, "recordings of reward models"); }

TEST(Transformers, unseenStepsOfRewardModelsAreAsNear) { expect_all_agree("transformers_reward_unseen.jsonl", recorded, 5, "unseen recordings of reward models"); }

TEST(Transformers, stepsOfRewardModelsOnSeveralGpusAreAsPyTorchRecordsThem) { expect_all_agree("transformers_reward_parallel.jsonl", recorded, 5, "recordings of reward models on several GPUs"); }

TEST(Transformers, unseenStepsOfRewardModelsOnSeveralGpusAreAsNear) { expect_all_agree("transformers_reward_parallel_unseen.jsonl", recorded, 4, "unseen recordings of reward models on several GPUs"); }

TEST(Transformers, stepsOfKtoAreAsPyTorchRecordsThem) { expect_all_agree("transformers_kto.jsonl", recorded, 6, "recordings of KTO"); }

TEST(Transformers, unseenStepsOfKtoAreAsNear) { expect_all_agree("transformers_kto_unseen.jsonl", recorded, 6, "unseen recordings of KTO"); }

TEST(Transformers, stepsOfKtoOnSeveralGpusAreAsPyTorchRecordsThem) { expect_all_agree("transformers_kto_parallel.jsonl", recorded, 2, "recordings of KTO on several GPUs"); }

TEST(Transformers, unseenStepsOfKtoOnSeveralGpusAreAsNear) { expect_all_agree("transformers_kto_parallel_unseen.jsonl", recorded, 2, "unseen recordings of KTO on several GPUs"); }

TEST(Transformers, stepsOfLlamaFactorysPairsOnSeveralGpusAreAsPyTorchRecordsThem) { expect_all_agree("transformers_factory_parallel.jsonl", recorded, 4, "recordings of LLaMA-Factory's pairs on several GPUs"); }

TEST(Transformers, unseenStepsOfLlamaFactorysPairsOnSeveralGpusAreAsNear) { expect_all_agree("transformers_factory_parallel_unseen.jsonl", recorded, 3, "unseen recordings of LLaMA-Factory's pairs on several GPUs"); }

TEST(Transformers, stepsOfLlamaFactorysPairsAreAsPyTorchRecordsThem) { expect_all_agree("transformers_factory.jsonl", recorded, 10, "recordings of LLaMA-Factory's pairs"); }

TEST(Transformers, unseenStepsOfLlamaFactorysPairsAreAsNear) { expect_all_agree("transformers_factory_unseen.jsonl", recorded, 9, "unseen recordings of LLaMA-Factory's pairs"); }

TEST(Transformers, otherUnseenStepsOfRewardsAndKtoAreAsNear) { expect_all_agree("transformers_pairs_unseen.jsonl", recorded, 4, "other unseen recordings of reward models and KTO"); }

TEST(Transformers, unseenStepsOfRewardsAndKtoInTransformers5AreAsNear) { expect_all_agree("transformers_5_pairs_unseen.jsonl", recorded, 5, "unseen recordings of reward models and KTO in transformers 5"); }

// TRL's preference training.
TEST(Transformers, stepsOfDpoAreAsPyTorchRecordsThem) { expect_all_agree("transformers_dpo.jsonl", recorded, 9, "recordings of DPO"); }

TEST(Transformers, unseenStepsOfDpoAreAsNear) { expect_all_agree("transformers_dpo_unseen.jsonl", recorded, 7, "unseen recordings of DPO"); }

// TRL's training on completions that the model writes.
TEST(Transformers, rolloutsAreAsPyTorchRecordsThem) { expect_all_agree("transformers_grpo.jsonl", recorded, 10, "recordings of GRPO"); }

TEST(Transformers, unseenRolloutsAreAsNear) { expect_all_agree("transformers_grpo_unseen.jsonl", recorded, 9, "unseen recordings of GRPO"); }

TEST(Transformers, rolloutsOfTransformers5AreAsPyTorchRecordsThem) { expect_all_agree("transformers_5_grpo.jsonl", recorded, 4, "recordings of GRPO in transformers 5"); }

TEST(Transformers, unseenRolloutsOfTransformers5AreAsNear) { expect_all_agree("transformers_5_grpo_unseen.jsonl", recorded, 6, "unseen recordings of GRPO in transformers 5"); }

// The same on several GPUs, where what holds the reference is TRL's choice.
TEST(Transformers, stepsOfDpoOnSeveralGpusAreAsPyTorchRecordsThem) { expect_all_agree("transformers_dpo_parallel.jsonl", recorded, 29, "recordings of DPO on several GPUs"); }

TEST(Transformers, unseenStepsOfDpoOnSeveralGpusAreAsNear) { expect_all_agree("transformers_dpo_parallel_unseen.jsonl", recorded, 25, "unseen recordings of DPO on several GPUs"); }

TEST(Transformers, unseenStepsOfDpoInTransformers5AreAsNear) { expect_all_agree("transformers_5_dpo_unseen.jsonl", recorded, 5, "unseen recordings of DPO in transformers 5"); }

// FlashAttention 2 and 3, packed rows, cut_cross_entropy, Liger-Kernel's parts and axolotl's LoRA kernels.
TEST(Transformers, stepsOfAxolotlAreAsPyTorchRecordsThem) { expect_all_agree("transformers_axolotl.jsonl", recorded, 18, "recordings of axolotl"); }

TEST(Transformers, unseenStepsOfAxolotlAreAsNear) { expect_all_agree("transformers_axolotl_unseen.jsonl", recorded, 8, "unseen recordings of axolotl"); }

// Adapters under FSDP as Trainer has them, beside 4-bit weights too; under ZeRO-3 with checkpoints.
TEST(Transformers, sharedAdaptersAreAsPyTorchRecordsThem) { expect_all_agree("transformers_shared_adapters.jsonl", recorded, 18, "recordings of adapters that are shared out"); }

TEST(Transformers, unseenSharedAdaptersAreAsNear) { expect_all_agree("transformers_shared_adapters_unseen.jsonl", recorded, 9, "unseen recordings of adapters that are shared out"); }

// bitsandbytes' 4-bit weights under peft's layers.
TEST(Transformers, stepsOfFourBitsAreAsPyTorchRecordsThem) { expect_all_agree("transformers_four_bit.jsonl", recorded, 3, "recordings of 4-bit weights"); }

TEST(Transformers, unseenStepsOfFourBitsAreAsNear) { expect_all_agree("transformers_four_bit_unseen.jsonl", recorded, 2, "unseen recordings of 4-bit weights"); }

// The model's forward as one graph, compiled, or as the functions that Dynamo makes of it.
TEST(Transformers, compiledStepsAreAsPyTorchRecordsThem) { expect_all_agree("transformers_compiled.jsonl", recorded, 55, "compiled recordings"); }

TEST(Transformers, unseenCompiledStepsAreAsNear) { expect_all_agree("transformers_compiled_unseen.jsonl", recorded, 28, "unseen compiled recordings"); }

// By the rules of torch 2.10 and newer; vocabularies and lengths are odd too.
TEST(Transformers, compiledStepsOfTorch211AreAsPyTorchRecordsThem) { expect_all_agree("transformers_torch_2_11.jsonl", recorded, 44, "compiled recordings of torch 2.11"); }

TEST(Transformers, unseenCompiledStepsOfTorch211AreAsNear) { expect_all_agree("transformers_torch_2_11_unseen.jsonl", recorded, 19, "unseen compiled recordings of torch 2.11"); }

// Ranks of several: torch's DistributedDataParallel and fully_shard; TRL's head under those and ZeRO-3.
TEST(Transformers, ranksOfSeveralAreAsPyTorchRecordsThem) { expect_all_agree("transformers_parallel.jsonl", recorded, 26, "recordings of ranks"); }

TEST(Transformers, unseenRanksOfSeveralAreAsNear) { expect_all_agree("transformers_parallel_unseen.jsonl", recorded, 7, "unseen recordings of ranks"); }

// Ranks of several under DeepSpeed's engine.
TEST(Transformers, ranksUnderZeroAreAsDeepSpeedRecordsThem) { expect_all_agree("transformers_zero.jsonl", recorded, 37, "recordings under ZeRO"); }

TEST(Transformers, unseenRanksUnderZeroAreAsNear) { expect_all_agree("transformers_zero_unseen.jsonl", recorded, 6, "unseen recordings under ZeRO"); }

// Ranks of several under FullyShardedDataParallel.
TEST(Transformers, ranksUnderFsdp1AreAsPyTorchRecordsThem) { expect_all_agree("transformers_fsdp1.jsonl", recorded, 23, "recordings under FSDP1"); }

TEST(Transformers, unseenRanksUnderFsdp1AreAsNear) { expect_all_agree("transformers_fsdp1_unseen.jsonl", recorded, 6, "unseen recordings under FSDP1"); }

// Parameters on multiples of 16 bytes and all of them of W, or one after the other with what lacks in the last rank's shard.
TEST(Transformers, flatParametersArePadded) {
  const std::int64_t counts[] = {3, 16, 5};
  const eager::FlatLayout aligned = eager::flat_layout(counts, 7, Dtype::bf16, true);
  EXPECT_EQ(aligned.first, (std::vector<std::int64_t>{0, 8, 24}));
  EXPECT_EQ(aligned.lengths, (std::vector<std::int64_t>{3, 5, 16, 5, 6}));
  EXPECT_EQ(aligned.elements, 35);
  EXPECT_EQ(aligned.shard, 5);
  const eager::FlatLayout joined = eager::flat_layout(counts, 7, Dtype::bf16, false);
  EXPECT_EQ(joined.first, (std::vector<std::int64_t>{0, 3, 19}));
  EXPECT_EQ(joined.elements, 24);
  EXPECT_EQ(joined.shard, 4);
}

Architecture small_llama() {
  Architecture a;
  a.family = Family::llama;
  a.layers = 3, a.width = 256, a.heads = 4, a.kv_heads = 2, a.head_dim = 64, a.ffn = 688, a.vocab = 1003, a.rotary_dims = 64;
  return a;
}

Architecture small_mixtral() {
  Architecture a = small_llama();
  a.family = Family::mixtral;
  a.moe.emplace();
  a.moe->experts = 8, a.moe->top_k = 2, a.moe->expert_ffn = 320, a.moe->layers.assign(3, true);
  return a;
}

Training small_run() {
  Training t;
  t.device_batch_size = 4, t.seq_len = 96;
  t.weights = Dtype::bf16;
  return t;
}

Program built(const Architecture& a, const Training& t) {
  Result<Program> p = build_program(a, t, {9, 0, 0});
  if (!p) throw std::runtime_error(p.error().message);
  return std::move(*p);
}

std::int64_t bytes_of(const Program& p, const std::string& role) {
  std::int64_t sum = 0;
  for (const TensorInfo& t : p.tensors) sum += t.role == role ? t.bytes : 0;
  return sum;
}

// Shards of all units, their moments, and in no_sync() whole gradients beside them.
TEST(Transformers, flatShardsShareEverythingOut) {
  Training t = small_run();
  t.sharding = Sharding::fsdp1, t.world_size = 4;
  std::int64_t count = 0;
  for (const Parameter& w : parameters_of(small_llama())) count += w.count();
  const StaticBytes whole = static_bytes(small_llama(), t);
  EXPECT_NEAR(static_cast<double>(whole.weights.count), 2.0 * static_cast<double>(count) / 4, 4096);
  EXPECT_EQ(whole.gradients, whole.weights);
  EXPECT_NEAR(static_cast<double>(whole.optimizer.count), 2.0 * static_cast<double>(whole.gradients.count), 4096);
  t.grad_accum_steps = 8;
  const Program p = built(small_llama(), t);
  EXPECT_EQ(std::ranges::max(p.segments, {}, &Segment::micro_step).micro_step, 3);  // the first, one between, the last
  std::int64_t live = 0, kept = 0;
  for (std::size_t i = 0, next = 0; i < p.events.size(); ++i) {
    while (next < p.segments.size() && p.segments[next].first_event <= static_cast<std::int32_t>(i)) {
      if (p.segments[next].micro_step == 2 && std::string_view(p.segments[next].part) == "data" && kept == 0) kept = live;
      ++next;
    }
    const TensorInfo& tensor = p.tensors[static_cast<std::size_t>(p.events[i].tensor)];
    if (tensor.category == Category::gradients) live += p.events[i].kind == Event::Kind::alloc ? tensor.bytes : -tensor.bytes;
  }
  EXPECT_NEAR(static_cast<double>(kept), 2.0 * static_cast<double>(count), 4096);
}

// Logits of min(N, 2^ceil(log2(N / ceil(V / D)))) rows at a time, by hand: V / D = 4, so 384 tokens go in parts of 128 and 380 in the same, the last of 124.
TEST(Transformers, ligersLossTakesPartsOfTheRows) {
  for (const std::int64_t length : {96, 95}) {
    Training t = small_run();
    t.seq_len = length, t.liger = LigerParts::all(), t.head = HeadLoss::liger;
    const Program p = built(small_llama(), t);
    EXPECT_EQ(bytes_of(p, "logits"), 2 * 128 * 1003 * 2);  // one buffer in each of two steps that run
    t.mixed = MixedPrecision::bf16, t.weights = Dtype::fp32;
    EXPECT_EQ(bytes_of(built(small_llama(), t), "logits"), 2 * 4 * length * 1003 * 2);  // under autocast each part has its own, the last its rows
    for (const TensorInfo& tensor : p.tensors) EXPECT_FALSE(tensor.batched && std::string_view(tensor.role) == "logits");
  }
  // the weight's gradient of a norm is summed by every multiprocessor on its own
  Training t = small_run();
  t.liger = LigerParts::all(), t.head = HeadLoss::liger;
  std::int64_t sums = 0;
  const Result<Program> small = build_program(small_llama(), t, {8, 6, 0, 30});
  for (const TensorInfo& tensor : small->tensors) sums += tensor.category == Category::workspace && tensor.dtype == Dtype::fp32 && tensor.bytes == 30 * 256 * 4 ? 1 : 0;
  EXPECT_EQ(sums, 2 * 7);
}

Training small_rollouts() {
  Training t = small_run();
  t.head = HeadLoss::trl, t.padded = true;
  t.rollouts.emplace().completion = 40;
  t.rollouts->resolve(t.device_batch_size, 1, 1);
  t.rollouts->generations = 4;
  return t;
}

// A cache of P + C - 1 tokens at last, and the tokens of a cat beside it: by hand.
TEST(Transformers, rolloutsLeaveACacheOfAllTokensButTheLast) {
  const Program p = built(small_llama(), small_rollouts());
  std::int64_t live = 0, most = 0;
  for (const Event& e : p.events) {
    const TensorInfo& tensor = p.tensors[static_cast<std::size_t>(e.tensor)];
    if (std::string_view(tensor.role) == "attn.k_cache") most = std::max(most, live += e.kind == Event::Kind::alloc ? tensor.bytes : -tensor.bytes);
  }
  const std::int64_t token = 4 * 2 * 64 * 2;  // B, K, h, bf16
  EXPECT_EQ(most, token * (3 * (96 - 1) + (96 - 2)));  // three layers, and the third's of before
  EXPECT_EQ(live, 0);
}

TEST(Transformers, rolloutsOfAWindowKeepWhatItSees) {
  Architecture a = small_llama();
  a.windows.assign(3, 32);
  const Program p = built(a, small_rollouts());
  std::int64_t longest = 0;
  for (const TensorInfo& tensor : p.tensors) longest = std::string_view(tensor.role) == "attn.k_cache" ? std::max(longest, tensor.shape.dim[2]) : longest;
  EXPECT_EQ(longest, 56);  // the prompt, in its one pass
}

// A server writes: nothing is generated here, and its tokens are scored.
TEST(Transformers, aServersCompletionsAreScored) {
  Training t = small_rollouts();
  t.rollouts->by_vllm = t.rollouts->elsewhere = true;
  const Program p = built(small_llama(), t);
  const auto has = [&](std::string_view phase, std::string_view part) { return std::ranges::any_of(p.segments, [&](const Segment& s) { return s.phase == phase && s.part == part; }); };
  EXPECT_FALSE(has("rollout", "decode"));
  EXPECT_TRUE(has("scoring", "own"));
  EXPECT_EQ(bytes_of(p, "attn.k_cache"), 0);
  t.rollouts->corrected = false;
  const Program without = built(small_llama(), t);
  EXPECT_FALSE(std::ranges::any_of(without.segments, [](const Segment& s) { return std::string_view(s.part) == "own"; }));
}

TEST(Transformers, rolloutsOfOtherModelsAreRefused) {
  Training t = small_rollouts();
  EXPECT_FALSE(build_program(small_mixtral(), t, {9, 0, 0}));
  t.rollouts->generations = 3;
  const auto illegal = build_program(small_llama(), t, {9, 0, 0});
  ASSERT_FALSE(illegal);
  EXPECT_EQ(illegal.error().code, "illegal_batch");
}

// The search needs it: the same events at every batch, each tensor either constant or in proportion.
TEST(Transformers, sizesAreProportionalToTheBatch) {
  Training t = small_run();
  const Program one = built(small_llama(), t);
  t.device_batch_size = 8;
  const Program two = built(small_llama(), t);
  ASSERT_EQ(one.events.size(), two.events.size());
  ASSERT_EQ(one.tensors.size(), two.tensors.size());
  for (std::size_t i = 0; i < one.tensors.size(); ++i) {
    EXPECT_EQ(two.tensors[i].bytes, one.tensors[i].bytes * (one.tensors[i].batched ? 2 : 1)) << one.tensors[i].name();
  }
  for (std::size_t i = 0; i < one.events.size(); ++i) ASSERT_TRUE(one.events[i].tensor == two.events[i].tensor && one.events[i].kind == two.events[i].kind);
}

// The same of each head of classes, whose logits are none of the vocabulary's; a number's loss is no class's.
TEST(Transformers, headsOfClassesScaleWithTheBatch) {
  Training t = small_run();
  t.mixed = MixedPrecision::bf16, t.weights = Dtype::fp32, t.converts_outputs = true;
  const auto trained = [&](HeadKind head, std::int64_t classes, std::int64_t batch) {
    Architecture a = small_llama();
    a.class_name = "LlamaForCausalLM";
    put_head(a, head, classes);
    t.device_batch_size = batch;
    return built(a, t);
  };
  for (const auto& [head, classes, logits] : {std::tuple{HeadKind::sequences, 3, 3}, std::tuple{HeadKind::sequences, 1, 1}, std::tuple{HeadKind::tokens, 9, 9 * 96}, std::tuple{HeadKind::answers, 2, 96}}) {
    const Program one = trained(head, classes, 4), two = trained(head, classes, 8);
    ASSERT_EQ(one.events.size(), two.events.size());
    std::int64_t seen = 0;
    for (std::size_t i = 0; i < one.tensors.size(); ++i) {
      EXPECT_EQ(two.tensors[i].bytes, one.tensors[i].bytes * (one.tensors[i].batched ? 2 : 1)) << one.tensors[i].name();
      if (one.tensors[i].category == Category::logits && std::string_view(one.tensors[i].role) == "logits" && one.tensors[i].dtype == Dtype::fp32 && one.tensors[i].bytes == 4 * 4 * logits) ++seen;
      const std::string_view role = one.tensors[i].role;
      EXPECT_LT(role == "logits" || role.starts_with("loss") ? one.tensors[i].bytes : 0, 4 * 96 * 1003 * 2) << one.tensors[i].name();
    }
    EXPECT_GE(seen, 2);  // in both steps that run, as accelerate casts them
  }
  Training shared = small_run();
  shared.sharding = Sharding::fsdp2, shared.world_size = 2;
  Architecture a = small_llama();
  put_head(a, HeadKind::tokens, 9);
  EXPECT_EQ(build_program(a, shared, {9, 0, 0}).error().code, "unsupported_training");
}

// A window that is as long as the rows hides nothing, and has a mask all the same; its rows are padded to multiples of 8 inside SDPA.
TEST(Transformers, aWindowAsLongAsTheRowsHasItsMask) {
  Architecture a = small_llama();
  a.family = Family::mistral;
  const auto masks = [&](std::int64_t length, std::int64_t window) {
    Training t = small_run();
    t.seq_len = length;
    a.windows.assign(3, window);
    std::set<std::int64_t> sizes;
    for (const TensorInfo& x : built(a, t).tensors) {
      if (std::string_view(x.role) == "attn.mask") sizes.insert(x.bytes);
    }
    return sizes;
  };
  EXPECT_EQ(masks(96, 97), std::set<std::int64_t>());
  EXPECT_EQ(masks(96, 96), (std::set<std::int64_t>{4 * 96 * 96, 4 * 96 * 96 * 2}));
  EXPECT_EQ(masks(100, 40), (std::set<std::int64_t>{4 * 100 * 100, 4 * 100 * 100 * 2, 4 * 100 * 104 * 2}));
}

// Each tensor is born and dies in turn, and what is left at the end is what a run keeps.
TEST(Transformers, everyTensorDiesOnceAfterItsBirth) {
  for (const Recompute recompute : {Recompute::none, Recompute::full}) {
    Training t = small_run();
    t.recompute = recompute;
    t.reentrant = false;
    const Program p = built(small_llama(), t);
    const std::vector<bool> alive = alive_at_end(p);
    for (std::size_t i = 0; i < alive.size(); ++i) {
      const Category c = p.tensors[i].category;
      EXPECT_TRUE(!alive[i] || c == Category::weights || c == Category::optimizer || c == Category::workspace || p.tensors[i].bytes <= 8) << p.tensors[i].name();
    }
  }
}

TEST(Transformers, quantizedWeightsAreCountedTwice) {
  Training t = small_run();
  t.lora.emplace();
  t.quantized = t.double_quantized = true;
  t.lora->targets = {"q_proj"};
  const Program p = built(small_llama(), t);
  std::int64_t values = 0, scales = 0, nested = 0;
  for (const Parameter& w : parameters_of(small_llama())) {
    if (w.layer < 0 || w.shape.size() != 2) continue;
    const std::int64_t n = w.shape[0] * w.shape[1];
    values += n / 2;
    scales += n / 64;
    nested += 4 * ((n / 64 + 255) / 256);
  }
  std::int64_t packed = 0;
  for (const TensorInfo& w : p.tensors) packed += w.dtype == Dtype::uint8 && w.category == Category::weights && std::string(w.role) != "quant.absmax" ? w.bytes : 0;
  EXPECT_EQ(packed, values);
  EXPECT_EQ(bytes_of(p, "quant.absmax"), scales);
  EXPECT_EQ(bytes_of(p, "quant.absmax_scale"), nested);
}

// Its backward takes one block, where FlashAttention's takes two, and two more where heads share keys.
TEST(Transformers, hoppersPreferCudnnsAttentionSinceTorch211) {
  Training t = small_run();
  const auto scratch = [&](const char* torch) {
    t.torch = torch;
    const Program p = built(small_llama(), t);
    return std::array{bytes_of(p, "attn.dq_accum"), bytes_of(p, "attn.softmax_d") + bytes_of(p, "attn.dk_expanded") + bytes_of(p, "attn.dv_expanded")};
  };
  const auto flash = scratch("2.9.1"), cudnn = scratch("2.11.0");
  EXPECT_GT(flash[1], 0);
  EXPECT_EQ(cudnn[1], 0);
  EXPECT_GT(cudnn[0], flash[0] / 2);
}

// Trainer.get_batch_samples: ids, mask and labels of every micro-step.
TEST(Transformers, trainerHoldsTheBatchesOfAStep) {
  Training t = small_run();
  for (const auto& [holds, micro_steps, ids] : {std::tuple{false, 1, 0}, std::tuple{true, 1, 3}, std::tuple{true, 2, 6}}) {
    t.holds_batches = holds, t.grad_accum_steps = micro_steps;
    const Program p = built(small_llama(), t);
    const std::vector<bool> alive = alive_at_end(p);
    int held = 0;
    for (std::size_t i = 0; i < alive.size(); ++i) held += alive[i] && std::string(p.tensors[i].role) == "batch.ids";
    EXPECT_EQ(held, ids) << micro_steps;
  }
}

// transformers' loader asks for what the model will take, in 4 bits where it will be so; before 5 for half of the file's bytes.
TEST(Transformers, fourBitModelsAreAskedForAtOnce) {
  Training t = small_run();
  t.lora.emplace();
  t.quantized = true;
  std::int64_t held = 0, stored = 0;
  for (const Parameter& w : parameters_of(small_llama())) {
    stored += w.count() * size_of(t.weights);
    held += w.layer >= 0 && w.shape.size() == 2 ? w.count() / 2 : w.count() * size_of(t.weights);
  }
  t.transformers = "5.17.0";
  EXPECT_EQ(bytes_of(built(small_llama(), t), "load.warmup"), held / 2 * 2);
  t.transformers = "4.57.1";
  EXPECT_EQ(bytes_of(built(small_llama(), t), "load.warmup"), stored / 4 * 2);
}

// Since transformers 5 they are no Linear modules, and peft's preparation raises what is not in 4 bits.
TEST(Transformers, expertsStayIn16BitsSinceTransformers5) {
  Training t = small_run();
  t.lora.emplace();
  t.quantized = true;
  std::int64_t experts = 0;
  for (const Parameter& w : parameters_of(small_mixtral())) experts += w.name.find(".mlp.experts.") != std::string::npos ? w.count() : 0;
  ASSERT_GT(experts, 0);
  const auto held = [&](const char* version, bool upcast) {
    t.transformers = version, t.lora->upcast_rest = upcast;
    return static_bytes(small_mixtral(), t).weights.count;
  };
  const std::int64_t packed = held("4.57.1", true);
  EXPECT_NEAR(static_cast<double>(held("5.17.0", true) - packed), static_cast<double>(experts) * (4 - 0.5), static_cast<double>(experts) * 0.1);  // scales of 4-bit values beside them
  EXPECT_NEAR(static_cast<double>(held("5.17.0", false) - held("4.57.1", false)), static_cast<double>(experts) * (2 - 0.5), static_cast<double>(experts) * 0.1);
}

TEST(Transformers, bucketsOfDataParallelHoldEveryGradient) {
  Training t = small_run();
  t.sharding = Sharding::ddp;
  t.world_size = 2;
  const Program p = built(small_llama(), t);
  std::int64_t parameters = 0;
  for (const Parameter& w : parameters_of(small_llama())) parameters += w.count() * 2;
  EXPECT_EQ(bytes_of(p, "ddp.bucket"), parameters);
  EXPECT_EQ(static_bytes(small_llama(), t).gradients.count, parameters);
}

// Buckets fill in the order of the parameters: 1 MiB, then 25 MiB, each ended by the parameter that reaches it; dtypes apart.
TEST(Transformers, bucketsEndWithWhatFillsThem) {
  eager::Tape tape(1);
  std::vector<eager::Trained> p;
  const auto add = [&](std::int64_t mib, Dtype d) { p.push_back({tape.parameter("w", eager::dims({(mib << 20) / size_of(d)}, false), d, true), "w", -1}); };
  for (std::int64_t n : {2, 20, 4, 1, 30}) add(n, Dtype::fp32);
  add(1, Dtype::bf16);
  const std::array<std::int64_t, 2> limits = {1 << 20, 25 << 20};
  EXPECT_EQ(eager::buckets_by_size(p, limits), (std::vector<std::vector<std::size_t>>{{0}, {1, 2, 3}, {4}, {5}}));
}

// Frozen weights are shared out as they were loaded, adapters in fp32 beside them.
TEST(Transformers, frozenWeightsAreSharedOutToo) {
  Training t = small_run();
  t.weights = Dtype::bf16, t.mixed = MixedPrecision::bf16, t.lora.emplace().rank = 8;
  t.sharding = Sharding::fsdp2, t.world_size = 4;
  std::int64_t frozen = 0;
  for (const Parameter& w : parameters_of(small_llama())) frozen += w.count();
  const StaticBytes part = static_bytes(small_llama(), t);
  EXPECT_NEAR(static_cast<double>(part.weights.count), 2.0 * static_cast<double>(frozen) / 4 + static_cast<double>(part.gradients.count), 4096);
  EXPECT_GT(part.gradients.count, 0);
  EXPECT_NEAR(static_cast<double>(part.optimizer.count), 2.0 * static_cast<double>(part.gradients.count), 1024);  // and a counter each
}

// 4-bit values are shared out, their scales are not; under FSDP2 every rank first has all of it.
TEST(Transformers, fourBitsAreSharedOutAndScalesAreNot) {
  Training t = small_run();
  t.mixed = MixedPrecision::bf16, t.quantized = t.double_quantized = true, t.lora.emplace().rank = 8;
  t.lora->upcast_rest = false;
  const auto loaded = [&](std::int64_t gpus) {
    t.world_size = gpus;
    const Result<Program> made = build_program(small_llama(), t, {9, 0, 0, 132, 1});  // without room for what the loader asks for before
    if (!made) throw std::runtime_error(made.error().message);
    const Program& p = *made;
    std::int64_t live = 0, most = 0;
    for (std::size_t i = 0; i < p.events.size() && p.segments[1].first_event > static_cast<std::int32_t>(i); ++i) {
      live += (p.events[i].kind == Event::Kind::alloc ? 1 : -1) * p.tensors[static_cast<std::size_t>(p.events[i].tensor)].bytes;
      most = std::max(most, live);
    }
    return most;
  };
  for (const Sharding sharding : {Sharding::fsdp1, Sharding::fsdp2}) {
    t.sharding = sharding, t.flat.adapters_apart = sharding == Sharding::fsdp1;
    std::map<std::int64_t, std::int64_t> weights;
    for (const std::int64_t gpus : {2, 4}) {
      t.world_size = gpus;
      const StaticBytes b = static_bytes(small_llama(), t);
      weights[gpus] = b.weights.count - b.gradients.count;
    }
    std::int64_t packed = 0, rest = 0;
    for (const Parameter& w : parameters_of(small_llama())) (w.layer >= 0 && w.shape.size() == 2 ? packed : rest) += w.count();
    EXPECT_NEAR(static_cast<double>(weights[2] - weights[4]), static_cast<double>(packed / 2 + rest * 2) / 4, 4096);  // a half less a quarter of what is shared
    EXPECT_GT(weights[4], packed / 64 + (packed / 2 + rest * 2) / 4);  // a byte of scale for every 64 values stays whole
  }
  const std::int64_t fsdp2 = loaded(8);
  t.sharding = Sharding::fsdp1, t.flat.adapters_apart = true;
  EXPECT_GT(fsdp2, loaded(8));
  EXPECT_EQ(bytes_of(built(small_llama(), t), "load.packed"), 0);
  t.flat.loads_on_host = false;
  EXPECT_GT(bytes_of(built(small_llama(), t), "load.packed"), 0);
}

// Two ranks: half of everything that lasts, and every gathered byte given back by the end of a step.
TEST(Transformers, shardsAreAPartAndGatheredWeightsGo) {
  Training t = small_run();
  const StaticBytes whole = static_bytes(small_llama(), t);
  t.sharding = Sharding::fsdp2;
  for (const std::int64_t gpus : {2, 3, 64, 2048}) {
    t.world_size = gpus;
    const StaticBytes part = static_bytes(small_llama(), t);
    EXPECT_GE(part.weights.count * gpus, whole.weights.count);
    std::int64_t rows = 0;  // at most one row more of each
    for (const Parameter& w : parameters_of(small_llama())) rows += w.count() / w.shape[0] * 2;
    EXPECT_LE(part.weights.count, whole.weights.count / gpus + rows);
    EXPECT_EQ(part.gradients, part.weights);
    const Program p = built(small_llama(), t);
    const std::vector<bool> alive = alive_at_end(p);
    std::int64_t weights = 0;
    for (std::size_t i = 0; i < alive.size(); ++i) weights += alive[i] && p.tensors[i].category == Category::weights ? p.tensors[i].bytes : 0;
    EXPECT_EQ(weights, part.weights.count + 4 * small_llama().rotary_dims / 2);
  }
}

// No more than six layers and sixteen experts of a model.
HfModel head_of(HfModel m) {
  Architecture& a = m.architecture;
  a.layers = std::min<std::int64_t>(a.layers, 6);
  if (!a.windows.empty()) a.windows.resize(static_cast<std::size_t>(a.layers));
  if (!a.moe) return m;
  a.moe->layers.resize(static_cast<std::size_t>(a.layers));
  a.moe->experts = std::min<std::int64_t>(a.moe->experts, 16);
  return m;
}

// The smallest shipped model of every class, in the ways that take different paths: laid out, or an error that says what is not.
TEST(Transformers, everyClassThatShipsIsAnswered) {
  std::map<std::string, const ModelPreset*> smallest;
  for (const ModelPreset& p : model_presets()) {
    const ModelPreset*& kept = smallest[p.model.architecture.class_name];
    if (kept == nullptr || p.model.architecture.layers < kept->model.architecture.layers) kept = &p;
  }
  EXPECT_GE(smallest.size(), 20u);
  std::set<std::string> unlaid;
  for (const auto& [name, preset] : smallest) {
    const auto lay_out = [&](auto change) {
      TransformersFlags f;
      f.device_batch_size = 1, f.max_seq_len = 64, f.gpus = 1;
      change(f);
      const auto w = make_transformers_workload(head_of(preset->model), f);
      if (!w) return w.error().code;
      const auto p = program_for(*w, {9, 0, 989}, false);
      return p ? std::string() : p.error().code;
    };
    const std::string plain = lay_out([](TransformersFlags&) {});
    EXPECT_TRUE(plain.empty() || plain == "unsupported_training") << name << ": " << plain;
    if (!plain.empty()) unlaid.insert(name);
    lay_out([](TransformersFlags& f) { f.weights = Dtype::bf16, f.recompute = Recompute::full, f.lora = Lora(); });
    lay_out([](TransformersFlags& f) { f.mixed = MixedPrecision::bf16, f.attention = AttentionCode::eager; });
    lay_out([](TransformersFlags& f) { f.gpus = 2, f.sharding = Sharding::fsdp2, f.mixed = MixedPrecision::bf16; });
    lay_out([](TransformersFlags& f) { f.gpus = 2, f.sharding = Sharding::zero3, f.mixed = MixedPrecision::bf16; });
  }
  EXPECT_EQ(unlaid, std::set<std::string>());
}

TEST(Transformers, statesOfOptimizers) {
  std::int64_t count = 0, tensors = 0, large = 0, small = 0, blocks = 0;  // 8-bit: small tensors and embeddings keep fp32 states
  for (const Parameter& w : parameters_of(small_llama())) {
    const std::int64_t n = w.count();
    count += n;
    ++tensors;
    const bool eight = n >= 4096 && w.group != ParamGroup::wte;
    (eight ? large : small) += n;
    if (eight) blocks += (n + 255) / 256;
  }
  const auto state = [](OptimizerKind kind) {
    Training t = small_run();
    t.optimizer = kind;
    return static_bytes(small_llama(), t).optimizer.count;
  };
  EXPECT_EQ(state(OptimizerKind::adamw), 4 * count);
  EXPECT_EQ(state(OptimizerKind::adamw_fused), 4 * count + 4 * tensors);
  EXPECT_EQ(state(OptimizerKind::sgd), 0);
  EXPECT_EQ(state(OptimizerKind::sgd_momentum), 2 * count);
  EXPECT_EQ(state(OptimizerKind::lion), 2 * count);
  EXPECT_EQ(state(OptimizerKind::adamw_8bit), 2 * large + 8 * small + 8 * blocks + 2 * 1024);
  EXPECT_EQ(state(OptimizerKind::lion_32bit), 4 * count);
  EXPECT_EQ(state(OptimizerKind::rmsprop_bnb_8bit), large + 4 * small + 4 * blocks + 1024);
  EXPECT_EQ(state(OptimizerKind::ademamix), 12 * count);
  EXPECT_EQ(state(OptimizerKind::ademamix_8bit), 3 * large + 12 * small + 12 * blocks + 2 * 1024);
  EXPECT_EQ(state(OptimizerKind::rmsprop), 2 * count);
  EXPECT_EQ(state(OptimizerKind::adagrad), 2 * count);
}

// Optimizers that do not decay in place copy the gradients of matrices, and those alone.
TEST(Transformers, weightDecayCopiesGradients) {
  Training t = small_run();
  std::int64_t matrices = 0;
  for (const Parameter& w : parameters_of(small_llama())) matrices += w.shape.size() >= 2 ? w.count() : 0;
  for (const OptimizerKind kind : {OptimizerKind::sgd, OptimizerKind::rmsprop, OptimizerKind::adagrad, OptimizerKind::adamw}) {
    t.optimizer = kind, t.weight_decay = 0;
    EXPECT_EQ(bytes_of(built(small_llama(), t), "optimizer.decayed"), 0);
    t.weight_decay = 0.1;
    EXPECT_EQ(bytes_of(built(small_llama(), t), "optimizer.decayed"), copies_to_decay(kind) ? 2 * 2 * matrices : 0) << name_of(kind);  // of 2 bytes, in two steps
  }
}

// A compiled step ends as an eager one does: gradients and optimizer state are the same bytes, nothing of its own stays.
TEST(Transformers, compiledStepsLeaveWhatEagerOnesLeave) {
  const auto ends = [](const Architecture& a, bool compile, Dtype weights, MixedPrecision mixed) {
    Training t = small_run();
    t.compile = compile, t.weights = weights, t.mixed = mixed, t.grad_accum_steps = 2;
    const auto p = build_program(a, t, {9, 0, 0});
    if (!p) throw std::runtime_error(p.error().message);
    std::int64_t live = 0;
    std::vector<std::int64_t> after;  // every optimizer step
    for (std::size_t i = 0; i < p->events.size(); ++i) {
      live += (p->events[i].kind == Event::Kind::alloc ? 1 : -1) * p->tensors[static_cast<std::size_t>(p->events[i].tensor)].bytes;
      const auto next = std::ranges::find(p->segments, static_cast<std::int32_t>(i) + 1, &Segment::first_event);
      if (next != p->segments.end() && std::string_view(next->part) == "data" && next->micro_step == 1) after.push_back(live);
    }
    after.push_back(live);
    EXPECT_FALSE(p->work.laid_out.empty() || p->work.laid_out.front().empty());
    return after;
  };
  for (const Architecture& a : {small_llama(), small_mixtral()}) {
    EXPECT_EQ(ends(a, true, Dtype::bf16, MixedPrecision::none), ends(a, false, Dtype::bf16, MixedPrecision::none));
    EXPECT_EQ(ends(a, true, Dtype::fp32, MixedPrecision::bf16), ends(a, false, Dtype::fp32, MixedPrecision::bf16));
  }
}

// Beside a mask cuDNN's kernel comes first from torch 2.11 on, on GPUs of compute capability 9.0 and 10.0; the other one has its statistics in tiles of 32 rows.
TEST(Transformers, whatTakesTheMaskOfACompiledModel) {
  const auto statistics = [](const char* torch, int major, int minor, Dtype weights) {
    Training t = small_run();
    t.compile = true, t.seq_len = 100, t.torch = torch, t.weights = weights;
    const auto p = build_program(small_llama(), t, {major, minor, 0});
    if (!p) throw std::runtime_error(p.error().message);
    return bytes_of(*p, "attn.lse") / (2 * 3 * 4 * 4 * 4);  // of two steps, three layers, four texts and heads, in fp32
  };
  EXPECT_EQ(statistics("2.11.0", 9, 0, Dtype::bf16), 100);
  EXPECT_EQ(statistics("2.11.0", 10, 0, Dtype::bf16), 100);
  EXPECT_EQ(statistics("2.11.0", 12, 0, Dtype::bf16), 128);
  EXPECT_EQ(statistics("2.11.0", 9, 0, Dtype::fp32), 128);
  EXPECT_EQ(statistics("2.10.0", 9, 0, Dtype::bf16), 128);
  EXPECT_FALSE(laid_out_alike({10, 0, 0}, {12, 0, 0}, true, "2.11.0"));
}

// --torch reaches the passes: a run that names none has the statistics of 2.9.1's.
TEST(Transformers, theTorchThatIsNamedIsLaidOut) {
  const std::vector<ModelPreset>& presets = model_presets();
  const auto llama = std::ranges::find(presets, std::string_view("llama-3.2-1b"), &ModelPreset::name);
  ASSERT_NE(llama, presets.end());
  const auto statistics = [&](std::optional<std::string> torch) {
    TransformersFlags f;
    f.device_batch_size = 1, f.max_seq_len = 100, f.gpus = 1, f.compile = true, f.weights = Dtype::bf16, f.torch = std::move(torch);
    const auto w = make_transformers_workload(head_of(llama->model), f);
    const auto p = w ? program_for(*w, {9, 0, 989}, false) : std::unexpected(w.error());
    if (!p) throw std::runtime_error(p.error().message);
    std::int64_t most = 0;
    for (const TensorInfo& t : p->tensors) most = std::string_view(t.role) == "attn.lse" ? t.bytes : most;
    return most / (32 * 4);
  };
  EXPECT_EQ(statistics("2.11.0+cu130"), 100);
  EXPECT_EQ(statistics(std::nullopt), 128);
}

// From torch 2.10 on a kernel sums a norm's rows and, in parts of 16 rows, its columns: a row of partial sums for each part, in fp32. Of 4,096 rows of 1,024 the tensor is too small.
TEST(Transformers, sumsInBothOrdersShareAKernel) {
  const auto workspaces = [](const char* torch, std::int64_t rows) {
    Architecture a = small_llama();
    a.width = 1024, a.layers = 2;
    Training t = small_run();
    t.compile = true, t.device_batch_size = rows / 512, t.seq_len = 512, t.torch = torch;
    const Program p = built(a, t);
    std::int64_t most = 0;
    for (const TensorInfo& one : p.tensors) most = std::string_view(one.role).starts_with("norm") && one.dtype == Dtype::fp32 ? std::max(most, one.bytes) : most;
    return most;
  };
  EXPECT_EQ(workspaces("2.11.0", 8192), 2 * 512 * 1024 * 4);  // the last kernel's, of both norms of the first block
  EXPECT_LT(workspaces("2.9.1", 8192), 512 * 1024 * 4);
  EXPECT_LT(workspaces("2.11.0", 4096), 256 * 1024 * 4);
}

TEST(Transformers, whatIsNotLaidOutIsSaid) {
  for (const auto change : {+[](Training& r) { r.recompute = Recompute::full, r.use_cache = true; }, +[](Training& r) { r.recompute = Recompute::full, r.lora.emplace().rank = 8; }, +[](Training& r) { r.lora.emplace().rank = 8, r.lora->dora = true; }, +[](Training& r) { r.liger = LigerParts::all(); }, +[](Training& r) { r.head = HeadLoss::cut; }, +[](Training& r) { r.packed = true; }, +[](Training& r) { r.lora.emplace().rank = 8, r.adapter_kernels.o = true; },
                            +[](Training& r) { r.sharding = Sharding::ddp, r.world_size = 2; }, +[](Training& r) { r.attention = AttentionCode::eager; }}) {
    Training t = small_run();
    t.compile = true;
    EXPECT_TRUE(build_program(small_llama(), t, {9, 0, 0}));
    change(t);
    const auto p = build_program(small_llama(), t, {9, 0, 0});
    ASSERT_FALSE(p);
    EXPECT_EQ(p.error().code, "unsupported_training");
    EXPECT_FALSE(p.error().hint.empty());
  }
  Training compiled = small_run();
  compiled.compile = true;
  for (const auto change : {+[](Architecture&, Training& r) { r.use_cache = true; }, +[](Architecture&, Training& r) { r.recompute = Recompute::full; }, +[](Architecture&, Training& r) { r.lora.emplace().targets = {"q_proj", "w1"}; },
                            +[](Architecture&, Training& r) { r.lora.emplace(), r.quantized = true; }, +[](Architecture& a, Training&) { a.tied_head = true; }, +[](Architecture& a, Training&) { a.moe->aux_loss = true; }, +[](Architecture& a, Training&) { a.moe->layers[1] = false; }, +[](Architecture& a, Training&) { a.family = Family::qwen2_moe, a.moe->shared_ffn = 512; }}) {
    Architecture a = small_mixtral();
    Training r = compiled;
    EXPECT_TRUE(build_program(a, r, {9, 0, 0}));
    change(a, r);
    const auto p = build_program(a, r, {9, 0, 0});
    ASSERT_FALSE(p);
    EXPECT_EQ(p.error().code, "unsupported_training");
    EXPECT_FALSE(p.error().hint.empty());
  }
  Training t = small_run();
  t.sharding = Sharding::fsdp2, t.world_size = 2;
  t.lora.emplace();
  EXPECT_TRUE(build_program(small_llama(), t, {9, 0, 0}));
  Training averaged = small_run();
  averaged.ema = true;
  EXPECT_TRUE(build_program(small_llama(), averaged, {9, 0, 0}));
  averaged.lora.emplace();
  EXPECT_EQ(build_program(small_llama(), averaged, {9, 0, 0}).error().code, "unsupported_training");
}

}  // namespace
}  // namespace dryfit
