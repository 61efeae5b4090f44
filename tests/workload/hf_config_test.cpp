// config.json texts, kind and hostile: what transformers would build, or an error that names the field and the way out.
#include <gtest/gtest.h>

#include "workload/hf_config.hpp"
#include "workload/probe_document.hpp"

namespace dryfit {
namespace {

Result<HfModel> read(std::string_view json) {
  const auto document = document_from_json(json, "config.json");
  if (!document) return std::unexpected(document.error());
  return architecture_from(*document, "config.json");
}

std::string fault(std::string_view json) {
  const auto model = read(json);
  return model ? "no error" : model.error().code + ": " + model.error().message + " | " + model.error().hint + " | " + model.error().where;
}

std::string llama(std::string_view more) { return R"({"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100, )" + std::string(more) + "}"; }

TEST(HfConfig, silenceIsTransformersDefaultAndIsListed) {
  const auto model = read(R"({"model_type": "llama"})");
  ASSERT_TRUE(model);
  EXPECT_EQ(model->architecture.width, 4096);
  EXPECT_EQ(model->architecture.vocab, 32000);
  ASSERT_EQ(model->assumptions.size(), 6U);
  EXPECT_EQ(model->assumptions[0].source, "transformers' default for llama");
}

TEST(HfConfig, unreadFieldsAreNamedAndHarmlessOnesAreNot) {
  const auto model = read(llama(R"("num_key_value_heads": 2, "rope_theta": 500000.0, "bos_token_id": 1, "residual_multiplier": 0.22, "max_position_embeddings": 64)"));
  ASSERT_TRUE(model);
  EXPECT_EQ(model->unused, std::vector<std::string>{"residual_multiplier"});
  EXPECT_EQ(model->architecture.kv_heads, 2);
}

TEST(HfConfig, windowsFollowEachFamily) {
  const auto windows = [](std::string_view json) { return read(json)->architecture.windows; };
  const auto text = [](std::string_view type, std::string_view more) { return R"({"model_type": ")" + std::string(type) + R"(", "num_hidden_layers": 7, )" + std::string(more) + "}"; };
  using W = std::vector<std::int64_t>;
  EXPECT_EQ(windows(text("mistral", R"("sliding_window": null)")), W(7, 0));
  EXPECT_EQ(windows(text("mistral", R"("vocab_size": 32000)")), W(7, 4096));
  EXPECT_EQ(windows(text("gemma2", R"("sliding_window": 128)")), (W{128, 0, 128, 0, 128, 0, 128}));
  EXPECT_EQ(windows(text("gemma3_text", R"("sliding_window": 512)")), (W{512, 512, 512, 512, 512, 0, 512}));
  EXPECT_EQ(windows(text("olmo3", R"("sliding_window": 96)")), (W{96, 96, 96, 0, 96, 96, 96}));
  EXPECT_EQ(windows(text("exaone4", R"("sliding_window": 96, "sliding_window_pattern": 3)")), (W{96, 96, 0, 96, 96, 0, 96}));
  EXPECT_EQ(windows(text("gpt_oss", R"("sliding_window": 128)")), (W{128, 0, 128, 0, 128, 0, 128}));
  EXPECT_EQ(windows(text("starcoder2", R"("sliding_window": 64)")), W(7, 64));
  EXPECT_EQ(windows(text("smollm3", R"("sliding_window": 64)")), W(7, 0));
  EXPECT_EQ(windows(text("smollm3", R"("sliding_window": 64, "use_sliding_window": true)")), (W{0, 0, 0, 64, 0, 0, 0}));
  EXPECT_EQ(windows(text("qwen2", R"("sliding_window": 64, "max_window_layers": 5)")), W(7, 0));
  EXPECT_EQ(windows(text("qwen2", R"("sliding_window": 64, "use_sliding_window": true, "max_window_layers": 5)")), (W{0, 0, 0, 0, 0, 64, 64}));
  EXPECT_EQ(windows(text("qwen3", R"("sliding_window": 64, "use_sliding_window": true, "layer_types": ["full_attention", "sliding_attention", "full_attention", "full_attention", "full_attention", "full_attention", "full_attention"])")), (W{0, 64, 0, 0, 0, 0, 0}));
}

TEST(HfConfig, exaoneTurnsHeadsWhereItHasWindows) {
  const auto unrotated = [](std::string_view more) { return read(R"({"model_type": "exaone4", "num_hidden_layers": 5)" + std::string(more) + "}")->architecture.unrotated; };
  using B = std::vector<bool>;
  EXPECT_EQ(unrotated(""), (B{false, false, false, true, false}));
  const std::string types = R"(, "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention", "full_attention"])";
  EXPECT_EQ(unrotated(R"(, "sliding_window_pattern": "LGGLG")" + types), (B{false, true, true, false, true}));
  EXPECT_EQ(unrotated(R"(, "sliding_window": null)" + types), B{});
  for (const char* unreadable : {R"("sliding_window_pattern": "LLLG")", R"("sliding_window": null)"}) EXPECT_FALSE(read(R"({"model_type": "exaone4", )" + std::string(unreadable) + "}")) << unreadable;  // transformers stops over them
}

TEST(HfConfig, layersWithoutRotaryPositionsAreEveryFourthOrThoseThatTheFileNames) {
  const auto unrotated = [](std::string_view more) { return read(R"({"model_type": "smollm3", "num_hidden_layers": 5)" + std::string(more) + "}")->architecture.unrotated; };
  using B = std::vector<bool>;
  EXPECT_EQ(unrotated(""), (B{false, false, false, true, false}));
  EXPECT_EQ(unrotated(R"(, "no_rope_layer_interval": 2)"), (B{false, true, false, true, false}));
  EXPECT_EQ(unrotated(R"(, "no_rope_layers": [0, 1, 1, 1, 0])"), (B{true, false, false, false, true}));
  EXPECT_NE(fault(R"({"model_type": "smollm3", "num_hidden_layers": 2, "no_rope_layers": [1]})").find("no_rope_layers has 1 entries for 2 layers"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "smollm3", "num_hidden_layers": 1, "no_rope_layers": [2]})").find("no_rope_layers holds 2"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "granite", "residual_multiplier": 0})").find("residual_multiplier"), std::string::npos);
}

