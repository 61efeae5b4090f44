// See litgpt_command.hpp. Source: Lightning-AI/litgpt litgpt/finetune/{full,lora,adapter,adapter_v2}.py, pretrain.py and args.py of 2024-09-27.
#include "plan/litgpt_command.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"
#include "plan/argument_file.hpp"

namespace dryfit {

namespace {

// Arguments that do not move memory on the GPU.
constexpr std::array<std::string_view, 31> kWithoutMemory = {
    "optimizer.init-args.lr", "optimizer.init-args.weight-decay", "optimizer.init-args.betas", "optimizer.init-args.eps", "initial-checkpoint-dir", "out-dir", "lora-alpha", "logger-name", "seed", "access-token", "resume", "num-nodes", "tokenizer-dir", "train.save-interval", "train.log-interval", "train.lr-warmup-steps", "train.lr-warmup-fraction", "train.epochs",
    "train.max-tokens", "train.max-steps", "train.min-lr", "train.learning-rate", "train.weight-decay", "train.beta1", "train.beta2", "train.max-time", "eval.interval", "eval.max-new-tokens", "eval.max-iters", "eval.initial-validation", "eval.final-validation"};

// lora_query and its like, by peft's names; what is on when nothing is said.
struct Part { std::string_view flag, target; bool usual; };
constexpr std::array kParts = {Part{"lora-query", "q_proj", true}, Part{"lora-key", "k_proj", false}, Part{"lora-value", "v_proj", true}, Part{"lora-projection", "o_proj", false}, Part{"lora-mlp", "mlp", false}, Part{"lora-head", "lm_head", false}};

class LitgptReader {
 public:
  LitgptReader(const LaunchLine& launch, std::span<const Argument> filed) : launch_(launch), filed_(filed), out_(before_arguments(launch)) {}

  Result<TrainerCommand> read() {
    if (auto ok = script(); !ok) return std::unexpected(ok.error());
    while (at_ < launch_.arguments.size()) {
      if (auto ok = next(); !ok) return std::unexpected(ok.error());
    }
    return finish();
  }

 private:
  TransformersFlags& f() { return out_.flags; }
  bool finetunes() const { return script_ != LitgptScript::pretrain; }

  // "finetune_lora", and the older "finetune lora"
  Result<void> script() {
    const auto& words = launch_.arguments;
    if (words.empty()) return fail("bad_command", "litgpt needs one of its commands", "paste all of it: litgpt finetune_lora MODEL --train.micro_batch_size 4", "pasted command");
    std::string name = words[at_++];
    if (name == "finetune" && at_ < words.size() && (words[at_] == "full" || words[at_] == "lora" || words[at_] == "adapter" || words[at_] == "adapter_v2")) name += "_" + words[at_++];
    const auto read = litgpt_script_of(name, "litgpt");
    if (!read) return std::unexpected(read.error());
    script_ = *read;
    f().framework = Framework::litgpt;
    f().litgpt_script = script_;
    out_.understood.push_back("litgpt " + name);
    return {};
  }

  // --name value, --name=value; a word without a name is the model.
  Result<void> next() {
    const std::string& word = launch_.arguments[at_++];
    if (!word.starts_with("--")) {
      named(word);
      return {};
    }
    const std::size_t eq = std::min(word.find('='), word.size());
    Argument a{dashed(word.substr(2, eq - 2)), {""}, {}};
    if (eq < word.size()) a.values[0] = word.substr(eq + 1);
    else if (at_ < launch_.arguments.size() && !launch_.arguments[at_].starts_with("--")) a.values[0] = launch_.arguments[at_++];
    if (a.name == "config" && argument_file(launch_) == a.values[0]) return file();
    return take(a);
  }

  // --config stands for the arguments in the file: what follows it wins, what comes before it does not.
  Result<void> file() {
    for (const Argument& a : filed_) {
      if (auto ok = take(a); !ok) return ok;
    }
    return {};
  }

  Result<void> take(const Argument& a) {
    place_ = place_of(a);
    const std::string name = a.name == "optimizer.class-path" ? "optimizer" : a.name, value = a.values.empty() ? "" : a.values[0];
    if (name.starts_with("model-config.")) return fail("unsupported_training", place_ + ": a model in LitGPT's own words is not read", "name a known one (model_name), or give its config.json: dryfit check --framework litgpt --config config.json", place_);
    const auto used = argument(name, value);
    if (!used) return std::unexpected(used.error());
    const bool moves = std::ranges::find(kWithoutMemory, name) == kWithoutMemory.end() && (a.file.empty() || !name.starts_with("data."));
    const std::string key = place_.substr(a.file.empty() ? 0 : a.file.size() + 2);
    if (!a.file.empty()) {
      if (*used || moves) (*used ? out_.told.used : out_.told.unused).push_back(key);
    } else if (*used) {
      out_.understood.push_back(key.substr(0, 62) + " " + value.substr(0, 60));
    } else if (moves) {
      out_.ignored.push_back(key.substr(0, 62));
    }
    return {};
  }

