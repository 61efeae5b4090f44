// The files of job.hpp. Sources: PyTorch's torchrun documentation (c10d rendezvous), Slurm's sbatch(1) and srun(1), Kubeflow Training Operator v1
// (PyTorchJob) and Trainer v2 (TrainJob), SkyPilot's YAML reference and its SKYPILOT_* variables, Ray Train's TorchTrainer.
#include "plan/job.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/text.hpp"
#include "plan/launch.hpp"

namespace dryfit {

namespace {

struct KindSpec { JobKind kind; std::string_view name, file; };
constexpr std::array kKinds = {KindSpec{JobKind::torchrun, "torchrun", "job.sh"},         KindSpec{JobKind::slurm, "slurm", "job.sbatch"}, KindSpec{JobKind::kubernetes, "kubernetes", "job.yaml"},
                               KindSpec{JobKind::trainjob, "trainjob", "job.yaml"}, KindSpec{JobKind::skypilot, "skypilot", "job.yaml"}, KindSpec{JobKind::ray, "ray", "job.py"}};
constexpr std::int64_t kUsualGpus = 8;   // of one machine
constexpr double kSpare = 1.5;           // a job's time limit over the training steps' time: compilation, evaluations, checkpoints

// What SkyPilot calls a GPU (its catalogues' accelerator names).
struct SkyName { std::string_view gpu, name; };
constexpr std::array kSkyNames = {
    SkyName{"NVIDIA A100-SXM4-40GB", "A100"}, SkyName{"NVIDIA A100-PCIE-40GB", "A100"}, SkyName{"NVIDIA A100-SXM4-80GB", "A100-80GB"}, SkyName{"NVIDIA A100 80GB PCIe", "A100-80GB"},
    SkyName{"NVIDIA H100 80GB HBM3", "H100"}, SkyName{"NVIDIA H100 PCIe", "H100"}, SkyName{"NVIDIA H100 NVL", "H100-NVL"}, SkyName{"NVIDIA H200", "H200"}, SkyName{"NVIDIA B200", "B200"},
    SkyName{"NVIDIA GH200 480GB", "GH200"}, SkyName{"NVIDIA L4", "L4"}, SkyName{"NVIDIA L40", "L40"}, SkyName{"NVIDIA L40S", "L40S"}, SkyName{"NVIDIA A10", "A10"}, SkyName{"NVIDIA A10G", "A10G"},
    SkyName{"NVIDIA A30", "A30"}, SkyName{"NVIDIA A40", "A40"}, SkyName{"NVIDIA RTX A4000", "RTXA4000"}, SkyName{"NVIDIA RTX A5000", "RTXA5000"}, SkyName{"NVIDIA RTX A6000", "RTXA6000"}, SkyName{"NVIDIA RTX 6000 Ada Generation", "RTX6000-Ada"},
    SkyName{"Tesla T4", "T4"}, SkyName{"Tesla V100-SXM2-16GB", "V100"}, SkyName{"Tesla V100-SXM2-32GB", "V100-32GB"}, SkyName{"NVIDIA GeForce RTX 3090", "RTX3090"},
    SkyName{"NVIDIA GeForce RTX 4090", "RTX4090"}, SkyName{"NVIDIA GeForce RTX 5090", "RTX5090"}, SkyName{"AMD Instinct MI300X", "MI300X"}};

// The command's parts: assignments before it, the module, its arguments.
struct Parts {
  std::vector<std::pair<std::string, std::string>> environment;  // {"NANOCHAT_DTYPE", "float16"}
  std::string module;
  std::vector<std::string> arguments;
};

Parts parts_of(const Workload& workload) {
  Parts out;
  const std::vector<std::string> words = launch_command(workload);
  const auto module = std::ranges::find(words, "-m");
  for (auto w = words.begin(); w != module && w->find('=') != std::string::npos && !w->starts_with("-"); ++w) out.environment.emplace_back(w->substr(0, w->find('=')), w->substr(w->find('=') + 1));
  out.module = *(module + 1);
  std::copy_if(module + 2, words.end(), std::back_inserter(out.arguments), [](const std::string& w) { return w != "--"; });
  return out;
}

class JobWriter {
 public:
  JobWriter(const Report& report, std::int64_t nodes) : r_(report), parts_(parts_of(report.workload)), nodes_(nodes), each_(report.workload.run.world_size / nodes) {
    for (const Alternative& a : report.alternatives) {  // the same training with more to spare
      if (a.verdict == Verdict::fits && is_variable(a.change.front().first)) parts_.environment.push_back(a.change.front());
    }
    parts_.environment.emplace_back("OMP_NUM_THREADS", "1");
  }