TEST(HfConfig, mixturesFollowEachFamily) {
  const auto qwen = read(R"({"model_type": "qwen3_moe", "num_hidden_layers": 6, "decoder_sparse_step": 2, "mlp_only_layers": [3], "norm_topk_prob": true})");
  ASSERT_TRUE(qwen);
  EXPECT_EQ(qwen->architecture.moe->layers, (std::vector<bool>{false, true, false, false, false, true}));
  const auto deepseek = read(R"({"model_type": "deepseek_v3", "num_hidden_layers": 4, "num_nextn_predict_layers": 1})");
  ASSERT_TRUE(deepseek);
  EXPECT_EQ(deepseek->architecture.moe->layers, (std::vector<bool>{false, false, false, true}));
  EXPECT_EQ(deepseek->architecture.notes.size(), 1U);
  EXPECT_EQ(deepseek->architecture.head_dim, 192);
}

TEST(HfConfig, gemmaThreeWithATowerIsItsTextModelAndSaysSo) {
  const auto model = read(R"({"model_type": "gemma3", "torch_dtype": "bfloat16", "vision_config": {"hidden_size": 1152}, "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34, "intermediate_size": 10240, "sliding_window": 1024}})");
  ASSERT_TRUE(model);
  EXPECT_EQ(model->architecture.dtype, Dtype::bf16);
  EXPECT_EQ(model->architecture.class_name, "Gemma3ForCausalLM");
  EXPECT_NE(model->architecture.notes.back().find("vision tower"), std::string::npos);
}

TEST(HfConfig, robertaKeepsRowsForPadding) {
  const auto model = read(R"({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1})");
  ASSERT_TRUE(model);
  EXPECT_EQ(model->architecture.position_rows, 514);
  EXPECT_EQ(model->architecture.max_positions, 512);
}

TEST(HfConfig, unknownArchitecturesSayWhatIsMissing) {
  EXPECT_EQ(fault(R"({"model_type": "lama"})"), "unknown_architecture: model_type 'lama' is not known: there is no description of its blocks | did you mean 'llama'? | config.json: model_type");
  EXPECT_NE(fault(R"({"model_type": "mamba"})").find("state-space layers"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "qwen3_next"})").find("the nearest described is qwen3_moe"), std::string::npos);
  EXPECT_NE(fault(R"({"hidden_size": 4})").find("model_type is missing"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "gpt2", "add_cross_attention": true})").find("cross-attention, which dryfit does not describe"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "qwen3", "num_hidden_layers": 1, "layer_types": ["linear_attention"]})").find("a layer of linear_attention"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "bert", "position_embedding_type": "relative_key"})").find("position_embedding_type"), std::string::npos);
}

