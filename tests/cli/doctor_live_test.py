"""doctor --live against a driver library that answers from a file and a process that looks like training: what it reads, how it ends."""
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

DRYFIT = os.path.abspath(os.environ["DRYFIT"])
FAKE = os.environ.get("FAKE_NVML", "")
BASE = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "NANOCHAT_DTYPE", "DRYFIT_PROBE")}
failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)


if not FAKE:
    print("FAKE_NVML is not set")
    sys.exit(77)
scratch = tempfile.TemporaryDirectory()
folder = pathlib.Path(scratch.name)
(folder / "scripts").mkdir()
(folder / "scripts" / "base_train.py").write_text("import sys\nsys.stdin.read()\n")
state = folder / "state"
live = {**BASE, "DRYFIT_NVML": FAKE, "DRYFIT_FAKE_NVML": str(state)}


def gpus(*lines):
    temporary = folder / "state.new"
    temporary.write_text("\n".join(lines) + "\n")
    temporary.rename(state)


def start(*flags, **extra):
    return subprocess.Popen([sys.executable, "-m", "scripts.base_train", *flags], cwd=folder, stdin=subprocess.PIPE, env={**BASE, **extra})


def end(job):
    job.stdin.close()
    job.wait()


def doctor(*words):
    return subprocess.run([DRYFIT, "doctor", "--live", *words], capture_output=True, text=True, env=live, timeout=60)


def judged(*words):
    done = doctor("--seconds", "0", "--json", *words)
    expect(done.returncode == 0, f"{words}: exit {done.returncode} {done.stdout[:200]} {done.stderr[:200]}")
    return json.loads(done.stdout)


AT_WORK = ["utilization 98", "power 690000", "power_limit 700000", "sm 1755", "sm_max 1980", "throttle 0x4", "pcie 5", "pcie_max 5", "width 16", "width_max 16"]


def card(index, used, *changes):
    kept = [line for line in AT_WORK if line.split()[0] not in [c.split()[0] for c in changes]]
    return [f"gpu {index} {line}" for line in (f"used {used}", *kept, *changes)]