  std::string torchrun() const {
    std::string out = "#!/usr/bin/env bash\n" + head("# ");
    if (nodes_ > 1) out += "# On every machine, in a checkout of nanochat that is set up as its runs/speedrun.sh does:\n#   MASTER_ADDR=<first machine> bash job.sh\n";
    else out += "# In a checkout of nanochat that is set up as its runs/speedrun.sh does:\n#   bash job.sh\n";
    out += "set -euo pipefail\n" + exports();
    if (nodes_ > 1) out += ": \"${MASTER_ADDR:?the name or address of the first machine}\"\n";
    return out + "exec " + launcher("\"$MASTER_ADDR:${MASTER_PORT:-29500}\"", "nanochat") + "\n";
  }

  std::string slurm() const {
    std::string out = "#!/bin/bash\n#SBATCH --job-name=" + name() + "\n#SBATCH --nodes=" + number(nodes_) + "\n#SBATCH --ntasks-per-node=1\n#SBATCH --gpus-per-node=" + number(each_) +
                      "\n#SBATCH --cpus-per-task=" + number(4 * each_) + "\n";
    if (const auto hours = limit_hours()) out += "#SBATCH --time=" + number(*hours) + ":00:00\n";
    out += "#SBATCH --output=%x-%j.log\n" + head("# ");
    out += "# sbatch job.sbatch, from a checkout of nanochat that every node sees, set up as its runs/speedrun.sh does\nset -euo pipefail\n" + exports();
    out += "[ -f .venv/bin/activate ] && source .venv/bin/activate\n";
    if (nodes_ > 1) out += "first=$(scontrol show hostnames \"$SLURM_JOB_NODELIST\" | sed -n 1p)\n";
    return out + "srun --kill-on-bad-exit=1 " + launcher("\"$first:29500\"", "\"$SLURM_JOB_ID\"") + "\n";
  }

  // The operator sets torchrun's PET_* variables from nprocPerNode and the replicas.
  std::string pytorch_job() const {
    std::string out = head("# ") + "apiVersion: kubeflow.org/v1\nkind: PyTorchJob\nmetadata:\n  name: " + name() + "\nspec:\n  runPolicy:\n    cleanPodPolicy: None\n  nprocPerNode: \"" + number(each_) + "\"\n  pytorchReplicaSpecs:\n    Master:\n      replicas: 1\n" + replica();
    if (nodes_ > 1) out += "    Worker:\n      replicas: " + number(nodes_ - 1) + "\n" + replica();
    return out;
  }

  std::string train_job() const {
    std::string out = head("# ") + "apiVersion: trainer.kubeflow.org/v1alpha1\nkind: TrainJob\nmetadata:\n  name: " + name() + "\nspec:\n  runtimeRef:\n    name: torch-distributed\n  trainer:\n    image: " + std::string(kImage) +
                      "\n    numNodes: " + number(nodes_) + "\n    numProcPerNode: " + number(each_) + "\n    resourcesPerNode:\n      limits:\n        " + resource() + ": \"" + number(each_) + "\"\n    command:\n";
    for (const std::string& w : pod_command()) out += "      - " + quoted(w) + "\n";
    return out + "    env:\n" + variables("      ");
  }