TEST(HfConfig, wrongValuesNameTheFieldAndTheRange) {
  EXPECT_EQ(fault(R"({"model_type": "llama", "hidden_size": -3})"), "bad_config: hidden_size is -3 | it should be a whole number from 1 to 1048576 | config.json: hidden_size");
  EXPECT_NE(fault(R"({"model_type": "llama", "hidden_size": 99999999999999999999999})").find("hidden_size is"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "llama", "hidden_size": 9223372036854775807})").find("hidden_size is 9223372036854775807"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "llama", "hidden_size": "4096"})").find("hidden_size is \"4096\""), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "llama", "hidden_size": [4096]})").find("hidden_size is a list of 1"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "llama", "num_hidden_layers": 2.5})").find("num_hidden_layers is 2.5"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "llama", "hidden_size": 4097})").find("32 heads do not divide"), std::string::npos);
  EXPECT_EQ(fault(R"({"model_type": "seed_oss", "hidden_size": 512, "num_attention_heads": 6, "num_key_value_heads": 6, "head_dim": 32, "intermediate_size": 77, "num_hidden_layers": 4})"), "no error");  // heads of their own size need not
  EXPECT_NE(fault(R"({"model_type": "llama", "num_key_value_heads": 5})").find("does not divide 32 heads"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "llama", "tie_word_embeddings": 1})").find("it should be true or false"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "llama", "hidden_act": "mish"})").find("an activation dryfit does not describe"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "llama", "torch_dtype": "int8"})").find("float32, bfloat16 or float16"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "mixtral", "num_experts_per_tok": 9})").find("9 of 8 experts"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "qwen3", "num_hidden_layers": 2, "layer_types": ["full_attention"]})").find("names 1 layers of 2"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "deepseek_v2"})").find("num_experts_per_tok is missing"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": "mixtral", "hidden_size": 1048576, "intermediate_size": 16777216, "num_hidden_layers": 4096, "num_local_experts": 65536})").find("more than 10^15 parameters"), std::string::npos);
  EXPECT_NE(fault(R"({"model_type": 7})").find("model_type is 7"), std::string::npos);
  EXPECT_NE(fault(R"([1, 2])").find("a list of 2"), std::string::npos);
}

TEST(HfConfig, textsThatAreNoJsonTellWhere) {
  EXPECT_NE(fault("").find("the file is empty"), std::string::npos);
  EXPECT_NE(fault("{\n  \"model_type\": NaN\n}").find("config.json:2:"), std::string::npos);
  EXPECT_NE(fault(R"({"a": 1e999})").find("bad_json"), std::string::npos);
  EXPECT_NE(fault(std::string(100000, '[')).find("nested deeper than 64"), std::string::npos);
  EXPECT_NE(fault("{\"model_type\": \"llama\"").find("bad_json"), std::string::npos);
  EXPECT_NE(fault("\x80PK\x03\x04").find("bad_json"), std::string::npos);
  EXPECT_NE(fault(std::string(9 << 20, ' ')).find("too_large"), std::string::npos);
}

// The class that a file names is built; one that transformers does not have, or whose code the repository has itself, is not.
TEST(HfConfig, classesThatEndInClassesAreBuilt) {
  const auto model = read(R"({"model_type": "bert", "architectures": ["BertForSequenceClassification"], "id2label": {"0": "a", "1": "b", "2": "c"}, "classifier_dropout": null})");
  ASSERT_TRUE(model);
  const Architecture& a = model->architecture;
  EXPECT_EQ(a.class_name, "BertForSequenceClassification");
  EXPECT_EQ(a.head, HeadKind::sequences);
  EXPECT_EQ(a.classes, 3);
  EXPECT_FALSE(a.tied_head);
  EXPECT_TRUE(a.encoder->pooler);
  EXPECT_TRUE(a.notes.empty());
  EXPECT_EQ(parameters_of(a).back().shape, std::vector<std::int64_t>{3});
  EXPECT_DOUBLE_EQ(a.head_dropouts[1], 0.1);
  const auto head = [](std::string_view type, std::string_view name, std::string_view more = "") {
    const auto m = read(R"({"model_type": ")" + std::string(type) + R"(", "architectures": [")" + std::string(name) + "\"]" + std::string(more) + "}");
    return m ? m->architecture : Architecture();
  };
  EXPECT_EQ(head("llama", "LlamaForSequenceClassification", R"(, "num_labels": 1)").classes, 1);
  EXPECT_EQ(head("gpt2", "GPT2ForTokenClassification", R"(, "num_labels": 17)").classes, 17);
  EXPECT_EQ(head("distilbert", "DistilBertForQuestionAnswering", R"(, "num_labels": 7)").classes, 2);
  EXPECT_DOUBLE_EQ(head("distilbert", "DistilBertForSequenceClassification").head_dropouts[1], 0.2);
  EXPECT_EQ(head("gemma3_text", "Gemma3TextForSequenceClassification").head, HeadKind::sequences);
  for (const auto& [type, name] : {std::pair{"granite", "GraniteForSequenceClassification"}, std::pair{"gemma", "GemmaForQuestionAnswering"}, std::pair{"llama", "MyForTokenClassification"}, std::pair{"bert", "BertForMaskedLM"}}) {
    EXPECT_EQ(head(type, name).head, HeadKind::words) << name;
  }
  EXPECT_NE(fault(R"({"model_type": "bert", "num_labels": -1})").find("num_labels is -1"), std::string::npos);
}

TEST(HfConfig, ofARepeatedKeyTheLastCountsAsInPython) {
  const auto model = read(llama(R"("hidden_size": 128)"));
  ASSERT_TRUE(model);
  EXPECT_EQ(model->architecture.width, 128);
}

}  // namespace
}  // namespace dryfit
