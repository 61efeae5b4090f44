// Training commands: written in the spelling of the workload's nanochat, read in any spelling people paste. See launch.hpp.
#include "plan/launch.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"
#include "plan/axolotl_command.hpp"
#include "plan/litgpt_command.hpp"
#include "plan/llamafactory_command.hpp"
#include "plan/megatron_command.hpp"
#include "plan/torchtitan_command.hpp"
#include "plan/torchtune_command.hpp"
#include "plan/trainer_command.hpp"
#include "workload/nanochat_flags.hpp"
#include "workload/scripts.hpp"

namespace dryfit {

namespace {

// "scripts.chat_sft", "scripts/chat_sft.py", "chat_sft" -> chat_sft
std::optional<Script> script_of(std::string module) {
  if (module.ends_with(".py")) module.resize(module.size() - 3);
  std::ranges::replace(module, '/', '.');
  const std::string name = module.substr(module.rfind('.') + 1);
  if (name != module && !module.ends_with("scripts." + name)) return std::nullopt;
  for (Script s : {Script::base_train, Script::mid_train, Script::chat_sft, Script::chat_rl}) {
    if (name == name_of(s)) return s;
  }
  return std::nullopt;
}

// The depth in a checkpoint's default name: d24.
std::optional<std::int64_t> depth_of_tag(std::string_view tag) {
  if (!tag.starts_with('d')) return std::nullopt;
  const auto n = parse_int(tag.substr(1), "--model-tag");
  return n && *n > 0 ? std::optional(*n) : std::nullopt;
}

// Arguments of one of nanochat's scripts.
class Reader {
 public:
  Reader(LaunchLine launch, Script script, const PasteOptions& options) : words_(std::move(launch.arguments)), script_(script), options_(options) {
    if (script != Script::base_train) out_.flags.script = std::string(name_of(script));
    out_.script = launch.script;
    out_.flags.gpus = launch.gpus;
    if (launch.torchrun) out_.flags.torchrun = true;
    for (const auto& [key, value] : launch.environment) environment(key, value);
    out_.understood.insert(out_.understood.end(), launch.understood.begin(), launch.understood.end());
    for (const auto& [name, value] : launch.options) out_.ignored.push_back("--" + name);
    out_.ignored.insert(out_.ignored.end(), launch.ignored.begin(), launch.ignored.end());
    out_.understood.push_back(out_.script);
  }

  Result<PastedCommand> read() {
    while (at_ < words_.size()) {
      const auto ok = argument();
      if (!ok && unknown_.empty()) return std::unexpected(ok.error());
      if (!ok) break;
    }
    if (!unknown_.empty()) return unknown_flags();
    return std::move(out_);
  }

 private:
  std::unexpected<Error> bad(std::string message, std::string hint) const { return fail("bad_command", std::move(message), std::move(hint), "pasted command"); }

  void environment(const std::string& key, const std::string& value) {
    if (sets_allocator(key)) out_.alloc_conf = value;
    else if (key == "NANOCHAT_DTYPE") out_.flags.dtype = value;
    else if (stops_compiling(key, value)) out_.flags.compile = false;
    else if (sizes_workspaces(key)) out_.flags.workspaces.emplace_back(key, value);
    else if (key != "CUDA_VISIBLE_DEVICES") return out_.ignored.push_back(key);
    out_.understood.push_back(key + "=" + value);
  }

