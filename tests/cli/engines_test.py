"""Jobs of `--emit` before the engines they are for: a real Slurm of two nodes runs one, SkyPilot and Kubeflow read theirs. Skipped where they are not
installed (./test.sh --integration)."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "integration"))
import slurm_cluster  # noqa: E402

DRYFIT = os.path.abspath(os.environ.get("DRYFIT", "build/release/dryfit"))
READERS = ROOT / "build" / "integration" / "jobs" / "bin" / "python"
RUN = ["plan", "--gpu", "h100", "--gpus", "16", "--depth", "26"]
STAND_IN = """#!/bin/sh
echo "ran on $SLURMD_NODENAME with $SLURM_GPUS_ON_NODE GPUs:" "$@"
"""


def job(kind):
    return subprocess.run([DRYFIT, *RUN, "--emit", kind], capture_output=True, text=True, check=True).stdout


def planned():
    command = json.loads(subprocess.run([DRYFIT, *RUN, "--json"], capture_output=True, text=True, check=True).stdout)["plans"][0]["command"]
    return command.split("scripts.base_train")[1].removeprefix(" --").strip()


class Slurm(unittest.TestCase):
    def test_two_nodes_run_it(self):
        missing = slurm_cluster.missing()
        if missing or os.geteuid() != 0:
            self.skipTest(f"no Slurm to run it with ({', '.join(missing) or 'its daemons want root'}): ./test.sh --integration")
        with tempfile.TemporaryDirectory() as daemons, tempfile.TemporaryDirectory() as checkout:
            stand_in = pathlib.Path(checkout) / "torchrun"
            stand_in.write_text(STAND_IN)
            stand_in.chmod(0o755)
            with slurm_cluster.cluster(daemons) as environment:
                environment["PATH"] = f"{checkout}:{environment['PATH']}"
                state, log = slurm_cluster.run(job("slurm"), environment, checkout)
        self.assertIn("JobState=COMPLETED", state, log)
        self.assertIn("JobName=nanochat-d26-base-train", state)
        for node in ("n1", "n2"):
            line = next(line for line in log.splitlines() if line.startswith(f"ran on {node} with 8 GPUs"))
            self.assertIn("--nnodes=2 --nproc_per_node=8", line)
            self.assertIn("--rdzv-endpoint=n1:29500", line)
            self.assertTrue(line.endswith(planned()), line)


class Readers(unittest.TestCase):
    def read(self, kind):
        if not READERS.exists():
            self.skipTest("SkyPilot's and Kubeflow's readers are not installed: ./test.sh --integration")
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "job.yaml"
            file.write_text(job(kind))
            done = subprocess.run([READERS, ROOT / "tests" / "integration" / "jobs.py", kind, file], cwd=folder, capture_output=True, text=True, env={**os.environ, "HOME": folder})
            self.assertEqual(done.returncode, 0, done.stderr)
            return json.loads(done.stdout.splitlines()[-1])

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
