// Every shipped model against what transformers builds from the same configuration (tools/models/check_counts.py), tensor for tensor.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "base/text.hpp"
#include "workload/probe_document.hpp"
#include "workload/probe_presets.hpp"

namespace dryfit {
namespace {

struct Run {
  std::string before;  // empty outside the layers
  int first = 0, last = 0;
  std::vector<std::pair<std::string, std::string>> tensors;  // what follows the number, shape
};

std::string shape_text(const Parameter& p) {
  std::string out;
  for (std::int64_t d : p.shape) out += (out.empty() ? "" : "x") + std::to_string(d);
  return out;
}

// As check_counts.py writes them: runs of equal layers are one, "model.layers.{0-31}.mlp.up_proj.weight".
std::vector<std::string> folded(const std::string& model, const std::vector<Parameter>& parameters) {
  std::vector<Run> runs;
  for (const Parameter& p : parameters) {
    if (p.layer < 0) {
      runs.push_back({"", 0, 0, {{p.name, shape_text(p)}}});
      continue;
    }
    const std::string number = "." + std::to_string(p.layer) + ".";
    const std::size_t at = p.name.find(number);
    EXPECT_NE(at, std::string::npos) << p.name;
    const std::string before = p.name.substr(0, at + 1);
    if (runs.empty() || runs.back().before != before || runs.back().first != p.layer) runs.push_back({before, p.layer, p.layer, {}});
    runs.back().tensors.emplace_back(p.name.substr(at + number.size() - 1), shape_text(p));
  }
  std::vector<Run> merged;
  for (const Run& r : runs) {
    if (!merged.empty() && !r.before.empty() && merged.back().before == r.before && merged.back().last + 1 == r.first && merged.back().tensors == r.tensors) merged.back().last = r.last;
    else merged.push_back(r);
  }
  std::vector<std::string> out;
  for (const Run& r : merged) {
    const std::string range = r.before.empty() ? "" : r.before + "{" + std::to_string(r.first) + "-" + std::to_string(r.last) + "}";
    for (const auto& [after, shape] : r.tensors) out.push_back(model + "\t" + range + after + "\t" + shape);
  }
  return out;
}

std::int64_t count(const Architecture& a) {
  std::int64_t n = 0;
  for (const Parameter& p : parameters_of(a)) n += p.count();
  return n;
}

std::string text_of(const std::string& path) {
  std::ifstream file(std::string(DRYFIT_SOURCE_DIR) + "/" + path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::map<std::string, std::vector<std::string>> golden() {
  std::map<std::string, std::vector<std::string>> out;
  std::istringstream file(text_of("tests/golden/models/parameters.tsv"));
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) out[line.substr(0, line.find('\t'))].push_back(line);
  return out;
}

TEST(Presets, parametersAreTransformersTensorForTensor) {
  auto expected = golden();
  EXPECT_GE(model_presets().size(), 101U);
  for (const ModelPreset& p : model_presets()) EXPECT_EQ(folded(p.name, parameters_of(p.model.architecture)), expected[p.name]) << p.name;
}

// Small models with a switch turned that no preset turns: biases, untied heads, dense layers between sparse ones.
TEST(Presets, switchesAreTransformersTensorForTensor) {
  auto expected = golden();
  const auto variants = document_from_json(text_of("tests/golden/models/variants.json"), "variants.json");
  ASSERT_TRUE(variants) << variants.error().message;
  EXPECT_GE(variants->items.size(), 16U);
  EXPECT_EQ(expected.size(), model_presets().size() + variants->items.size());
  for (const Document& v : variants->items) {
    const std::string& name = v.find("name")->text;
    const auto model = architecture_from(*v.find("config"), name);
    ASSERT_TRUE(model) << name << ": " << model.error().message;
    EXPECT_EQ(folded(name, parameters_of(model->architecture)), expected[name]) << name;
  }
}

// Totals as the models' own pages state them (safetensors metadata), independent of transformers and of our configurations.
TEST(Presets, totalsAreThoseTheModelsArePublishedWith) {
  for (const auto& [name, published] : {std::pair{"gpt2", 124439808LL}, std::pair{"gpt2-xl", 1557611200LL}, std::pair{"pythia-2.8b", 2775208960LL}, std::pair{"llama-2-7b", 6738415616LL},
                                        std::pair{"llama-3.1-8b", 8030261248LL}, std::pair{"llama-3.2-1b", 1235814400LL}, std::pair{"mistral-7b-v0.1", 7241732096LL}, std::pair{"mixtral-8x7b", 46702792704LL},
                                        std::pair{"qwen2.5-7b", 7615616512LL}, std::pair{"qwen3-8b", 8190735360LL}, std::pair{"qwen3-30b-a3b", 30532122624LL}, std::pair{"gemma-2-9b", 9241705984LL},
                                        std::pair{"gemma-3-1b", 999885952LL}, std::pair{"phi-2", 2779683840LL}, std::pair{"phi-4", 14659507200LL}, std::pair{"olmo-2-7b", 7298617344LL},
                                        std::pair{"gpt-oss-20b", 20914757184LL}, std::pair{"gpt-oss-120b", 116829156672LL}, std::pair{"smollm3-3b", 3075098624LL}, std::pair{"starcoder2-3b", 3030371328LL},
                                        std::pair{"olmoe-1b-7b", 6919161856LL}, std::pair{"deepseek-v2-lite", 15706484224LL}, std::pair{"bert-base-uncased", 109514298LL}, std::pair{"roberta-base", 124697433LL}}) {
    const auto found = find_preset(name);
    ASSERT_TRUE(found) << name;
    EXPECT_EQ(count(found->preset->model.architecture), published) << name;
  }
}

TEST(Presets, eachHasItsSourceAndCoversEveryFamily) {
  std::set<std::string> names;
  std::set<Family> families;
  for (const ModelPreset& p : model_presets()) {
    EXPECT_TRUE(names.insert(p.name).second) << p.name;
    families.insert(p.model.architecture.family);
    EXPECT_TRUE(p.source.starts_with("https://huggingface.co/") && p.source.ends_with("/config.json")) << p.name;
    EXPECT_EQ(p.date.size(), 10U) << p.name;
    EXPECT_TRUE(p.model.unused.empty()) << p.name << " has " << p.model.unused.front();
    EXPECT_TRUE(p.model.assumptions.empty()) << p.name << " leaves " << p.model.assumptions.front().key;
  }
  EXPECT_GE(names.size(), 60U);
  EXPECT_EQ(families.size(), static_cast<std::size_t>(Family::distilbert) + 1);
}

TEST(Presets, areFoundByNameAndByRepository) {
  const auto by = [](const char* text) {
    const auto found = find_preset(text);
    return found ? found->preset->name + (found->variant ? "*" : "") : found.error().hint;
  };
  EXPECT_EQ(by("llama-3.1-8b"), "llama-3.1-8b");
  EXPECT_EQ(by("Llama-3.1-8B"), "llama-3.1-8b");
  EXPECT_EQ(by("meta-llama/Llama-3.1-8B"), "llama-3.1-8b");
  EXPECT_EQ(by("meta-llama/Llama-3.1-8B-Instruct"), "llama-3.1-8b*");
  EXPECT_EQ(by("unsloth/gemma-2-9b-it"), "gemma-2-9b*");
  EXPECT_EQ(by("meta-llama/Llama-2-7b-chat-hf"), "llama-2-7b*");
  EXPECT_EQ(by("NousResearch/Meta-Llama-3.1-8B"), "llama-3.1-8b*");
  EXPECT_EQ(by("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit"), "llama-3.1-8b*");
  EXPECT_EQ(by("meta-llama/Meta-Llama-3-8B"), "llama-3-8b");
  EXPECT_EQ(by("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"), "qwen2.5-7b*");
  EXPECT_EQ(by("unsloth/DeepSeek-R1-Distill-Llama-8B"), "llama-3.1-8b*");
  EXPECT_EQ(by("Qwen/Qwen2.5-Coder-7B-Instruct"), "qwen2.5-7b*");
  EXPECT_EQ(by("mistralai/Mistral-7B-Instruct-v0.3"), "mistral-7b-v0.3*");
  EXPECT_EQ(by("bert-large-uncased-whole-word-masking"), "bert-large-uncased*");
  EXPECT_EQ(by("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B").substr(0, 3), "see");  // its head is not tied: no shipped model's shape
  EXPECT_EQ(by("gpt2"), "gpt2");
  EXPECT_EQ(by("llama-3.1-8"), "did you mean 'llama-3.1-8b'?");
  EXPECT_EQ(by(""), "see: dryfit list models, or give its file: --config config.json");
  EXPECT_EQ(by("-instruct"), "see: dryfit list models, or give its file: --config config.json");
  EXPECT_EQ(by("/"), "see: dryfit list models, or give its file: --config config.json");
}

}  // namespace
}  // namespace dryfit