  Result<void> argument() {
    const std::string word = words_[at_++];
    if (word == "--") return {};
    if (word.starts_with('$') && is_over("device-batch-size")) {
      out_.ignored.push_back(word + ", a variable of the shell that nothing here sets");
      return {};
    }
    if (word.starts_with('$')) return bad("'" + word.substr(0, 60) + "', where flags are expected, is a variable of the shell that nothing here sets", "paste the line that sets it along with the command; or give --device-batch-size before the --, and it is left out");
    if (!word.starts_with("--")) return bad("'" + word.substr(0, 60) + "' stands where a flag is expected", "flags begin with --, such as --depth=24");
    const std::size_t eq = word.find('=');
    const std::string name = dashed(word.substr(2, eq == std::string::npos ? eq : eq - 2));
    const auto known = std::ranges::find(nanochat_flags(), name, &NanochatFlag::name);
    if (known == nanochat_flags().end() || !script_has(script_, name)) return unknown(word, name);
    std::string value = eq == std::string::npos ? "" : word.substr(eq + 1);
    if (known->takes_value && eq == std::string::npos) {
      if (at_ >= words_.size()) return bad("--" + name + " has no value", "write --" + name + "=VALUE");
      value = words_[at_++];
    }
    out_.understood.push_back("--" + name + (known->takes_value ? "=" + value : ""));
    out_.flags.written.push_back(word.substr(0, eq));
    return known->memory ? memory_flag(name, value) : passed("--" + name + (known->takes_value ? "=" + value : ""));
  }

  // A flag that nanochat does not have: what stands behind it is its value.
  Result<void> unknown(const std::string& word, const std::string& name) {
    const bool told = options_.ran || std::ranges::any_of(options_.left_out, [&](const std::string& n) { return dashed(n) == name; });
    std::vector<std::string> all = {word};
    while (word.find('=') == std::string::npos && at_ < words_.size()) {
      const std::string& next = words_[at_];
      if (next.starts_with("--") || (next.starts_with('$') && all.size() > 1)) break;
      all.push_back(next);
      ++at_;
    }
    if (told) out_.flags.left_out.insert(out_.flags.left_out.end(), all.begin(), all.end());
    else if (std::ranges::find(unknown_, name) == unknown_.end()) unknown_.push_back(name);
    return {};
  }

  // A flag of the script whose name is near; empty: none.
  std::string_view near(const std::string& name) const {
    std::vector<std::string_view> names;
    for (const NanochatFlag& f : nanochat_flags()) {
      if (script_has(script_, f.name)) names.push_back(f.name);
    }
    return name == "seq-len" ? "max-seq-len" : closest(name, names);
  }

  // All of them at once, what may have been meant, and how to go on with a fork's.
  std::unexpected<Error> unknown_flags() const {
    std::string names, meant, own, others;
    for (const std::string& full : unknown_) {
      const std::string name = full.substr(0, 60);
      names += (names.empty() ? "--" : ", --") + name;
      const std::string_view one = near(full);
      if (!one.empty()) meant += (meant.empty() ? "did you mean '--" : ", '--") + std::string(one) + "'" + (unknown_.size() > 1 ? " for --" + name : "");
      else if (const auto of = script_with(full); !of.empty()) others += (others.empty() ? "--" : ", --") + name + " is " + of + "'s";
      else own += (own.empty() ? "" : ",") + name;
    }
    if (own.empty() && others.empty()) own = unknown_[0].substr(0, 60);
    if (!meant.empty()) meant += "? ";
    const std::string script = out_.flags.script.value_or("base_train");
    return fail("unknown_flag", "nanochat" + (script == "base_train" ? std::string() : "'s " + script) + (unknown_.size() == 1 ? " has no flag " : " has no flags ") + names,
                meant + others + (others.empty() || own.empty() ? "" : "; ") + (own.empty() ? "" : "what only your fork has is left out by --ignore " + own + " before the --"), "--" + unknown_[0].substr(0, 60));
  }

  // Another script that has the flag.
  static std::string script_with(const std::string& name) {
    for (Script s : {Script::base_train, Script::mid_train, Script::chat_sft, Script::chat_rl}) {
      if (script_has(s, name)) return std::string(name_of(s));
    }
    return "";
  }

  Result<void> passed(std::string flag) {
    out_.flags.passthrough.push_back(std::move(flag));
    return {};
  }

  bool is_over(std::string_view name) const { return std::ranges::find(options_.over, name) != options_.over.end(); }

