"""calibrate with the real binary: what is learned moves the prediction and only the part it may; the file survives everything."""
import json
import os
import pathlib
import pickle
import stat
import subprocess
import sys
import tempfile

DRYFIT = os.path.abspath(os.environ.get("DRYFIT", "build/release/dryfit"))
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
scratch = tempfile.TemporaryDirectory()
HOME = pathlib.Path(scratch.name)
ENV = {**{k: v for k, v in os.environ.items() if k not in ("DRYFIT_PROBE", "DRYFIT_NVML", "NANOCHAT_DTYPE")}, "XDG_DATA_HOME": str(HOME / "data")}
FILE = HOME / "data" / "dryfit" / "calibration.json"
CHECK = ["check", "--gpu", "h100", "--depth", "12", "--device-batch-size", "16", "--core-metric-every", "-1", "--json"]
MIB = 1 << 20
failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)
        print("FAILED", what)


def run(*words, status=0, env=ENV):
    done = subprocess.run([DRYFIT, *words], capture_output=True, text=True, env=env, timeout=60)
    expect(done.returncode == status, f"{words}: exit {done.returncode}, {done.stderr[-200:]}")
    return done


def memory():
    done = run(*CHECK)
    return json.loads(done.stdout)["memory"], done.stderr


HEADER = ["Vocab size: 32,768", '"n_layer": 12,', '"n_embd": 768,', "Tokens / micro-batch / rank: 16 x 2048 = 32,768", "Tokens / micro-batch: 32,768", "Total batch size 524,288 => gradient accumulation steps: 16",
          "Step 00000 | Validation bpb: 3.2"]


def steps(n, dt=700.0, rate=748982):
    return [f"step {i:05d}/00100 ({i}.00%) | loss: 4.{i:06d} | lrm: 1.00 | dt: {dt + (i == 0) * 9000:.2f}ms | tok/sec: {rate:,} | bf16_mfu: 41.00 | epoch: 1 | total time: 0.10m" for i in range(n)]


def recording(name, outside, dt, printed=None):
    """A run whose process held `outside` MiB beyond the pool the engine derives."""
    before = json.loads(subprocess.run([DRYFIT, *CHECK], capture_output=True, text=True, env={**ENV, "XDG_DATA_HOME": "/nonexistent"}).stdout)["memory"]
    error = 0 if printed is None else int(printed * MIB) - before["allocated"]["bytes"]
    used = before["reserved"]["bytes"] + error + outside * MIB
    first = {"dryfit_recording": 1, "started_ms": 1, "source": "nvml", "gpus": [{"index": 0, "name": "NVIDIA H100 80GB HBM3", "compute_major": 9, "compute_minor": 0, "total": 81559 * MIB, "reserved": 600 * MIB}]}
    log = HEADER + steps(40, dt) + ([f"Peak memory usage: {printed:.2f}MiB"] if printed else [])
    moment = {"t": 0, "gpus": [{"used": used, "processes": [[7, used]]}], "processes": [{"pid": 7, "parent": 1, "name": "python"}], "log": log,
              "job": {"pid": 7, "command": "python -m scripts.base_train --depth=12 --device-batch-size=16 --core-metric-every=-1", "environment": []}}
    path = HOME / name
    path.write_text("\n".join(json.dumps(j) for j in (first, moment)) + "\n")
    return str(path)


def log_file(name, lines):
    path = HOME / name
    path.write_text("\n".join(lines) + "\n")
    return str(path)


# nothing known: nothing moves
base, _ = memory()
expect(base["process"]["provenance"] == "modelled", "without a file the process number is modelled")
run("calibrate", "--show")

# two runs teach the context; allocated and reserved stay what they are
out = run("calibrate", recording("a.jsonl", 700, 700.0)).stdout
expect("outside PyTorch 700 MiB" in out and "learned" in out, out)
run("calibrate", recording("b.jsonl", 710, 710.0))
now, _ = memory()
expect(now["process"]["provenance"] == "calibrated" and "learned from 2 runs" in run(*CHECK[:-1]).stderr, f"provenance {now['process']}")
expect(now["process"]["bytes"] - now["reserved"]["bytes"] == 705 * MIB, "the context is the mean of the rows")
expect(now["allocated"] == base["allocated"] and now["reserved"]["bytes"] == base["reserved"]["bytes"], "allocated and reserved are not touched")
expect(json.loads(run(*CHECK).stdout)["machine"]["usable_bytes"] == (81559 - 600) * MIB, "a named card has the reserve its driver showed")

