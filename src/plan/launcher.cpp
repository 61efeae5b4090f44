// See launcher.hpp.
#include "plan/launcher.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"
#include "plan/trl_command.hpp"

namespace dryfit {

namespace {

constexpr std::int64_t kMost = 65536;

bool is_assignment(std::string_view w) {
  const std::size_t at = w.find('=');
  if (at == std::string_view::npos || at == 0) return false;
  return !is_digit(w[0]) && std::ranges::all_of(w.substr(0, at), [](char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || is_digit(c); });
}

// 2: starts processes of its own, 1: python; by the program's name.
int rank_of(std::string_view program) {
  constexpr std::array<std::string_view, 9> kLaunchers = {"torchrun", "accelerate", "deepspeed", "axolotl", "trl", "llamafactory-cli", "lmf", "tune", "litgpt"};
  if (std::ranges::find(kLaunchers, program) != kLaunchers.end() || program == "run_train.sh") return 2;
  return program.starts_with("python") ? 1 : 0;
}

// Programs that start what follows their own options.
constexpr std::array<std::string_view, 19> kStarters = {"docker", "singularity", "apptainer", "srun", "mpirun", "conda", "mamba", "uv", "poetry", "pipenv", "numactl", "nice", "ionice", "stdbuf", "timeout", "setsid", "caffeinate", "screen", "hf"};

// Where the started program stands, from a starter on: a launcher's name that is no option's value; where all stand behind options, the first.
std::size_t started_at(std::span<const std::string> words, std::size_t from) {
  std::size_t first = words.size();
  for (std::size_t i = from + 1; i < words.size(); ++i) {
    if (rank_of(program_of(words[i])) == 0) continue;
    const std::string& before = words[i - 1];
    if (!before.starts_with("-") || before.find('=') != std::string::npos || before == "--") return i;
    first = std::min(first, i);
  }
  return first;
}

class LauncherReader {
 public:
  explicit LauncherReader(std::span<const std::string> words) : words_(words) {}

  Result<LaunchLine> read() {
    prefix();
    const std::string program = at_ < words_.size() ? program_of(words_[at_]) : "";
    if (program == "axolotl") return axolotl();
    if (program == "trl") return trl();
    if (program == "llamafactory-cli" || program == "lmf") return llamafactory();
    if (const auto ok = launcher(); !ok) return std::unexpected(ok.error());
    for (; at_ < words_.size() && !ends_command(words_[at_]); ++at_) out_.arguments.push_back(words_[at_]);
    if (at_ < words_.size()) out_.ignored.push_back("everything from '" + words_[at_] + "' on");
    return std::move(out_);
  }

 private:
  std::unexpected<Error> bad(std::string message, std::string hint) const { return fail("bad_command", std::move(message), std::move(hint), "pasted command"); }

  void prefix() {
    if (at_ < words_.size() && words_[at_].size() > 1 && (words_[at_][0] == '!' || words_[at_][0] == '%')) {  // a notebook's
      bare_.assign(words_.begin(), words_.end());
      bare_[at_].erase(0, 1);
      words_ = bare_;
    }
    static constexpr std::array<std::string_view, 6> kWrappers = {"$", "env", "nohup", "exec", "time", "sudo"};
    while (at_ < words_.size()) {
      const std::string& w = words_[at_];
      if (is_assignment(w)) {
        const std::size_t eq = w.find('=');
        out_.environment.emplace_back(w.substr(0, eq), w.substr(eq + 1));
        if (out_.environment.back().first == "CUDA_VISIBLE_DEVICES") visible(out_.environment.back().second);
      } else if (std::ranges::find(kStarters, w) != kStarters.end() && started_at(words_, at_) < words_.size()) {
        starter(started_at(words_, at_));
        continue;
      } else if (std::ranges::find(kWrappers, w) == kWrappers.end()) {
        break;
      }
      ++at_;
    }
  }