  Result<void> memory_flag(const std::string& name, const std::string& value) {
    if (value.starts_with('$') && name != "model-tag") {
      if (is_over(name)) return {};
      return std::unexpected(unset_variable(value, "--" + name));
    }
    if (name == "fp8") {
      out_.flags.fp8 = true;
      return {};
    }
    if (name == "window-pattern") {
      out_.flags.window_pattern = value;
      return {};
    }
    WorkloadFlags& f = out_.flags;
    if (name == "model-tag") {
      const auto depth = depth_of_tag(value);
      if (!f.script || !depth) return passed("--model-tag=" + value);
      f.depth = *depth;  // the tag's default name: written again from the depth
      return {};
    }
    const auto n = parse_int(value, "--" + name);
    if (!n) return std::unexpected(n.error());
    if (name == "depth") f.depth = *n;
    else if (name == "aspect-ratio") f.aspect_ratio = *n;
    else if (name == "head-dim") f.head_dim = *n;
    else if (name == "max-seq-len") f.max_seq_len = *n;
    else if (name == "device-batch-size") f.device_batch_size = *n;
    else if (name == "core-metric-every") f.core_metric_every = *n;
    else if (name == "core-metric-max-per-task") f.core_metric_max_per_task = *n;
    else if (name == "eval-every") f.eval_every = *n;
    else if (name == "sample-every") f.sample_every = *n;
    else if (name == "save-every") f.save_every = *n;
    else if (name == "resume-from-step") f.resume_from_step = *n;
    else if (name == "chatcore-every" || name == "eval-metrics-every") f.chatcore_every = *n;
    else if (name == "load-optimizer") f.load_optimizer = *n != 0;
    else if (name == "num-samples") f.num_samples = *n;
    else if (name == "max-new-tokens") f.max_new_tokens = *n;
    else if (name == "examples-per-step" || name == "target-examples-per-step") f.examples_per_step = *n;
    else f.total_batch_size = *n;
    return {};
  }

  std::vector<std::string> words_;
  std::size_t at_ = 0;
  Script script_;
  const PasteOptions& options_;
  std::vector<std::string> unknown_;  // names
  PastedCommand out_;
};

}  // namespace

namespace {

// Writes flags in the spelling of a version.
class Flags {
 public:
  Flags(const NanochatVersion& version, std::vector<std::string>& out) : version_(version), out_(out) {}
  void add(std::string name, std::int64_t value) { add(std::move(name), std::to_string(value)); }
  void add(std::string name, const std::string& value) {
    if (!version_.flags_with_dashes) std::ranges::replace(name, '-', '_');
    out_.push_back("--" + name + "=" + value);
  }
  void add_unless(std::int64_t usual, std::string name, std::int64_t value) {
    if (value != usual) add(std::move(name), value);
  }

