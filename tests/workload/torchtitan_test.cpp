// torchtitan's configuration: what it means for the run, what is told as not used, and what is refused by name.
#include <gtest/gtest.h>

#include <algorithm>

#include "workload/probe_document.hpp"
#include "workload/torchtitan.hpp"

namespace dryfit {
namespace {

struct Outcome { Result<void> ok; TransformersFlags flags; KeysTold told; };

Outcome outcome_of(const std::string& text, std::optional<std::int64_t> gpus = 8) {
  const auto config = document_from_toml(text, "t.toml");
  EXPECT_TRUE(config) << text;
  Outcome o;
  o.ok = apply_torchtitan(*config, "t.toml", gpus, o.flags, o.told);
  return o;
}

std::string fault(const std::string& text, std::optional<std::int64_t> gpus = 8) {
  const Outcome o = outcome_of(text, gpus);
  if (o.ok) return "none";
  EXPECT_FALSE(o.ok.error().hint.empty()) << text;
  return o.ok.error().code + " " + o.ok.error().where;
}

TEST(Torchtitan, aFile) {
  const Outcome o = outcome_of("[job]\ndump_folder = 'x'\n[model]\nflavor = '8B'\n[training]\nlocal_batch_size = 1\nglobal_batch_size = 32\nseq_len = 8192\nsecret = 1\n[parallelism]\nfsdp_reshard_after_forward = 'always'\n[activation_checkpoint]\nmode = 'selective'\nselective_ac_option = 'op'\n"
                          "[optimizer]\nimplementation = 'foreach'\n[quantize.linear.float8]\nfilter_fqns = ['output']\n[validation]\nenable = true\n");
  ASSERT_TRUE(o.ok) << o.ok.error().message;
  const TransformersFlags& f = o.flags;
  EXPECT_EQ(f.framework, Framework::torchtitan);
  EXPECT_EQ(f.model, "llama-3.1-8b");
  EXPECT_EQ(f.device_batch_size, 1);
  EXPECT_EQ(f.grad_accum_steps, 4);
  EXPECT_EQ(f.max_seq_len, 8192);
  EXPECT_EQ(f.weights, Dtype::fp32);
  EXPECT_EQ(f.mixed, MixedPrecision::bf16);
  EXPECT_EQ(f.optimizer, OptimizerKind::adamw);
  EXPECT_EQ(f.recompute, Recompute::none);
  ASSERT_TRUE(f.torchtitan);
  EXPECT_EQ(f.torchtitan->selective, TorchtitanRun::Selective::ops);
  EXPECT_TRUE(f.torchtitan->reshards_head);
  EXPECT_TRUE(f.reshard_after_forward.value());
  EXPECT_TRUE(std::ranges::find(o.told.unused, "training.secret") != o.told.unused.end());
  EXPECT_TRUE(std::ranges::find(o.told.unused, "validation.enable") != o.told.unused.end());
  EXPECT_TRUE(std::ranges::find(o.told.used, "training.seq_len") != o.told.used.end());
}

TEST(Torchtitan, itsDefaults) {
  const Outcome o = outcome_of("");
  ASSERT_TRUE(o.ok) << o.ok.error().message;
  EXPECT_TRUE(o.flags.described);
  EXPECT_EQ(o.flags.device_batch_size, 8);
  EXPECT_EQ(o.flags.max_seq_len, 2048);
  EXPECT_EQ(o.flags.torchtitan->selective, TorchtitanRun::Selective::layers);
  EXPECT_EQ(o.flags.torchtitan->every, 2);
  EXPECT_EQ(o.flags.optimizer, OptimizerKind::adamw_fused);
  EXPECT_FALSE(o.told.assumed.empty());
  EXPECT_EQ(outcome_of("[activation_checkpoint]\nmode = 'full'\n").flags.recompute, Recompute::full);
  EXPECT_EQ(outcome_of("[training]\ndtype = 'bfloat16'\n").flags.mixed, MixedPrecision::none);
  EXPECT_EQ(outcome_of("[parallelism]\ndata_parallel_shard_degree = 4\n", std::nullopt).flags.gpus, 4);
}

TEST(Torchtitan, refusedByName) {
  for (const auto& [text, place] : {std::pair{"[model]\nname = 'deepseek_v3'\n", "model.name"}, std::pair{"[model]\nflavor = '8B_flex'\n", "model.flavor"}, std::pair{"[model]\nconverters = ['quantize.linear.float8']\n", "model.converters"},
                                    std::pair{"[parallelism]\ntensor_parallel_degree = 2\n", "parallelism.tensor_parallel_degree"}, std::pair{"[parallelism]\npipeline_parallel_degree = 2\n", "parallelism.pipeline_parallel_degree"},
                                    std::pair{"[parallelism]\ncontext_parallel_degree = 2\n", "parallelism.context_parallel_degree"}, std::pair{"[parallelism]\ndata_parallel_replicate_degree = 2\n", "parallelism.data_parallel_replicate_degree"},
                                    std::pair{"[training]\nenable_cpu_offload = true\n", "training.enable_cpu_offload"}, std::pair{"[training]\nmixed_precision_param = 'float32'\n", "training.mixed_precision_param"},
                                    std::pair{"[activation_checkpoint]\nmode = 'memory_budget'\n", "activation_checkpoint.mode"}, std::pair{"[optimizer]\nearly_step_in_backward = true\n", "optimizer.early_step_in_backward"}, std::pair{"[fault_tolerance]\nenable = true\n", "fault_tolerance.enable"},
                                    std::pair{"[compile]\nenable = true\nbackend = 'aot_eager'\n", "compile.backend"}}) {
    EXPECT_EQ(fault(text), std::string("unsupported_training t.toml: ") + place);
  }
  EXPECT_EQ(fault("[model]\nflavor = '7B'\n"), "bad_config t.toml: model.flavor");
  EXPECT_EQ(fault("[training]\nlocal_batch_size = 0\n"), "bad_config t.toml: training.local_batch_size");
  EXPECT_EQ(fault("[training]\nglobal_batch_size = 12\n"), "bad_config t.toml: training.global_batch_size");
  EXPECT_EQ(fault("[training]\ndtype = 'half'\n"), "bad_config t.toml: training.dtype");
  EXPECT_EQ(fault("[parallelism]\ndata_parallel_shard_degree = 4\n"), "bad_config t.toml: parallelism.data_parallel_shard_degree");
  EXPECT_EQ(fault("[activation_checkpoint]\nselective_ac_option = 'ops'\n"), "bad_config t.toml: activation_checkpoint.selective_ac_option");
  EXPECT_EQ(fault("[compile]\nenable = true\ncomponents = ['optimizer']\n"), "bad_config t.toml: compile.components");
  EXPECT_EQ(fault("training = 1\n"), "bad_config t.toml: training");
}

TEST(Torchtitan, shippedFiles) {
  EXPECT_NE(torchtitan_config("llama3_8b.toml").find("model.flavor=8B"), std::string_view::npos);
  EXPECT_TRUE(torchtitan_config("llama3_8b").empty());
  EXPECT_TRUE(torchtitan_config("").empty());
}

}  // namespace
}  // namespace dryfit