# the same run again is the same row; its log alone takes nothing away
run("calibrate", str(HOME / "a.jsonl"))
out = run("calibrate", log_file("a.log", ["GPU: NVIDIA H100 80GB HBM3 | Peak FLOPS (BF16): 9.89e+14", *HEADER, *steps(40, 700.0)])).stdout
expect("known already" in out, f"a log of a known run renews it: {out}")
stored = json.loads(FILE.read_text())
expect(len(stored["rows"]) == 2 and all(r["process_peak_bytes"] for r in stored["rows"]) and all(r["file"].startswith("/") and len(r["date"]) == 10 for r in stored["rows"]), "two rows, each with where it comes from")
expect(stat.S_IMODE(FILE.stat().st_mode) == 0o600 and sorted(p.name for p in FILE.parent.iterdir()) == ["calibration.json", "calibration.json.lock"], f"nothing is left over: {list(FILE.parent.iterdir())}")

# a printed peak is believed over the derived one
run("calibrate", "--reset")
run("calibrate", recording("c.jsonl", 640, 720.0, printed=base["allocated"]["bytes"] / MIB + 100))
now, _ = memory()
expect(abs(now["process"]["bytes"] - now["reserved"]["bytes"] - 640 * MIB) < MIB, "the engine's own error does not enter the context")

# speed by configuration, and logs that teach nothing
shown = json.loads(run("calibrate", "--show", "--json").stdout)
speed = [c for c in shown["constants"] if c["kind"] == "speed"]
expect(len(speed) == 1 and speed[0]["tokens_per_second"] == 748982 and "depth 12" in speed[0]["configuration"], f"{speed}")
for name, lines, why in (("none.log", ["hello"], "no nanochat training run"), ("few.log", [*HEADER, *steps(2)], "too few"), ("headless.log", steps(40), "header does not tell"),
                         ("tuned.log", [*HEADER, *(s.replace("/00100", "") for s in steps(40))], "fine-tuning")):
    done = run("calibrate", log_file(name, lines), status=1)
    expect(why in done.stdout, f"{name}: {done.stdout}")
expect(json.loads(run("calibrate", "--show", "--json").stdout)["rows"] == shown["rows"], "which changes nothing")
run("calibrate", str(HOME / "nothing.log"), status=2)
done = run("calibrate", log_file("flags.log", steps(40, 650.0)), "--depth", "12", "--device-batch-size", "16", "--gpu", "h100")
expect("learned" in done.stdout, f"flags tell what the header does not: {done.stdout}")

# memory snapshots: a failed request tells what lay beside the pool; the size of the pool makes a recording exact; speed is not learned
def snapshot(name, pool, failed=True, free=0, protocol=4):
    """One tensor of `pool` MiB, then a request that fails with `free` bytes left; or none that fails."""
    at = 0x7F0000000000
    entry = {"stream": 0, "frames": [], "time_us": 1_700_000_000_000_000 + pool}
    trace = [{**entry, "action": a, "addr": at, "size": pool * MIB} for a in ("segment_alloc", "alloc")]
    if failed:
        trace.append({**entry, "action": "oom", "device_free": free, "size": 8 << 30})
    block = {"size": pool * MIB, "requested_size": pool * MIB, "state": "active_allocated", "address": at, "frames": []}
    segment = {"device": 0, "address": at, "total_size": pool * MIB, "allocated_size": pool * MIB, "active_size": pool * MIB, "requested_size": pool * MIB, "stream": 0, "segment_type": "large", "blocks": [block], "frames": []}
    document = {"segments": [segment], "device_traces": [trace]}
    path = HOME / name
    path.write_bytes(json.dumps(document).encode() if name.endswith(".json") else pickle.dumps(document, protocol=protocol))
    return str(path)


run("calibrate", "--reset")
reserve = json.loads(run(*CHECK).stdout)["machine"]["usable_bytes"] - 70000 * MIB - 640 * MIB
out = run("calibrate", snapshot("oom.pickle", 70000, free=reserve), "--gpu", "h100").stdout
rows = json.loads(FILE.read_text())["rows"]
expect("outside 640 MiB" in out and len(rows) == 1 and rows[0]["process_peak_bytes"] - rows[0]["reserved_peak_bytes"] == 640 * MIB and rows[0]["tokens_per_second"] is None, f"a failed request teaches the context: {out}")
now, _ = memory()
expect(now["process"]["provenance"] == "calibrated" and now["process"]["bytes"] - now["reserved"]["bytes"] == 640 * MIB and now["allocated"] == base["allocated"], f"and check uses it: {now}")
out = run("calibrate", snapshot("oom.json", 70000, free=reserve), "--gpu", "h100").stdout
expect("known already" in out and len(json.loads(FILE.read_text())["rows"]) == 1, f"the same snapshot as JSON is the same row: {out}")
with open(HOME / "oom.pickle", "rb") as piped:
    done = subprocess.run([DRYFIT, "calibrate", "-", "--gpu", "h100"], stdin=piped, capture_output=True, text=True, env=ENV)