 private:
  const NanochatVersion& version_;
  std::vector<std::string>& out_;
};

void base_flags(const Workload& workload, Flags& flags) {
  const Model& m = workload.model;
  const Run& run = workload.run;
  flags.add("depth", m.depth);
  const bool shaped = m.version.date >= std::string("2026-01-07");  // E2: --aspect-ratio and --head-dim exist
  if (shaped && m.aspect_ratio != 64) flags.add("aspect-ratio", m.aspect_ratio);
  if (shaped && m.head_dim != 128 && m.version.model_dim_rounded_up) flags.add("head-dim", m.head_dim);
  if (m.version.window && m.window_pattern != m.version.default_window_pattern) flags.add("window-pattern", m.window_pattern);
  flags.add_unless(2048, "max-seq-len", run.max_seq_len);
  flags.add("device-batch-size", run.device_batch_size);
  flags.add("total-batch-size", run.total_batch_size);
  flags.add_unless(2000, "core-metric-every", run.core_metric_every);
  flags.add_unless(500, "core-metric-max-per-task", run.core_metric_max_per_task);
  flags.add_unless(250, "eval-every", run.eval_every);
  flags.add_unless(2000, "sample-every", run.sample_every);
  flags.add_unless(-1, "save-every", run.save_every);
  flags.add_unless(-1, "resume-from-step", run.resume_from_step);
}

// Scripts that begin with a checkpoint: the model is named by its tag.
void chat_flags(const Workload& workload, Flags& flags) {
  using Sft = NanochatVersion::Sft;
  const Model& m = workload.model;
  const Run& run = workload.run;
  const bool tagged = std::ranges::any_of(workload.passthrough, [](const std::string& f) { return f.starts_with("--model-tag="); });
  if (!tagged) flags.add("model-tag", "d" + std::to_string(m.depth));
  if (!trains_on_rows(workload)) flags.add_unless(2048, "max-seq-len", run.max_seq_len);
  flags.add("device-batch-size", run.device_batch_size);
  if (!trains_on_rows(workload)) flags.add("total-batch-size", run.total_batch_size);
  const bool sft = run.script == Script::chat_sft, rows = sft && m.version.sft == Sft::rows, inherits = sft && m.version.sft == Sft::inherits;
  flags.add_unless(run.script == Script::chat_rl ? 60 : inherits ? 200 : rows ? 100 : 150, "eval-every", run.eval_every);
  if (sft && m.version.sft != Sft::packed) flags.add_unless(200, rows ? "eval-metrics-every" : "chatcore-every", run.chatcore_every);
  if (inherits && !run.load_optimizer) flags.add("load-optimizer", 0);
  if (rows) flags.add_unless(32, "target-examples-per-step", run.examples_per_step);
  if (run.script != Script::chat_rl) return;
  flags.add_unless(16, "examples-per-step", run.examples_per_step);
  flags.add_unless(16, "num-samples", run.num_samples);
  flags.add_unless(256, "max-new-tokens", run.max_new_tokens);
  flags.add_unless(60, "save-every", run.save_every);
}

std::vector<std::string> model_command(const Workload& workload) {
  switch (workload.transformers->training.framework) {
    case Framework::litgpt: return litgpt_command(workload);
    case Framework::megatron: return megatron_command(workload);
    case Framework::torchtune: return torchtune_command(workload);
    case Framework::torchtitan: return torchtitan_command(workload);
    case Framework::transformers: return trainer_command(workload);
  }
  return {};
}

std::vector<std::string> nanochat_command(const Workload& workload) {
  const Model& m = workload.model;
  const Run& run = workload.run;
  std::vector<std::string> out;
  if (run.compute != usual_compute(m.version, run.compute_major)) out.push_back("NANOCHAT_DTYPE=" + std::string(torch_name_of(run.compute)));
  if (!run.optimizer_compiled) out.emplace_back("TORCH_COMPILE_DISABLE=1");  // its scripts have no flag for it
  const std::string script = "scripts." + std::string(name_of(run.script));
  if (run.torchrun) {
    for (const char* w : {"torchrun", "--standalone"}) out.emplace_back(w);
    out.push_back("--nproc_per_node=" + std::to_string(run.world_size));
    for (const std::string& w : {std::string("-m"), script, std::string("--")}) out.push_back(w);
  } else {
    for (const std::string& w : {std::string("python"), std::string("-m"), script}) out.push_back(w);
  }
  Flags flags(m.version, out);
  if (run.script == Script::base_train) base_flags(workload, flags);
  else chat_flags(workload, flags);
  if (run.fp8) out.emplace_back("--fp8");
  for (const std::string& flag : workload.passthrough) out.push_back(m.version.flags_with_dashes ? flag : [&] {
    std::string spelled = flag;
    std::replace(spelled.begin() + 2, spelled.begin() + static_cast<std::ptrdiff_t>(std::min(spelled.find('='), spelled.size())), '-', '_');
    return spelled;
  }());
  out.insert(out.end(), workload.left_out.begin(), workload.left_out.end());
  return out;
}

}  // namespace

std::vector<std::string> launch_command(const Workload& workload) {
  std::vector<std::string> out;
  const ProductWorkspaces& workspaces = workload.transformers ? workload.transformers->training.workspaces : workload.run.workspaces;
  for (const auto& [variable, value] : workspaces.given) out.push_back(variable + "=" + value);
  const std::vector<std::string> words = workload.transformers ? model_command(workload) : nanochat_command(workload);
  out.insert(out.end(), words.begin(), words.end());
  return out;
}

std::string shell_join(std::span<const std::string> words) {
  std::string out;
  for (const std::string& w : words) {
    if (!out.empty()) out += ' ';
    const bool plain = !w.empty() && std::ranges::all_of(w, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || std::string_view("-_=./:,+@%").find(c) != std::string_view::npos; });
    if (plain) {
      out += w;
      continue;
    }
    out += '\'';
    for (char c : w) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    out += '\'';
  }
  return out;
}

