// Training commands: written in the spelling of the workload's nanochat, read in any spelling people paste. See launch.hpp.
#include "plan/launch.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"

namespace dryfit {

namespace {

struct Flag { std::string_view name; bool takes_value; bool memory; };
constexpr std::array kFlags = {
    Flag{"depth", true, true}, Flag{"aspect-ratio", true, true}, Flag{"head-dim", true, true}, Flag{"max-seq-len", true, true},
    Flag{"window-pattern", true, true}, Flag{"device-batch-size", true, true}, Flag{"total-batch-size", true, true}, Flag{"fp8", false, true},
    Flag{"fp8-recipe", true, false}, Flag{"run", true, false}, Flag{"device-type", true, false}, Flag{"num-iterations", true, false},
    Flag{"target-flops", true, false}, Flag{"target-param-data-ratio", true, false}, Flag{"embedding-lr", true, false}, Flag{"unembedding-lr", true, false},
    Flag{"weight-decay", true, false}, Flag{"matrix-lr", true, false}, Flag{"scalar-lr", true, false}, Flag{"adam-beta1", true, false},
    Flag{"adam-beta2", true, false}, Flag{"warmup-ratio", true, false}, Flag{"warmup-steps", true, false}, Flag{"warmdown-ratio", true, false},
    Flag{"final-lr-frac", true, false}, Flag{"grad-clip", true, false}, Flag{"resume-from-step", true, false}, Flag{"eval-every", true, false},
    Flag{"eval-tokens", true, false}, Flag{"core-metric-every", true, true}, Flag{"core-metric-max-per-task", true, true},
    Flag{"sample-every", true, false}, Flag{"save-every", true, false}, Flag{"model-tag", true, false}};

std::string dashed(std::string_view name) {
  std::string out(name);
  std::ranges::replace(out, '_', '-');
  return out;
}

bool ends_command(std::string_view w) { return w == "|" || w == "&" || w == "&&" || w == ";" || w == ">" || w == ">>" || w == "2>&1" || w.starts_with(">") || w.starts_with("2>"); }

bool is_assignment(std::string_view w) {
  const std::size_t at = w.find('=');
  if (at == std::string_view::npos || at == 0) return false;
  return std::ranges::all_of(w.substr(0, at), [](char c) { return (c >= 'A' && c <= 'Z') || c == '_' || (c >= '0' && c <= '9'); });
}

class Reader {
 public:
  explicit Reader(std::vector<std::string> words) : words_(std::move(words)) {}

  Result<PastedCommand> read() {
    if (const auto ok = prefix(); !ok) return std::unexpected(ok.error());
    if (const auto ok = launcher(); !ok) return std::unexpected(ok.error());
    while (at_ < words_.size() && !ends_command(words_[at_])) {
      if (const auto ok = argument(); !ok) return std::unexpected(ok.error());
    }
    if (at_ < words_.size()) out_.ignored.push_back("everything from '" + words_[at_] + "' on");
    return std::move(out_);
  }

 private:
  std::unexpected<Error> bad(std::string message, std::string hint) const { return fail("bad_command", std::move(message), std::move(hint), "pasted command"); }

  Result<void> prefix() {
    static constexpr std::array<std::string_view, 6> kWrappers = {"$", "env", "nohup", "exec", "time", "sudo"};
    while (at_ < words_.size()) {
      const std::string& w = words_[at_];
      if (is_assignment(w)) {
        if (const auto ok = environment(w); !ok) return ok;
      } else if (w == "uv" && at_ + 1 < words_.size() && words_[at_ + 1] == "run") {
        ++at_;
      } else if (std::ranges::find(kWrappers, w) == kWrappers.end()) {
        break;
      }
      ++at_;
    }
    return {};
  }

  Result<void> environment(const std::string& w) {
    const std::size_t eq = w.find('=');
    const std::string key = w.substr(0, eq), value = w.substr(eq + 1);
    if (key == "PYTORCH_CUDA_ALLOC_CONF" || key == "PYTORCH_ALLOC_CONF") out_.alloc_conf = value;
    else if (key == "NANOCHAT_DTYPE") out_.flags.dtype = value;
    else if (key == "CUDA_VISIBLE_DEVICES") visible_ = value.empty() ? 0 : static_cast<std::int64_t>(split(value, ',').size());
    else {
      out_.ignored.push_back(key);
      return {};
    }
    out_.understood.push_back(w);
    return {};
  }