  // srun and mpirun start a task for each process of a plain python; of the rest nothing is kept.
  void starter(std::size_t until) {
    tasks_ = tasks_ || words_[at_] == "srun" || words_[at_] == "mpirun";
    for (++at_; at_ < until; ++at_) {
      const std::string& w = words_[at_];
      const bool counts = w == "-n" || w == "-np" || w == "--ntasks";
      const auto n = counts && at_ + 1 < until ? parse_int(words_[at_ + 1], w) : w.starts_with("--ntasks=") ? parse_int(w.substr(9), w) : parse_int("", w);
      if (n && *n > 0) started_ = std::min(*n, kMost + 1);
    }
  }

  void visible(const std::string& value) { visible_ = value.empty() ? 0 : static_cast<std::int64_t>(split(value, ',').size()); }

  // axolotl train CONFIG [--key value] [--launcher NAME] [-- words of the launcher]: what its cli/utils/train.py starts.
  Result<LaunchLine> axolotl() {
    if (++at_ >= words_.size() || words_[at_] != "train") return bad("'axolotl" + (at_ < words_.size() ? " " + words_[at_].substr(0, 40) : "") + "' trains nothing", "paste the command that trains: axolotl train config.yml");
    std::string launcher = "accelerate";
    std::vector<std::string> own, launchers;
    for (++at_; at_ < words_.size() && !ends_command(words_[at_]); ++at_) {
      const std::string& w = words_[at_];
      const std::string name = dashed(w.substr(0, w.find('=')));
      const bool taken = name == "--launcher" || name == "--num-processes" || name == "--main-process-port";
      if (w == "--") {
        while (++at_ < words_.size() && !ends_command(words_[at_])) launchers.push_back(words_[at_]);
        break;
      }
      if (!taken) {
        own.push_back(w);
        continue;
      }
      const bool joined = name.size() < w.size();
      if (!joined && at_ + 1 >= words_.size()) return bad(name + " has no value", "write " + name + " VALUE");
      const std::string value = joined ? w.substr(name.size() + 1) : words_[++at_];
      if (name == "--launcher") launcher = value;
      else launchers.insert(launchers.end(), {name, value});
    }
    if (launcher != "accelerate" && launcher != "torchrun" && launcher != "python") return bad("--launcher " + launcher.substr(0, 40) + " is none of axolotl's", "use accelerate, torchrun or python");
    std::vector<std::string> line{launcher};
    if (launcher == "accelerate") line.emplace_back("launch");
    if (launcher != "python") line.insert(line.end(), launchers.begin(), launchers.end());
    line.insert(line.end(), {"-m", "axolotl.cli.train"});
    line.insert(line.end(), own.begin(), own.end());
    return started("axolotl train", std::move(line));
  }

  // trl sft, trl dpo, ...: accelerate launch of its script. Which of the words are the launcher's the reader of its arguments knows.
  Result<LaunchLine> trl() {
    if (++at_ >= words_.size() || trl_trainer(words_[at_]) == TrlTrainer::none) return bad("'trl" + (at_ < words_.size() ? " " + words_[at_].substr(0, 40) : "") + "' is not laid out: of TRL's trainers those of sft, dpo, kto, reward and grpo are", "paste trl sft ..., trl dpo ..., trl kto ..., trl reward ... or trl grpo ...; for others: python -m dryfit.capture (docs/capture.md)");
    const std::string& word = words_[at_++];
    return started("trl " + word, {"accelerate", "launch", "trl/scripts/" + word + ".py"});
  }

