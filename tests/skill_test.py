"""The skill: front matter within its limits, references that exist, commands in it that run."""
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

DRYFIT = os.path.abspath(os.environ["DRYFIT"])
SKILL = pathlib.Path(__file__).resolve().parent.parent / "skills" / "config-memory"
failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)


text = (SKILL / "SKILL.md").read_text()
head = re.match(r"---\n(.*?)\n---\n", text, re.S)
expect(head is not None, "no front matter")
fields = dict(line.split(": ", 1) for line in head.group(1).splitlines() if ": " in line and not line.startswith(" "))
expect(fields["name"] == SKILL.name and re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", fields["name"]), "name is not the folder's")
expect(0 < len(fields["description"]) <= 1024, "description too long")
expect(len(fields["compatibility"]) <= 500, "compatibility too long")
expect(fields["license"] == "MIT", "license")
expect(len(text.splitlines()) <= 120, "longer than 120 lines")
for target in re.findall(r"\]\(([^)]+)\)", text):
    expect((SKILL / target).is_file(), f"{target} is missing")
expect(os.access(SKILL / "scripts" / "ensure_dryfit.sh", os.X_OK), "ensure_dryfit.sh is not executable")
commands = re.findall(r"^\s*(dryfit .+)$", "\n".join(re.findall(r"```bash\n(.*?)```", text, re.S)), re.M)
expect(len(commands) >= 5, f"only {len(commands)} commands")
expect(any(c.startswith("dryfit doctor") for c in commands), "no word on what to do after a failure")
for words, what in (("dryfit doctor --live", "what to do when the GPU idles"), ("dryfit watch --once --json", "how to monitor"), ("dryfit doctor snapshot.pickle", "memory snapshots")):
    expect(words in text, f"no word on {what}")
verdicts = json.loads((SKILL.parent.parent / "docs" / "schema" / "doctor.schema.json").read_text())["$defs"]["verdict"]["enum"]
for verdict in verdicts:
    expect(verdict == "unknown" or f"`{verdict}`" in text, f"the verdict {verdict} is not told")
folder = tempfile.TemporaryDirectory()  # where the user's train.log lies
shutil.copy(SKILL.parent.parent / "tests" / "doctor" / "logs" / "first_step.log", os.path.join(folder.name, "train.log"))
shutil.copy(SKILL.parent.parent / "data" / "prices.csv", os.path.join(folder.name, "my_prices.csv"))
shutil.copy(SKILL.parent.parent / "tests" / "workload" / "configs" / "ds_zero3.json", os.path.join(folder.name, "ds.json"))
for command in commands + ["dryfit list gpus 4090", "dryfit plan --gpu h100 --gpus 8 --depth 24"]:
    done = subprocess.run([DRYFIT, *shlex.split(command)[1:]], capture_output=True, text=True, timeout=60, cwd=folder.name)
    expect(done.returncode in (0, 1) and done.stdout, f"{command}: exit {done.returncode} {done.stderr[-200:]}")
for line in failures:
    print("FAILED", line)
print(f"{len(commands)} commands, {len(failures)} failures")
sys.exit(1 if failures else 0)