expect(done.returncode == 0 and "known already" in done.stdout, f"and from a pipe: {done.stdout} {done.stderr}")
before = FILE.read_text()
for words, why in (([snapshot("small.pickle", 12000, free=0), "--gpu", "h100"], "other processes were on it"), ([snapshot("oom.pickle", 70000, free=reserve)], "add --gpu"), ([snapshot("well.pickle", 9000, failed=False), "--gpu", "h100"], "add the training command")):
    done = run("calibrate", *words, status=1, env={**ENV, "DRYFIT_NVML": "/nonexistent"})
    expect(why in done.stdout, f"{words}: {done.stdout}")
(HOME / "broken.pickle").write_bytes(pickle.dumps({"segments": [], "device_traces": []})[:-3])
(HOME / "evil.pickle").write_bytes(b"\x80\x04cposix\nsystem\n(X\x02\x00\x00\x00lstR.")
for name in ("broken.pickle", "evil.pickle"):
    done = run("calibrate", str(HOME / name), "--gpu", "h100", status=2)
    expect("hint:" in done.stderr and name in done.stderr, f"{name}: {done.stderr}")
expect(FILE.read_text() == before, "what teaches nothing changes nothing")
run("calibrate", "--reset")
run("calibrate", recording("d.jsonl", 640, 730.0))
derived = json.loads(FILE.read_text())["rows"][0]
pool = derived["reserved_derived_bytes"] // MIB + 64
out = run("calibrate", snapshot("well.pickle", pool, failed=False), "--gpu", "h100", "--", "python", "-m", "scripts.base_train", "--depth=12", "--device-batch-size=16", "--core-metric-every=-1").stdout
expect("in the snapshot" in out and "reserved" in out, out)
context = [c for c in json.loads(run("calibrate", "--show", "--json").stdout)["constants"] if c["kind"] == "context"]
expect(len(context) == 1 and context[0]["bytes"] == derived["process_peak_bytes"] - pool * MIB, f"the recording's process less the snapshot's pool: {context}")
run("calibrate", "--reset")
run("calibrate", str(HOME / "c.jsonl"))

# files that are wrong: a warning elsewhere, an error here, and never overwritten
whole = FILE.read_text()
for name, text in {"cut": whole[:-30], "empty": "", "list": "[]", "no version": '{"rows":[]}', "newer": '{"schema_version":2,"rows":[]}', "text": '{"schema_version":"1","rows":[]}', "bad row": '{"schema_version":1,"rows":[{}]}',
                   "negative": whole.replace('"driver_reserve_bytes": 6', '"driver_reserve_bytes": -6'), "binary": "\x00\x01\x02", "deep": "[" * 100000}.items():
    FILE.write_text(text)
    now, talk = memory()
    expect(now == base, f"{name}: the table is used again")
    expect("warning: the calibration is not used" in talk and "--reset" in talk, f"{name}: {talk}")
    for words in (["calibrate", str(HOME / "a.jsonl")], ["calibrate", "--show"]):
        done = run(*words, status=2)
        expect("hint:" in done.stderr and "--reset" in done.stderr, f"{name}: {done.stderr}")
    expect(FILE.read_text() == text, f"{name}: not overwritten")
run("calibrate", "--reset")
expect(not FILE.exists() and (FILE.parent / "calibration.json.old").exists(), "--reset puts it aside")
run("calibrate", "--reset")
run("calibrate", str(HOME / "a.jsonl"))
expect(len(json.loads(FILE.read_text())["rows"]) == 1, "and begins anew")

# many at once lose nothing
processes = [subprocess.Popen([DRYFIT, "calibrate", "-q", recording(f"p{i}.jsonl", 600 + i, 300.0 + i)], env=ENV, stdout=subprocess.DEVNULL) for i in range(12)]
expect(all(p.wait(60) == 0 for p in processes), "twelve at once")
expect(len(json.loads(FILE.read_text())["rows"]) == 13, "keep every row")

# no home, and a folder that cannot be written
bare = {k: v for k, v in ENV.items() if k not in ("HOME", "XDG_DATA_HOME")}
run("calibrate", "--show", status=2, env=bare)
run(*CHECK, env=bare)
run("calibrate", str(HOME / "a.jsonl"), status=2, env={**ENV, "XDG_DATA_HOME": "/proc/nowhere"})
run(*CHECK, env={**ENV, "XDG_DATA_HOME": "relative"})

try:
    import jsonschema
    schema = json.loads((ROOT / "docs" / "schema" / "calibration.schema.json").read_text())
    for document in (json.loads(FILE.read_text()), json.loads(run("calibrate", "--show", "--json").stdout), json.loads(run("calibrate", str(HOME / "a.jsonl"), "--json").stdout)):
        jsonschema.validate(document, schema)
except ImportError:
    print("python3-jsonschema is not installed: schema not checked")

print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
