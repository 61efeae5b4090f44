// See class_heads.hpp. Source of the scripts: transformers 4.57, examples/pytorch/{text-classification,token-classification,question-answering}.
#include "workload/class_heads.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"

namespace dryfit {

namespace {

constexpr std::array<std::string_view, 4> kClassEndings = {"", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"};

constexpr std::array kClassScripts = {
    ClassScript{"run_glue", HeadKind::sequences, "max_seq_length", 128, true}, ClassScript{"run_glue_no_trainer", HeadKind::sequences, "max_length", 128, false},
    ClassScript{"run_classification", HeadKind::sequences, "max_seq_length", 128, true}, ClassScript{"run_xnli", HeadKind::sequences, "max_seq_length", 128, true},
    ClassScript{"run_ner", HeadKind::tokens, "max_seq_length", 0, false}, ClassScript{"run_ner_no_trainer", HeadKind::tokens, "max_length", 128, false},
    ClassScript{"run_qa", HeadKind::answers, "max_seq_length", 384, true}, ClassScript{"run_qa_no_trainer", HeadKind::answers, "max_seq_length", 384, false}};

// Labels that a script's data have, where they are known.
struct Labels { std::int64_t count; std::string_view of; };
std::optional<Labels> labels_of(const ClassScript& script, const ClassScriptSaid& said) {
  if (script.name == "run_xnli") return Labels{3, "XNLI's"};
  if (script.head == HeadKind::tokens) {
    const bool conll = said.dataset == "conll2003" || said.dataset == "eriktks/conll2003";
    if (said.task == "pos") return conll ? std::optional(Labels{47, "CoNLL-2003's parts of speech"}) : std::nullopt;
    if (said.task == "chunk") return conll ? std::optional(Labels{23, "CoNLL-2003's chunks"}) : std::nullopt;
    return conll ? std::optional(Labels{9, "CoNLL-2003's names"}) : said.dataset == "wnut_17" ? std::optional(Labels{13, "WNUT-17's names"}) : std::nullopt;
  }
  if (!script.name.starts_with("run_glue")) return std::nullopt;
  if (said.task == "mnli") return Labels{3, "GLUE's mnli"};
  if (said.task == "stsb") return Labels{1, "GLUE's stsb: a number"};
  constexpr std::array<std::string_view, 7> kOfTwo = {"cola", "mrpc", "qnli", "qqp", "rte", "sst2", "wnli"};
  return std::ranges::find(kOfTwo, said.task) != kOfTwo.end() ? std::optional(Labels{2, "GLUE's task"}) : std::nullopt;
}

}  // namespace

HeadKind head_of_class(std::string_view class_name) {
  for (std::size_t i = 1; i < kClassEndings.size(); ++i) {
    if (class_name.ends_with(kClassEndings[i])) return static_cast<HeadKind>(i);
  }
  return HeadKind::words;
}

std::string class_with_head(const Architecture& a, HeadKind head) {
  using enum Family;
  constexpr std::array kNone = {granite, olmoe, megatron};
  constexpr std::array kTextsAlone = {olmo, olmo2, olmo3, gemma3, deepseek_v2};
  constexpr std::array kNoAnswers = {gemma, gemma2, phi, phi3, starcoder2, gpt_oss, deepseek_v3};
  const auto among = [&](const auto& families) { return std::ranges::find(families, a.family) != families.end(); };
  const bool words = head == HeadKind::words;
  if (!words && (among(kNone) || (among(kTextsAlone) && head != HeadKind::sequences) || (among(kNoAnswers) && head == HeadKind::answers))) return {};
  std::string stem = a.class_name.substr(0, std::min(a.class_name.rfind("LMHeadModel"), a.class_name.rfind("For")));
  if (a.family == gemma3) stem = words ? "Gemma3" : "Gemma3Text";
  if (words) return stem + (a.encoder ? "ForMaskedLM" : a.family == gpt2 ? "LMHeadModel" : "ForCausalLM");
  return stem + std::string(kClassEndings[static_cast<std::size_t>(head)]);
}

void put_head(Architecture& a, HeadKind head, std::int64_t classes) {
  a.class_name = class_with_head(a, head);
  a.head = head;
  a.classes = head == HeadKind::words ? 0 : head == HeadKind::answers ? 2 : classes;
  a.tied_head = head == HeadKind::words && a.tied_words;
  if (a.encoder) a.encoder->pooler = a.family == Family::bert && head == HeadKind::sequences;
}

void read_class_heads(Fields& f, Architecture& a) {
  constexpr std::int64_t kMostLabels = 1 << 24;
  const Document* named = f.find("id2label");
  if (named != nullptr && named->kind == Document::Kind::map && !named->fields.empty()) a.labels = static_cast<std::int64_t>(named->fields.size());
  a.labels = std::max<std::int64_t>(1, f.whole("num_labels", 0, kMostLabels).value_or(a.labels));
  const auto given = f.real("classifier_dropout", 0, 1);
  double texts = 0, tokens = given.value_or(0.1), answers = 0;
  if (a.family == Family::distilbert) texts = f.real("seq_classif_dropout", 0, 1).value_or(0.2), tokens = a.residual_dropout, answers = f.real("qa_dropout", 0, 1).value_or(0.1);
  else if (a.encoder) texts = tokens = given.value_or(a.residual_dropout);
  else if (!given && a.family != Family::gpt_neox) tokens = f.real("hidden_dropout", 0, 1).value_or(tokens);
  a.head_dropouts = {0, texts, tokens, answers};
}

void take_named_class(const Document& config, Architecture& a) {
  const Document* classes = config.find("architectures");
  if (classes == nullptr || classes->kind != Document::Kind::list || classes->items.empty() || classes->items[0].kind != Document::Kind::text) return;
  const std::string& given = classes->items[0].text;
  const HeadKind head = head_of_class(given);
  if (head != HeadKind::words && given == class_with_head(a, head)) {
    put_head(a, head, a.labels);
    const Document* problem = config.find("problem_type");
    if (problem != nullptr && problem->text == "multi_label_classification") a.notes.push_back("problem_type multi_label_classification: laid out is the loss of one label a text, some bytes a label less");
  }
  if (given != a.class_name) a.notes.push_back("the file names " + given.substr(0, 60) + "; described is " + a.class_name);
  if (config.find("auto_map") != nullptr) a.notes.push_back("auto_map: a modelling file of the repository's own is not read; described is transformers' " + a.class_name);
}

void save_class_head(Lora& lora, const Architecture& a) {
  const bool old = a.family == Family::gpt2 || a.family == Family::gpt_neox;
  const std::string_view name = a.head == HeadKind::answers ? "qa_outputs" : a.encoder || (old && a.head == HeadKind::tokens) ? "classifier" : "score";
  if (std::ranges::find(lora.saved_modules, name) == lora.saved_modules.end()) lora.saved_modules.emplace_back(name);
}

std::int64_t outputs_of(const Architecture& a, std::int64_t rows, std::int64_t length) {
  if (a.head == HeadKind::sequences) return rows * a.classes;
  return rows * length * (a.classifies() ? a.classes : a.vocab);
}

const ClassScript* class_script(std::string_view path) {
  std::string_view name = path.substr(path.find_last_of("/\\") + 1);
  if (name.ends_with(".py")) name.remove_suffix(3);
  const auto it = std::ranges::find(kClassScripts, name, &ClassScript::name);
  return it == kClassScripts.end() ? nullptr : &*it;
}

void apply_class_script(const ClassScript& script, const ClassScriptSaid& said, TransformersFlags& flags, std::vector<std::string>& assumed) {
  flags.task = script.head;
  flags.filled = said.fills.value_or(script.fills);
  const std::string default_of = " (" + std::string(script.name) + "'s default)";
  if (!flags.max_seq_len && script.length > 0) {
    flags.max_seq_len = script.length;
    assumed.push_back(std::string(script.length_flag) + " " + std::to_string(script.length) + default_of);
  }
  if (script.length_flag != "max_length" && std::ranges::find(flags.users.spelled, "max_length", &std::pair<std::string, std::string>::first) == flags.users.spelled.end()) flags.users.spelled.emplace_back("max_length", script.length_flag);
  assumed.push_back(*flags.filled ? "rows that are filled up to that length" + (said.fills ? std::string() : default_of) : "rows that are filled up to the longest of each batch" + (said.fills ? std::string() : default_of));
  if (const auto labels = labels_of(script, said)) {
    flags.labels = labels->count;
    assumed.push_back("num_labels " + std::to_string(labels->count) + " (" + std::string(labels->of) + ")");
  }
  if (flags.evaluates && !flags.eval_keeps) flags.eval_keeps = EvaluationRun::Keeps::logits;  // compute_metrics takes them as they are
}

Result<HfModel> model_of_run(const HfModel& model, const TransformersFlags& f) {
  HfModel out = model;
  Architecture& a = out.architecture;
  const bool of_words = f.framework.value_or(Framework::transformers) != Framework::transformers || f.head || f.preference || f.rollouts || f.users.by_file() || f.users.cuts_one_text();
  const HeadKind head = f.task ? *f.task : of_words ? HeadKind::words : a.head;
  const std::string name = class_with_head(a, head);
  if (name.empty()) return fail("unsupported_training", "transformers has no class of " + a.model_type + " for what " + (f.users.script.empty() ? "is asked" : f.users.script.back().substr(0, 60)) + " trains", "give another model", f.users.script.empty() ? "" : f.users.script.back().substr(0, 60));
  const bool since5 = (a.family == Family::olmo || a.family == Family::olmo2 || a.family == Family::olmo3) && head != HeadKind::words;
  if (since5 && f.transformers && !version_from(*f.transformers, 5, 0)) return fail("bad_value", "transformers " + f.transformers->substr(0, 20) + " has no " + name + ", which came with 5", "leave --transformers out", "--transformers");
  if (!f.task && head == a.head) return out;
  std::int64_t labels = a.labels;
  if (f.labels) {
    labels = *f.labels;
  } else if (f.task && head != HeadKind::answers) {  // the script takes those of its data
    constexpr std::int64_t kUsual = 2, kOfNames = 9;
    const bool told = labels != kUsual || head == HeadKind::sequences;
    if (!told) labels = kOfNames;
    out.assumptions.push_back({"num_labels", std::to_string(labels), !told ? "CoNLL-2003's names, for want of the data's" : labels == kUsual ? "transformers' default, for want of the data's" : "config.json's, for want of the data's"});
  }
  put_head(a, head, labels);
  return out;
}

}  // namespace dryfit
