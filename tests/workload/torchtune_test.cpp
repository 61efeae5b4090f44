// torchtune's YAML: what it means for the run, what is told as not used, what is refused by name, and how a command's words stand over it.
#include <gtest/gtest.h>

#include "base/text.hpp"
#include "workload/probe_document.hpp"
#include "workload/torchtune.hpp"

namespace dryfit {
namespace {

struct Outcome {
  Result<void> ok;
  TransformersFlags flags;
  KeysTold told;
};

Document document_of(std::string_view yaml) {
  const auto document = document_from_yaml(yaml, "t.yaml");
  EXPECT_TRUE(document) << document.error().message;
  return document.value_or(Document());
}

void set(Document& config, std::string_view words) {
  for (const std::string_view word : split(words, ' ')) {
    const auto value = document_from_yaml(word.substr(word.find('=') + 1), "word");
    ASSERT_TRUE(value) << word;
    const auto ok = set_torchtune_key(config, word.substr(0, word.find('=')), *value, word);
    ASSERT_TRUE(ok) << ok.error().message;
  }
}

constexpr std::string_view kFull = R"(
model: {_component_: torchtune.models.llama3_2.llama3_2_3b}
tokenizer: {_component_: torchtune.models.llama3.llama3_tokenizer, path: /tmp/tokenizer.model, max_seq_len: 4096}
dataset: {_component_: torchtune.datasets.alpaca_dataset, packed: True}
optimizer: {_component_: bitsandbytes.optim.PagedAdamW8bit, lr: 2e-5}
loss: {_component_: torchtune.modules.loss.CEWithChunkedOutputLoss}
batch_size: 2
optimizer_in_bwd: True
enable_activation_checkpointing: True
dtype: bf16
device: cuda
epochs: 1
)";
constexpr std::string_view kLora = R"(
model:
  _component_: torchtune.models.llama3_1.lora_llama3_1_8b
  lora_attn_modules: ['q_proj', 'v_proj', 'output_proj']
  apply_lora_to_mlp: True
  lora_rank: 64
  lora_alpha: 128
  lora_dropout: 0.05
optimizer: {_component_: torch.optim.AdamW, fused: True}
loss: {_component_: torch.nn.CrossEntropyLoss}
batch_size: 4
gradient_accumulation_steps: 8
clip_grad_norm: 1.0
)";

Outcome apply(std::string_view yaml, TorchtuneRecipe recipe, std::string_view words = "") {
  Outcome out;
  Document config = document_of(yaml);
  if (!words.empty()) set(config, words);
  out.ok = apply_torchtune(config, "t.yaml", recipe, out.flags, out.told);
  return out;
}

std::string fault(std::string_view yaml, std::string_view words, TorchtuneRecipe recipe = TorchtuneRecipe::full_single_device) {
  const Outcome out = apply(yaml, recipe, words);
  return out.ok ? "none" : out.ok.error().code + " " + out.ok.error().where;
}

TEST(TorchtuneConfig, aWholeModel) {
  const Outcome o = apply(kFull, TorchtuneRecipe::full_single_device);
  ASSERT_TRUE(o.ok) << o.ok.error().message;
  EXPECT_EQ(o.flags.model, "llama-3.2-3b");
  EXPECT_EQ(o.flags.framework, Framework::torchtune);
  EXPECT_EQ(o.flags.device_batch_size, 2);
  EXPECT_EQ(o.flags.max_seq_len, 4096);
  EXPECT_EQ(o.flags.weights, Dtype::bf16);
  EXPECT_EQ(o.flags.optimizer, OptimizerKind::paged_adamw_8bit);
  EXPECT_EQ(o.flags.recompute, Recompute::full);
  EXPECT_EQ(o.flags.max_grad_norm, 0.0);
  ASSERT_TRUE(o.flags.torchtune);
  EXPECT_TRUE(o.flags.torchtune->optimizer_in_backward);
  EXPECT_EQ(o.flags.torchtune->packing, TorchtuneRun::Packing::flex);
  EXPECT_EQ(o.flags.torchtune->output_chunks, 8);
  EXPECT_EQ(o.flags.torchtune->positions, 131072);
  EXPECT_TRUE(o.told.unused.empty()) << o.told.unused[0];
}

TEST(TorchtuneConfig, adapters) {
  const Outcome o = apply(kLora, TorchtuneRecipe::lora_single_device);
  ASSERT_TRUE(o.ok) << o.ok.error().message;
  ASSERT_TRUE(o.flags.lora);
  EXPECT_EQ(o.flags.lora->rank, 64);
  EXPECT_EQ(o.flags.lora->dropout, 0.05);
  EXPECT_EQ(o.flags.lora->targets, (std::vector<std::string>{"q_proj", "v_proj", "o_proj", "mlp"}));
  EXPECT_EQ(o.flags.optimizer, OptimizerKind::adamw_fused);
  EXPECT_EQ(o.flags.grad_accum_steps, 8);
  EXPECT_EQ(o.flags.max_grad_norm, 1.0);
  EXPECT_EQ(o.flags.torchtune->output_chunks, 0);
  EXPECT_FALSE(o.flags.torchtune->layer_tables);  // Llama 3.1's builders share one
  EXPECT_TRUE(apply(kLora, TorchtuneRecipe::lora_single_device, "model=torchtune.models.llama3.lora_llama3_8b").flags.torchtune->layer_tables);
}

