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
os.chdir(pathlib.Path(__file__).resolve().parent.parent.parent)  # files are named as a user at the top of the repository would
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


def after_launcher(words):
    """Script and arguments of a command of python or torchrun."""
    at = 1
    while words[at].startswith("--"):
        at += 1
    return words[at:]


CLM = ("torchrun --nproc_per_node 2 examples/run_clm.py --model_name_or_path gpt2 --dataset_name wikitext --do_train --per_device_train_batch_size 4 --bf16 --block_size 512 "
       "--gradient_checkpointing --learning_rate 1e-4 --output_dir 'my runs/a' --num_train_epochs 3 --warmup_ratio 0.1").replace("'my runs/a'", "my_runs/a")
TRL = "trl sft --model_name_or_path qwen/qwen2.5-0.5b --dataset_name trl-lib/Capybara --use_peft --num_processes 4 --loss_type nll"
MEGATRON = ("torchrun --nproc_per_node 8 pretrain_gpt.py --num-layers 4 --hidden-size 1024 --num-attention-heads 16 --seq-length 1024 --max-position-embeddings 1024 --micro-batch-size 1 --global-batch-size 64 "
            "--vocab-size 32000 --bf16 --tensor-model-parallel-size 2 --data-path corpus --lr 3e-4")
LITGPT = "litgpt finetune_lora EleutherAI/pythia-160m --devices 4 --train.micro_batch_size 2 --train.max_seq_length 256 --precision bf16-true"
TUNE = "tune run lora_finetune_single_device --config llama3_1/8B_lora_single_device tokenizer.max_seq_len=2048"


