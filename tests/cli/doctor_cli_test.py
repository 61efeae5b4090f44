"""The doctor on real files and pipes: encodings, bars, snapshots, archives, large logs in little memory, a bar only on a slow terminal."""
import gzip
import json
import os
import pathlib
import pickle
import pty
import resource
import subprocess
import sys
import tempfile
import time

DRYFIT = os.environ["DRYFIT"]
LOGS = pathlib.Path(__file__).resolve().parent.parent / "doctor" / "logs"
failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)


def doctor(*words, data=None):
    return subprocess.run([DRYFIT, "doctor", *words], input=data, capture_output=True, timeout=120)


def diagnosis(data, *flags):
    done = doctor("-", "--json", *flags, data=data)
    expect(done.returncode == 0, f"exit {done.returncode} {done.stderr[-200:]}")
    return json.loads(done.stdout)


def essence(d):
    d["source"] = None
    return d


# the command of a Hugging Face model in the log: its words, and no file that it names
failed = (LOGS / "llama_forward.txt").read_text()
logged = ("+ python run_clm.py --model_name_or_path meta-llama/Llama-3.2-1B --per_device_train_batch_size 8 --block_size 2048 --bf16 --torch_dtype float32 --optim adamw_torch --output_dir o\n" + failed).encode()
llama = diagnosis(logged)
expect(llama["workload"]["family"] == "transformers" and llama["workload"]["sources"] == ["the training command (line 1)"], llama["workload"])
# by transformers 5; by 4, which made the log and fills a cache, it is the gate
expect(llama["failure"]["matches"][0]["name"] == "h.8.mlp.up", llama["failure"]["matches"][:1])
older = diagnosis(logged, "--transformers", "4.57.1")
expect(older["failure"]["matches"][0]["name"] == "h.8.mlp.gate", older["failure"]["matches"][:1])
with tempfile.NamedTemporaryFile("w", suffix=".yaml") as elsewhere:
    elsewhere.write("num_processes: 8\n")
    elsewhere.flush()
    named = diagnosis((f"+ accelerate launch --config_file {elsewhere.name} run_clm.py --model_name_or_path gpt2 --per_device_train_batch_size 8\n" + failed).encode())
    expect(named["workload"] is None and any("a file" in note for note in named["notes"]), named["notes"])
own = diagnosis(("+ python run_clm.py --model_name_or_path no/such-model --per_device_train_batch_size 8\n" + failed).encode())
expect(own["workload"] is None and any("no/such-model" in note for note in own["notes"]), own["notes"])

text = (LOGS / "first_step.log").read_text()
plain = diagnosis(text.encode())
expect(plain["failure"]["cause"]["name"] == "too_big" and plain["failure"]["matches"][0]["name"] == "h.18.mlp.square", "the log itself")
same = {
    "CRLF": text.replace("\n", "\r\n").encode(),
    "UTF-16 LE": b"\xff\xfe" + text.encode("utf-16-le"),
    "UTF-16 BE": b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-8 mark": b"\xef\xbb\xbf" + text.encode(),
    "colours": text.replace("CUDA out", "\x1b[1;31mCUDA\x1b[0m \x1b[4mout").replace("Traceback", "\x1b[0mTraceback").encode(),
}
for name, data in same.items():
    expect(essence(diagnosis(data)) == essence(dict(plain)), name)
bars = "".join(f"\r{n:3}%|{'#' * (n // 10):10}| {n}/1000 [00:{n % 60:02}<10:00,  1.0it/s]" for n in range(1, 3))
expect(diagnosis((bars + "\n" + (LOGS / "fragmentation.txt").read_text()).encode())["failure"]["moment"]["steps_done"] == 2, "progress bars")

