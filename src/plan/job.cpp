// The files of job.hpp. Sources: PyTorch's torchrun documentation (c10d rendezvous), Slurm's sbatch(1) and srun(1), Kubeflow Training Operator v1
// (PyTorchJob) and Trainer v2 (TrainJob), SkyPilot's YAML reference and its SKYPILOT_* variables, Ray Train's TorchTrainer.
#include "plan/job.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/text.hpp"
#include "plan/job_parts.hpp"
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

class JobWriter {
 public:
  JobWriter(const Report& report, JobParts parts, std::int64_t nodes) : r_(report), parts_(std::move(parts)), nodes_(nodes), each_(report.workload.run.world_size / nodes) {}

  std::string torchrun() const {
    std::string out = "#!/usr/bin/env bash\n" + head("# ");
    if (nodes_ > 1) out += "# On every machine, in " + parts_.place + parts_.once + ":\n#   MASTER_ADDR=<first machine> bash job.sh\n";
    else out += "# In " + parts_.place + parts_.once + ":\n#   bash job.sh\n";
    out += "set -euo pipefail\n" + exports();
    if (nodes_ > 1) out += ": \"${MASTER_ADDR:?the name or address of the first machine}\"\n";
    return out + "exec " + launcher("\"$MASTER_ADDR:${MASTER_PORT:-29500}\"", name()) + "\n";
  }

  std::string slurm() const {
    std::string out = "#!/bin/bash\n#SBATCH --job-name=" + name() + "\n#SBATCH --nodes=" + number(nodes_) + "\n#SBATCH --ntasks-per-node=1\n#SBATCH --gpus-per-node=" + number(each_) +
                      "\n#SBATCH --cpus-per-task=" + number(4 * each_) + "\n";
    if (const auto hours = limit_hours()) out += "#SBATCH --time=" + number(*hours) + ":00:00\n";
    out += "#SBATCH --output=%x-%j.log\n" + head("# ");
    out += "# sbatch job.sbatch, on a file system that every node sees, in " + parts_.place + parts_.once + "\nset -euo pipefail\n" + exports();
    out += "[ -f .venv/bin/activate ] && source .venv/bin/activate\n";
    if (nodes_ > 1) out += "first=$(scontrol show hostnames \"$SLURM_JOB_NODELIST\" | sed -n 1p)\n";
    const bool lightning = !parts_.own.empty() && parts_.own.front() == "litgpt";
    if (lightning) out += "# under this name Lightning starts its processes itself, and does not take Slurm's tasks for them\n";
    return out + "srun --kill-on-bad-exit=1 " + (lightning ? "env SLURM_JOB_NAME=bash " : "") + launcher("\"$first:29500\"", "\"$SLURM_JOB_ID\"") + "\n";
  }

  // The operator sets torchrun's PET_* variables from nprocPerNode and the replicas.
  std::string pytorch_job() const {
    std::string out = head("# ") + image_note() + "apiVersion: kubeflow.org/v1\nkind: PyTorchJob\nmetadata:\n  name: " + name() + "\nspec:\n  runPolicy:\n    cleanPodPolicy: None\n  nprocPerNode: \"" + number(each_) + "\"\n  pytorchReplicaSpecs:\n    Master:\n      replicas: 1\n" + replica();
    if (nodes_ > 1) out += "    Worker:\n      replicas: " + number(nodes_ - 1) + "\n" + replica();
    return out;
  }

  std::string train_job() const {
    std::string out = head("# ") + image_note() + "apiVersion: trainer.kubeflow.org/v1alpha1\nkind: TrainJob\nmetadata:\n  name: " + name() + "\nspec:\n  runtimeRef:\n    name: torch-distributed\n  trainer:\n    image: " + parts_.image +
                      "\n    numNodes: " + number(nodes_) + "\n    numProcPerNode: " + number(each_) + "\n    resourcesPerNode:\n      limits:\n        " + resource() + ": \"" + number(each_) + "\"\n    command:\n";
    for (const std::string& w : pod_command()) out += "      - " + quoted(w) + "\n";
    return out + "    env:\n" + variables("      ");
  }

  Result<std::string> skypilot() const {
    const auto known = std::ranges::find(kSkyNames, std::string_view(r_.machine.gpu.name), &SkyName::gpu);
    if (known == kSkyNames.end()) return fail("bad_value", "SkyPilot has no name for " + r_.machine.gpu.name + " that is known here", "--emit slurm, kubernetes or torchrun do without one", "--emit");
    std::string out = head("# ") + "# sky launch job.yaml, in " + parts_.place + "\nname: " + name() + "\nworkdir: .\nnum_nodes: " + number(nodes_) + "\nresources:\n  accelerators: " + std::string(known->name) + ":" + number(each_) + "\n";
    if (!parts_.container.empty()) out += "  image_id: docker:" + parts_.container + "\n";
    out += "envs:\n";
    for (const auto& [key, value] : parts_.environment) out += "  " + key + ": " + quoted(value) + "\n";
    if (!parts_.setup.empty()) out += "setup: |\n";
    for (const std::string& line : parts_.setup) out += "  " + line + "\n";
    out += "run: |\n";
    if (parts_.activates) out += "  source .venv/bin/activate\n";
    if (nodes_ > 1) out += "  first=$(echo \"$SKYPILOT_NODE_IPS\" | sed -n 1p)\n";
    return out + "  " + launcher("\"$first:29500\"", "\"$SKYPILOT_TASK_ID\"") + "\n";
  }