TEST(TorchtuneConfig, shards) {
  const Outcome o = apply(kLora, TorchtuneRecipe::lora_distributed, "custom_sharded_layers=[tok_embeddings] fsdp_reshard_after_forward=False enable_activation_checkpointing=True enable_activation_offloading=True");
  ASSERT_TRUE(o.ok) << o.ok.error().message;
  EXPECT_EQ(o.flags.sharding, Sharding::fsdp2);
  EXPECT_EQ(o.flags.reshard_after_forward, false);
  EXPECT_TRUE(o.flags.torchtune->embedding_apart);
  EXPECT_FALSE(o.flags.torchtune->head_apart);
  EXPECT_TRUE(o.flags.torchtune->offload_activations);
  EXPECT_TRUE(o.told.unused.empty()) << o.told.unused[0];
  EXPECT_FALSE(apply(kLora, TorchtuneRecipe::lora_single_device).flags.sharding);
  EXPECT_EQ(apply(kLora, TorchtuneRecipe::lora_distributed, "fsdp_cpu_offload=True").flags.offload_parameters, true);
  const auto several = [](std::string_view words) { return fault(kFull, words, TorchtuneRecipe::full_distributed); };
  EXPECT_EQ(several("tensor_parallel_dim=2"), "unsupported_training t.yaml: tensor_parallel_dim");
  EXPECT_EQ(several("ac_mode=selective"), "unsupported_training t.yaml: ac_mode");
  EXPECT_EQ(several("custom_sharded_layers=[norm]"), "unsupported_training t.yaml: custom_sharded_layers");
}

TEST(TorchtuneConfig, wordsStandOverTheFile) {
  const Outcome o = apply(kFull, TorchtuneRecipe::full_single_device, "batch_size=4 optimizer=torch.optim.SGD optimizer.momentum=0.9 loss.num_output_chunks=16 optimizer_in_bwd=False dataset.packed=False extra=1");
  ASSERT_TRUE(o.ok) << o.ok.error().message;
  EXPECT_EQ(o.flags.device_batch_size, 4);
  EXPECT_EQ(o.flags.optimizer, OptimizerKind::sgd_momentum);
  EXPECT_EQ(o.flags.torchtune->output_chunks, 16);
  EXPECT_EQ(o.flags.torchtune->packing, TorchtuneRun::Packing::none);
  EXPECT_EQ(o.told.unused, std::vector<std::string>{"extra"});
  Document config = document_of(kFull);
  EXPECT_FALSE(set_torchtune_key(config, "batch_size.a", Document(), "batch_size.a=1"));
}

TEST(TorchtuneConfig, faultsHaveTheirPlace) {
  EXPECT_EQ(fault(kFull, "compile=5"), "bad_config t.yaml: compile");
  EXPECT_EQ(fault(kFull, "batch_size=0"), "bad_config t.yaml: batch_size");
  EXPECT_EQ(fault(kFull, "dtype=fp16"), "bad_config t.yaml: dtype");
  EXPECT_EQ(fault(kFull, "device=cpu"), "bad_config t.yaml: device");
  EXPECT_EQ(fault(kFull, "gradient_accumulation_steps=2"), "bad_config t.yaml: optimizer_in_bwd");
  EXPECT_EQ(fault(kFull, "clip_grad_norm=1.0"), "bad_config t.yaml: optimizer_in_bwd");
  EXPECT_EQ(fault(kFull, "loss=torchtune.modules.loss.ForwardKLLoss"), "unsupported_training t.yaml: loss._component_");
  EXPECT_EQ(fault(kFull, "optimizer=torchao.optim.AdamW8bit"), "unsupported_training t.yaml: optimizer._component_");
  EXPECT_EQ(fault(kFull, "model=torchtune.models.gemma.gemma_2b"), "bad_config t.yaml: model._component_");
  EXPECT_EQ(fault(kFull, "enable_activation_checkpointing=False enable_activation_offloading=True"), "bad_config t.yaml: enable_activation_offloading");
  EXPECT_EQ(fault(kLora, "batch_size=4"), "bad_config t.yaml: model._component_");  // adapters under the full recipe
  EXPECT_EQ(fault(kFull, "batch_size=4", TorchtuneRecipe::lora_single_device), "bad_config t.yaml: model._component_");
  EXPECT_EQ(fault(kLora, "model.use_dora=True", TorchtuneRecipe::lora_single_device), "unsupported_training t.yaml: model.use_dora");
  EXPECT_EQ(fault(kLora, "model.lora_attn_modules=[x_proj]", TorchtuneRecipe::lora_single_device), "bad_config t.yaml: model.lora_attn_modules");
  EXPECT_EQ(fault("{}", "batch_size=2"), "bad_config t.yaml: model");
}

// What ships with torchtune is understood, or is refused by the name of what is not laid out.
TEST(TorchtuneConfig, shippedOnes) {
  int understood = 0;
  for (const std::string_view name : torchtune_config_names()) {
    Document config;
    set(config, torchtune_config(name));
    const bool adapts = name.find("lora") != std::string_view::npos || name.find("dora") != std::string_view::npos;
    const bool single = name.find("single_device") != std::string_view::npos || name.find("low_memory") != std::string_view::npos;
    Outcome o;
    o.ok = apply_torchtune(config, name, single ? (adapts ? TorchtuneRecipe::lora_single_device : TorchtuneRecipe::full_single_device) : adapts ? TorchtuneRecipe::lora_distributed : TorchtuneRecipe::full_distributed, o.flags, o.told);
    EXPECT_EQ(o.flags.sharding.has_value(), !single) << name;
    if (o.ok) ++understood;
    else EXPECT_EQ(o.ok.error().code, "unsupported_training") << name << ": " << o.ok.error().message;
  }
  EXPECT_GE(understood, 50);
  EXPECT_TRUE(torchtune_config("llama3_2/3B_lora_single").empty());
  EXPECT_TRUE(torchtune_config("").empty());
}

}  // namespace
}  // namespace dryfit