  void named(std::string_view model) {
    if (model.starts_with("checkpoints/")) model.remove_prefix(12);
    f().model = std::string(model);
  }

  Result<bool> count(const std::string& value, std::optional<std::int64_t>& out) {
    const auto n = parse_int(value, place_);
    if (!n) return std::unexpected(n.error());
    if (*n < 1) return fail("bad_value", place_ + " " + value.substr(0, 40) + " is out of range", "use a number from 1 on", place_);
    out = *n;
    return true;
  }

  // Whether the argument moves memory and was used. "null" is Python's None: as if nothing was said.
  Result<bool> argument(const std::string& name, const std::string& value) {
    if (value.empty() || value == "null") return name == "quantize" || std::ranges::any_of(kParts, [&](const Part& p) { return p.flag == name; });
    if (name == "checkpoint-dir" || name == "model-name") return named(value), true;
    if (name == "train.micro-batch-size") return count(value, f().device_batch_size);
    if (name == "train.global-batch-size") return count(value, global_);
    if (name == "train.max-seq-length") return count(value, f().max_seq_len);
    if (name == "train.max-steps" || name == "train.max-tokens") {  // these move no memory
      const auto ok = count(value, name == "train.max-steps" ? f().max_steps : f().max_tokens);
      if (!ok) return ok;
      return false;
    }
    if (name == "devices") return count(value, f().gpus);
    if (name == "precision") return precision(value);
    if (name == "quantize") return quantize(value);
    if (name == "lora-r") return count(value, rank_);
    if (name == "train.max-norm" || name == "lora-dropout") {
      const auto x = parse_real(value, place_);
      if (!x) return std::unexpected(x.error());
      (name == "lora-dropout" ? dropout_ : f().max_grad_norm) = *x;
      return true;
    }
    if (name == "optimizer") return optimizer(value);
    for (std::size_t i = 0; i < kParts.size(); ++i) {
      if (kParts[i].flag != name) continue;
      if (value != "true" && value != "True" && value != "false" && value != "False") return fail("bad_value", place_ + " " + value.substr(0, 40) + " is neither true nor false", "write true or false", place_);
      parts_[i] = value == "true" || value == "True";
      return true;
    }
    return false;
  }

  Result<bool> precision(const std::string& value) {
    struct Known { std::string_view word; Dtype weights; MixedPrecision mixed; };
    for (const Known& k : {Known{"bf16-true", Dtype::bf16, MixedPrecision::none}, Known{"16-true", Dtype::fp16, MixedPrecision::none}, Known{"32-true", Dtype::fp32, MixedPrecision::none}, Known{"bf16-mixed", Dtype::fp32, MixedPrecision::bf16}, Known{"16-mixed", Dtype::fp32, MixedPrecision::fp16}}) {
      if (k.word != value) continue;
      f().weights = k.weights, f().mixed = k.mixed;
      return true;
    }
    return fail("bad_value", place_ + " " + value.substr(0, 40) + " is not described", "bf16-true, 16-true, 32-true, bf16-mixed and 16-mixed are", place_);
  }

  Result<bool> quantize(const std::string& value) {
    if (value != "bnb.nf4" && value != "bnb.nf4-dq" && value != "bnb.fp4" && value != "bnb.fp4-dq") return fail("bad_value", place_ + " " + value.substr(0, 40) + " is not described", "bnb.nf4, bnb.nf4-dq, bnb.fp4 and bnb.fp4-dq are", place_);
    if (script_ == LitgptScript::pretrain || script_ == LitgptScript::full) return fail("bad_value", place_ + " is of LitGPT's scripts with adapters: 4-bit weights cannot be trained", "use litgpt finetune_lora", place_);
    f().quantized = true;
    f().double_quantized = value.ends_with("-dq");
    return true;
  }