with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder)
    (path / "s.pickle").write_bytes(pickle.dumps({"segments": [], "device_traces": []}, protocol=2))
    (path / "s.json").write_text('{"segments": [], "device_traces": []}')
    (path / "a.log.gz").write_bytes(gzip.compress(text.encode()))
    for name, code in {"s.pickle": b"snapshot", "s.json": b"snapshot", "a.log.gz": b"zcat"}.items():
        done = doctor(str(path / name))
        expect(code in done.stderr + done.stdout, f"{name}: {done.returncode} {done.stderr}")
    expect(doctor(str(path / "a.log.gz")).returncode == 2, "an archive is no log")
    for old in (0, 1):
        (path / "old.pickle").write_bytes(pickle.dumps({"segments": [{"address": 1 << 40}], "device_traces": []}, protocol=old))
        done = doctor(str(path / "old.pickle"))
        expect(done.returncode == 2 and b"protocols 0 and 1" in done.stderr, f"protocol {old}: {done.stderr}")
    recording = LOGS.parent.parent / "watch" / "recordings" / "eight_h100.jsonl"
    done = doctor(str(recording))
    expect(done.returncode == 2 and f"dryfit doctor --live --replay {recording}".encode() in done.stderr, f"a recording of watch: {done.stderr}")
    # a pipe that gives little at a time
    for name in ("train.json", "leak.pickle"):
        whole = (LOGS.parent / "snapshots" / name).read_bytes()
        process = subprocess.Popen([DRYFIT, "doctor", "-", "--json"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for piece in (whole[:9], whole[9:40], whole[40:]):
            process.stdin.write(piece)
            process.stdin.flush()
            time.sleep(0.05)
        process.stdin.close()
        expect(b'"devices"' in process.stdout.read() and process.wait(60) == 0, f"{name} in pieces")
    (path / "empty").write_bytes(b"")
    expect(doctor(str(path / "empty")).returncode == 2 and b"empty" in doctor(str(path / "empty")).stderr, "an empty file")
    expect(doctor("-", data=b"").returncode == 2, "empty standard input")
    expect(doctor("-", data=b"all is well\n").returncode == 1, "nothing found: exit 1")
    expect(b"\x1b" not in doctor("-", data=b"\x1b[31mCUDA out of memory. Tried to allocate 2.00 GiB\x1b]0;x\x07 GPU 0").stdout, "escapes of a log reach the screen")

    # 256 MiB of steps in front of the failure, in the memory of a small one
    line = "step {0:05d}/99999 (1.00%) | loss: 3.1 | lrm: 1.00 | dt: 431.00ms | tok/sec: 1,216,445 | bf16_mfu: 44.12 | epoch: 1 | total time: 3.00m\n"
    big = path / "big.log"
    with big.open("w") as out:
        block = "".join(line.format(n) for n in range(100, 20000))
        while out.tell() < 1 << 28:
            out.write(block)
        out.write(text)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    start = time.monotonic()
    limited = subprocess.run([DRYFIT, "doctor", str(big), "--json"], capture_output=True, timeout=120)
    seconds = time.monotonic() - start
    expect(limited.returncode == 0 and json.loads(limited.stdout)["failure"]["cause"]["name"] == "too_big", f"the large log: {limited.returncode} {limited.stderr[-200:]}")
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    sanitized = b"AddressSanitizer" in pathlib.Path(DRYFIT).read_bytes()
    expect(sanitized or most < 128 * 1024, f"{most} KiB for a log of 256 MiB (before: {before})")
    print(f"{big.stat().st_size / seconds / 1e6:.0f} MB/s, {most / 1024:.0f} MiB at most")

    # a bar appears on a terminal once reading takes a second; never in a pipe
    try:
        primary, secondary = pty.openpty()
    except OSError as problem:
        primary = None
        print(f"no pseudo-terminals here: {problem}")
    if primary is not None:
        for on_terminal in (True, False):
            process = subprocess.Popen([DRYFIT, "doctor", "-", "--json"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=secondary if on_terminal else subprocess.PIPE)
            process.stdin.write(text.encode())
            process.stdin.flush()
            for _ in range(3):
                time.sleep(0.6)
                process.stdin.write(b"more\n")
                process.stdin.flush()
            process.stdin.close()
            process.wait(timeout=60)
            if on_terminal:
                os.close(secondary)
                shown = b""
                try:
                    while piece := os.read(primary, 4096):
                        shown += piece
                except OSError:
                    pass
                os.close(primary)
                expect(b"reading" in shown and shown.rstrip().endswith(b"\x1b[K"), f"a bar on a slow terminal: {shown[-80:]}")
            else:
                expect(b"reading" not in process.stderr.read(), "a bar in a pipe")

for line in failures:
    print("FAILED", line)
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
