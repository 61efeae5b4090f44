// torchtitan's trainer: the eager engine against recordings of it (tests/golden/oracle/torchtitan*.jsonl). docs/oracle.md
#include <gtest/gtest.h>

#include "eager_recordings.hpp"

namespace dryfit {
namespace {

using namespace eager_recordings;

Training training_of(const json& j) {
  Training t;
  t.framework = Framework::torchtitan;
  t.device_batch_size = j["batch"];
  t.seq_len = j["length"];
  t.world_size = j["gpus"];
  t.grad_accum_steps = j["accumulation"];
  const bool narrow = j["dtype"] == "bfloat16";
  t.weights = narrow ? Dtype::bf16 : Dtype::fp32;
  t.mixed = narrow ? MixedPrecision::none : MixedPrecision::bf16;
  t.sharding = t.world_size > 1 ? Sharding::fsdp2 : Sharding::none;
  t.reshard_after_forward = j["reshard"] != "never";
  t.optimizer = j["optimizer"] == "fused" ? OptimizerKind::adamw_fused : j["optimizer"] == "foreach" ? OptimizerKind::adamw : OptimizerKind::adamw_loop;
  t.reentrant = false;
  TorchtitanRun& titan = t.torchtitan;
  titan.reshards_head = j["reshard"] == "always";
  titan.early_stop = j["early_stop"];
  const std::string checkpoint = j["checkpoint"], compiled = j["compiled"];
  using Selective = TorchtitanRun::Selective;
  t.recompute = checkpoint == "full" ? Recompute::full : Recompute::none;
  titan.selective = checkpoint == "op" ? Selective::ops : checkpoint == "full" || checkpoint == "none" ? Selective::none : Selective::layers;
  if (titan.selective == Selective::layers) titan.every = std::stoll(checkpoint);
  titan.compile_blocks = compiled.find("model") != std::string::npos;
  titan.compile_loss = compiled.find("loss") != std::string::npos;
  t.compile = !compiled.empty();
  return t;
}

Program recorded(const json& j) { return program_of(j, training_of(j)); }

TEST(Torchtitan, aStepThatIsCopiedIsAsOneThatRuns) { EXPECT_GT(expect_copies_as_run("torchtitan.jsonl", training_of), 0); }

TEST(Torchtitan, stepsAreAsPyTorchRecordsThem) { expect_all_agree("torchtitan.jsonl", recorded, 16, "recordings"); }

// Recordings that nobody looks at while fixing the engine.
TEST(Torchtitan, unseenStepsAreAsNear) { expect_all_agree("torchtitan_unseen.jsonl", recorded, 8, "unseen recordings"); }

}  // namespace
}  // namespace dryfit