  // llamafactory-cli train FILE: one process, or torchrun of all visible GPUs (its launcher.py).
  Result<LaunchLine> llamafactory() {
    if (++at_ >= words_.size() || words_[at_] != "train") return bad("'llamafactory-cli" + (at_ < words_.size() ? " " + words_[at_].substr(0, 40) : "") + "' trains nothing", "paste the command that trains: llamafactory-cli train config.yaml");
    const auto set = [&](std::string_view name) -> std::optional<std::string> {
      const auto found = std::ranges::find(out_.environment, name, &std::pair<std::string, std::string>::first);
      return found == out_.environment.end() ? std::nullopt : std::optional(found->second);
    };
    std::optional<std::int64_t> each = visible_;
    std::int64_t nodes = 1;
    for (const char* name : {"NPROC_PER_NODE", "NNODES"}) {
      const auto value = set(name);
      if (!value) continue;
      const auto n = processes(Flag{name, *value, true});
      if (!n) return fail("bad_value", std::string(name) + "=" + value->substr(0, 40) + " is not a number of processes", "use a number from 1 on", name);
      if (std::string_view(name) == "NNODES") nodes = std::min(*n, kMost + 1);
      else each = std::min(*n, kMost + 1);
    }
    if (each) out_.gpus = std::min(*each * nodes, kMost + 1);
    out_.launcher = "llamafactory-cli";
    out_.script = "llamafactory";
    out_.understood.emplace_back("llamafactory-cli train");
    for (++at_; at_ < words_.size() && !ends_command(words_[at_]); ++at_) out_.arguments.push_back(words_[at_]);
    if (at_ < words_.size()) out_.ignored.push_back("everything from '" + words_[at_] + "' on");
    return std::move(out_);
  }

  // What a program starts: the line, and the words of the command that are left.
  Result<LaunchLine> started(std::string program, std::vector<std::string> line) {
    line.insert(line.end(), words_.begin() + static_cast<std::ptrdiff_t>(std::min(at_, words_.size())), words_.end());
    LauncherReader inner(line);
    inner.visible_ = visible_;
    auto read = inner.read();
    if (!read) return read;
    read->environment = std::move(out_.environment);
    read->understood.insert(read->understood.begin(), program);
    return read;
  }

  Result<void> launcher() {
    if (at_ >= words_.size()) return bad("the pasted command is empty", "paste it after --, such as: dryfit check -- torchrun --nproc_per_node=8 -m scripts.base_train --depth=24");
    const std::string program = program_of(words_[at_]);
    ++at_;
    out_.launcher = program;
    const bool python = program.starts_with("python");
    if (program == "torchrun") {
      if (const auto ok = torchrun(); !ok) return ok;
    } else if (python && at_ + 1 < words_.size() && words_[at_] == "-m" && words_[at_ + 1].starts_with("torch.distributed")) {
      at_ += 2;
      if (const auto ok = torchrun(); !ok) return ok;
    } else if (program == "accelerate" && at_ < words_.size() && words_[at_] == "launch") {
      ++at_;
      out_.understood.push_back("accelerate launch");
      if (const auto ok = options({"multi-gpu", "use-deepspeed", "use-fsdp", "use-megatron-lm", "quiet", "cpu", "tpu", "debug", "no-python", "same-network", "num-cpu-threads-auto"}, "num-processes"); !ok) return ok;
    } else if (program == "deepspeed") {
      out_.understood.push_back("deepspeed");
      if (const auto ok = options({"no-python", "no-local-rank", "no-ssh", "force-multi", "enable-each-rank-log"}, "num-gpus"); !ok) return ok;
    } else if (program == "run_train.sh") {
      return torchtitan();
    } else if ((program == "bash" || program == "sh") && at_ < words_.size() && words_[at_].ends_with("run_train.sh")) {
      ++at_;
      return torchtitan();
    } else if (program == "litgpt") {  // launches its processes itself
      out_.script = program;
      return {};
    } else if (program == "tune") {  // torchrun of a recipe; without its options one process
      if (at_ >= words_.size() || words_[at_] != "run") return bad("'tune" + (at_ < words_.size() ? " " + words_[at_].substr(0, 40) : "") + "' trains nothing", "paste tune run RECIPE --config my.yaml");
      ++at_;
      if (const auto ok = torchrun(); !ok) return ok;
    } else if (python) {
      out_.gpus = tasks_ ? started_ : std::optional<std::int64_t>(1);
    } else {
      if ((program == "bash" || program == "sh") && at_ < words_.size() && words_[at_].ends_with(".sh")) {
        return bad("what '" + words_[at_].substr(0, 60) + "' starts is not known: dryfit runs no scripts", "paste its text: dryfit check -- \"$(cat " + words_[at_].substr(0, 60) + ")\"");
      }
      if (program == "swift") return bad("ms-swift's commands are not laid out", "it can be run on a GPU that is not there, where it is installed: python -m dryfit.capture --gpu NAME -- swift sft ... (docs/capture.md)");
      return bad("'" + program.substr(0, 40) + "' is no launcher dryfit reads", "paste a training command that begins with python, torchrun, accelerate launch, deepspeed, axolotl, trl, llamafactory-cli, tune, litgpt or run_train.sh");
    }
    while (at_ < words_.size() && (words_[at_] == "-u" || words_[at_] == "-m" || words_[at_] == "--module")) out_.module = out_.module || words_[at_] != "-u", ++at_;
    if (at_ >= words_.size()) return bad("the pasted command names no training script", "it should have -m scripts.base_train, or train.py");
    out_.script = words_[at_++];
    if (at_ < words_.size() && words_[at_] == "--") ++at_;
    return {};
  }

