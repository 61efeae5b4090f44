"""The Python package as installed by ./test.sh --integration: types beside the schemas, the same bytes as the program, errors, charts, threads."""
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import pickle
import subprocess
import sys
import typing

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "cli"))
import doors  # noqa: E402

PYTHON = doors.INTEGRATION / "venv" / "bin" / "python"
if pathlib.Path(sys.executable) != PYTHON:
    # from /, so that what is found is the package that was installed
    if not PYTHON.exists() or subprocess.run([PYTHON, "-c", "import dryfit"], cwd="/", capture_output=True).returncode != 0:
        print(f"no dryfit in {PYTHON.parent.parent}: ./test.sh --integration installs it")
        sys.exit(77)
    os.environ["DRYFIT"] = doors.DRYFIT
    os.chdir("/")
    os.execv(PYTHON, [str(PYTHON), __file__])

import dryfit  # noqa: E402
from dryfit import types  # noqa: E402

failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)


def program(*words, **more):
    return subprocess.run([doors.DRYFIT, *words], capture_output=True, text=True, env=doors.PLAIN, timeout=120, **more)


def uncovered(kind, schema, root, place):
    """Properties of a schema that the class does not have, and fields of the class that the schema does not have."""
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    for choice in schema.get("anyOf", []):
        if choice.get("type") == "object" or "$ref" in choice:
            schema = choice
            while "$ref" in schema:
                schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    if not dataclasses.is_dataclass(kind):
        inner = [a for a in typing.get_args(kind) if a is not type(None)]
        if inner and ("items" in schema or typing.get_origin(kind) is not list):
            yield from uncovered(inner[0], schema.get("items", schema) if typing.get_origin(kind) is list else schema, root, place)
        return
    own = {types.key_of(name): hint for name, hint in typing.get_type_hints(kind).items() if name not in ("json", "request")}
    known = set(schema.get("properties", {})) - {"schema_version"}
    if set(own) != known:
        yield f"{place}: {sorted(set(own) ^ known)}"
    for name in set(own) & known:
        yield from uncovered(own[name], schema["properties"][name], root, f"{place}.{name}")


schemas = {name: json.loads((ROOT / "docs" / "schema" / f"{name}.schema.json").read_text()) for name in ("report", "plan", "table", "doctor", "snapshot")}
for kind, name in ((types.Report, "report"), (types.Table, "table"), (types.Diagnosis, "doctor"), (types.Account, "snapshot")):
    failures += uncovered(kind, schemas[name], schemas[name], name)
expect(set(typing.get_type_hints(types.Plan)) - {"json", "request"} == set(schemas["plan"]["properties"]) - {"schema_version"}, "Plan and its schema")

# check: numbers, and the bytes of the program
flags = {"depth": 26, "device_batch_size": 32, "gpu": "h100", "gpus": 8}
report = dryfit.check(**flags, local=False)
expect(report.json == program("check", "--depth=26", "--device-batch-size=32", "--gpu=h100", "--gpus=8", "--json").stdout, "check's bytes")
expect(report.verdict == "wont_fit" and not report.fits and report.memory.headroom_bytes < 0 and report.machine.gpus == 8, repr(report)[:300])
expect(report.machine.usable_bytes == report.memory.process.bytes + report.memory.headroom_bytes, "usable = process + headroom")
expect(isinstance(report.peak.live[0], types.LiveTensor) and isinstance(report.peak.live[0].shape, list), "the largest tensors")
expect(str(report) == program("check", "--depth=26", "--device-batch-size=32", "--gpu=h100", "--gpus=8").stdout, f"its screen: {report}")
expect(pickle.loads(pickle.dumps(report)) == report, "an answer goes through pickle")
try:
    report.verdict = "fits"
    expect(False, "an answer can be changed")
except dataclasses.FrozenInstanceError:
    pass
pasted = dryfit.check("torchrun --nproc_per_node=8 -m scripts.base_train --depth=26 --device-batch-size=32", gpu="h100", local=False)
expect(pasted.memory == report.memory, "a pasted command")
hugging = dryfit.check(model="llama-3.2-1b", gpu="h100", device_batch_size=-1, local=False)
expect(hugging.workload.family == "transformers" and hugging.speed.tokens_per_second > 0 and hugging.workload.run.optimizer, repr(hugging.workload))

