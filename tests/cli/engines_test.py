"""Jobs of `--emit` before the engines they are for: a real Slurm of two nodes and a real Ray run theirs, SkyPilot and Kubeflow read theirs. Skipped where they are not
installed (./test.sh --integration)."""
import contextlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "integration"))
import slurm_cluster  # noqa: E402

DRYFIT = os.path.abspath(os.environ.get("DRYFIT", "build/release/dryfit"))
READERS = ROOT / "build" / "integration" / "jobs" / "bin" / "python"
TORCH = ROOT / "build" / "integration" / "torch" / "bin" / "python"  # with Ray beside it
RUN = ["plan", "--gpu", "h100", "--gpus", "16", "--depth", "26"]
STAND_IN = """#!/bin/sh
echo "ran on $SLURMD_NODENAME with $SLURM_GPUS_ON_NODE GPUs:" "$@"
"""


def job(kind):
    return subprocess.run([DRYFIT, *RUN, "--emit", kind], capture_output=True, text=True, check=True).stdout


# Of a Hugging Face model, its command started in each engine's way; a pasted one; and those that start their processes themselves.
MODELS = {
    "llama": ["plan", "--model", "llama-3.1-8b", "--gpu", "h100", "--gpus", "16"],
    "pasted": ["plan", "--gpu", "h100", "--", "torchrun --nproc_per_node 8 run_clm.py --model_name_or_path gpt2 --per_device_train_batch_size 4 --bf16 --block_size 512 --dataset_name wikitext --output_dir out"],
    "trl": ["plan", "--gpu", "h100", "--", "trl sft --model_name_or_path Qwen/Qwen2.5-0.5B --dataset_name trl-lib/Capybara --use_peft --num_processes 2"],
    "litgpt": ["check", "--gpu", "h100", "--", "litgpt finetune_lora EleutherAI/pythia-160m --devices 4 --train.micro_batch_size 2 --train.max_seq_length 256 --precision bf16-true"],
    "torchtune": ["check", "--gpu", "h100", "--", "tune run lora_finetune_single_device --config llama3_1/8B_lora_single_device tokenizer.max_seq_len=2048"],
    "torchtitan": ["check", "--gpu", "h100", "--", "torchrun --nproc_per_node 8 -m torchtitan.train --job.config_file llama3_8b.toml --metrics.enable_tensorboard"],
    "megatron": ["check", "--gpu", "h100", "--", "torchrun --nproc_per_node 8 pretrain_gpt.py --num-layers 4 --hidden-size 1024 --num-attention-heads 16 --seq-length 1024 --max-position-embeddings 1024 --micro-batch-size 1 "
                 "--global-batch-size 64 --vocab-size 32000 --bf16 --tensor-model-parallel-size 2 --data-path corpus --lr 3e-4"],
}


def model_job(name, *more):
    end = MODELS[name].index("--") if "--" in MODELS[name] else None
    words = [*MODELS[name][:end], *more, *(MODELS[name][end:] if end is not None else [])]
    return subprocess.run([DRYFIT, *words], capture_output=True, text=True, check=True).stdout


def model_words(name):
    """Of its command: those that every engine is handed."""
    answer = json.loads(model_job(name, "--json"))
    words = shlex.split(answer["plans"][answer["chosen"]]["command"] if "plans" in answer else answer["command"])
    return words if name in ("litgpt", "torchtune") else [w for w in words if not w.startswith(("--standalone", "--nproc", "--nnodes"))][1:]


def planned():
    command = json.loads(subprocess.run([DRYFIT, *RUN, "--json"], capture_output=True, text=True, check=True).stdout)["plans"][0]["command"]
    return command.split("scripts.base_train")[1].removeprefix(" --").strip()


@contextlib.contextmanager
def two_nodes(test):
    """A cluster of two, and a folder on its PATH with a stand-in for torchrun: (environment, folder)."""
    missing = slurm_cluster.missing()
    if missing or os.geteuid() != 0:
        test.skipTest(f"no Slurm to run it with ({', '.join(missing) or 'its daemons want root'}): ./test.sh --integration")
    with tempfile.TemporaryDirectory() as daemons, tempfile.TemporaryDirectory() as folder:
        stand_in(folder, "torchrun", STAND_IN)
        with slurm_cluster.cluster(daemons) as environment:
            environment["PATH"] = f"{folder}:{environment['PATH']}"
            yield environment, folder


def stand_in(folder, name, text):
    program = pathlib.Path(folder) / name
    program.write_text(text)
    program.chmod(0o755)


class Slurm(unittest.TestCase):
    def test_two_nodes_run_it(self):
        with two_nodes(self) as (environment, checkout):
            state, log = slurm_cluster.run(job("slurm"), environment, checkout)
        self.assertIn("JobState=COMPLETED", state, log)
        self.assertIn("JobName=nanochat-d26-base-train", state)
        for node in ("n1", "n2"):
            line = next(line for line in log.splitlines() if line.startswith(f"ran on {node} with 8 GPUs"))
            self.assertIn("--nnodes=2 --nproc_per_node=8", line)
            self.assertIn("--rdzv-endpoint=n1:29500", line)
            self.assertTrue(line.endswith(planned()), line)

    def test_two_nodes_run_a_model(self):
        with two_nodes(self) as (environment, folder):
            state, log = slurm_cluster.run(model_job("llama", "--emit", "slurm"), environment, folder)
            stand_in(folder, "litgpt", "#!/bin/sh\necho \"in a job called $SLURM_JOB_NAME:\" litgpt \"$@\"\n")
            alone, alone_log = slurm_cluster.run(model_job("litgpt", "--emit", "slurm"), environment, folder)
        self.assertIn("JobState=COMPLETED", state, log)
        for node in ("n1", "n2"):
            line = next(line for line in log.splitlines() if line.startswith(f"ran on {node} with 8 GPUs"))
            self.assertTrue(line.endswith(" ".join(model_words("llama"))), line)
        self.assertIn("JobState=COMPLETED", alone, alone_log)
        self.assertIn(f"in a job called bash: {' '.join(model_words('litgpt'))}", alone_log)  # Lightning's word for: not Slurm's tasks


