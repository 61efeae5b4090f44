// See job.hpp.
#include "watch/job.hpp"

#include <algorithm>
#include <array>

#include "base/text.hpp"
#include "machine/probe.hpp"
#include "plan/launch.hpp"
#include "plan/launcher.hpp"

namespace dryfit {

namespace {

bool is_python(std::string_view word) { return program_of(word).starts_with("python"); }

// Words without what only starts the launcher: "/usr/bin/python3 /usr/local/bin/torchrun ..." is torchrun's.
std::span<const std::string> without_interpreter(std::span<const std::string> words) {
  if (words.size() >= 2 && is_python(words[0]) && program_of(words[1]) == "torchrun") return words.subspan(1);
  return words;
}

bool is_torchrun(std::span<const std::string> words) {
  words = without_interpreter(words);
  if (words.empty()) return false;
  if (program_of(words[0]) == "torchrun") return true;
  return words.size() >= 3 && is_python(words[0]) && words[1] == "-m" && words[2].starts_with("torch.distributed");
}

std::optional<std::string> variable(const ProcessSample& p, std::string_view key) {
  for (const std::string& entry : p.environment) {
    if (entry.size() > key.size() && entry.starts_with(key) && entry[key.size()] == '=') return entry.substr(key.size() + 1);
  }
  return std::nullopt;
}

// What the ranks' environments add: their number, and settings given outside the command line.
void add_environment(Job& job, std::span<const ProcessSample> tree) {
  for (const ProcessSample& p : tree) {
    if (const auto conf = variable(p, "PYTORCH_ALLOC_CONF"); conf && !job.alloc_conf) job.alloc_conf = conf;
    if (const auto conf = variable(p, "PYTORCH_CUDA_ALLOC_CONF"); conf && !job.alloc_conf) job.alloc_conf = conf;
    if (!job.flags) continue;
    if (const auto dtype = variable(p, "NANOCHAT_DTYPE"); dtype && !dtype->empty() && !job.flags->dtype) job.flags->dtype = dtype;
    for (const char* key : {"TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE"}) {
      if (const auto value = variable(p, key); value && stops_compiling(key, *value)) job.flags->compile = false;
    }
    for (const char* key : {"CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE", "TORCH_CUBLASLT_UNIFIED_WORKSPACE"}) {
      const auto value = variable(p, key);
      const bool known = std::ranges::any_of(job.flags->workspaces, [&](const auto& one) { return one.first == key; });
      if (value && !known) job.flags->workspaces.emplace_back(key, *value);
    }
    if (const auto size = variable(p, "WORLD_SIZE")) {
      if (const auto n = parse_int(*size, ""); n && *n >= 1) job.flags->gpus = *n, job.flags->torchrun = true;
    }
  }
}

}  // namespace

Trains trains(const ProcessSample& process) {
  bool python = false, script = false;
  for (const std::string& word : process.command) {
    const std::string base = program_of(word);
    if (base == "base_train.py" || word.ends_with("scripts.base_train")) return Trains::nanochat;
    if (word.starts_with("-")) continue;
    const std::string lower = to_lower(base.substr(0, 200));
    for (std::string_view part : {"train", "sft", "finetune", "fine_tune", "chat_rl", "torchrun", "accelerate", "deepspeed"}) script = script || lower.find(part) != std::string::npos;
    python = python || is_python(word);
  }
  return script && (python || is_launcher(process)) ? Trains::script : python || process.name.starts_with("python") ? Trains::python : Trains::no;
}

bool is_launcher(const ProcessSample& process) {
  const std::span<const std::string> words = process.command;
  if (is_torchrun(words)) return true;
  for (std::size_t i = 0; i < std::min<std::size_t>(words.size(), 4); ++i) {
    const std::string base = program_of(words[i]);
    if (base == "accelerate" || base == "deepspeed" || base == "mpirun" || base == "uv" || words[i].starts_with("accelerate.commands")) return true;
  }
  return false;
}

std::optional<std::int64_t> newest_training(std::span<const ProcessSample> candidates) {
  const ProcessSample* best = nullptr;
  Trains surest = Trains::no;
  for (const ProcessSample& p : candidates) {
    const Trains t = trains(p);
    if (t == Trains::no) continue;
    if (best == nullptr || t > surest || (t == surest && p.started > best->started)) best = &p, surest = t;
  }
  return best == nullptr ? std::nullopt : std::optional(best->pid);
}

std::vector<ProcessSample> process_tree(std::span<const ProcessSample> all, std::int64_t pid) {
  const auto find = [&](std::int64_t id) { return std::ranges::find(all, id, &ProcessSample::pid); };
  auto root = find(pid);
  if (root == all.end()) return {};
  for (std::size_t steps = 0; steps < kMostTree; ++steps) {  // a parent seen twice would be a cycle: bounded
    const auto parent = find(root->parent);
    if (parent == all.end() || parent->pid == root->pid || !is_launcher(*parent)) break;
    root = parent;
  }
  std::vector<ProcessSample> tree = {*root};
  for (std::size_t i = 0; i < tree.size(); ++i) {
    for (const ProcessSample& p : all) {
      if (p.parent != tree[i].pid || p.pid == p.parent || tree.size() >= kMostTree) continue;
      if (std::ranges::find(tree, p.pid, &ProcessSample::pid) == tree.end()) tree.push_back(p);
    }
  }
  return tree;
}

Job read_job(std::span<const ProcessSample> tree, std::int64_t pid) {
  Job job;
  job.pid = pid;
  // the launcher tells the number of GPUs, so it is read first; else the rank's own line
  std::vector<const ProcessSample*> order;
  for (const ProcessSample& p : tree) {
    if (!p.command.empty() && is_torchrun(p.command)) order.push_back(&p);
  }
  for (const ProcessSample& p : tree) {
    if (!p.command.empty() && !is_torchrun(p.command) && trains(p) >= Trains::script) order.push_back(&p);
  }
  for (const ProcessSample& p : tree) {
    if (!p.command.empty() && p.pid == pid) order.push_back(&p);
  }
  if (order.empty()) {
    job.unread = "its command line cannot be read (another user's process, or another container's)";
    return job;
  }
  for (const ProcessSample* p : order) {
    std::span<const std::string> words = without_interpreter(p->command);
    const std::vector<std::string> copy(words.begin(), words.end());
    if (job.command.empty()) job.command = shell_join(copy);
    const auto pasted = parse_pasted_command(copy, PasteOptions{{}, {}, true});
    if (!pasted) {
      if (job.unread.empty()) job.unread = pasted.error().message;
      continue;
    }
    job.command = shell_join(copy);
    job.script = pasted->script;
    job.flags = pasted->flags;
    job.alloc_conf = pasted->alloc_conf;
    job.unread.clear();
    break;
  }
  add_environment(job, tree);
  return job;
}

Job job_of(const SeenJob& seen) {
  ProcessSample p;
  p.pid = seen.pid;
  p.environment = seen.environment;
  if (auto words = shell_split(seen.command)) p.command = std::move(*words);
  Job job = read_job({&p, 1}, seen.pid);
  job.command = seen.command;
  return job;
}

WorkloadFlags overlaid(WorkloadFlags found, const WorkloadFlags& given) {
  const auto over = [&](auto field) {
    if (given.*field) found.*field = given.*field;
  };
  for (auto field : {&WorkloadFlags::depth, &WorkloadFlags::aspect_ratio, &WorkloadFlags::head_dim, &WorkloadFlags::vocab_size, &WorkloadFlags::device_batch_size, &WorkloadFlags::total_batch_size,
                     &WorkloadFlags::max_seq_len, &WorkloadFlags::gpus, &WorkloadFlags::core_metric_every, &WorkloadFlags::core_metric_max_per_task}) over(field);
  for (auto field : {&WorkloadFlags::window_pattern, &WorkloadFlags::nanochat, &WorkloadFlags::dtype, &WorkloadFlags::attention, &WorkloadFlags::torch}) over(field);
  for (auto field : {&WorkloadFlags::fp8, &WorkloadFlags::compile, &WorkloadFlags::torchrun}) over(field);
  if (!given.workspaces.empty()) found.workspaces = given.workspaces;
  if (!given.passthrough.empty()) found.passthrough = given.passthrough;
  return found;
}

Result<Machine> machine_of(std::span<const GpuSample> gpus, std::span<const std::size_t> used, std::span<const Bytes> own, MachineSource source) {
  ProbeResult probe;
  probe.source = source;
  for (std::size_t i = 0; i < used.size(); ++i) {
    if (used[i] >= gpus.size()) continue;
    const GpuSample& g = gpus[used[i]];
    if (g.lost) continue;
    GpuReading r;
    r.index = g.index, r.name = g.name, r.uuid = g.uuid, r.mig_slice = g.mig;
    r.total = g.total, r.reserved = g.reserved, r.compute_major = g.compute_major, r.compute_minor = g.compute_minor;
    if (g.used) r.used = std::max(Bytes(0), *g.used - (i < own.size() ? own[i] : Bytes(0)));
    probe.gpus.push_back(std::move(r));
  }
  return machine_from_probe(probe, {});
}

}  // namespace dryfit
