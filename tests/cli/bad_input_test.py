"""Every wrong input: exit 2, a message and a hint on stderr (or JSON on stdout with --json), nothing half written."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

DRYFIT = os.environ["DRYFIT"]
GPU = ["--gpu", "h100"]
LOG = str(pathlib.Path(__file__).resolve().parent.parent / "doctor" / "logs" / "first_step.log")
RECORDING = str(pathlib.Path(__file__).resolve().parent.parent / "watch" / "recordings" / "starved_4090.jsonl")
CAPTURE = str(pathlib.Path(__file__).resolve().parent.parent / "capture" / "small_gpt.capture")
MAMBA = str(pathlib.Path(__file__).resolve().parent.parent / "workload" / "configs" / "mamba.json")
CASES = [
    ["chekc"], ["check", "--dept", "4", *GPU], ["check", "--depth", *GPU], ["check", "--depth", "", *GPU], ["check", "--depth", "nan", *GPU], ["check", "--depth", "1e30", *GPU],
    ["check", "--depth", "99999999999999999999", *GPU], ["check", "--depth", "-4", *GPU], ["check", "--depth=0", *GPU], ["check", "--depth", "4.5", *GPU], ["check", "--gpu", "h10O"], ["check", "--gpu", "p5.24xlarge", "--depth", "4"], ["check", "--gpu", "8xp5.48xlarge", "--depth", "4"], ["check", "--gpu", "a100-30", "--depth", "4"], ["check", "--gpu", ":", "--depth", "4"], ["check", "--gpu", "h100:0", "--depth", "4"],
    ["check", *GPU, "--ignore", "a", "--depth", "4"], ["check", *GPU, "--ignore", "--", "python", "-m", "scripts.base_train"], ["check", *GPU, "--ignore", "depth", "--", "python", "-m", "scripts.base_train", "--depth=4"], ["check", *GPU, "--ignore", "a", "--", "python", "-m", "scripts.base_train", "--b=1"],
    ["check", *GPU, "--ignore", "a", "--", "python run_clm.py --model_name_or_path gpt2 --per_device_train_batch_size 1"], ["check", *GPU, "--ignore", "a", "--model", "gpt2"],
    ["check", "--gpu", ""], ["check", *GPU, "--gpus", "0"], ["check", *GPU, "--gpus", "3"], ["check", *GPU, "--memory", "12parsecs"], ["check", *GPU, "--memory", "-1GiB"], ["check", *GPU, "--reserve", "900GiB"],
    ["check", *GPU, "--device-batch-size", "3"], ["check", *GPU, "--device-batch-size", "0"], ["check", *GPU, "--total-batch-size", "500000"], ["check", *GPU, "--max-seq-len", "1"],
    ["check", *GPU, "--window-pattern", "SXL"], ["check", *GPU, "--nanochat", "E99"], ["check", *GPU, "--nanochat", "2020-01-01"], ["check", *GPU, "--dtype", "int4"], ["check", *GPU, "--attention", "fa9"],
    ["check", *GPU, "--compile", "2"], ["explain", *GPU, "--alternatives", "2"], ["check", *GPU, "--alloc-conf", "nonsense:1"], ["check", *GPU, "--color", "purple"], ["check", *GPU, "stray"], ["check", *GPU, "--depth", "4", "--depth", "8"],
    ["check", *GPU, "--"], ["check", *GPU, "--", "ls"], ["check", *GPU, "--", "python -m scripts.base_train --dept=3"], ["check", *GPU, "--", "python", "-m", "scripts.chat_web"],
    ["check", *GPU, "--script", "chat_stf"], ["check", *GPU, "--nanochat", "E7", "--script", "mid_train"], ["check", *GPU, "--", "torchrun --nproc_per_node=$N -m scripts.base_train"], ["check", *GPU, "--", "python -m scripts.base_train --depth=$d"], ["check", *GPU, "--", "for d in 12 20; do python -m scripts.base_train --depth=$d; done"],
    ["check", *GPU, "--", "python -m scripts.base_train $FLAGS"], ["check", *GPU, "--", "bash runs/speedrun.sh"], ["check", *GPU, "--", "A='open; python -m scripts.base_train"], ["check", *GPU, "--", "torchrun --nproc_per_node $N run_clm.py --model_name_or_path gpt2 --bf16"], ["check", *GPU, "--script", "chat_sft", "--fp8"], ["check", *GPU, "--phases", "validatoin"], ["check", *GPU, "--phases", ""],
    ["check", *GPU, "--eval-every", "-7"], ["check", *GPU, "--cold-caches", "2"], ["check", *GPU, "--padded", "2"], ["check", *GPU, "--model", "gpt2", "--padded", "yes"], ["check", *GPU, "--sample-every", "x"], ["check", *GPU, "--num-samples", "4"], ["check", *GPU, "--script", "chat_rl", "--device-batch-size", "3"], ["check", *GPU, "--load-optimizer", "2"],
    ["check", *GPU, "--script", "chat_rl", "--resume-from-step", "3"], ["check", *GPU, "--nanochat", "E1", "--resume-from-step", "3"], ["check", *GPU, "--", "python -m scripts.chat_sft --depth=3"],
    ["explain", *GPU, "--depth", "4", "--device-batch-size", "4", "--svg", "/nonexistent/x.svg"], ["explain", *GPU, "--depth", "4", "--device-batch-size", "4", "--svg", "/tmp"],
    ["plan", "--offers", *GPU], ["plan", "--offers", "--prices", "/nonexistent"], ["plan", *GPU, "--prices", "LICENSE"], ["plan", *GPU, "--prices", "/tmp"], ["check", *GPU, "--prices", "/dev/zero"], ["plan", *GPU, "--num-iterations", "x"], ["check", *GPU, "--target-flops", "nan"],
    ["plan", "--offers", "--depth", "0"], ["table", "--offers"], ["doctor", LOG, "--prices", "x"],
    ["table", "--gpu", "nope"], ["table", "--depths", "a,b"], ["rule-of-thumb", "--gpu-memory-gb", "nan"], ["rule-of-thumb", "--gpu-memory-gb", "24", "--depth", "0"], ["rule-of-thumb", "--gpu-memory-gb", "24", "--seq-len", "0"],
    ["doctor"], ["doctor", "/nonexistent/train.log"], ["doctor", "/tmp"], ["doctor", "/dev/null"], ["doctor", "/dev/zero"], ["doctor", "/bin/ls"], ["doctor", "a", "b"], ["doctor", LOG, "--gpu", "h10O"], ["doctor", LOG, "--depth", "x"],
    ["doctor", LOG, "--depth", "26", "--device-batch-size", "3", *GPU], ["doctor", LOG, "--alloc-conf", "nonsense:1"], ["doctor", LOG, "--dept", "3"], ["doctor", LOG, "--", "ls"], ["doctor", "-", "--memory", "12parsecs"],
    ["doctor", "--live", "train.log"], ["doctor", LOG, "--pid", "3"], ["doctor", LOG, "--seconds", "3"], ["doctor", LOG, "--replay", "a"], ["doctor", "--live", "--replay", "/nonexistent"], ["doctor", "--live", "--replay", "/tmp"], ["doctor", "--live", "--replay", "LICENSE"],
    ["doctor", "--live", "--replay", "/dev/null"], ["doctor", "--live", "--replay", ""], ["doctor", "--live", "--log", ""], ["doctor", "--live", "--seconds", "nan"], ["doctor", "--live", "--seconds", "-1"], ["doctor", "--live", "--seconds", "4000"], ["doctor", "--live", "--pid", "x"],
    ["doctor", "--live", "--pid", "0"], ["doctor", "--live", "--replay", "a", "--pid", "3"], ["doctor", "--live", "--replay", "a", "--log", "b"], ["doctor", "--live", "--gpu", "h10O"], ["doctor", "--live", "--svg", "x.svg"], ["doctor", "--live", "--liv"], ["doctor", "--live", "--", "ls"],
    ["doctor", "--live", "--replay", RECORDING, "--depth", "12", "--device-batch-size", "3"],
    ["watch", "--replay", "/nonexistent"], ["watch", "--replay", "/tmp"], ["watch", "--replay", "/dev/null"], ["watch", "--replay", "LICENSE"], ["watch", "--replay", ""], ["watch", "--interval", "0"], ["watch", "--interval", "nan"],
    ["watch", "--interval", "4000"], ["watch", "--pid", "x"], ["watch", "--pid", "0"], ["watch", "--pid", "99999999999999"], ["watch", "stray"], ["watch", "--replay", "a", "--pid", "3"], ["watch", "--replay", "a", "--record", "b"], ["watch", "--replay", "a", "--log", "b"],
    ["watch", "--once", "--", "ls"], ["calibrate"], ["calibrate", "/nonexistent"], ["calibrate", "/tmp"], ["calibrate", "/dev/null"], ["calibrate", "--reset", "file"], ["calibrate", "LICENSE", "--gpu", "h10O"],
    ["check", *GPU, "--fp8=1"], ["check", *GPU, "-x"], ["check", *GPU, "-qz"], ["check", *GPU, "--=3"], ["check", *GPU, "--depth", "--fp8"], ["check", *GPU, "--depth"], ["mcp", "stray"], ["mcp", "--depth", "3"], ["web", "stray"], ["web", "--port", "70000"], ["web", "--port", "x"],
    ["check", "--capture", "", *GPU], ["check", "--capture", "/nonexistent", *GPU], ["check", "--capture", "/tmp", *GPU], ["check", "--capture", "/dev/null", *GPU], ["check", "--capture", "/dev/zero", *GPU], ["check", "--capture", "LICENSE", *GPU],
    ["check", "--capture", CAPTURE, "--depth", "4", *GPU], ["check", "--capture", CAPTURE, "--gpus", "2", *GPU], ["check", "--capture", CAPTURE, "--gpu", "h10O"], ["check", "--capture", CAPTURE, "--emit", "slurm", *GPU], ["explain", "--capture", CAPTURE, *GPU, "--", "ls"], ["plan", "--capture", CAPTURE],
    ["list", "models", "lama-3.1-9b"], ["list", "models", "/nonexistent/config.json"], ["list", "models", MAMBA], ["list", "models", str(pathlib.Path(MAMBA).parent) + "/cut.json"],
    ["check", "--model", "lama-3.1-9b", *GPU], ["check", "--model", "", *GPU], ["check", "--model", "gpt2", "--depth", "4", *GPU], ["check", "--model", "gpt2", "--config", MAMBA, *GPU], ["check", "--config", "/nonexistent", *GPU],
    ["check", "--config", MAMBA, *GPU], ["check", "--config", "/dev/null", *GPU], ["check", "--config", "/dev/zero", *GPU], ["check", "--config", "/tmp", *GPU], ["check", "--depth", "4", "--optimizer", "sgd", *GPU], ["check", "--model", "gpt2", "--optimizer", "sgdd", *GPU],
    ["check", "--model", "gpt2", "--mixed", "int8", *GPU], ["check", "--model", "gpt2", "--recompute", "half", *GPU], ["check", "--model", "gpt2", "--lora-rank", "x", *GPU], ["check", "--model", "gpt2", "--lora-rank", "-3", *GPU], ["check", "--model", "gpt2", "--parallel", "zero9", *GPU],
    ["check", "--model", "gpt2", "--parallel", "fsdp2", *GPU], ["check", "--model", "gpt2", "--parallel", "none", "--gpus", "2", *GPU], ["check", "--model", "gpt2", "--parallel", "fsdp1-grad-op", *GPU], ["check", "--model", "gpt2", "--parallel", "fsdp1", "--gpus", "2", "--lora-rank", "8", "--load-in-4bit", *GPU], ["check", "--model", "llama-3.2-1b", "--parallel", "zero3", "--lora-rank", "8", "--load-in-4bit", *GPU], ["check", "--model", "mixtral-8x7b", "--parallel", "zero3", "--lora-rank", "8", "--recompute", "full", "--gpus", "8", *GPU],
    ["check", *GPU, "--", "deepspeed t.py --model_name_or_path gpt2 --deepspeed '{\"zero_optimization\": {\"stage\": 2, \"reduce_bucket_size\": \"big\"}}'"], ["check", *GPU, "--", "deepspeed t.py --model_name_or_path gpt2 --deepspeed '{\"zero_optimization\": '"],
    ["check", "--model", "gpt2", "--parallel", "fsdp2", "--gpus", "2", "--lora-rank", "8", "--load-in-4bit", *GPU], ["check", "--depth", "4", "--parallel", "ddp", *GPU],
    ["check", "--model", "gpt2", "--max-seq-len", "2048", *GPU], ["check", "--model", "gpt2", "--device-batch-size", "0", *GPU], ["check", "--model", "gpt2", "--device-batch-size", "99999999999", *GPU], ["check", "--model", "gemma-2-2b", "--attention", "sdpa", *GPU],
    ["check", *GPU, "--", "python t.py --output_dir x"], ["check", *GPU, "--", "python t.py --output_dir x --model_name_or_path lama"], ["check", *GPU, "--", "python t.py --model_name_or_path gpt2 --optim galore_adamw"], ["check", *GPU, "--", "python t.py --model_name_or_path /nonexistent --bf16"],
    ["check", *GPU, "--", "accelerate launch --config_file a.yaml t.py --model_name_or_path gpt2"], ["check", *GPU, "--", "deepspeed t.py --deepspeed /nonexistent.json --model_name_or_path gpt2"], ["plan", "--model", "gpt2", *GPU, "--lora-rank", "-1"], ["plan", "--model", "gpt2", *GPU, "--total-batch-size", "0"], ["plan", "--model", "gpt2", *GPU, "--total-batch-size", "1000"], ["plan", "--model", "gpt2", *GPU, "--total-batch-size", "4096", "--grad-accum-steps", "2"],
    ["plan", "--model", "gpt2", *GPU, "--depth", "12"], ["plan", "--model", "gpt2", *GPU, "--max-seq-len", "4096"], ["plan", "--model", "gpt2", *GPU, "--emit", "slrum"], ["plan", "--model", "gpt2", "--offers", *GPU], ["plan", "--model", "gpt2", "--offers", "--memory", "24GiB"], ["plan", "--model", "gpt2", "--offers", "--emit", "slurm"], ["plan", "--model", "gpt2", "--offers", "--max-steps", "100"], ["plan", "--offers", "--depth", "4", "--emit", "slurm"],
    ["plan", "--model", "gpt2", *GPU, "--max-tokens", "0"], ["plan", "--model", "gpt2", *GPU, "--max-tokens", "1BB"], ["doctor", "--live", "--model", "gpt2"], ["doctor", "tests/doctor/logs/llama_forward.txt", "--model", "gpt2", "--depth", "3"], ["doctor", "tests/doctor/logs/llama_forward.txt", "--model", "gpt2", "--device-batch-size", "-1"], ["doctor", "tests/doctor/logs/llama_forward.txt", "--optimizer", "sgd"], ["plan", "--model", "gpt2", *GPU, "--max-tokens", "9", "--max-steps", "9"], ["plan", *GPU, "--max-tokens", "9"], ["plan", "--model", "gpt2", "--offers", "--prices", "/nonexistent"], ["plan", "--model", "gpt2", "--offers", "--max-seq-len", "4096"],
    ["check", *GPU, "--emit", "ray", "--", "litgpt finetune_lora EleutherAI/pythia-160m --train.micro_batch_size 2"], ["check", *GPU, "--emit", "slurm", "--nodes", "2", "--", "litgpt finetune_lora EleutherAI/pythia-160m --devices 2 --train.micro_batch_size 2"], ["check", *GPU, "--emit", "slurm", "--", "axolotl train tests/workload/configs/axolotl_qlora.yml"],
    ["plan", "--model", "gpt2", *GPU, "--parallel", "fsdp2"], ["plan", "--model", "mamba-2.8b", *GPU], ["plan", *GPU, "--recompute", "full"], ["table", "--model", "gpt2", "--depths", "12"], ["table", "--load-in-4bit"], ["check", "--model", "gpt2", *GPU, "--load-in-4bit"],
    ["list"], ["list", "gpu"], ["completions", "tcsh"], ["help", "chekc"],
]
failures = []


def expect(condition, words, what):
    if not condition:
        failures.append(f"{words}: {what}")


for words in CASES:
    done = subprocess.run([DRYFIT, *words], capture_output=True, text=True, timeout=30)
    expect(done.returncode == 2, words, f"exit {done.returncode}")
    expect(done.stdout == "", words, f"stdout {done.stdout[:80]!r}")
    expect("error:" in done.stderr and "hint:" in done.stderr, words, f"stderr {done.stderr[-160:]!r}")
    before = words.index("--") if "--" in words else len(words)
    done = subprocess.run([DRYFIT, *words[:before], "--json", *words[before:]], capture_output=True, text=True, timeout=30)
    expect(done.returncode == 2, words, f"--json: exit {done.returncode}")
    try:
        error = json.loads(done.stdout)["error"]
        expect(error["code"] and error["message"] and error["hint"], words, f"--json: {error}")
    except (ValueError, KeyError) as problem:
        expect(False, words, f"--json: {problem} in {done.stdout[:80]!r}")

# did-you-mean, and files that cannot be read or written
done = subprocess.run([DRYFIT, "check", "--gpu", "h10O"], capture_output=True, text=True)
expect("did you mean" in done.stderr, "h10O", done.stderr)
done = subprocess.run([DRYFIT, "plan"], capture_output=True, text=True, env={**os.environ, "DRYFIT_PROBE": "/nonexistent"})
expect(done.returncode == 2, "DRYFIT_PROBE", done.stderr)
with tempfile.TemporaryDirectory() as folder:
    target = os.path.join(folder, "a.svg")
    done = subprocess.run([DRYFIT, "explain", *GPU, "--depth", "4", "--device-batch-size", "4", "--svg", target], capture_output=True, text=True)
    expect(done.returncode == 0 and os.listdir(folder) == ["a.svg"], "--svg", os.listdir(folder))
if os.path.exists("/dev/full"):
    with open("/dev/full", "w") as full:
        done = subprocess.run([DRYFIT, "version"], stdout=full, stderr=subprocess.PIPE, text=True)
        expect(done.returncode == 70 and "error:" in done.stderr, "full disk", f"{done.returncode} {done.stderr}")

for line in failures:
    print("FAILED", line)
print(f"{len(CASES)} wrong inputs, {len(failures)} failures")
sys.exit(1 if failures else 0)
