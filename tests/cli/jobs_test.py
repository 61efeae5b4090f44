"""`--emit`: jobs of every kind are what their engines read, carry the plan's own arguments, and run with stand-ins for srun and torchrun.
What the engines themselves say of them: tests/cli/engines_test.py."""
import ast
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile
import unittest

DRYFIT = os.path.abspath(os.environ.get("DRYFIT", "build/release/dryfit"))
KINDS = ["torchrun", "slurm", "kubernetes", "trainjob", "skypilot", "ray"]
RUN = ["--gpu", "h100", "--gpus", "16", "--depth", "26"]
STAND_IN = "#!/bin/sh\necho \"$(basename \"$0\") OMP_NUM_THREADS=$OMP_NUM_THREADS\" \"$@\" >> \"$SEEN\"\n"
SRUN = "#!/bin/sh\necho srun >> \"$SEEN\"\nshift\nexec \"$@\"\n"
SCONTROL = "#!/bin/sh\necho node-a\nseq -f node-%g 50000\n"  # more than a pipe holds


def dryfit(*words, rc=0):
    done = subprocess.run([DRYFIT, *words], capture_output=True, text=True)
    assert done.returncode == rc, (words, done.returncode, done.stderr)
    return done


def arguments(words):
    """Of nanochat's script, in a command."""
    return [w for w in words[words.index("scripts.base_train") + 1:] if w != "--"]


PLANNED = arguments(shlex.split(json.loads(dryfit("plan", *RUN, "--json").stdout)["plans"][0]["command"]))