  // torchtitan's run_train.sh: torchrun of its trainer; what it runs stands in the environment.
  Result<void> torchtitan() {
    const auto set = [&](std::string_view name, std::string_view otherwise) {
      const auto found = std::ranges::find(out_.environment, name, &std::pair<std::string, std::string>::first);
      std::string value = found == out_.environment.end() ? std::string(otherwise) : found->second;
      std::erase_if(out_.environment, [&](const auto& one) { return one.first == name; });
      return value;
    };
    Flag gpus{"NGPU", set("NGPU", "8"), true};
    const auto n = processes(gpus);
    if (!n) return fail("bad_value", "NGPU=" + gpus.value.substr(0, 40) + " is not a number of GPUs", "use a number from 1 on", "NGPU");
    out_.gpus = std::min(*n, kMost + 1);
    const std::string file = set("CONFIG_FILE", "./torchtitan/models/llama3/train_configs/debug_model.toml"), module = set("MODULE", ""), config = set("CONFIG", "");
    set("LOG_RANK", "");
    out_.script = set("TRAIN_FILE", "torchtitan.train");
    out_.module = true;
    if (module.empty() && config.empty()) out_.arguments = {"--job.config_file", file};
    else out_.arguments = {"--config", config};  // of later versions
    if (std::ranges::none_of(out_.environment, [](const auto& one) { return sets_allocator(one.first); })) out_.environment.emplace_back("PYTORCH_ALLOC_CONF", "expandable_segments:True");
    out_.understood.push_back("run_train.sh");
    return {};
  }

  // --name=value, --name value, -name value; a switch has no value. Nothing when the word is no flag.
  struct Flag { std::string name, value; bool has_value = false; };
  Result<Flag> flag(std::span<const std::string_view> switches) {
    Flag f;
    f.name = words_[at_++];
    const std::size_t eq = f.name.find('=');
    if (eq != std::string::npos) f.value = f.name.substr(eq + 1), f.name.resize(eq), f.has_value = true;
    const std::size_t start = f.name.find_first_not_of('-');
    if (start == std::string::npos) return bad("'" + f.name.substr(0, 60) + "' is no flag of the launcher", "flags begin with -- and a name");
    f.name = dashed(f.name.substr(start));
    if (std::ranges::find(switches, f.name) != switches.end() || f.has_value) return f;
    if (at_ < words_.size()) f.value = words_[at_++], f.has_value = true;
    return f;
  }

  Result<std::int64_t> processes(const Flag& f) const {
    const auto n = parse_int(f.value, "--" + f.name);
    if (!n) return n;
    if (*n < 1) return fail("bad_value", "--" + f.name + " " + f.value + " is not a number of processes", "use a number from 1 on", "--" + f.name);
    return n;
  }