  Result<void> launcher() {
    if (at_ >= words_.size()) return bad("the pasted command is empty", "paste it after --, such as: dryfit check -- torchrun --nproc_per_node=8 -m scripts.base_train --depth=24");
    std::string program = words_[at_].substr(words_[at_].rfind('/') + 1);
    ++at_;
    const bool python = program.starts_with("python");
    bool torchrun = program == "torchrun";
    if (!python && !torchrun) return bad("'" + program.substr(0, 40) + "' is neither python nor torchrun", "paste a nanochat training command: torchrun ... -m scripts.base_train ..., or python -m scripts.base_train ...");
    if (python && at_ + 1 < words_.size() && words_[at_] == "-m" && words_[at_ + 1].starts_with("torch.distributed")) {
      torchrun = true;
      at_ += 2;
    }
    if (torchrun) {
      if (const auto ok = torchrun_flags(); !ok) return ok;
    } else {
      out_.flags.gpus = 1;
    }
    while (at_ < words_.size() && (words_[at_] == "-u" || words_[at_] == "-m")) ++at_;
    if (at_ >= words_.size()) return bad("the pasted command names no training script", "it should have -m scripts.base_train");
    out_.script = words_[at_++];
    std::string module = out_.script;
    if (module.ends_with(".py")) module.resize(module.size() - 3);
    std::ranges::replace(module, '/', '.');
    if (!module.ends_with("scripts.base_train") && module != "base_train") {
      return fail("unsupported_script", "dryfit reads scripts.base_train, not '" + out_.script.substr(0, 60) + "'", "paste the pretraining command; fine-tuning inherits its batch and length", "pasted command");
    }
    out_.understood.push_back(out_.script);
    if (at_ < words_.size() && words_[at_] == "--") ++at_;
    return {};
  }

  Result<void> torchrun_flags() {
    static constexpr std::array<std::string_view, 4> kSwitches = {"standalone", "no-python", "module", "m"};
    std::int64_t per_node = 1, nodes = 1;
    while (at_ < words_.size() && words_[at_].starts_with("-") && words_[at_] != "-m" && words_[at_] != "--") {
      std::string name = words_[at_], value;
      const std::size_t eq = name.find('=');
      if (eq != std::string::npos) value = name.substr(eq + 1), name.resize(eq);
      ++at_;
      if (name.find_first_not_of('-') == std::string::npos) return bad("'" + name.substr(0, 60) + "' is no flag of torchrun", "flags begin with -- and a name");
      name = dashed(name.substr(name.find_first_not_of('-')));
      if (std::ranges::find(kSwitches, name) != kSwitches.end()) continue;
      if (eq == std::string::npos && at_ < words_.size()) value = words_[at_++];
      if (name == "nproc-per-node" || name == "nnodes") {
        if (name == "nproc-per-node" && (value == "gpu" || value == "auto")) {
          per_node = visible_.value_or(-1);
          continue;
        }
        const auto n = parse_int(value, "--" + name);
        if (!n) return std::unexpected(n.error());
        if (*n < 1) return fail("bad_value", "--" + name + " " + value + " is not a number of processes", "use a number from 1 on", "--" + name);
        (name == "nnodes" ? nodes : per_node) = *n;
        out_.understood.push_back("--" + name + "=" + value);
      } else {
        out_.ignored.push_back("--" + name);
      }
    }
    if (per_node > 0) out_.flags.gpus = per_node > 65536 || nodes > 65536 ? 65537 : per_node * nodes;
    return {};
  }

  Result<void> argument() {
    const std::string word = words_[at_++];
    if (word == "--") return {};
    if (!word.starts_with("--")) return bad("'" + word.substr(0, 60) + "' stands where a flag is expected", "flags begin with --, such as --depth=24");
    const std::size_t eq = word.find('=');
    const std::string name = dashed(word.substr(2, eq == std::string::npos ? eq : eq - 2));
    const auto known = std::ranges::find(kFlags, name, &Flag::name);
    if (known == kFlags.end()) return unknown(name);
    std::string value = eq == std::string::npos ? "" : word.substr(eq + 1);
    if (known->takes_value && eq == std::string::npos) {
      if (at_ >= words_.size()) return bad("--" + name + " has no value", "write --" + name + "=VALUE");
      value = words_[at_++];
    }
    out_.understood.push_back("--" + name + (known->takes_value ? "=" + value : ""));
    return known->memory ? memory_flag(name, value) : passed("--" + name + (known->takes_value ? "=" + value : ""));
  }