  // Ray opens a process group of its own on every worker; the script opens it itself from the same variables, so Ray's is closed first. The script's meets on the next port:
  // a worker that is ahead would find Ray's store still open, and what the first group left in it.
  std::string ray() const {
    const bool module = parts_.script.size() > 1;
    std::string out = head("# ") + "# python job.py, on the head of a Ray cluster, in " + parts_.place + " that every node has" + (r_.workload.transformers ? parts_.once : "") + "\nimport os\nimport runpy\nimport sys\n\nimport ray\nimport ray.train\nimport torch.distributed\nfrom ray.train.torch import TorchTrainer\n\n";
    out += std::string(module ? "MODULE" : "SCRIPT") + " = " + quoted(parts_.script.back()) + "\nARGUMENTS = [";
    for (std::size_t i = 0; i < parts_.arguments.size(); ++i) out += (i > 0 ? ", " : "") + quoted(parts_.arguments[i]);
    out += "]\nENVIRONMENT = {";
    for (std::size_t i = 0; i < parts_.environment.size(); ++i) {
      out += (i > 0 ? ", " : "") + quoted(parts_.environment[i].first) + ": " + quoted(parts_.environment[i].second);
    }
    out += "}\n\n\ndef train():\n    if torch.distributed.is_initialized():\n        torch.distributed.destroy_process_group()\n"
           "        os.environ[\"MASTER_PORT\"] = str(int(os.environ[\"MASTER_PORT\"]) + 1)\n";
    out += module ? "    sys.argv = [MODULE, *ARGUMENTS]\n    runpy.run_module(MODULE, run_name=\"__main__\")\n\n\n"
                  : "    sys.argv = [SCRIPT, *ARGUMENTS]\n    sys.path.insert(0, os.path.dirname(os.path.abspath(SCRIPT)))\n    runpy.run_path(SCRIPT, run_name=\"__main__\")\n\n\n";
    out += "if __name__ == \"__main__\":\n    ray.init(runtime_env={\"env_vars\": ENVIRONMENT})\n    scaling = ray.train.ScalingConfig(num_workers=" + number(r_.workload.run.world_size) + ", use_gpu=True)\n    TorchTrainer(train, scaling_config=scaling).fit()\n";
    return out;
  }

 private:
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
  const std::string& name() const { return parts_.name; }

  std::string head(const std::string& comment) const {
    const Run& run = r_.workload.run;
    std::string out = comment + "Written by dryfit: " + parts_.what + ", device batch " + number(run.device_batch_size) + ", " + number(run.world_size) + " x " + r_.machine.gpu.name;
    out += (nodes_ > 1 ? " on " + number(nodes_) + " machines" : "") + "\n";
    return out + (parts_.note.empty() ? "" : comment + parts_.note + "\n");
  }

  // Of Kubernetes: the image is the user's.
  std::string image_note() const {
    if (!r_.workload.transformers) return "";
    return "# The image is yours: it has " + (parts_.container.empty() ? "Python" : parts_.container) + " and starts in " + parts_.place + parts_.once + "\n";
  }

  std::string exports() const {
    std::string out;
    for (const auto& [key, value] : parts_.environment) out += "export " + key + "=" + shell_join(std::array{value}) + "\n";
    return out;
  }

  std::string launcher(const std::string& endpoint, const std::string& id) const {
    if (!parts_.own.empty()) return shell_join(parts_.own);
    const bool several = r_.workload.run.world_size > 1;
    const std::string script = shell_join(parts_.script) + (parts_.arguments.empty() ? "" : (parts_.separated && several ? " -- " : " ") + shell_join(parts_.arguments));
    if (!several) return "python " + script;
    if (nodes_ == 1) return "torchrun --standalone --nproc_per_node=" + number(each_) + " " + script;
    return "torchrun --nnodes=" + number(nodes_) + " --nproc_per_node=" + number(each_) + " --rdzv-backend=c10d --rdzv-endpoint=" + endpoint + " --rdzv-id=" + id + " " + script;
  }

  std::vector<std::string> pod_command() const {
    if (!parts_.own.empty()) return parts_.own;
    std::vector<std::string> out{parts_.one_process_alone && r_.workload.run.world_size == 1 ? "python" : "torchrun"};
    out.insert(out.end(), parts_.script.begin(), parts_.script.end());
    if (parts_.separated && !parts_.arguments.empty()) out.emplace_back("--");
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
    std::string out = "      restartPolicy: Never\n      template:\n        spec:\n          containers:\n            - name: pytorch\n              image: " + parts_.image + "\n              command:\n";
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
  JobParts parts_;
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

Result<JobFile> write_job(const Report& report, JobKind kind, std::optional<std::int64_t> nodes, const std::optional<std::string>& alloc_conf) {
  auto parts = job_parts(report, alloc_conf);
  if (!parts) return std::unexpected(parts.error());
  const std::int64_t gpus = report.workload.run.world_size;
  const std::int64_t machines = nodes.value_or(gpus > kUsualGpus ? (gpus + kUsualGpus - 1) / kUsualGpus : 1);
  if (machines < 1 || gpus % machines != 0) {
    return fail("bad_value", std::to_string(gpus) + " GPUs cannot be shared out over " + std::to_string(machines) + " machines", "give --nodes a divisor of --gpus", nodes ? "--nodes" : "--gpus");
  }
  if (!parts->own.empty() && (machines > 1 || kind == JobKind::ray)) {
    const std::string program = parts->own.front();
    return fail("bad_value", "'" + program + "' starts its processes itself, on one machine: " + (machines > 1 ? "there is no job for " + std::to_string(machines) : "there is no job for Ray, which starts them"),
                machines > 1 ? "give --gpus of one machine" : "--emit torchrun, slurm, kubernetes or skypilot", machines > 1 ? "--gpus" : "--emit");
  }
  const JobWriter writer(report, std::move(*parts), machines);
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
