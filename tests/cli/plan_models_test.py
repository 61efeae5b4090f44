"""plan and table of Hugging Face models with the real binary: the check line says what the plan says, and the next larger batch does not fit."""
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

DRYFIT = os.path.abspath(os.environ.get("DRYFIT", "build/release/dryfit"))
environment = {k: v for k, v in os.environ.items() if k not in ("DRYFIT_PROBE", "NANOCHAT_DTYPE")} | {"XDG_DATA_HOME": "/nonexistent"}
failures = 0
os.chdir(pathlib.Path(__file__).resolve().parent.parent.parent)  # files are named as a user at the top of the repository would


def expect(ok, what):
    global failures
    if not ok:
        failures += 1
        print("FAILED:", what)


def run(*words):
    return subprocess.run([DRYFIT, *words], capture_output=True, text=True, env=environment, timeout=120)


def asked(line, *more):
    """A line as a user would paste it, run by the shell's rules."""
    words = shlex.split(line)
    expect(words[0] == "dryfit", line)
    end = words.index("--")
    return run(*words[1:end], *more, *words[end:])


CASES = [
    ["--model", "gpt2", "--gpu", "3060"],
    ["--model", "gpt2", "--gpu", "4090", "--mixed", "none", "--optimizer", "adafactor", "--max-seq-len", "512"],
    ["--model", "llama-3.2-1b", "--gpu", "RTX 4090", "--max-seq-len", "1024", "--alloc-conf", "expandable_segments:True"],
    ["--model", "llama-3.1-8b", "--gpu", "4090"],
    ["--model", "qwen2.5-0.5b", "--gpu", "3090", "--gpus", "4", "--total-batch-size", "262144", "--recompute", "none"],
    ["--model", "llama-3.2-3b", "--gpu", "a100", "--gpus", "2", "--parallel", "zero3", "--reserve", "10GiB"],
    ["--model", "llama-3.2-1b", "--gpu", "t4", "--lora-rank", "8"],
    ["--model", "llama-3.2-1b", "--gpu", "3060", "--load-in-4bit", "--lora-rank", "4"],
    ["--config", "tests/workload/configs/future_llama.json", "--gpu", "h100", "--max-seq-len", "512"],
    ["--gpu", "4090", "--device-batch-size", "-1", "--", "torchrun --nproc_per_node 2 run_clm.py --model_name_or_path gpt2 --per_device_train_batch_size 4 --bf16 --block_size 256"],
    ["--framework", "litgpt", "--model", "pythia-160m", "--gpu", "3060", "--max-seq-len", "256"],
]
for words in CASES:
    name = " ".join(words)
    answer = run("plan", "--json", *words)
    expect(answer.returncode == 0, f"{name}: {answer.returncode} {answer.stderr} {answer.stdout[:300]}")
    if answer.returncode != 0:
        continue
    plan = json.loads(answer.stdout)
    best = plan["plans"][plan["chosen"]]
    rows = [c for c in plan["candidates"] if c["plan"] == plan["chosen"]]
    expect(len(rows) == 1 and rows[0]["process_bytes"] == best["memory"]["process"]["bytes"] and rows[0]["command"] == best["command"] and rows[0]["verdict"] == "fits", f"{name}: {rows}")
    expect(len(plan["plans"]) == 1 and plan["chosen"] == 0, name)
    checked = asked(plan["check"], "--json")
    expect(checked.returncode == 0, f"{name}: {plan['check']}: {checked.stdout[:300]} {checked.stderr[:300]}")
    report = json.loads(checked.stdout)
    expect(report["verdict"] == "fits" and report["memory"] == best["memory"] and report["workload"] == best["workload"], f"{name}: {plan['check']} says otherwise: {report['memory']} {best['memory']}")
    expect(report["command"] == best["command"], f"{name}: {report['command']} and {best['command']}")
    batch = best["workload"]["run"]["device_batch_size"]
    if "--total-batch-size" not in words:
        larger = asked(plan["check"], "--device-batch-size", str(batch + 1), "--json")
        expect(json.loads(larger.stdout)["verdict"] != "fits", f"{name}: {batch + 1} fits, too")
    else:
        run_ = best["workload"]["run"]
        expect(run_["total_batch_size"] == 262144 and batch * run_["grad_accum_steps"] * run_["world_size"] * run_["max_seq_len"] == 262144, f"{name}: {run_}")
    screen = run("plan", *words)
    expect(f"check it: {plan['check']}\n" in screen.stdout and f"\n{best['command']}\n" in screen.stdout, f"{name}: {screen.stdout}")

# the largest batch that check looks for is the plan's
found = json.loads(run("check", "--json", "--model", "gpt2", "--mixed", "bf16", "--gpu", "3060", "--device-batch-size", "-1").stdout)
planned = json.loads(run("plan", "--json", "--model", "gpt2", "--gpu", "3060", "--recompute", "none", "--lora-rank", "0").stdout)
expect(found["workload"]["run"]["device_batch_size"] == planned["plans"][planned["chosen"]]["workload"]["run"]["device_batch_size"], "check --device-batch-size -1 and plan")

# nothing fits: what would, and its line can be run
nothing = run("plan", "--json", "--model", "llama-3.1-8b", "--gpu", "3060", "--lora-rank", "0")
expect(nothing.returncode == 1, f"exit {nothing.returncode} where nothing fits")
plan = json.loads(nothing.stdout)
expect(plan["chosen"] is None and plan["plans"] == [] and plan["check"] is None and len(plan["missed"]) == 1, nothing.stdout[:500])
rent = plan["missed"][0]["rent"]
expect(rent is not None and rent["usd_per_hour"] == rent["usd_per_gpu_hour"] * rent["gpus"], str(rent))
line = re.search(r": (dryfit plan .*)\n", run("plan", "--model", "llama-3.1-8b", "--gpu", "3060", "--lora-rank", "0").stdout)
expect(line is not None, "a line to ask about the rented machine")
if line:
    there = json.loads(run(*shlex.split(line.group(1))[1:], "--json").stdout)
    expect(there["chosen"] is not None and there["plans"][there["chosen"]]["machine"]["gpu"] == rent["gpu"], line.group(1))

# table: each cell is check's own largest batch
table = json.loads(run("table", "--json", "--model", "gpt2", "--gpu", "3060,4090", "--max-seq-len", "512").stdout)["rows"]
expect(len(table) == 12, f"{len(table)} rows")
for row in (r for r in table if r["method"] != "qlora"):
    lora = ["--lora-rank", "16"] if row["method"] == "lora" else []
    one = json.loads(run("check", "--json", "--model", "gpt2", "--mixed", "bf16", "--gpu", row["gpu"], "--max-seq-len", "512", "--recompute", row["recompute"], *lora, "--device-batch-size", "-1").stdout)
    expect(one["workload"]["run"]["device_batch_size"] == row["device_batch_size"] and one["memory"]["allocated"]["bytes"] == row["allocated_bytes"], f"{row} and check: {one['workload']['run']}")

print(f"{len(CASES)} plans, {failures} failures")
sys.exit(1 if failures else 0)