job = start("--depth=12", "--device-batch-size=32", "--core-metric-every=-1")
try:
    mine = f"process {job.pid} 29000"
    gpus(*card(0, 29000, mine))
    probe = doctor("--seconds", "0", "--json")
    if "does not load" in probe.stdout:
        print("this binary cannot load a driver library")
        sys.exit(77)

    one = judged()
    expect(one["finding"] == "healthy" and one["live"]["pid"] == job.pid and one["live"]["samples"] == 1, f"finds the job: {one['live']}")
    expect(one["workload"]["depth"] == 12 and one["workload"]["run"]["device_batch_size"] == 32 and f"process {job.pid}" in one["workload"]["sources"][0], f"reads its command: {one['workload']}")
    expect(one["underuse"]["verdict"] == "room_in_memory" and one["underuse"]["largest_device_batch_size"] == 64, f"the batch that fills the card: {one['underuse']['verdict']} {one['underuse']['largest_device_batch_size']}")
    expect("--device-batch-size=64" in one["underuse"]["next"][0]["command"], "with its command")
    expect(one["live"]["measured_bytes"] == 29000 << 20 and one["live"]["measured_bytes"] == one["prediction"]["process_bytes"] + one["live"]["unaccounted_bytes"], "measured = predicted + unaccounted")
    expect(one["underuse"]["seen"]["throttle"] == ["power_cap"], "names the throttle reasons")

    full = card(0, 77000, f"process {job.pid} 77000")
    for name, lines, verdict, hint in (
        ("busy", full, "busy", ""),
        ("hot", card(0, 77000, f"process {job.pid} 77000", "throttle 0x40", "sm 1200"), "throttled", "cool"),
        ("locked clocks", card(0, 77000, f"process {job.pid} 77000", "throttle 0x2", "sm 900"), "throttled", "clocks"),
        ("waits", card(0, 77000, f"process {job.pid} 77000", "utilization 30"), "waiting", "waits for"),
        ("tenant", card(0, 77000, f"process {job.pid} 60000") + ["gpu 0 process 1 17000"], "other_tenants", "end what else"),
        ("slow kernels", card(0, 77000, f"process {job.pid} 77000", "power 200000"), "slow_kernels", "profile"),
        ("idle", card(0, 77000, f"process {job.pid} 77000", "utilization 0"), "idle", "step"),
    ):
        gpus(*lines)
        one = judged()
        expect(one["underuse"]["verdict"] == verdict, f"{name}: {one['underuse']['verdict']} {one['underuse']['why']}")
        expect(not hint or any(hint in n["change"] for n in one["underuse"]["next"]), f"{name}: {one['underuse']['next']}")
    gpus(*card(0, 77000, f"process {job.pid} 77000", "width 4"), *card(1, 77000, f"process {job.pid} 77000"))
    one = judged()
    expect(one["underuse"]["verdict"] == "pcie" and one["live"]["judged_gpu"] == 0 and len(one["live"]["gpus"]) == 2, f"PCIe: {one['underuse']}")

    # a log adds what the driver cannot tell
    log = folder / "train.log"
    log.write_text("".join(f"step {n:05d}/00100 ({n}.00%) | loss: 4.{n:02d} | lrm: 1.00 | dt: {2500 if n % 3 == 2 else 700}.0ms | tok/sec: 748,982 | bf16_mfu: 31.00 | total time: 0.1m\n" for n in range(60)))
    gpus(*full)
    one = judged("--log", str(log))
    expect(one["underuse"]["verdict"] == "waiting" and one["underuse"]["gain"] > 0.3 and one["run"]["steps_done"] == 60, f"the log: {one['underuse']}")
    expect(judged("--log", str(folder / "not_yet.log"))["underuse"]["verdict"] == "busy", "a log that is not there yet")
    expect(doctor("--seconds", "0", "--log", str(folder)).returncode == 2, "a folder is no log")

    # readings over time, and no talk on a pipe
    begin = time.monotonic()
    done = doctor("--seconds", "1", "--json")
    one = json.loads(done.stdout)
    expect(one["live"]["samples"] >= 4 and 0.9 < one["live"]["seconds"] < 10 and time.monotonic() - begin >= 1, f"a second of readings: {one['live']['samples']} in {one['live']['seconds']}")
    expect(done.stderr == "", f"silent on a pipe: {done.stderr!r}")

    # on a terminal: a line of progress that is taken back
    primary, secondary = pty.openpty()
    process = subprocess.Popen([DRYFIT, "doctor", "--live", "--seconds", "1.2"], stdin=secondary, stdout=subprocess.PIPE, stderr=secondary, env={**live, "TERM": "xterm"}, start_new_session=True)
    out, _ = process.communicate(timeout=30)
    talk = b""
    while select.select([primary], [], [], 0.2)[0]:
        talk += os.read(primary, 65536)
    expect(re.fullmatch(rb"(\rreading the GPUs: [01] of 1 s\x1b\[K)+\r\x1b\[Kthe run: .*", talk, re.S), f"progress: {talk!r}")
    expect(process.returncode == 0 and b"verdict" in out and b"\x1b" not in out, "and the answer on stdout alone")
    os.close(primary), os.close(secondary)
    expect("reading" not in subprocess.run([DRYFIT, "doctor", "--live", "--seconds", "0.5", "-q"], capture_output=True, text=True, env=live).stderr, "quiet")

    # Ctrl-C ends the reading early and judges what was read
    process = subprocess.Popen([DRYFIT, "doctor", "--live", "--seconds", "60", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=live)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    expect(process.returncode == 0 and 0 < json.loads(out)["live"]["seconds"] < 20, f"Ctrl-C: exit {process.returncode}")

    # what cannot be seen is said
    gpus(*card(0, 40000, "hidden 1"))
    one = judged()
    expect(one["live"]["measured_bytes"] is None and not one["live"]["gpus"][0]["by_process"] and any("container" in n for n in one["notes"]), f"a container: {one['notes']}")
    gpus("gpu 0 used 77000", f"gpu 0 process {job.pid} 77000", "gpu 0 mig 1")  # a MIG slice tells no utilization
    expect(judged()["underuse"]["seen"]["utilization"] is None, "MIG")
    gpus(*full, "gpu 1 lost 1")
    expect(any("GPU 1 does not answer" in n for n in judged()["notes"]), "one GPU is lost")
    gpus("gpu 0 lost 1")
    done = doctor("--seconds", "0")
    expect(done.returncode in (1, 2) and "error:" in done.stderr and done.stdout == "", f"all are lost: exit {done.returncode} {done.stderr}")
    for code, words in ((4, "permission"), (18, "different versions"), (9, "not running")):
        gpus(*full, f"init {code}")
        done = doctor("--seconds", "0")
        expect(done.returncode == 2 and words in done.stderr and "hint:" in done.stderr, f"init {code}: {done.returncode} {done.stderr}")
    gpus(*full)
    done = doctor("--seconds", "0", "--pid", str(2**31 - 1))
    expect(done.returncode == 2 and "no process" in done.stderr, f"no such process: {done.stderr}")
    done = subprocess.run([DRYFIT, "doctor", "--live"], capture_output=True, text=True, env={**BASE, "DRYFIT_NVML": "/nonexistent", "PATH": ""}, timeout=60)
    expect(done.returncode == 2 and "dryfit doctor train.log" in done.stderr, f"no GPU: {done.returncode} {done.stderr}")

    # flags go before what was read
    gpus(*card(0, 29000, mine))
    expect(judged("--device-batch-size", "16")["workload"]["run"]["device_batch_size"] == 16, "a flag wins")
finally:
    end(job)

gpus("gpu 0 used 3", "gpu 0 utilization 0")
done = doctor("--seconds", "0")
expect(done.returncode == 1 and "nothing trains here" in done.stdout, f"nothing trains: {done.returncode} {done.stdout}")

# a script that dryfit cannot derive is judged without a prediction
(folder / "my_train.py").write_text("import sys\nsys.stdin.read()\n")
job = subprocess.Popen([sys.executable, "my_train.py", "--lr", "3"], cwd=folder, stdin=subprocess.PIPE, env=BASE)
gpus(*card(0, 20000, f"process {job.pid} 20000", "utilization 40"))
one = judged()
expect(one["live"]["pid"] == job.pid and one["workload"] is None and one["underuse"]["verdict"] == "waiting" and any("no prediction" in n for n in one["notes"]), f"another script: {one['notes']}")
end(job)

print(f"{len(failures)} failures")
for line in failures:
    print("FAILED", line)
sys.exit(1 if failures else 0)
