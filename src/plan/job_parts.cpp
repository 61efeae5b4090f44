// See job_parts.hpp. Packages: what Trainer imports for each argument (transformers' training_args.py and integrations, peft, TRL), LitGPT's and torchtune's READMEs. Megatron-LM's README
// asks for NVIDIA's PyTorch container, and its arguments for CUDA_DEVICE_MAX_CONNECTIONS=1.
#include "plan/job_parts.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"
#include "plan/launch.hpp"
#include "plan/transformers_plan.hpp"

namespace dryfit {

namespace {

// As Kubernetes' names of services have to be (RFC 1035), with room for what engines add.
std::string job_name(std::string_view text) {
  constexpr std::size_t kMost = 40;
  std::string out;
  for (char c : to_lower(text)) {
    const bool plain = (c >= 'a' && c <= 'z') || is_digit(c);
    if (plain || (!out.empty() && out.back() != '-')) out += plain ? c : '-';
  }
  if (out.empty() || out.front() < 'a') out.insert(0, "run-");
  out.resize(std::min(out.size(), kMost));
  while (out.ends_with('-')) out.pop_back();
  return out;
}

// A name that may be a file of the user's, as it stands in a comment.
std::string one_line(std::string text) {
  std::ranges::replace_if(text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return text;
}

// Assignments before the command. Returns what comes after them.
std::span<const std::string> take_environment(std::span<const std::string> words, JobParts& out) {
  while (!words.empty() && words[0].find('=') != std::string::npos && !words[0].starts_with("-")) {
    out.environment.emplace_back(words[0].substr(0, words[0].find('=')), words[0].substr(words[0].find('=') + 1));
    words = words.subspan(1);
  }
  return words;
}

// Launcher and its options; script; arguments.
void split_command(std::span<const std::string> words, JobParts& out) {
  auto w = words.begin();
  if (w == words.end()) return;
  for (++w; w != words.end() && w->starts_with("-") && *w != "-m"; ++w) {}
  for (bool module = true; module && w != words.end(); ++w) {
    module = *w == "-m";
    out.script.push_back(*w);
  }
  std::copy(w, words.end(), std::back_inserter(out.arguments));
}

std::vector<std::string> pip_commands(const Training& t, const std::string& torch, bool trl) {
  std::vector<std::string> words{"pip", "install", "torch==" + torch};
  const auto add_if = [&](bool wanted, const char* package) { if (wanted) words.emplace_back(package); };
  add_if(t.framework == Framework::torchtune, "torchao");
  add_if(t.framework == Framework::torchtune, "torchtune");
  add_if(t.framework == Framework::torchtitan, "torchtitan==0.2.2");
  add_if(t.framework == Framework::litgpt, "litgpt[extra]");
  const bool trainer = t.framework == Framework::transformers;
  for (const char* package : {"transformers", "accelerate", "datasets"}) add_if(trainer, package);
  add_if(trl, "trl");
  add_if(trainer && t.lora, "peft");
  add_if((trainer || t.framework == Framework::torchtune) && (t.quantized || of_bitsandbytes(t.optimizer)), "bitsandbytes");
  add_if(is_deepspeed(t.sharding), "deepspeed");
  add_if(t.liger.any(), "liger-kernel");
  std::vector<std::string> out{shell_join(words)};
  if (trainer && t.attention == AttentionCode::flash_attention_2) out.emplace_back("pip install flash-attn --no-build-isolation");
  if (trainer && t.attention == AttentionCode::flash_attention_3) out.emplace_back("pip install --no-build-isolation 'git+https://github.com/Dao-AILab/flash-attention.git#subdirectory=hopper'");
  return out;
}

void describe_nanochat(const Workload& w, JobParts& out) {
  std::string script(name_of(w.run.script));
  std::ranges::replace(script, '_', '-');
  std::erase(out.arguments, "--");
  out.separated = true;
  out.what = "d" + std::to_string(w.model.depth);
  out.name = "nanochat-" + out.what + "-" + script;
  out.place = "a checkout of nanochat";
  out.once = " that is set up as its runs/speedrun.sh does";
  out.image = "nanochat:latest";
  out.setup = {"pip install uv", "uv sync --extra gpu", "source .venv/bin/activate", "python -m nanochat.dataset -n 170", "[ -d ~/.cache/nanochat/tokenizer ] || python -m scripts.tok_train"};
  out.activates = true;
}

void describe_model(const Workload& w, JobParts& out) {
  const Training& t = w.transformers->training;
  const std::string model = one_line(w.transformers->architecture.name), method(name_of(method_of(t)));
  out.what = model + ", " + method;
  out.name = job_name(model.substr(model.rfind('/') + 1) + "-" + method);
  out.image = "training:latest";
  out.one_process_alone = true;
  out.place = "a folder";
  if (t.framework == Framework::megatron) {
    out.what = out.name = "megatron-lm";
    out.place = "a checkout of Megatron-LM";
    out.once = ", in NVIDIA's PyTorch container";
    out.container = "nvcr.io/nvidia/pytorch:25.04-py3";
    out.environment.emplace_back("CUDA_DEVICE_MAX_CONNECTIONS", "1");
    return;
  }
  const bool module = !out.script.empty() && out.script.front() == "-m", trl = module && out.script.back().starts_with("trl.scripts.");
  if (!out.script.empty() && !module) out.place += " with " + one_line(out.script.back());
  if (module && !trl && t.framework != Framework::torchtitan) out.place += " where python finds " + one_line(out.script.back());
  if (has_unnamed_script(*w.transformers)) out.note = "train.py: your script around transformers' Trainer";
  out.setup = pip_commands(t, w.run.torch, trl);
  out.once = ", after: " + out.setup.front();
  for (std::size_t i = 1; i < out.setup.size(); ++i) out.once += " && " + out.setup[i];
  if (t.framework == Framework::torchtune) out.note = "the checkpoint lies where its configuration says (tune download)";
}

}  // namespace

Result<JobParts> job_parts(const Report& report, const std::optional<std::string>& alloc_conf) {
  const Workload& w = report.workload;
  if (w.captured) return fail("bad_value", "--emit writes no job of a captured run, whose command dryfit does not know", "start it as it was captured", "--emit");
  if (w.transformers && w.transformers->users.is("axolotl.cli.train")) return fail("bad_value", "--emit writes no jobs of axolotl's runs", "put the printed values into its file (micro_batch_size, gradient_accumulation_steps), and start axolotl train in a job of your own", "--emit");
  if (w.transformers && w.transformers->users.is("llamafactory")) return fail("bad_value", "--emit writes no jobs of LLaMA-Factory's runs", "put the printed values into its file (per_device_train_batch_size, gradient_accumulation_steps), and start llamafactory-cli train in a job of your own", "--emit");
  JobParts out;
  const std::vector<std::string> command = launch_command(w);
  const std::span<const std::string> words = take_environment(command, out);
  const Framework framework = w.transformers ? w.transformers->training.framework : Framework::transformers;
  if (framework == Framework::litgpt || framework == Framework::torchtune) out.own.assign(words.begin(), words.end());
  else split_command(words, out);
  w.transformers ? describe_model(w, out) : describe_nanochat(w, out);
  if (alloc_conf) out.environment.emplace_back("PYTORCH_CUDA_ALLOC_CONF", *alloc_conf);
  for (const Alternative& a : report.alternatives) {  // the same training with more to spare
    if (!alloc_conf && a.identical_training && a.verdict == Verdict::fits && is_variable(a.change.front().first)) out.environment.push_back(a.change.front());
  }
  out.environment.emplace_back("OMP_NUM_THREADS", "1");
  return out;
}

}  // namespace dryfit
