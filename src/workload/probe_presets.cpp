// See probe_presets.hpp.
#include "workload/probe_presets.hpp"

#include <algorithm>
#include <array>

#include "base/embedded.hpp"
#include "base/text.hpp"
#include "workload/probe_document.hpp"

namespace dryfit {

namespace {

// A file that cannot be read gives no models; tests/workload/presets_test.cpp asks for every one of them.
void read_file(std::string_view json, std::string_view name, std::vector<ModelPreset>& out) {
  const auto document = document_from_json(json, name);
  if (!document) return;
  for (const Document& item : document->items) {
    Fields f(item, std::string(name));
    ModelPreset p;
    p.name = f.text("name").value_or(""), p.source = f.text("source").value_or(""), p.date = f.text("date").value_or("");
    constexpr std::string_view kHost = "https://huggingface.co/";
    if (p.source.starts_with(kHost)) p.repository = p.source.substr(kHost.size(), p.source.find("/blob/") - kHost.size());
    const Document* config = f.map("config");
    if (config == nullptr) continue;
    auto model = architecture_from(*config, p.name);
    if (!model) continue;
    p.model = std::move(*model);
    p.model.architecture.name = p.name;
    p.model.architecture.repository = p.repository;
    out.push_back(std::move(p));
  }
}

std::vector<ModelPreset> read_all() {
  std::vector<ModelPreset> out;
  for (const auto& [name, text] : {std::pair{"gpt2.json", embedded_gpt2_json}, std::pair{"pythia.json", embedded_pythia_json}, std::pair{"llama.json", embedded_llama_json}, std::pair{"mistral.json", embedded_mistral_json},
                                   std::pair{"qwen.json", embedded_qwen_json}, std::pair{"gemma.json", embedded_gemma_json}, std::pair{"phi.json", embedded_phi_json}, std::pair{"olmo.json", embedded_olmo_json},
                                   std::pair{"deepseek.json", embedded_deepseek_json}, std::pair{"gpt_oss.json", embedded_gpt_oss_json},
                                   std::pair{"other_decoders.json", embedded_other_decoders_json}, std::pair{"bert.json", embedded_bert_json}}) {
    read_file(text, name, out);
  }
  return out;
}

// Repositories of others' weights in a shipped model's shape and dtype, by their config.json, where the name does not say so: what stands behind a /, in small letters.
struct SameShape { std::string_view name, preset; };
constexpr std::array kSameShape = {
    SameShape{"deepseek-r1-distill-llama-8b", "llama-3.1-8b"}, SameShape{"deepseek-r1-distill-llama-70b", "llama-3.3-70b"}, SameShape{"deepseek-r1-distill-qwen-7b", "qwen2.5-7b"}, SameShape{"deepseek-r1-distill-qwen-14b", "qwen2.5-14b"}, SameShape{"deepseek-r1-distill-qwen-32b", "qwen2.5-32b"},
    SameShape{"qwen2.5-math-1.5b", "qwen2.5-1.5b"}, SameShape{"qwen2.5-math-7b", "qwen2.5-7b"}, SameShape{"qwen2.5-coder-0.5b", "qwen2.5-0.5b"}, SameShape{"qwen2.5-coder-1.5b", "qwen2.5-1.5b"}, SameShape{"qwen2.5-coder-3b", "qwen2.5-3b"}, SameShape{"qwen2.5-coder-7b", "qwen2.5-7b"},
    SameShape{"qwen2.5-coder-14b", "qwen2.5-14b"}, SameShape{"qwen2.5-coder-32b", "qwen2.5-32b"}, SameShape{"mistral-7b-instruct-v0.1", "mistral-7b-v0.1"}, SameShape{"mistral-7b-instruct-v0.3", "mistral-7b-v0.3"}, SameShape{"zephyr-7b-beta", "mistral-7b-v0.1"}, SameShape{"zephyr-7b-sft-full", "mistral-7b-v0.1"},
    SameShape{"mixtral-8x7b-instruct-v0.1", "mixtral-8x7b"}, SameShape{"mixtral-8x22b-instruct-v0.1", "mixtral-8x22b"}, SameShape{"bert-large-uncased-whole-word-masking", "bert-large-uncased"}};

const ModelPreset* exactly(std::string_view wanted) {
  for (const ModelPreset& p : model_presets()) {
    const std::string repository = to_lower(p.repository);
    if (wanted == p.name || wanted == repository || (wanted.find('/') == std::string_view::npos && repository.ends_with(wanted) && repository[repository.size() - wanted.size() - 1] == '/')) return &p;
  }
  return nullptr;
}

}  // namespace

const std::vector<ModelPreset>& model_presets() {
  static const std::vector<ModelPreset> all = read_all();
  return all;
}

Result<FoundPreset> find_preset(std::string_view name) {
  std::string wanted = to_lower(trim(name));
  bool variant = false;
  while (!wanted.empty()) {
    if (const ModelPreset* p = exactly(wanted)) return FoundPreset{p, variant};
    if (const auto same = std::ranges::find(kSameShape, wanted, &SameShape::name); same != kSameShape.end()) return FoundPreset{exactly(same->preset), true};
    // google/gemma-2-9b-it, unsloth's mirrors of others' repositories, Llama-2-7b-chat-hf
    static constexpr std::array<std::string_view, 9> kEndings = {"-instruct", "-chat", "-it", "-pt", "-hf", "-base", "-unsloth-bnb-4bit", "-bnb-4bit", "-deduped"};
    const auto ending = std::ranges::find_if(kEndings, [&](std::string_view e) { return wanted.ends_with(e) && wanted.size() > e.size(); });
    if (ending != kEndings.end()) wanted.resize(wanted.size() - ending->size());
    else if (wanted.find('/') != std::string::npos) wanted = wanted.substr(wanted.find('/') + 1);
    else if (wanted.starts_with("meta-llama-3")) wanted = wanted.substr(5);  // Meta-Llama-3.1-8B, the name before 2024-09
    else break;
    variant = true;
  }
  std::vector<std::string_view> names;
  for (const ModelPreset& p : model_presets()) names.push_back(p.name);
  return fail("unknown_model", "model '" + std::string(name.substr(0, 80)) + "' is not among the shipped ones", did_you_mean(wanted, names, "see: dryfit list models, or give its file: --config config.json"), "--model");
}

}  // namespace dryfit