  bool at_flag() const { return at_ < words_.size() && words_[at_].starts_with("-") && words_[at_] != "-m" && words_[at_] != "--module" && words_[at_] != "--"; }

  Result<void> torchrun() {
    static constexpr std::array<std::string_view, 4> kSwitches = {"standalone", "no-python", "module", "m"};
    std::int64_t per_node = 1, nodes = 1;
    out_.torchrun = true;
    while (at_flag()) {
      const auto f = flag(kSwitches);
      if (!f) return std::unexpected(f.error());
      if (!f->has_value) continue;
      if (f->name == "nproc-per-node" && (f->value == "gpu" || f->value == "auto" || f->value.starts_with("$(nvidia-smi"))) {
        per_node = visible_.value_or(-1);
      } else if ((f->name == "nproc-per-node" || f->name == "nnodes") && f->value.starts_with('$')) {
        out_.unset_gpus = f->value;
      } else if (f->name == "nproc-per-node" || f->name == "nnodes") {
        const auto n = processes(*f);
        if (!n) return std::unexpected(n.error());
        (f->name == "nnodes" ? nodes : per_node) = *n;
        out_.understood.push_back("--" + f->name + "=" + f->value);
      } else {
        out_.ignored.push_back("--" + f->name);
      }
    }
    if (per_node > 0 && out_.unset_gpus.empty()) out_.gpus = per_node > kMost || nodes > kMost ? kMost + 1 : per_node * nodes;
    return {};
  }

  Result<void> options(std::initializer_list<std::string_view> switches, std::string_view count) {
    if (visible_) out_.gpus = visible_;
    std::int64_t nodes = 1;              // of deepspeed, whose num_gpus are a node's
    while (at_flag()) {
      const auto f = flag(std::span(switches.begin(), switches.size()));
      if (!f) return std::unexpected(f.error());
      if (f->name == count) {
        const auto n = processes(*f);
        if (!n) return std::unexpected(n.error());
        out_.gpus = std::min(*n, kMost + 1);
        out_.understood.push_back("--" + f->name + "=" + f->value);
      } else if (out_.launcher == "deepspeed" && f->name == "include" && included(f->value) > 0) {
        out_.gpus = included(f->value);
        out_.understood.push_back("--" + f->name + "=" + f->value);
      } else if (out_.launcher == "deepspeed" && f->name == "num-nodes") {
        const auto n = processes(*f);
        if (!n) return std::unexpected(n.error());
        nodes = std::min(*n, kMost + 1);
        out_.understood.push_back("--" + f->name + "=" + f->value);
      } else {
        out_.options.emplace_back(f->name, f->value);
      }
    }
    if (out_.gpus && nodes > 1) out_.gpus = *out_.gpus > kMost / nodes ? kMost + 1 : *out_.gpus * nodes;
    return {};
  }

  // "localhost:0,1@worker-1:2": GPUs by node; 0 where a node names none, which then takes all.
  static std::int64_t included(const std::string& value) {
    std::int64_t count = 0;
    for (std::string_view node : split(value, '@')) {
      const std::size_t colon = node.find(':');
      if (colon == std::string_view::npos || colon + 1 == node.size()) return 0;
      count += static_cast<std::int64_t>(split(node.substr(colon + 1), ',').size());
    }
    return std::min(count, kMost + 1);
  }