# explain: timeline and chart
explained = dryfit.explain(depth=4, gpu="4090", timeline=True, local=False)
expect(len(explained.timeline.points) > 10 and len(explained.timeline.points[0].by_category) == len(explained.timeline.categories), "the timeline")
chart = explained._repr_html_()
expect(chart.startswith("<svg") and chart == program("explain", "--depth=4", "--gpu=4090", "--svg=-").stdout, chart[:100])
expect(report._repr_html_().startswith("<svg"), "check shows its chart too")

# plan, table
plan = dryfit.plan(gpu="RTX 4090", local=False)
expect(plan.best is plan.plans[plan.chosen] and "--depth" in plan.best.command and plan.best.speed.tokens_per_second > 0, repr(plan)[:300])
expect(plan._repr_html_().count("<tr") == len(plan.plans) + 1 and str(plan) == program("plan", "--gpu=RTX 4090").stdout, "a plan's tables")
table = dryfit.table(gpu=["t4", "h200"], depths=range(4, 13, 8), local=False)
expect([(c.gpu, c.depth) for c in table.rows] == [(r["gpu"], r["depth"]) for r in json.loads(program("table", "--gpu=t4,h200", "--depths=4,12", "--json").stdout)["rows"]], repr(table))
expect(table._repr_html_().count("<tr") == 3, "a table's table")
models = dryfit.table(model="llama-3.2-1b", gpu="4090", local=False)
expect(all(c.tokens_per_second > 0 for c in models.rows if c.device_batch_size), repr(models))
job = dryfit.check(depth=26, device_batch_size=16, gpu="h100", gpus=8, emit="slurm", local=False).job
expect(job.kind == "slurm" and "#SBATCH" in job.text, repr(job))

# doctor: text, a file, a snapshot
log = ROOT / "tests" / "doctor" / "logs" / "fragmentation.txt"
diagnosis = dryfit.doctor(text=log.read_text(), local=False)
expect(diagnosis.finding == "failure" and diagnosis.failure.cause.name == "fragmentation" and diagnosis.failure.fixes, repr(diagnosis)[:300])
expect(dryfit.doctor(log).failure == diagnosis.failure, "a file")
account = dryfit.doctor(ROOT / "tests" / "doctor" / "snapshots" / "leak.pickle")
expect(isinstance(account, types.Account) and account.devices and account.svg().startswith("<svg"), repr(account)[:300])

# what is wrong is an exception with a way out; whatever is asked, nothing else is raised
for ask, code in ((lambda: dryfit.check(gpu="h10O", local=False), "unknown_gpu"), (lambda: dryfit.check(dept=4, gpu="h100"), "unknown_flag"), (lambda: dryfit.doctor(), "bad_argument"), (lambda: dryfit.doctor("/no/such/file"), None)):
    try:
        ask()
        expect(False, f"no error: {code}")
    except dryfit.Error as error:
        expect(error.hint and error.status == 2 and code in (None, error.code), repr(error.__dict__))
expect(dryfit.call({"command": "\udc80"}).status == 2 and dryfit.call({}).status == 2, "hostile requests")

# threads do not wait for one another, and none sees another's answer
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    depths = [4, 8, 12, 16] * 4
    expect([r.workload.depth for r in pool.map(lambda d: dryfit.check(depth=d, gpu="h100", local=False), depths)] == depths, "threads")

# the program
command = PYTHON.parent / "dryfit"
words = ["check", "--depth", "26", "--device-batch-size", "32", "--gpu", "h100", "--gpus", "8"]
done, native = subprocess.run([command, *words], capture_output=True, text=True, env=doors.PLAIN), program(*words)
expect((done.returncode, done.stdout, done.stderr) == (native.returncode, native.stdout, native.stderr), f"the command: {done}")
expect(dryfit.__version__ == json.loads(program("version", "--json").stdout)["dryfit"], dryfit.__version__)

for line in failures:
    print("FAILED", line)
print(f"dryfit {dryfit.__version__} in Python {sys.version.split()[0]}; {len(failures)} failures")
sys.exit(1 if failures else 0)
