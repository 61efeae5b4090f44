// Heads of classes in place of one of words: which classes transformers has, and what its examples' scripts build.
// Symbols: B batch, T length, C classes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/document.hpp"
#include "workload/architecture.hpp"
#include "workload/transformers.hpp"

namespace dryfit {

// By the end of a class's name: "BertForTokenClassification".
HeadKind head_of_class(std::string_view class_name);

// The class of the architecture's model that ends so: "GPT2ForSequenceClassification", or of words "GPT2LMHeadModel"; empty where transformers has none.
// Source: transformers 4.57 and 5.17, models/*/modeling_*.py.
std::string class_with_head(const Architecture& architecture, HeadKind head);

// That class in place of the one it is, with so many classes (of answers always 2: where they begin and end; of words none). Precondition: there is one.
void put_head(Architecture& architecture, HeadKind head, std::int64_t classes);

// What a config.json says of heads of classes, whichever is built: labels, and dropouts before them.
void read_class_heads(Fields& config, Architecture& architecture);
// The class that it names under "architectures": one with a head of classes is put there; another than the one described is noted.
void take_named_class(const Document& config, Architecture& architecture);

// peft's tasks of classes (PeftModelForSequenceClassification and its kin): the head is trained in full beside the adapters.
void save_class_head(Lora& lora, const Architecture& architecture);

// Numbers that the head puts out for so many rows: B C, B T C, 2 B T; B T V words.
std::int64_t outputs_of(const Architecture& architecture, std::int64_t rows, std::int64_t length);

// One of transformers' examples that train such heads.
struct ClassScript {
  std::string_view name;                // without its ending: "run_glue"
  HeadKind head;
  std::string_view length_flag;         // "max_seq_length"
  std::int64_t length;                  // its default; 0: as long as the model takes
  bool fills;                           // rows up to that length, unless told otherwise; else up to the longest of a batch
};
const ClassScript* class_script(std::string_view path);  // as a command names it: "examples/run_glue.py"

// What its command says beside the Trainer's arguments; empty: not said.
struct ClassScriptSaid { std::string task, dataset; std::optional<bool> fills; };

// Its head, labels, length and rows, where the flags say none. assumed: what stands for arguments that the command lacks.
void apply_class_script(const ClassScript& script, const ClassScriptSaid& said, TransformersFlags& flags, std::vector<std::string>& assumed);

// The model as a run builds it: with the head that a script says, one of words where the run's program knows no other, else the class that the file names.
// Errors: "unsupported_training" where transformers has no such class.
Result<HfModel> model_of_run(const HfModel& model, const TransformersFlags& flags);

}  // namespace dryfit
