// See torchtitan_command.hpp. Source: pytorch/torchtitan v0.2.2, torchtitan/config/manager.py, run_train.sh.
#include "plan/torchtitan_command.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace dryfit {

namespace {

// Keys that are words or lists of them, whatever they look like: selective_ac_option is "2".
constexpr std::string_view kTextKeys[] = {"activation_checkpoint.selective_ac_option", "model.flavor", "model.name"};
constexpr std::string_view kListKeys[] = {"compile.components", "model.converters", "activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns", "quantize.linear.float8.filter_fqns"};

std::string with_underscores(std::string_view name) {
  std::string out(name);
  std::ranges::replace(out, '-', '_');
  return out;
}

bool names_config(std::string_view argument) { return with_underscores(argument.substr(0, argument.find('='))) == "__job.config_file"; }

}  // namespace

bool is_torchtitan_command(const LaunchLine& launch) {
  return launch.script == "torchtitan.train" || launch.script.ends_with("torchtitan/train.py") || std::ranges::any_of(launch.arguments, names_config);
}

Document torchtitan_value(std::string_view key, std::string_view text) {
  Document d;
  const auto plain = [](std::string_view word) {
    Document out;
    out.kind = Document::Kind::text, out.text = std::string(word);
    return out;
  };
  if (std::ranges::find(kListKeys, key) != std::end(kListKeys)) {
    d.kind = Document::Kind::list;
    for (std::string_view one : split(text, ',')) {
      if (!trim(one).empty()) d.items.push_back(plain(trim(one)));
    }
    return d;
  }
  if (std::ranges::find(kTextKeys, key) != std::end(kTextKeys)) return plain(text);
  const std::string lower = to_lower(text);
  if (lower == "true" || lower == "false") {
    d.kind = Document::Kind::boolean, d.flag = lower == "true";
    return d;
  }
  if (const auto whole = parse_int(text, key)) {
    d.kind = Document::Kind::whole, d.whole = *whole, d.real = static_cast<double>(*whole);
    return d;
  }
  if (const auto real = parse_real(text, key)) {
    d.kind = Document::Kind::real, d.real = *real;
    return d;
  }
  return plain(text);
}

Result<TorchtitanCommand> read_torchtitan_command(const LaunchLine& launch) {
  TorchtitanCommand out;
  out.launched = before_arguments(launch);
  out.launched.flags.gpus = launch.gpus;
  for (const Argument& a : arguments_of(launch, out.launched.ignored)) {
    std::string key = with_underscores(a.name);
    if (key == "module" || key == "config") return fail("unsupported_script", "--" + key + " names a configuration in Python, torchtitan 0.3's, whose code is not laid out", "that of torchtitan 0.2.2 is: -m torchtitan.train --job.config_file FILE.toml --training.local_batch_size 1", "--" + key);
    if (key.find('.') == std::string::npos) return fail("bad_command", "--" + key.substr(0, 60) + " is no key of torchtitan's configuration", "write --training.local_batch_size 1", "--" + key.substr(0, 60));
    if (a.values.size() > 1) return fail("bad_command", "--" + key.substr(0, 60) + " has several values", "lists are written with commas: --compile.components model,loss", "--" + key.substr(0, 60));
    if (key == "job.config_file") {
      if (a.values.empty()) return fail("bad_command", "--job.config_file names no file", "write --job.config_file my.toml", "--job.config_file");
      out.config = a.values[0];
      continue;
    }
    // a switch is on, and off with no_ before its name
    const std::size_t last = key.rfind('.') + 1;
    const bool off = a.values.empty() && std::string_view(key).substr(last).starts_with("no_");
    if (off) key.erase(last, 3);
    const std::string text = off ? "false" : a.values.empty() ? "true" : a.values[0];
    out.over.push_back({key, torchtitan_value(key, text), off ? "--" + key.substr(0, last) + "no_" + key.substr(last) : a.values.empty() ? "--" + key : "--" + key + "=" + text});
  }
  out.launched.understood.emplace_back("torchtitan.train");
  return out;
}

std::vector<std::string> torchtitan_command(const Workload& workload) {
  const Training t = training_of(*workload.transformers, workload.run);
  std::vector<std::string> out{"torchrun", "--nproc_per_node=" + std::to_string(std::min<std::int64_t>(t.world_size, 8)), "-m", "torchtitan.train"};
  if (t.world_size > 8) out.insert(out.begin() + 1, "--nnodes=" + std::to_string(ceil_div(t.world_size, 8)));
  const std::vector<std::string_view> said = split(t.torchtitan.config, '\n');
  if (!said[0].empty()) out.push_back("--job.config_file=" + std::string(said[0]));
  std::vector<std::pair<std::string, std::string>> resolved = {{"--training.local_batch_size", std::to_string(t.device_batch_size)}, {"--training.seq_len", std::to_string(t.seq_len)}, {"--training.global_batch_size", std::to_string(t.device_batch_size * t.grad_accum_steps * t.world_size)}};
  using Selective = TorchtitanRun::Selective;
  if (t.recompute == Recompute::full) resolved.emplace_back("--activation_checkpoint.mode", "full");
  else resolved.emplace_back("--activation_checkpoint.mode", t.torchtitan.selective == Selective::none ? "none" : "selective");
  add_words_over(std::span(said).subspan(1), resolved, out);
  return out;
}

}  // namespace dryfit
