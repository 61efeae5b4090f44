#!/usr/bin/env bash
# Rewrites the generated blocks of README.md, docs/accuracy.md and docs/speed.md from the real binary. Usage: tools/update_readme.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./dryfit.sh version > /dev/null
ninja -C build/release dryfit dryfit-accuracy > /dev/null
python3 - <<'PY'
import re
import subprocess

BLOCKS = {
    "plan": ["build/release/dryfit", "plan", "-q", "--gpu", "RTX 4090"],
    "check": ["build/release/dryfit", "check", "-q", "--depth", "26", "--device-batch-size", "32", "--gpu", "h100", "--gpus", "8"],
    "accuracy": ["build/release/dryfit-accuracy", "data/measured/nanochat.csv"],
    "own accuracy": ["build/release/dryfit-accuracy", "--own", "data/measured/own.csv"],
    "own summary": ["build/release/dryfit-accuracy", "--own", "data/measured/own.csv", "--summary"],
    "operators summary": ["build/release/dryfit-accuracy", "--operators", "data/measured/operators.csv", "--summary"],
    "captured accuracy": ["build/release/dryfit-accuracy", "--captured", "data/measured/captured.csv"],
    "captured summary": ["build/release/dryfit-accuracy", "--captured", "data/measured/captured.csv", "--summary"],
    "transformers accuracy": ["build/release/dryfit-accuracy", "--transformers", "data/measured/transformers.csv"],
    "transformers summary": ["build/release/dryfit-accuracy", "--transformers", "data/measured/transformers.csv", "--summary"],
    "speed accuracy": ["build/release/dryfit-accuracy", "--speed", "data/measured/speed.csv"],
    "speed models accuracy": ["build/release/dryfit-accuracy", "--speed", "data/measured/transformers_speed.csv"],
    "speed models summary": ["build/release/dryfit-accuracy", "--speed", "data/measured/transformers_speed.csv", "--summary"],
    "speed own": ["build/release/dryfit-accuracy", "--own", "data/measured/own.csv", "--steps"],
    "speed summary": ["build/release/dryfit-accuracy", "--speed", "data/measured/speed.csv", "--summary"],
}
for path in ("README.md", "docs/accuracy.md", "docs/speed.md"):
    text = open(path).read()
    for name, command in BLOCKS.items():
        out = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        body = out if name.startswith(("accuracy", "captured", "operators", "own", "speed", "transformers")) else f"```\n$ dryfit {subprocess.list2cmdline([w for w in command[1:] if w != '-q'])}\n{out}\n```"
        text = re.sub(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", lambda m: m.group(1) + body + "\n" + m.group(2), text, flags=re.S)
    open(path, "w").write(text)
PY