# In the place of nanochat's scripts/base_train.py: opens its process group over what Ray set up, and says what it was given.
TRAINS = """import os
import sys

import torch

torch.distributed.init_process_group("gloo")
ranks = torch.ones(1)
torch.distributed.all_reduce(ranks)
print(f"worker {os.environ['RANK']} of {int(ranks)}, {os.environ['OMP_NUM_THREADS']} thread:", *sys.argv[1:])
torch.distributed.destroy_process_group()
"""


class Ray(unittest.TestCase):
    def test_two_workers_run_it(self):
        """On processors: for a job with GPUs Ray opens NCCL's process group before the script does, and NCCL wants a GPU."""
        if not TORCH.exists() or subprocess.run([TORCH, "-c", "import ray, torch"], capture_output=True).returncode != 0:
            self.skipTest(f"no Ray beside a torch in {TORCH}: ./test.sh --integration")
        run = ["plan", "--gpu", "h100", "--gpus", "2", "--depth", "26"]
        text, answer = (subprocess.run([DRYFIT, *run, *more], capture_output=True, text=True, check=True).stdout for more in (["--emit", "ray"], ["--json"]))
        wanted = json.loads(answer)["plans"][0]["command"].split("scripts.base_train")[1].removeprefix(" --").strip()
        with tempfile.TemporaryDirectory(prefix="ray") as folder:  # a short name: Ray's sockets lie there
            checkout = pathlib.Path(folder) / "nanochat"
            (checkout / "scripts").mkdir(parents=True)
            (checkout / "scripts" / "base_train.py").write_text(TRAINS)
            self.assertEqual(text.count("use_gpu=True"), 1)
            (checkout / "job.py").write_text(text.replace("use_gpu=True", "use_gpu=False"))
            told = {"RAY_OVERRIDE_RESOURCES": '{"CPU": 4}', "RAY_worker_niceness": "0", "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "RAY_COLOR_PREFIX": "0", "HOME": folder}
            done = subprocess.run([TORCH, "job.py"], cwd=checkout, env=os.environ | told, capture_output=True, text=True, timeout=600)
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        said = done.stdout + done.stderr
        for rank in range(2):
            self.assertRegex(said, rf"worker {rank} of 2, 1 thread: {re.escape(wanted)}")


class Readers(unittest.TestCase):
    def read(self, kind, text=None):
        if not READERS.exists():
            self.skipTest("SkyPilot's and Kubeflow's readers are not installed: ./test.sh --integration")
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "job.yaml"
            file.write_text(text or job(kind))
            done = subprocess.run([READERS, ROOT / "tests" / "integration" / "jobs.py", kind, file], cwd=folder, capture_output=True, text=True, env={**os.environ, "HOME": folder})
            self.assertEqual(done.returncode, 0, done.stderr)
            return json.loads(done.stdout.splitlines()[-1])

    def test_models_are_taken_whole(self):
        for name in MODELS:
            words = model_words(name)
            read = self.read("skypilot", model_job(name, "--emit", "skypilot"))["read"]
            run = shlex.split(read["run"].strip().splitlines()[-1])
            self.assertEqual(run[-len(words):], words, name)
            self.assertEqual(bool(read["setup"]), name != "megatron", name)
            for kind, command in (("kubernetes", lambda r: r["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["command"]), ("trainjob", lambda r: r["spec"]["trainer"]["command"])):
                answer = self.read(kind, model_job(name, "--emit", kind))
                self.assertEqual(answer["read"], answer["given"], name)
                self.assertEqual(command(answer["read"])[-len(words):], words, name)

    def test_skypilot(self):
        read = self.read("skypilot")["read"]
        self.assertEqual(read["nodes"], 2)
        self.assertEqual(read["accelerators"], [{"H100": 8}])
        self.assertEqual(read["envs"]["OMP_NUM_THREADS"], "1")
        self.assertTrue(read["run"].strip().endswith(planned()))

    def test_kubernetes_takes_every_field(self):
        answer = self.read("kubernetes")
        self.assertEqual(answer["read"], answer["given"])
        spec = answer["read"]["spec"]
        self.assertEqual(spec["pytorchReplicaSpecs"]["Worker"]["replicas"], 1)
        command = spec["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["command"]
        self.assertTrue(" ".join(command).endswith(planned()))

    def test_trainjob_takes_every_field(self):
        answer = self.read("trainjob")
        self.assertEqual(answer["read"], answer["given"])
        self.assertEqual(answer["read"]["spec"]["trainer"]["numNodes"], 2)


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    for _, reason in result.skipped:
        print("skipped:", reason)
    sys.exit(1 if not result.wasSuccessful() else 77 if len(result.skipped) == result.testsRun else 0)
