"""Every JSON answer, live and golden, against docs/schema."""
import json
import os
import pathlib
import subprocess
import sys

try:
    import jsonschema
except ImportError:
    print("python3-jsonschema is not installed")
    sys.exit(77)

DRYFIT = os.environ["DRYFIT"]
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCHEMAS = {p.name.removesuffix(".schema.json"): json.loads(p.read_text()) for p in (ROOT / "docs" / "schema").glob("*.schema.json")}
LIVE = [
    ("report", ["check", "--depth", "20", "--device-batch-size", "8", "--gpu", "h100"]), ("report", ["check", "--depth", "32", "--device-batch-size", "32", "--gpu", "rtx 3060 12gb"]),
    ("report", ["explain", "--depth", "4", "--device-batch-size", "8", "--gpu", "b200", "--gpus", "8", "--fp8"]), ("report", ["explain", "--nanochat", "E1", "--depth", "8", "--gpu", "a100 80gb", "--gpus", "8"]),
    ("plan", ["plan", "--gpu", "4090"]), ("plan", ["plan", "--memory", "1GiB"]), ("plan", ["plan", "--gpu", "mi300x", "--depth", "12"]), ("offers", ["plan", "--offers", "--depth", "8"]), ("table", ["table", "--gpu", "t4,h200", "--depths", "4,32"]),
    ("rule-of-thumb", ["rule-of-thumb", "--gpu-memory-gb", "24"]), ("rule-of-thumb", ["rule-of-thumb", "--gpu-memory-gb", "0.5"]), ("error", ["check", "--gpu", "nope"]),
    *(("doctor", ["doctor", str(path)]) for path in sorted((ROOT / "tests" / "doctor" / "logs").glob("*.*")) if path.suffix in (".log", ".txt")), ("doctor", ["doctor", str(ROOT / "LICENSE")]), ("error", ["doctor", "/nonexistent"]),
    *(("snapshot", ["doctor", str(path)]) for path in sorted((ROOT / "tests" / "doctor" / "snapshots").glob("*.*"))), ("snapshot", ["doctor", str(ROOT / "tests" / "doctor" / "snapshots" / "leak.pickle"), "--depth", "4", "--device-batch-size", "1", "--gpu", "h100"]),
    ("report", ["explain", "--capture", str(ROOT / "tests" / "capture" / "small_gpt.capture"), "--gpu", "4090", "--timeline"]),
    ("report", ["explain", "--depth", "6", "--device-batch-size", "4", "--gpu", "h100", "--timeline"]), ("list", ["list", "gpus"]), ("list", ["list", "gpus", "4090"]), ("list", ["list", "models"]), ("list", ["list", "models", "mixtral"]), ("list", ["list", "models", "deepseek-v2-lite"]), ("list", ["list", "models", str(ROOT / "tests" / "workload" / "configs" / "future_llama.json")]), ("list", ["list", "versions"]), ("list", ["version"]),
    ("commands", ["help"]), ("commands", ["help", "check"]), ("commands", ["plan", "--help"]), ("error", ["help", "chekc"]), ("error", ["list", "gpu"]), ("error", ["mcp", "stray"]), ("error", ["web", "--port", "x"]),
    ("error", ["watch", "--replay", "/nonexistent"]), ("calibration", ["calibrate", "--show"]),
    *(("doctor", ["doctor", "--live", "--replay", str(path)]) for path in sorted((ROOT / "tests" / "watch" / "recordings").glob("*.jsonl"))), ("error", ["doctor", "--live", "--replay", "/nonexistent"]),
    *(("watch", ["watch", "--once", "--replay", str(path)]) for path in sorted((ROOT / "tests" / "watch" / "recordings").glob("*.jsonl"))),
]
failures = 0
checked = 0


def validate(kind, document, where):
    global failures, checked
    checked += 1
    try:
        jsonschema.validate(document, SCHEMAS[kind])
    except jsonschema.ValidationError as problem:
        failures += 1
        print(f"FAILED {where}: {problem.message} at {list(problem.absolute_path)}")


for kind, words in LIVE:
    done = subprocess.run([DRYFIT, *words, "--json"], capture_output=True, text=True, timeout=60)
    validate(kind, json.loads(done.stdout), " ".join(words))
for path in (ROOT / "tests" / "golden" / "cli").glob("*json*.txt"):
    body = path.read_text().split("--- stdout\n", 1)[1].split("--- stderr\n", 1)[0]
    document = json.loads(body)
    kind = next((k for k, field in {"error": "error", "snapshot": "devices", "doctor": "finding", "plan": "plans", "offers": "offers", "calibration": "constants", "watch": "findings", "table": "rows", "rule-of-thumb": "seed", "report": "verdict", "commands": "commands"}.items() if field in document), "list")
    validate(kind, document, path.name)
# every line of a stream is an object of its own
done = subprocess.run([DRYFIT, "watch", "--json", "--replay", str(ROOT / "tests" / "watch" / "recordings" / "lost_gpu.jsonl")], capture_output=True, text=True, timeout=60)
for number, line in enumerate(done.stdout.splitlines(), 1):
    validate("watch", json.loads(line), f"watch --json line {number}")
# the same report must be refused once a field is of the wrong kind
wrong = json.loads(subprocess.run([DRYFIT, *LIVE[0][1], "--json"], capture_output=True, text=True).stdout)
wrong["memory"]["allocated"]["bytes"] = "many"
try:
    jsonschema.validate(wrong, SCHEMAS["report"])
    failures += 1
    print("FAILED: the schema accepts text where bytes belong")
except jsonschema.ValidationError:
    pass
print(f"{checked} documents, {failures} failures")
sys.exit(1 if failures else 0)