  // torch's optimizers by class; the finetune scripts take the foreach form.
  Result<bool> optimizer(const std::string& value) {
    const std::string_view name = std::string_view(value).substr(value.rfind('.') + 1);
    if (name == "AdamW") return true;
    if (name == "SGD") f().optimizer = OptimizerKind::sgd;
    else if (name == "AdamW8bit") f().optimizer = OptimizerKind::adamw_8bit;
    else if (name == "PagedAdamW") f().optimizer = OptimizerKind::paged_adamw;
    else if (name == "PagedAdamW8bit") f().optimizer = OptimizerKind::paged_adamw_8bit;
    else return fail("bad_value", place_ + " " + value.substr(0, 40) + " is not described", "AdamW, SGD, bitsandbytes' AdamW8bit, PagedAdamW and PagedAdamW8bit are", place_);
    return true;
  }

  Result<TrainerCommand> finish() {
    if (!f().device_batch_size) f().device_batch_size = finetunes() ? 1 : 4;
    if (!f().weights) f().weights = Dtype::fp32, f().mixed = MixedPrecision::bf16;  // get_default_supported_precision(training=True)
    if (f().quantized && f().mixed != MixedPrecision::none) return fail("bad_command", "--quantize beside mixed precision, which LitGPT refuses and takes when --precision is not given", "add --precision bf16-true", "--quantize");
    const std::int64_t all = *f().device_batch_size * f().gpus.value_or(1);
    f().grad_accum_steps = std::max<std::int64_t>(1, global_.value_or(finetunes() ? 16 : 512) / all);
    if (script_ != LitgptScript::lora) return std::move(out_);
    Lora lora;
    lora.rank = rank_.value_or(8);
    lora.dropout = dropout_.value_or(0.05);
    for (std::size_t i = 0; i < kParts.size(); ++i) {
      if (parts_[i].value_or(kParts[i].usual)) lora.targets.emplace_back(kParts[i].target);
    }
    if (lora.targets.empty()) return fail("bad_command", "every adapter is switched off, so nothing would be trained", "leave --lora_query or --lora_value on", "pasted command");
    f().lora = lora;
    return std::move(out_);
  }

  const LaunchLine& launch_;
  std::span<const Argument> filed_;
  std::string place_;                   // of the argument at hand
  TrainerCommand out_;
  std::size_t at_ = 0;
  LitgptScript script_ = LitgptScript::lora;
  std::optional<std::int64_t> global_, rank_;
  std::optional<double> dropout_;
  std::array<std::optional<bool>, kParts.size()> parts_;
};

}  // namespace

bool is_litgpt_command(const LaunchLine& launch) { return launch.script == "litgpt"; }

Result<TrainerCommand> read_litgpt_command(const LaunchLine& launch, std::span<const Argument> filed) { return LitgptReader(launch, filed).read(); }

std::vector<std::string> litgpt_command(const Workload& workload) {
  const Architecture& a = workload.transformers->architecture;
  const Training t = training_of(*workload.transformers, workload.run);
  std::vector<std::string> out{"litgpt", std::string(name_of(t.litgpt.script))};
  if (!a.given_to_scripts().empty()) out.push_back(a.given_to_scripts());
  const auto add = [&](std::string name, std::string text) {
    out.push_back("--" + name);
    out.push_back(std::move(text));
  };
  add("precision", t.mixed == MixedPrecision::bf16 ? "bf16-mixed" : t.mixed == MixedPrecision::fp16 ? "16-mixed" : t.weights == Dtype::bf16 ? "bf16-true" : t.weights == Dtype::fp16 ? "16-true" : "32-true");
  if (t.quantized) add("quantize", t.double_quantized ? "bnb.nf4-dq" : "bnb.nf4");
  if (t.world_size > 1) add("devices", std::to_string(t.world_size));
  add("train.micro_batch_size", std::to_string(t.device_batch_size));
  add("train.global_batch_size", std::to_string(t.device_batch_size * t.grad_accum_steps * t.world_size));
  add("train.max_seq_length", std::to_string(t.seq_len));
  if (t.max_steps) add("train.max_steps", std::to_string(*t.max_steps));
  if (t.max_tokens) add("train.max_tokens", std::to_string(*t.max_tokens));
  if (!t.lora) return out;
  add("lora_r", std::to_string(t.lora->rank));
  for (const Part& p : kParts) {
    const bool on = t.lora->targets.empty() ? p.usual : std::ranges::find(t.lora->targets, p.target) != t.lora->targets.end();
    std::string flag(p.flag);
    std::ranges::replace(flag, '-', '_');
    if (on != p.usual) add(flag, on ? "true" : "false");
  }
  return out;
}

}  // namespace dryfit