  std::unexpected<Error> unknown(const std::string& name) const {
    std::vector<std::string_view> names;
    for (const Flag& f : kFlags) names.push_back(f.name);
    const std::string_view near = name == "seq-len" ? "max-seq-len" : closest(name, names);
    return fail("unknown_flag", "nanochat has no flag --" + name.substr(0, 60), near.empty() ? "see nanochat's scripts/base_train.py for its flags" : "did you mean '--" + std::string(near) + "'?", "--" + name.substr(0, 60));
  }

  Result<void> passed(std::string flag) {
    out_.flags.passthrough.push_back(std::move(flag));
    return {};
  }

  Result<void> memory_flag(const std::string& name, const std::string& value) {
    if (name == "fp8") {
      out_.flags.fp8 = true;
      return {};
    }
    if (name == "window-pattern") {
      out_.flags.window_pattern = value;
      return {};
    }
    const auto n = parse_int(value, "--" + name);
    if (!n) return std::unexpected(n.error());
    WorkloadFlags& f = out_.flags;
    if (name == "depth") f.depth = *n;
    else if (name == "aspect-ratio") f.aspect_ratio = *n;
    else if (name == "head-dim") f.head_dim = *n;
    else if (name == "max-seq-len") f.max_seq_len = *n;
    else if (name == "device-batch-size") f.device_batch_size = *n;
    else if (name == "core-metric-every") f.core_metric_every = *n;
    else if (name == "core-metric-max-per-task") f.core_metric_max_per_task = *n;
    else f.total_batch_size = *n;
    return {};
  }

  std::vector<std::string> words_;
  std::size_t at_ = 0;
  std::optional<std::int64_t> visible_;
  PastedCommand out_;
};

}  // namespace

std::vector<std::string> launch_command(const Workload& workload) {
  const Model& m = workload.model;
  const Run& run = workload.run;
  std::vector<std::string> out;
  if (run.compute != Dtype::bf16 && !m.version.autocast) out.push_back(std::string("NANOCHAT_DTYPE=") + (run.compute == Dtype::fp32 ? "float32" : "float16"));
  if (run.world_size > 1) {
    for (const char* w : {"torchrun", "--standalone"}) out.emplace_back(w);
    out.push_back("--nproc_per_node=" + std::to_string(run.world_size));
    for (const char* w : {"-m", "scripts.base_train", "--"}) out.emplace_back(w);
  } else {
    for (const char* w : {"python", "-m", "scripts.base_train"}) out.emplace_back(w);
  }
  const auto add = [&](std::string name, const std::string& value) {
    if (!m.version.flags_with_dashes) std::ranges::replace(name, '-', '_');
    out.push_back("--" + name + "=" + value);
  };
  add("depth", std::to_string(m.depth));
  const bool shaped = m.version.date >= std::string("2026-01-07");  // E2: --aspect-ratio and --head-dim exist
  if (shaped && m.aspect_ratio != 64) add("aspect-ratio", std::to_string(m.aspect_ratio));
  if (shaped && m.head_dim != 128 && m.version.model_dim_rounded_up) add("head-dim", std::to_string(m.head_dim));
  if (m.version.window && m.window_pattern != m.version.default_window_pattern) add("window-pattern", m.window_pattern);
  if (run.max_seq_len != 2048) add("max-seq-len", std::to_string(run.max_seq_len));
  add("device-batch-size", std::to_string(run.device_batch_size));
  add("total-batch-size", std::to_string(run.total_batch_size));
  if (run.core_metric_every != 2000) add("core-metric-every", std::to_string(run.core_metric_every));
  if (run.core_metric_max_per_task != 500) add("core-metric-max-per-task", std::to_string(run.core_metric_max_per_task));
  if (run.fp8) out.emplace_back("--fp8");
  for (const std::string& flag : workload.passthrough) out.push_back(m.version.flags_with_dashes ? flag : [&] {
    std::string spelled = flag;
    std::replace(spelled.begin() + 2, spelled.begin() + static_cast<std::ptrdiff_t>(std::min(spelled.find('='), spelled.size())), '-', '_');
    return spelled;
  }());
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

Result<PastedCommand> parse_pasted_command(std::span<const std::string> words) {
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
  return Reader(std::move(all)).read();
}

}  // namespace dryfit