  std::span<const std::string> words_;
  std::vector<std::string> bare_;        // them without a notebook's sign
  std::size_t at_ = 0;
  std::optional<std::int64_t> visible_, started_;
  bool tasks_ = false;                   // srun's or mpirun's, started_ of them where that is said
  LaunchLine out_;
};

}  // namespace

std::string program_of(std::string_view word) {
  word = word.substr(word.find_last_of("/\\") + 1);
  return std::string(word.ends_with(".exe") ? word.substr(0, word.size() - 4) : word);
}

bool ends_command(std::string_view w) { return w == "|" || w == "&" || w == "&&" || w == ";" || w == ">" || w == ">>" || w == "2>&1" || w.starts_with(">") || w.starts_with("2>"); }

bool stops_compiling(std::string_view variable, std::string_view value) { return (variable == "TORCH_COMPILE_DISABLE" || variable == "TORCHDYNAMO_DISABLE") && value == "1"; }

bool sets_allocator(std::string_view variable) { return variable == "PYTORCH_CUDA_ALLOC_CONF" || variable == "PYTORCH_ALLOC_CONF"; }

std::string_view torch_name_of(Dtype floating) { return floating == Dtype::fp32 ? "float32" : floating == Dtype::bf16 ? "bfloat16" : "float16"; }

std::string place_of(const Argument& argument) {
  if (argument.file.empty()) return "--" + argument.name;
  std::string key = argument.name;
  std::ranges::replace(key, '-', '_');
  return argument.file + ": " + key;
}

Error unset_variable(std::string_view text, std::string_view flag) {
  if (text.starts_with("$(")) return {"bad_number", "'" + std::string(text.substr(0, 60)) + "' is a command, and dryfit runs none", "give " + std::string(flag) + " before the --", std::string(flag)};
  return {"bad_number", "'" + std::string(text.substr(0, 60)) + "' is a variable of the shell that nothing here sets", "give " + std::string(flag) + " before the --, or paste the line that sets it along with the command: NAME=8", std::string(flag)};
}

int starts_training(std::span<const std::string> words) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string_view w = words[i];
    if (w.starts_with("!") || w.starts_with("%")) w.remove_prefix(1);
    if (ends_command(w)) return 0;
    const bool shell = (program_of(w) == "bash" || program_of(w) == "sh") && i + 1 < words.size() && program_of(words[i + 1]) == "run_train.sh";
    if (shell) return 2;
    if (const int rank = rank_of(program_of(w)); rank > 0) {
      const std::string_view next = i + 1 < words.size() ? std::string_view(words[i + 1]) : std::string_view();
      const bool other = rank == 1 && (next == "-c" || next.empty() || (next == "-m" && i + 2 < words.size() && (words[i + 2] == "pip" || words[i + 2] == "venv")));
      return other ? 0 : rank == 1 && next == "-m" && i + 2 < words.size() && words[i + 2].starts_with("torch.distributed") ? 2 : rank;
    }
    const bool wraps = is_assignment(w) || w == "$" || w == "env" || w == "nohup" || w == "exec" || w == "time" || w == "sudo";
    if (wraps) continue;
    if (std::ranges::find(kStarters, w) == kStarters.end()) return 0;
    const std::size_t at = started_at(words, i);
    if (at >= words.size()) return 0;
    i = at - 1;
  }
  return 0;
}

Result<LaunchLine> parse_launch(std::span<const std::string> words) { return LauncherReader(words).read(); }

std::vector<Argument> arguments_of(const LaunchLine& launch, std::vector<std::string>& ignored) {
  std::vector<Argument> out;
  for (const std::string& w : launch.arguments) {
    if (w.starts_with("--") && w.size() > 2) {
      const std::size_t eq = std::min(w.find('='), w.size());
      out.push_back({dashed(w.substr(2, eq - 2)), {}, {}});
      if (eq < w.size()) out.back().values.push_back(w.substr(eq + 1));
    } else if (!out.empty()) {
      out.back().values.push_back(w);
    } else {
      ignored.push_back("'" + w.substr(0, 60) + "' before the first flag");
    }
  }
  return out;
}

void add_words_over(std::span<const std::string_view> said, std::span<const std::pair<std::string, std::string>> resolved, std::vector<std::string>& out) {
  for (std::string_view word : said) {
    const std::string_view key = word.substr(0, word.find('='));
    if (std::ranges::find(resolved, key, &std::pair<std::string, std::string>::first) == resolved.end()) out.emplace_back(word);
  }
  for (const auto& [key, value] : resolved) out.push_back(key + "=" + value);
}

}  // namespace dryfit