class ModelJobs(Jobs):
    """Of Hugging Face models: the command that plan prints, whatever starts it."""
    MODEL = ["--model", "llama-3.1-8b", "--gpu", "h100", "--gpus", "16"]
    words = MODEL

    def job(self, kind, *more):
        return dryfit("plan", *self.words, "--emit", kind, *more).stdout

    def planned(self, *words, command="plan"):
        answer = json.loads(dryfit(command, "--json", *words).stdout)
        return shlex.split((answer["plans"][answer["chosen"]] if command == "plan" else answer)["command"])

    def test_every_kind_carries_the_plan(self):
        planned = after_launcher(self.planned(*self.MODEL))
        self.assertEqual(planned[0], "train.py")
        for kind in KINDS:
            text = self.job(kind)
            for word in planned:
                self.assertIn(json.dumps(word)[1:-1] if kind not in ("torchrun", "slurm", "skypilot") else shlex.quote(word) if "{" in word else word, text, kind)
            self.assertIn("16 x NVIDIA H100", "".join(text.splitlines()[:12]), kind)
            self.assertIn("your script around transformers' Trainer", text, kind)
            self.assertNotIn("nanochat", text, kind)
            self.assertIn("pip install torch==", text.replace("\"", ""), kind)

    def test_torchrun_runs(self):
        done, seen = self.run_with_stand_ins(self.job("torchrun"), MASTER_ADDR="first")
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in ["--nnodes=2", "--nproc_per_node=8", "--rdzv-backend=c10d", "--rdzv-endpoint=first:29500", "--rdzv-id=llama-3-1-8b-full"]:
            self.assertIn(word, seen[0].split())
        self.assertTrue(seen[0].endswith(" ".join(after_launcher(self.planned(*self.MODEL)))), seen[0])

    def test_slurm_runs(self):
        done, seen = self.run_with_stand_ins(self.job("slurm"), SLURM_JOB_NODELIST="node-[a-b]", SLURM_JOB_ID="17")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(seen[0], "srun")
        self.assertIn("--rdzv-endpoint=node-a:29500", seen[1].split())
        self.assertTrue(seen[1].endswith(" ".join(after_launcher(self.planned(*self.MODEL)))), seen[1])

    def test_one_gpu_needs_no_launcher(self):
        words = ["--model", "gpt2", "--gpu", "4090"]
        done, seen = self.run_with_stand_ins(dryfit("plan", *words, "--emit", "torchrun").stdout)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(seen[0].split()[0], "python")
        self.assertTrue(seen[0].endswith(" ".join(self.planned(*words)[1:])), seen[0])
        for kind in ("kubernetes", "trainjob"):  # under torchrun Trainer would run DDP, and hold its buckets
            self.assertNotIn("torchrun", dryfit("plan", *words, "--emit", kind).stdout)

    def test_shell_is_clean(self):
        if shutil.which("shellcheck") is None:
            self.skipTest("shellcheck is not installed")
        for kind in ["torchrun", "slurm"]:
            for text in [self.job(kind)] + [dryfit("check", "--gpu", "h100", "--emit", kind, "--", paste).stdout for paste in (CLM, TRL, MEGATRON, LITGPT, TUNE)]:
                done = subprocess.run(["shellcheck", "-e", "SC1091", "-"], input=text, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stdout + text)

    def test_ray_is_python(self):
        planned = after_launcher(self.planned(*self.MODEL))
        for words, script, name in ((self.MODEL, planned[0], "SCRIPT"), (None, "trl.scripts.sft", "MODULE")):
            text = self.job("ray") if words else dryfit("plan", "--gpu", "h100", "--emit", "ray", "--", TRL).stdout
            values = {n.targets[0].id: ast.literal_eval(n.value) for n in ast.parse(text).body if isinstance(n, ast.Assign)}
            self.assertEqual(values[name], script)
            if words:
                self.assertEqual(values["ARGUMENTS"], planned[1:])

    def test_a_pasted_command_keeps_its_script_and_arguments(self):
        words = ["--gpu", "h100", "--device-batch-size", "-1", "--", CLM]
        planned = self.planned(*words)
        script = after_launcher(planned)
        self.assertEqual(script[0], "examples/run_clm.py")
        for kept in (["--dataset_name", "wikitext"], ["--learning_rate", "1e-4"], ["--output_dir", "my_runs/a"], ["--num_train_epochs", "3"], ["--block_size", "512"], ["--warmup_ratio", "0.1"]):
            self.assertEqual(script[script.index(kept[0]):][:2], kept)
        for name in ("--max_length", "--dtype"):  # run_clm.py has none of them
            self.assertNotIn(name, script)
        self.assertIn("--do_train", script)
        self.assertEqual(script.count("--per_device_train_batch_size"), 1)
        self.assertGreater(int(script[script.index("--per_device_train_batch_size") + 1]), 4)
        done, seen = self.run_with_stand_ins(dryfit("plan", *words[:-2], "--emit", "torchrun", *words[-2:]).stdout)
        self.assertTrue(seen[0].endswith(" ".join(script)), seen[0])
        again = json.loads(dryfit("check", "--gpu", "h100", "--json", "--", shlex.join(planned)).stdout)
        self.assertEqual(again["command"], shlex.join(planned).replace("'--", "--"))

    def test_trl_runs_as_a_module_with_its_packages(self):
        text = dryfit("plan", "--gpu", "h100", "--emit", "skypilot", "--", TRL).stdout
        self.assertIn("-m trl.scripts.sft ", text)
        self.assertIn("--dataset_name trl-lib/Capybara", text)
        self.assertIn("--loss_type nll", text)
        for package in ("trl", "peft", "accelerate"):
            self.assertRegex(text, rf"pip install .* {package}\b")
        self.assertNotIn("num_processes", text)

    def test_packages_follow_the_run(self):
        run = ["plan", "--model", "llama-3.2-1b", "--gpu", "h100", "--gpus", "2", "--emit", "skypilot"]
        plain = dryfit(*run, "--parallel", "ddp", "--lora-rank", "0").stdout
        self.assertIn("pip install torch==2.9.1 transformers accelerate datasets\n", plain)
        for words, package in ((["--parallel", "zero3"], "deepspeed"), (["--parallel", "ddp", "--optimizer", "adamw_8bit"], "bitsandbytes"), (["--parallel", "ddp", "--liger", "1"], "liger-kernel"),
                               (["--attention", "flash", "--dtype", "bf16"], "flash-attn"), (["--parallel", "ddp", "--lora-rank", "8"], "peft"), (["--parallel", "ddp", "--torch", "2.11.0"], "torch==2.11.0")):
            self.assertIn(package, dryfit(*run, *words).stdout)
            self.assertNotIn(package, plain)

    def test_those_that_start_themselves(self):
        for paste, program in ((LITGPT, "litgpt finetune_lora"), (TUNE, "tune run lora_finetune_single_device")):
            planned = self.planned("--gpu", "h100", "--", paste, command="check")
            for kind in KINDS[:-1]:
                text = dryfit("check", "--gpu", "h100", "--emit", kind, "--", paste).stdout
                self.assertIn(program.replace(" ", "\"\n      - \"") if kind == "trainjob" else program.split()[0], text, kind)
                self.assertNotIn("torchrun ", text.split("\n", 4)[-1], kind)
                for word in planned:
                    self.assertIn(word, text, kind)
            self.assertIn("Ray", dryfit("check", "--gpu", "h100", "--emit", "ray", "--", paste, rc=2).stderr)
        done = dryfit("check", "--gpu", "h100", "--emit", "slurm", "--nodes", "2", "--", LITGPT, rc=2)
        self.assertIn("on one machine", done.stderr)

    def test_megatron_is_started_by_torchrun(self):
        text = dryfit("check", "--gpu", "h100", "--emit", "slurm", "--nodes", "2", "--", MEGATRON).stdout
        self.assertIn("export CUDA_DEVICE_MAX_CONNECTIONS=1", text)
        self.assertIn(" pretrain_gpt.py --num-layers 4 ", text)
        self.assertIn("image_id: docker:nvcr.io/nvidia/pytorch:", dryfit("check", "--gpu", "h100", "--emit", "skypilot", "--", MEGATRON).stdout)

    def test_allocator_settings_go_along(self):
        for words in (["--alloc-conf", "expandable_segments:True", "--", CLM], ["--", "PYTORCH_ALLOC_CONF=expandable_segments:True " + CLM]):
            self.assertIn("export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True", dryfit("check", "--gpu", "h100", "--emit", "torchrun", *words).stdout)

    def test_odd_arguments_stay_as_they_are(self):
        odd = "a\n\"b\" 'c' $d"
        words = ["check", "--gpu", "h100", "--emit", "torchrun", "--", "python", "odd name.py", "--model_name_or_path", "gpt2", "--per_device_train_batch_size", "1", "--run_name", odd]
        done, _ = self.run_with_stand_ins(dryfit(*words).stdout.replace("exec python", "exec printf '%s|'"))
        self.assertIn(odd, done.stdout.split("|"))
        self.assertIn("odd name.py", done.stdout.split("|"))
        words[1:1] = ["--model", "gpt2"]
        self.assertRegex(dryfit("check", "--model", "meta-llama/Llama-3.2-1B", "--gpu", "h100", "--device-batch-size", "1", "--emit", "kubernetes").stdout, r"\n  name: [a-z][-a-z0-9]{0,39}[a-z0-9]\n")

    def test_read_back_it_is_the_same_run(self):
        words = ["--model", "llama-3.2-1b", "--gpu", "h100", "--gpus", "2"]
        done, seen = self.run_with_stand_ins(dryfit("plan", *words, "--emit", "torchrun").stdout)
        planned = self.planned(*words)
        self.assertTrue(seen[0].endswith(" ".join(after_launcher(planned))), seen[0])

    def test_json_holds_the_same_text(self):
        answer = json.loads(dryfit("plan", *self.MODEL, "--emit", "slurm", "--json").stdout)
        self.assertEqual(answer["job"], {"kind": "slurm", "file": "job.sbatch", "text": self.job("slurm")})

    def test_what_does_not_fit_is_no_job(self):
        done = dryfit("plan", "--model", "llama-3.1-8b", "--gpu", "3060", "--lora-rank", "0", "--emit", "slurm", rc=1)
        self.assertEqual(done.stdout, "")
        self.assertIn("nothing fits", done.stderr)

    def test_torchrun_asks_for_the_first_machine(self):
        done, seen = self.run_with_stand_ins(self.job("torchrun"))
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(seen, [])

    def test_wrong_input(self):
        axolotl = "axolotl train tests/workload/configs/axolotl_qlora.yml --micro-batch-size 1"
        for words, hint in [(["--emit", "slum"], "slurm"), (["--emit", "slurm", "--nodes", "3"], "divisor"), (["--nodes", "2"], "--emit")]:
            done = dryfit("plan", *self.MODEL, *words, rc=2)
            self.assertIn(hint, done.stderr)
            self.assertEqual(done.stdout, "")
        self.assertIn("axolotl", dryfit("check", "--gpu", "4090", "--emit", "slurm", "--", axolotl, rc=2).stderr)
        self.assertIn("--offers", dryfit("plan", "--model", "gpt2", "--offers", "--emit", "slurm", rc=2).stderr)


if __name__ == "__main__":
    unittest.main()