Result<std::vector<std::string>> shell_split(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  bool open = false;
  char quote = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\' && quote != '\'' && i + 1 < text.size()) {
      const std::size_t skip = text[i + 1] == '\r' && i + 2 < text.size() && text[i + 2] == '\n' ? 2 : 1;
      if (text[i + skip] == '\n') {
        i += skip;
        continue;
      }
      word += text[++i];
      open = true;
    } else if (quote != 0) {
      if (c == quote) quote = 0;
      else word += c;
    } else if (c == '\'' || c == '"') {
      quote = c;
      open = true;
    } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      if (open) words.push_back(word);
      word.clear();
      open = false;
    } else if (c == '#' && !open) {
      while (i + 1 < text.size() && text[i + 1] != '\n') ++i;
    } else {
      word += c;
      open = true;
    }
  }
  if (quote != 0) return fail("bad_command", "the pasted command has an open quote", "close the quote", "pasted command");
  if (open) words.push_back(word);
  return words;
}

std::string_view program_of_models(const LaunchLine& launch) {
  if (is_llamafactory_command(launch)) return "LLaMA-Factory";
  if (is_axolotl_command(launch)) return "axolotl";
  if (is_litgpt_command(launch)) return "LitGPT";
  if (is_torchtune_command(launch)) return "torchtune";
  if (is_torchtitan_command(launch)) return "torchtitan";
  if (is_megatron_command(launch)) return "Megatron-LM";
  return is_trainer_command(launch) ? "transformers' Trainer" : "";
}

bool is_training_command(std::span<const std::string> words) {
  const auto launch = parse_launch(words);
  if (!launch) return launch.error().code != "bad_command" && std::ranges::any_of(words, [](const std::string& w) { return script_of(w).has_value(); });
  return script_of(launch->script) || !program_of_models(*launch).empty();
}

Result<PastedCommand> parse_pasted_command(std::span<const std::string> words, const PasteOptions& options) {
  std::vector<std::string> all;
  for (const std::string& w : words) {
    // one quoted string is a whole command line; a stray backslash is a continuation the shell left over
    if (words.size() == 1 && w.find_first_of(" \n\t") != std::string::npos) {
      const auto parts = shell_split(w);
      if (!parts) return std::unexpected(parts.error());
      all.insert(all.end(), parts->begin(), parts->end());
    } else if (w != "\\") {
      all.push_back(w);
    }
  }
  if (all.size() > 4096) return fail("bad_command", "the pasted command has too many words", "paste one command", "pasted command");
  auto launch = parse_launch(all);
  if (!launch) return std::unexpected(launch.error());
  const auto script = script_of(launch->script);
  if (const std::string_view of = program_of_models(*launch); !script && !of.empty()) {
    return fail("unsupported_script", "nanochat's commands are read here, and this is one of " + std::string(of),
                "dryfit check, explain, plan and doctor read it", "pasted command");
  }
  const bool theirs = launch->script.starts_with("scripts.") || launch->script.starts_with("scripts/");  // nanochat's
  if (!script && !theirs) {
    return fail("unsupported_script", "the command of '" + launch->script.substr(0, 60) + "' does not say what it trains: it has none of the arguments of transformers' Trainer", "say it yourself: dryfit check --model NAME --device-batch-size N --mixed bf16; or run the script on a GPU that is not there: python -m dryfit.capture (docs/capture.md)", "pasted command");
  }
  if (!script) {
    return fail("unsupported_script", "dryfit reads base_train, mid_train, chat_sft and chat_rl, not '" + launch->script.substr(0, 60) + "'", "paste a training command; evaluations of a base run are among its phases", "pasted command");
  }
  if (!launch->unset_gpus.empty() && std::ranges::find(options.over, "gpus") == options.over.end()) return std::unexpected(unset_variable(launch->unset_gpus, "--gpus"));
  return Reader(std::move(*launch), *script, options).read();
}

}  // namespace dryfit