class Jobs(unittest.TestCase):
    def job(self, kind, *more):
        return dryfit("plan", *RUN, "--emit", kind, *more).stdout

    def run_with_stand_ins(self, text, **environment):
        with tempfile.TemporaryDirectory() as folder:
            place = pathlib.Path(folder)
            for name, script in {"torchrun": STAND_IN, "python": STAND_IN, "srun": SRUN, "scontrol": SCONTROL}.items():
                (place / name).write_text(script)
                (place / name).chmod(0o755)
            (place / "job").write_text(text)
            seen = place / "seen"
            done = subprocess.run(["bash", "job"], cwd=folder, capture_output=True, text=True, env={"PATH": f"{folder}:{os.environ['PATH']}", "SEEN": str(seen), **environment})
            return done, seen.read_text().splitlines() if seen.exists() else []

    def test_every_kind_carries_the_plan(self):
        for kind in KINDS:
            text = self.job(kind)
            for argument in PLANNED:
                self.assertIn(argument, text, kind)
            self.assertIn("scripts.base_train", text)
            self.assertIn("16 x NVIDIA H100", text.splitlines()[0] + "".join(text.splitlines()[:12]), kind)

    def test_torchrun_runs(self):
        done, seen = self.run_with_stand_ins(self.job("torchrun"), MASTER_ADDR="first")
        self.assertEqual(done.returncode, 0, done.stderr)
        words = seen[0].split()
        self.assertEqual(words[:2], ["torchrun", "OMP_NUM_THREADS=1"])
        for word in ["--nnodes=2", "--nproc_per_node=8", "--rdzv-backend=c10d", "--rdzv-endpoint=first:29500"]:
            self.assertIn(word, words)
        self.assertEqual(arguments(words), PLANNED)

    def test_torchrun_asks_for_the_first_machine(self):
        done, seen = self.run_with_stand_ins(self.job("torchrun"))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("first machine", done.stderr)
        self.assertEqual(seen, [])

    def test_slurm_runs(self):
        text = self.job("slurm")
        settings = [line.split()[1] for line in text.splitlines() if line.startswith("#SBATCH")]
        for setting in ["--nodes=2", "--gpus-per-node=8", "--ntasks-per-node=1"]:
            self.assertIn(setting, settings)
        done, seen = self.run_with_stand_ins(text, SLURM_JOB_NODELIST="node-[a-b]", SLURM_JOB_ID="17")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(seen[0], "srun")
        self.assertIn("--rdzv-endpoint=node-a:29500", seen[1].split())
        self.assertIn("--rdzv-id=17", seen[1].split())
        self.assertEqual(arguments(seen[1].split()), PLANNED)

    def test_one_gpu_needs_no_launcher(self):
        text = dryfit("plan", "--gpu", "4090", "--depth", "12", "--emit", "torchrun").stdout
        done, seen = self.run_with_stand_ins(text)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(seen[0].split()[0], "python")

    def test_shell_is_clean(self):
        if shutil.which("shellcheck") is None:
            self.skipTest("shellcheck is not installed")
        for kind in ["torchrun", "slurm"]:
            for run in [RUN, ["--gpu", "4090", "--depth", "8"]]:
                done = subprocess.run(["shellcheck", "-e", "SC1091", "-"], input=dryfit("plan", *run, "--emit", kind).stdout, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stdout)

    def test_ray_is_python(self):
        tree = ast.parse(self.job("ray"))
        values = {n.targets[0].id: ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign)}
        self.assertEqual(values["ARGUMENTS"], PLANNED)
        self.assertEqual(values["ENVIRONMENT"]["OMP_NUM_THREADS"], "1")

    def test_odd_arguments_stay_as_they_are(self):
        odd = "--run=a\n\"b\" 'c' $d"
        words = ["check", "--gpu", "h100", "--depth", "4", "--device-batch-size", "1"]
        paste = ["--", "python", "-m", "scripts.base_train", "--depth=4", "--device-batch-size=1", odd]
        done, seen = self.run_with_stand_ins(dryfit(*words[:3], "--emit", "torchrun", *paste).stdout.replace("exec python", "exec printf '%s|'"))
        self.assertIn(odd, done.stdout.split("|"))
        tree = ast.parse(dryfit(*words[:3], "--emit", "ray", *paste).stdout)
        values = {n.targets[0].id: ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign)}
        self.assertIn(odd, values["ARGUMENTS"])

    def test_read_back_it_is_the_same_run(self):
        done, seen = self.run_with_stand_ins(self.job("torchrun"), MASTER_ADDR="first")
        words = seen[0].split()
        again = json.loads(dryfit("check", "--gpu", "h100", "--json", "--", "torchrun", *words[2:]).stdout)
        plan = json.loads(dryfit("plan", *RUN, "--json").stdout)["plans"][0]
        self.assertEqual(again["memory"]["allocated"], plan["memory"]["allocated"])

    def test_json_holds_the_same_text(self):
        answer = json.loads(dryfit("plan", *RUN, "--emit", "slurm", "--json").stdout)
        self.assertEqual(answer["job"], {"kind": "slurm", "file": "job.sbatch", "text": self.job("slurm")})

    def test_what_does_not_fit_is_no_job(self):
        done = dryfit("check", "--depth", "26", "--device-batch-size", "32", "--gpu", "h100", "--gpus", "8", "--emit", "slurm", rc=1)
        self.assertEqual(done.stdout, "")
        self.assertIn("won't fit", done.stderr)

    def test_wrong_input(self):
        for words, hint in [(["--emit", "slum"], "slurm"), (["--emit", "slurm", "--nodes", "3"], "divisor"), (["--emit", "slurm", "--nodes", "x"], "--nodes"), (["--nodes", "2"], "--emit"), (["--emit", "slurm", "--nodes", "0"], "--nodes")]:
            done = dryfit("plan", *RUN, *words, rc=2)
            self.assertIn(hint, done.stderr)
            self.assertEqual(done.stdout, "")
        done = dryfit("plan", "--gpu", "arc b580", "--depth", "4", "--emit", "skypilot", rc=2)
        self.assertIn("SkyPilot", done.stderr)


if __name__ == "__main__":
    unittest.main()
