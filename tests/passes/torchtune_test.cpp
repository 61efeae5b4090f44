// torchtune's recipes: the eager engine against recordings of them (tests/golden/oracle/torchtune*.jsonl), and what no recording can say. docs/oracle.md
#include <gtest/gtest.h>

#include <sstream>

#include "eager_recordings.hpp"

namespace dryfit {
namespace {

using namespace eager_recordings;

Training training_of(const json& j) {
  Training t;
  t.framework = Framework::torchtune;
  t.device_batch_size = j["batch"];
  t.seq_len = j["length"];
  t.grad_accum_steps = j["accumulation"];
  t.weights = j["dtype"] == "fp32" ? Dtype::fp32 : Dtype::bf16;
  t.recompute = j["checkpoint"] ? Recompute::full : Recompute::none;
  t.reentrant = false;
  t.optimizer = j["optimizer"] == "sgd" ? OptimizerKind::sgd : j["optimizer"] == "fused" ? OptimizerKind::adamw_fused : OptimizerKind::adamw;
  t.max_grad_norm = j["clip"] ? 1.0 : 0.0;
  TorchtuneRun& tune = t.torchtune;
  tune.output_chunks = j["chunked"] ? 8 : 0;
  tune.packing = j["packed"] == "mask" ? TorchtuneRun::Packing::mask : j["packed"] == "flex" ? TorchtuneRun::Packing::flex : TorchtuneRun::Packing::none;
  tune.optimizer_in_backward = j["in_backward"];
  tune.offload_activations = j["offload"];
  t.compile = j.value("compiled", false);
  t.world_size = j.value("gpus", 1);
  const bool several = t.world_size > 1;
  if (several) t.sharding = Sharding::fsdp2;
  t.reshard_after_forward = j.value("reshards", true);
  t.offload_parameters = t.offload_optimizer = j.value("host", false);
  const std::string apart = j.value("apart", "");
  tune.embedding_apart = apart.contains("tok_embeddings"), tune.head_apart = apart.contains("output");
  tune.recipe = several ? TorchtuneRecipe::full_distributed : TorchtuneRecipe::full_single_device;
  if (j["lora"] == 0) return t;
  tune.recipe = several ? TorchtuneRecipe::lora_distributed : TorchtuneRecipe::lora_single_device;
  Lora& lora = t.lora.emplace();
  lora.rank = j["lora"];
  lora.dropout = j["dropout"];
  tune.layer_tables = j["model"] == "qwen2" || j["model"] == "llama2";
  std::istringstream modules(j["lora_modules"].get<std::string>());
  for (std::string one; std::getline(modules, one, ',');) lora.targets.push_back(one == "output_proj" ? "o_proj" : one);
  if (j["lora_mlp"]) lora.targets.emplace_back("mlp");
  if (j["lora_output"]) lora.targets.emplace_back("lm_head");
  t.quantized = j["quantized"];
  return t;
}

Program recorded(const json& j) { return program_of(j, training_of(j)); }

TEST(Torchtune, aStepThatIsCopiedIsAsOneThatRuns) { EXPECT_GT(expect_copies_as_run("torchtune.jsonl", training_of), 0); }

TEST(Torchtune, stepsAreAsPyTorchRecordsThem) { expect_all_agree("torchtune.jsonl", recorded, 50, "recordings"); }

// Recordings that nobody looks at while fixing the engine.
TEST(Torchtune, unseenStepsAreAsNear) { expect_all_agree("torchtune_unseen.jsonl", recorded, 23, "unseen recordings"); }

}  // namespace
}  // namespace dryfit