  Result<std::string> skypilot() const {
    const auto known = std::ranges::find(kSkyNames, std::string_view(r_.machine.gpu.name), &SkyName::gpu);
    if (known == kSkyNames.end()) return fail("bad_value", "SkyPilot has no name for " + r_.machine.gpu.name + " that is known here", "--emit slurm, kubernetes or torchrun do without one", "--emit");
    std::string out = head("# ") + "# sky launch job.yaml, in a checkout of nanochat\nname: " + name() + "\nworkdir: .\nnum_nodes: " + number(nodes_) + "\nresources:\n  accelerators: " + std::string(known->name) + ":" + number(each_) + "\nenvs:\n";
    for (const auto& [key, value] : parts_.environment) out += "  " + key + ": " + quoted(value) + "\n";
    out += "setup: |\n  pip install uv\n  uv sync --extra gpu\n  source .venv/bin/activate\n  python -m nanochat.dataset -n 170\n  [ -d ~/.cache/nanochat/tokenizer ] || python -m scripts.tok_train\n";
    out += "run: |\n  source .venv/bin/activate\n";
    if (nodes_ > 1) out += "  first=$(echo \"$SKYPILOT_NODE_IPS\" | sed -n 1p)\n";
    return out + "  " + launcher("\"$first:29500\"", "\"$SKYPILOT_TASK_ID\"") + "\n";
  }

  // Ray opens a process group of its own on every worker; nanochat opens it itself from the same variables, so Ray's is closed first.
  std::string ray() const {
    std::string out = head("# ") + "# python job.py, on the head of a Ray cluster, in a checkout of nanochat that every node has\nimport runpy\nimport sys\n\nimport ray\nimport ray.train\nimport torch.distributed\nfrom ray.train.torch import TorchTrainer\n\n";
    out += "MODULE = " + quoted(parts_.module) + "\nARGUMENTS = [";
    for (std::size_t i = 0; i < parts_.arguments.size(); ++i) out += (i > 0 ? ", " : "") + quoted(parts_.arguments[i]);
    out += "]\nENVIRONMENT = {";
    for (std::size_t i = 0; i < parts_.environment.size(); ++i) {
      out += (i > 0 ? ", " : "") + quoted(parts_.environment[i].first) + ": " + quoted(parts_.environment[i].second);
    }
    out += "}\n\n\ndef train():\n    if torch.distributed.is_initialized():\n        torch.distributed.destroy_process_group()\n    sys.argv = [MODULE, *ARGUMENTS]\n    runpy.run_module(MODULE, run_name=\"__main__\")\n\n\n";
    out += "if __name__ == \"__main__\":\n    ray.init(runtime_env={\"env_vars\": ENVIRONMENT})\n    scaling = ray.train.ScalingConfig(num_workers=" + number(r_.workload.run.world_size) + ", use_gpu=True)\n    TorchTrainer(train, scaling_config=scaling).fit()\n";
    return out;
  }

 private:
  static constexpr std::string_view kImage = "nanochat:latest";  // the user's own: nanochat is not published as one
  static std::string number(std::int64_t n) { return std::to_string(n); }
  // As a string of JSON, which YAML and Python read alike.
  static std::string quoted(std::string_view text) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string out = "\"";
    for (char c : text) {
      const auto code = static_cast<unsigned char>(c);
      if (code < 0x20) {
        out += "\\u00";
        out += {kDigits[code >> 4], kDigits[code & 15]};
        continue;
      }
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    return out + "\"";
  }
  std::string name() const {
    std::string script(name_of(r_.workload.run.script));
    std::ranges::replace(script, '_', '-');
    return "nanochat-d" + number(r_.workload.model.depth) + "-" + script;
  }

  std::string head(const std::string& comment) const {
    const Run& run = r_.workload.run;
    std::string out = comment + "Written by dryfit: d" + number(r_.workload.model.depth) + ", device batch " + number(run.device_batch_size) + ", " + number(run.world_size) + " x " + r_.machine.gpu.name;
    return out + (nodes_ > 1 ? " on " + number(nodes_) + " machines" : "") + "\n";
  }

  std::string exports() const {
    std::string out;
    for (const auto& [key, value] : parts_.environment) out += "export " + key + "=" + shell_join(std::array{value}) + "\n";
    return out;
  }

  std::string launcher(const std::string& endpoint, const std::string& id) const {
    const std::string script = parts_.module + (parts_.arguments.empty() ? "" : (r_.workload.run.world_size > 1 ? " -- " : " ") + shell_join(parts_.arguments));
    if (r_.workload.run.world_size == 1) return "python -m " + script;
    if (nodes_ == 1) return "torchrun --standalone --nproc_per_node=" + number(each_) + " -m " + script;
    return "torchrun --nnodes=" + number(nodes_) + " --nproc_per_node=" + number(each_) + " --rdzv-backend=c10d --rdzv-endpoint=" + endpoint + " --rdzv-id=" + id + " -m " + script;
  }

