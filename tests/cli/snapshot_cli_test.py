"""The doctor on memory snapshots: files, pipes, every pickle protocol, JSON, charts; what must be refused; memory in proportion to the file."""
import base64
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import xml.dom.minidom

DRYFIT = os.environ["DRYFIT"]
SNAPSHOTS = pathlib.Path(__file__).resolve().parent.parent / "doctor" / "snapshots"
failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)


def doctor(*words, data=None):
    return subprocess.run([DRYFIT, "doctor", *words], input=data, capture_output=True, timeout=120)


def account(*words, data=None):
    done = doctor(*words, "--json", data=data)
    expect(done.returncode == 0, f"{words}: exit {done.returncode} {done.stderr[-200:]}")
    return json.loads(done.stdout) if done.returncode == 0 else {}


def refused(code, *words, data=None):
    done = doctor(*words, data=data)
    expect(done.returncode == 2 and done.stdout == b"" and b"hint:" in done.stderr, f"{words}: exit {done.returncode} {done.stderr[-200:]}")
    error = json.loads(doctor(*words, "--json", data=data).stdout).get("error", {})
    expect(error.get("code") == code and error.get("hint"), f"{words}: {error} instead of {code}")
    return error


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/dryfit_was_here",)


leak = SNAPSHOTS / "leak.pickle"
value = pickle.loads(leak.read_bytes())
plain = account(str(leak))
plain["source"] = None
device = plain["devices"][0]
expect(device["suspects"][0]["site"] == "run/train.py:61 log_step" and device["replay"]["equal"] and device["begins_empty"], f"the leak: {device['suspects']}")
expect(sum(device["owners_at_peak"].values()) == device["peak"]["allocated_bytes"] == max(p[2] for p in device["timeline"]), "sums at the peak")
same = {f"protocol {p}": pickle.dumps(value, p) for p in (2, 3, 4, 5)}
same["JSON"] = json.dumps(value).encode()
same["JSON, indented"] = json.dumps(value, indent=2).encode()
for name, data in same.items():
    again = account("-", data=data)
    again["source"] = None
    expect(again == plain, f"{name} tells something else")

with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder)
    data = leak.read_bytes()
    for cut in (1, 2, 100, len(data) // 2, len(data) - 1):
        (path / "cut.pickle").write_bytes(data[:cut])
        if cut >= 8:
            expect(f"byte {cut}" in refused("truncated", str(path / "cut.pickle"))["where"], f"where it was cut: {cut}")
    refused("unsafe_pickle", "-", data=pickle.dumps({"segments": [Evil()]}))
    expect(not os.path.exists("/tmp/dryfit_was_here"), "something was executed")
    refused("not_a_snapshot", "-", data=pickle.dumps({"model": [1, 2, 3], "filler": "x" * 100}))
    refused("bad_json", "-", data=b'{"segments": [}')
    refused("bad_snapshot", "-", data=json.dumps({"segments": [5]}).encode())
    page = "<!DOCTYPE html><html><script>import {add_local_files} from 'https://cdn/MemoryViz.js'\nconst local_files = [{\"base64\": \"" + base64.b64encode(data).decode() + "\"}]</script></html>"
    refused("snapshot_page", "-", data=page.encode())
    refused("profiler_trace", "-", data=json.dumps({"schemaVersion": 1, "deviceProperties": [], "traceEvents": []}).encode())
    refused("profiler_trace", "-", data=b"<html><head><title>GPU Memory Timeline</title></head><body><img src='data:image/png;base64,iVBOR'></body></html>")
    refused("no_timeline", str(SNAPSHOTS.parent / "logs" / "first_step.log"), "--svg", str(path / "x.svg"))
    refused("unwritable_file", str(leak), "--svg", str(path / "no" / "x.svg"))
    expect(not (path / "x.svg").exists(), "something half written")

    alone = doctor(str(leak), "--svg", "-")
    done = doctor(str(leak), "--svg", str(path / "t.svg"))
    expect(alone.returncode == 0 and alone.stdout == (path / "t.svg").read_bytes(), f"--svg -: {alone.stdout[:100]}")
    expect(done.returncode == 0 and b"wrote" in done.stderr, f"--svg: {done.stderr}")
    chart = xml.dom.minidom.parse(str(path / "t.svg"))
    expect(len(chart.getElementsByTagName("polygon")) >= 5, "areas of the chart")
    expect(doctor(str(leak), "--depth", "4", "--device-batch-size", "3", "--gpu", "h100").returncode == 2, "an illegal batch")
    expect(doctor("-", data=pickle.dumps({"segments": [], "device_traces": []})).returncode == 1, "nothing in it: exit 1")

    # many steps: memory stays in proportion to the file, pickle and JSON. A small process of its own makes them and another one measures:
    # a child's resident set counts its parent's before exec
    make = "import copy, json, pickle, sys\nv = pickle.load(open(sys.argv[1], 'rb'))\nv['external_annotations'] = []\n" \
           "v['device_traces'][0] = [copy.deepcopy(e) for _ in range(150) for e in v['device_traces'][0] if not e['action'].startswith('segment')]\n" \
           "pickle.dump(v, open(sys.argv[2] + '/large.pickle', 'wb'), 4)\njson.dump(v, open(sys.argv[2] + '/large.json', 'w'))"
    subprocess.run([sys.executable, "-c", make, str(leak), folder], check=True)
    measure = "import resource, subprocess, sys\nsubprocess.run(sys.argv[1:], stdout=subprocess.PIPE)\n" \
              "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    sanitized = b"AddressSanitizer" in pathlib.Path(DRYFIT).read_bytes()
    for name in ("large.pickle", "large.json"):
        size = (path / name).stat().st_size
        expect(account(str(path / name))["devices"][0]["entries"] > 40000, name)
        most = int(subprocess.run([sys.executable, "-S", "-c", measure, DRYFIT, "doctor", str(path / name), "-q"], capture_output=True, text=True).stdout.split()[0])
        expect(sanitized or most < 1.5 * size + (24 << 20), f"{most} bytes for {name} of {size}")
        print(f"{name}: {size / 1e6:.1f} MB in {most / 1e6:.1f} MB")

for line in failures:
    print("FAILED", line)
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