  std::vector<std::string> pod_command() const {
    std::vector<std::string> out = {"torchrun", "-m", parts_.module};
    if (!parts_.arguments.empty()) out.emplace_back("--");
    out.insert(out.end(), parts_.arguments.begin(), parts_.arguments.end());
    return out;
  }

  std::string resource() const { return r_.machine.gpu.vendor == "AMD" ? "amd.com/gpu" : "nvidia.com/gpu"; }

  std::string variables(const std::string& indent) const {
    std::string out;
    for (const auto& [key, value] : parts_.environment) out += indent + "- name: " + key + "\n" + indent + "  value: " + quoted(value) + "\n";
    return out;
  }

  // /dev/shm of a pod is 64 MiB unless told otherwise, too little for NCCL and data loaders.
  std::string replica() const {
    std::string out = "      restartPolicy: Never\n      template:\n        spec:\n          containers:\n            - name: pytorch\n              image: " + std::string(kImage) + "\n              command:\n";
    for (const std::string& w : pod_command()) out += "                - " + quoted(w) + "\n";
    out += "              env:\n" + variables("                ");
    out += "              resources:\n                limits:\n                  " + resource() + ": \"" + number(each_) + "\"\n";
    return out + "              volumeMounts:\n                - name: shm\n                  mountPath: /dev/shm\n          volumes:\n            - name: shm\n              emptyDir:\n                medium: Memory\n";
  }

  std::optional<std::int64_t> limit_hours() const {
    const auto seconds = r_.speed && r_.speed->horizon ? r_.speed->horizon_seconds() : std::nullopt;
    return seconds ? std::optional(static_cast<std::int64_t>(std::ceil(*seconds * kSpare / 3600))) : std::nullopt;
  }

  const Report& r_;
  Parts parts_;
  std::int64_t nodes_, each_;
};

}  // namespace

std::string_view name_of(JobKind kind) { return std::ranges::find(kKinds, kind, &KindSpec::kind)->name; }
std::string_view file_of(JobKind kind) { return std::ranges::find(kKinds, kind, &KindSpec::kind)->file; }

Result<JobKind> job_kind(std::string_view name) {
  std::vector<std::string_view> names;
  for (const KindSpec& k : kKinds) {
    if (k.name == name) return k.kind;
    names.push_back(k.name);
  }
  return fail("bad_value", "--emit '" + std::string(name.substr(0, 40)) + "' is no kind of job", did_you_mean(name, names, "one of: torchrun, slurm, kubernetes, trainjob, skypilot, ray"), "--emit");
}

Result<JobFile> write_job(const Report& report, JobKind kind, std::optional<std::int64_t> nodes) {
  if (report.workload.transformers || report.workload.captured) return fail("bad_value", "--emit writes jobs of nanochat's scripts", "put the printed arguments behind your own script", "--emit");
  const std::int64_t gpus = report.workload.run.world_size;
  const std::int64_t machines = nodes.value_or(gpus > kUsualGpus ? (gpus + kUsualGpus - 1) / kUsualGpus : 1);
  if (machines < 1 || gpus % machines != 0) {
    return fail("bad_value", std::to_string(gpus) + " GPUs cannot be shared out over " + std::to_string(machines) + " machines", "give --nodes a divisor of --gpus", nodes ? "--nodes" : "--gpus");
  }
  const JobWriter writer(report, machines);
  const auto text = [&]() -> Result<std::string> {
    switch (kind) {
      case JobKind::torchrun: return writer.torchrun();
      case JobKind::slurm: return writer.slurm();
      case JobKind::kubernetes: return writer.pytorch_job();
      case JobKind::trainjob: return writer.train_job();
      case JobKind::skypilot: return writer.skypilot();
      case JobKind::ray: return writer.ray();
    }
    return std::string();
  }();
  if (!text) return std::unexpected(text.error());
  return JobFile{kind, *text};
}

}  // namespace dryfit
