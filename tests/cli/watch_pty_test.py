"""watch under a pseudo-terminal: frames at many sizes, resizing, every way out with the terminal put back, and a live machine made of
a driver library that answers from a file and a process whose command line trains. `--update` rewrites the drawn frames: review them."""
import codecs
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

DRYFIT = os.path.abspath(os.environ.get("DRYFIT", "build/release/dryfit"))
FAKE = os.environ.get("FAKE_NVML", "")
ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORDINGS = ROOT / "watch" / "recordings"
FRAMES = ROOT / "golden" / "watch"
scratch = tempfile.TemporaryDirectory()
BASE = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "DRYFIT_PROBE", "DRYFIT_NVML", "DRYFIT_FAKE_NVML", "NANOCHAT_DTYPE")}
BASE["XDG_DATA_HOME"] = scratch.name
failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)
        print("FAILED", what)


class Terminal:
    """Just enough of a terminal: cursor addressing, erasing, the alternate screen, modes that must be put back."""

    def __init__(self, rows, columns):
        self.resize(rows, columns)
        self.alternate = False
        self.hidden = self.nowrap = False
        self.outside = False
        self.after = ""
        self.pending = ""

    def resize(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.cells = [[" "] * columns for _ in range(rows)]
        self.row = self.column = 0

    def feed(self, data):
        text = self.pending + data
        self.pending = ""
        i = 0
        while i < len(text):
            c = text[i]
            if c == "\x1b":
                match = re.match(r"\x1b\[([?0-9;]*)([A-Za-z])", text[i:])
                if not match:
                    self.pending = text[i:]
                    return
                self.control(match[1], match[2])
                i += match.end()
                continue
            if not self.alternate:
                self.after += c
            elif c not in "\r\n":
                if self.row < self.rows and self.column < self.columns:
                    self.cells[self.row][self.column] = c
                else:
                    self.outside = True
                self.column += 1
            i += 1

    def control(self, numbers, letter):
        if letter == "H":
            row, column = (numbers.split(";") + ["1"])[:2] if numbers else ("1", "1")
            self.row, self.column = int(row) - 1, int(column) - 1
            self.outside = self.outside or self.row >= self.rows
        elif letter == "J":
            self.cells = [[" "] * self.columns for _ in range(self.rows)]
        elif letter == "K" and self.row < self.rows:
            self.cells[self.row][self.column:] = [" "] * (self.columns - min(self.column, self.columns))
        elif letter in "hl":
            on = letter == "h"
            if numbers == "?1049":
                self.alternate = on
            elif numbers == "?25":
                self.hidden = not on
            elif numbers == "?7":
                self.nowrap = not on

    def screen(self):
        return "\n".join("".join(row).rstrip() for row in self.cells).rstrip() + "\n"


class Session:
    def __init__(self, words, rows=24, columns=80, command=(DRYFIT,), stderr=subprocess.PIPE, **extra):
        self.primary, self.secondary = pty.openpty()
        self.size(rows, columns)
        self.before = termios.tcgetattr(self.secondary)
        self.terminal = Terminal(rows, columns)
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.process = subprocess.Popen([*command, *words], stdin=self.secondary, stdout=self.secondary, stderr=self.secondary if stderr is None else stderr, env={**BASE, "TERM": "xterm-256color", **extra}, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def size(self, rows, columns):
        fcntl.ioctl(self.secondary, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows, columns):
        self.size(rows, columns)
        self.terminal.resize(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def read(self, until, seconds=15.0):
        """Feeds the terminal until `until` holds; whether it came to hold."""
        end = time.monotonic() + seconds
        while not until(self.terminal):
            left = end - time.monotonic()
            if left <= 0:
                return False
            ready, _, _ = select.select([self.primary], [], [], min(left, 0.05))
            if ready:
                self.terminal.feed(self.decoder.decode(os.read(self.primary, 65536)))
            elif self.process.poll() is not None:
                return until(self.terminal)
        return True

    def settle(self, seconds=0.15):
        self.read(lambda t: False, seconds)

    def finish(self, seconds=10):
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.settle(0.05)
        self.settle(0.1)
        if self.process.poll() is None:
            self.process.kill()
            return None
        return self.process.returncode

    def put_back(self):
        t = self.terminal
        return not t.alternate and not t.hidden and not t.nowrap and termios.tcgetattr(self.secondary) == self.before

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()
        for end in (self.primary, self.secondary):
            try:
                os.close(end)
            except OSError:
                pass


try:
    for end in pty.openpty():
        os.close(end)
except OSError as problem:
    print(f"no pseudo-terminals here: {problem}")
    sys.exit(77)

replay = lambda name, *more: ["watch", "--replay", str(RECORDINGS / f"{name}.jsonl"), "--interval", "0", *more]
ended = lambda t: t.alternate and "replay ended" in t.screen()

# ---- frames at many sizes; some are kept
FRAMES.mkdir(exist_ok=True)
KEPT = {("eight_h100", 24, 80), ("eight_h100", 40, 140), ("leak_4090", 24, 80), ("container_4090", 10, 60), ("lost_gpu", 16, 80)}
for name in ("eight_h100", "leak_4090", "container_4090", "lost_gpu"):
    for rows, columns in ((24, 80), (40, 140), (10, 60), (16, 80), (5, 30), (60, 250), (2, 20), (1, 100), (24, 41)):
        session = Session(replay(name), rows, columns)
        small = rows < 2 or columns < 46
        expect(session.read(ended if not small else lambda t: t.alternate and t.screen().strip() != ""), f"{name} at {columns}x{rows}: no frame")
        session.settle()
        expect(not session.terminal.outside, f"{name} at {columns}x{rows}: drew outside")
        screen = session.terminal.screen()
        if (name, rows, columns) in KEPT:
            path = FRAMES / f"{name}_{columns}x{rows}.txt"
            if "--update" in sys.argv:
                path.write_text(screen)
            else:
                expect(path.exists() and path.read_text() == screen, f"{path.name} differs:\n{screen}")
        os.write(session.primary, b"q")
        expect(session.finish() == 0, f"{name} at {columns}x{rows}: exit {session.process.returncode}")
        expect(session.put_back(), f"{name} at {columns}x{rows}: terminal not put back")
        session.close()

# ---- resizing while it runs
session = Session(replay("eight_h100"))
session.read(ended)
for rows, columns in ((30, 120), (8, 50), (50, 200), (3, 25), (24, 80)):
    session.resize(rows, columns)
    session.settle()  # what was on its way was for the size before
    session.terminal.outside = False
    session.resize(rows, columns)
    expect(session.read(lambda t: t.screen().strip() != ""), f"resized to {columns}x{rows}: nothing drawn")
    session.settle()
    expect(not session.terminal.outside, f"resized to {columns}x{rows}: drew outside")
expect("8 x H100" in session.terminal.screen(), "back to 80x24: the frame is whole")
os.write(session.primary, b"q")
expect(session.finish() == 0 and session.put_back(), "quits after resizing")
session.close()

# ---- every way out
for name, leave in {"q": lambda s: os.write(s.primary, b"q"), "Ctrl-C": lambda s: os.write(s.primary, b"\x03"), "Ctrl-D": lambda s: os.write(s.primary, b"\x04"), "SIGTERM": lambda s: s.process.send_signal(signal.SIGTERM),
                    "SIGINT": lambda s: s.process.send_signal(signal.SIGINT), "SIGQUIT": lambda s: s.process.send_signal(signal.SIGQUIT)}.items():
    session = Session(replay("leak_4090"))
    expect(session.read(ended), f"{name}: no frame")
    leave(session)
    expect(session.finish() == 0, f"{name}: exit {session.process.returncode}")
    expect(session.put_back(), f"{name}: terminal not put back")
    expect("predicted" in session.terminal.after, f"{name}: nothing is left in the scrollback")
    session.close()

session = Session(replay("leak_4090"))
session.read(ended)
session.process.send_signal(signal.SIGHUP)
expect(session.finish() == 0 and session.put_back(), f"SIGHUP: exit {session.process.returncode}")
session.close()

session = Session(replay("leak_4090"))  # the terminal vanishes
session.read(ended)
os.close(session.primary)
try:
    expect(session.process.wait(10) in (0, -signal.SIGHUP), f"lost terminal: exit {session.process.returncode}")
except subprocess.TimeoutExpired:
    expect(False, "lost terminal: still running")
session.close()

session = Session(replay("leak_4090"))  # a crash puts the terminal back too
session.read(ended)
session.process.send_signal(signal.SIGSEGV)
session.finish()
expect(session.process.returncode == -signal.SIGSEGV and session.put_back(), f"SIGSEGV: exit {session.process.returncode}, put back {session.put_back()}")
session.close()

# Ctrl-Z and back, under a shell with job control
session = Session(replay("leak_4090"), command=["bash", "-c", 'set -m; "$@"; sleep 1; fg > /dev/null', "bash", DRYFIT], stderr=None)
expect(session.read(ended), "Ctrl-Z: no frame")
os.write(session.primary, b"\x1a")
expect(session.read(lambda t: not t.alternate, 5) and not session.terminal.hidden, "Ctrl-Z: the terminal comes back")
expect(termios.tcgetattr(session.secondary)[3] & termios.ICANON, "Ctrl-Z: the line discipline comes back")
expect(session.read(ended, 5), "fg: the frame comes back")
os.write(session.primary, b"q")
expect(session.finish() == 0 and session.put_back(), "quits after Ctrl-Z and fg")
session.close()

# ---- colour
for extra, wanted in (({}, True), ({"NO_COLOR": "1"}, False)):
    session = Session(replay("eight_h100"), **extra)
    raw = b""
    end = time.monotonic() + 3
    while time.monotonic() < end and b"replay ended" not in raw:
        if select.select([session.primary], [], [], 0.1)[0]:
            raw += os.read(session.primary, 65536)
    expect((re.search(rb"\x1b\[3[0-9]", raw) is not None) == wanted, f"colour with {extra}")
    session.process.kill()
    session.close()
done = subprocess.run([DRYFIT, *replay("eight_h100")], capture_output=True, text=True, env={**BASE, "TERM": "xterm"})
expect(done.returncode == 0 and len(done.stdout.splitlines()) == 60 and "\x1b" not in done.stdout, "a pipe gets one line a moment")

# ---- a live machine
if FAKE:
    folder = pathlib.Path(scratch.name)
    (folder / "scripts").mkdir()
    (folder / "scripts" / "base_train.py").write_text("import sys\nsys.stdin.read()\n")
    state, log = folder / "state", folder / "train.log"
    live = {"DRYFIT_NVML": FAKE, "DRYFIT_FAKE_NVML": str(state)}
    job = subprocess.Popen([sys.executable, "-m", "scripts.base_train", "--depth=12", "--device-batch-size=16", "--core-metric-every=-1"], cwd=folder, stdin=subprocess.PIPE, env={**BASE, "SECRET_TOKEN": "hunter2"})

    def gpus(*lines):
        temporary = folder / "state.new"
        temporary.write_text("\n".join(lines) + "\n")
        temporary.rename(state)

    gpus("gpu 0 used 16500", "gpu 0 utilization 97", f"gpu 0 process {job.pid} 16000", "gpu 0 process 99 500")
    probe = subprocess.run([DRYFIT, "watch", "--once", "--json"], capture_output=True, text=True, env={**BASE, **live}, timeout=30)
    if "does not load" in probe.stderr + probe.stdout:
        print("this binary cannot load a driver library: live tests skipped")
    else:
        one = json.loads(probe.stdout)
        expect(one["job"]["pid"] == job.pid and one["gpus"][0]["job_bytes"] == 16000 << 20 and one["gpus"][0]["others_bytes"] == 500 << 20, f"finds the job: {probe.stdout[:300]}")
        expect(one["prediction"]["run"] == "d12 b16 x 2048", "predicts it")
        expect(one["measured"]["peak_bytes"] == one["prediction"]["process"]["bytes"] + one["measured"]["unaccounted_bytes"], "measured = predicted + unaccounted")

        record, metrics = folder / "run.jsonl", folder / "dryfit.prom"
        session = Session(["watch", "--interval", "0.1", "--log", str(log), "--record", str(record), "--prometheus", str(metrics)], **live)
        expect(session.read(lambda t: f"pid {job.pid}" in t.screen() and "nothing is in the log yet" in t.screen()), f"live: {session.terminal.screen()}")
        log.write_text("Step 00000 | Validation bpb: 3.2\n" + "".join(f"step {n:05d}/00100 ({n}.00%) | loss: 4.{n:02d} | lrm: 1.00 | dt: 700.0ms | tok/sec: 748,982 | bf16_mfu: 41.00 | total time: 0.1m\n" for n in range(20)))
        expect(session.read(lambda t: "step 19/100" in t.screen()), f"live: the log appears: {session.terminal.screen()}")
        log.rename(folder / "train.log.1")  # rotated
        log.write_text("step 00020/00100 (20.00%) | loss: 3.9 | lrm: 1.00 | dt: 700.0ms | tok/sec: 748,982 | bf16_mfu: 41.00 | total time: 0.1m\nPeak memory usage: 15400.00MiB\n")
        expect(session.read(lambda t: "ended, peak allocated 15400.00 MiB" in t.screen()), f"live: the log is rotated: {session.terminal.screen()}")
        text = metrics.read_text()
        expect("dryfit_watch_up 1" in text and f"dryfit_gpu_memory_job_bytes{{gpu=\"0\",uuid=\"GPU-00000000\",name=\"NVIDIA H100 80GB HBM3\"}} {16000 << 20}" in text, f"metrics: {text[:300]}")
        expect(all(re.fullmatch(r"# (HELP|TYPE) dryfit_\w+ .*|dryfit_\w+(\{[a-z]+=\"[^\"]*\"(,[a-z]+=\"[^\"]*\")*\})? -?[0-9.e+-]+", line) for line in text.splitlines()), "metrics follow the text format")
        gpus("gpu 0 used 80500", "gpu 0 utilization 97", f"gpu 0 process {job.pid} 80000", "gpu 0 process 99 500")
        expect(session.read(lambda t: "99 % full" in t.screen() and "above" in t.screen()), f"live: alarm: {session.terminal.screen()}")
        job.stdin.close()
        job.wait()
        expect(session.finish() == 0 and session.put_back(), f"live: ends with its job, exit {session.process.returncode}")
        expect("ended" in session.terminal.after, "live: says so in the scrollback")
        session.close()
        expect(metrics.read_text().splitlines()[-1] == "dryfit_watch_up 0", "metrics say that watch is gone")
        text = record.read_text()
        expect("hunter2" not in text and oct(record.stat().st_mode & 0o777) == "0o600", "a recording holds no secrets of the environment and is private")
        done = subprocess.run([DRYFIT, "watch", "--replay", str(record), "--once", "--json"], capture_output=True, text=True, env=BASE)
        expect(done.returncode == 0, f"replaying the recording: {done.stderr}")
        again = json.loads(done.stdout)
        expect(again["log"]["peak_allocated_bytes"] == 15400 << 20 and again["gpus"][0]["job_peak_bytes"] == 80000 << 20 and again["prediction"] == {**one["prediction"], "by_now_bytes": again["prediction"]["by_now_bytes"]}, "a recording replays what was seen")

        # a recording cut anywhere within its last line still plays
        (folder / "cut.jsonl").write_text(text[:-40])
        done = subprocess.run([DRYFIT, "watch", "--replay", str(folder / "cut.jsonl"), "--once"], capture_output=True, text=True, env=BASE)
        expect(done.returncode == 0, f"a cut recording: {done.stderr}")

        # nothing trains: it waits, and attaches when something does
        gpus("gpu 0 used 1", "gpu 1 used 1")
        session = Session(["watch", "--interval", "0.1"], **live)
        expect(session.read(lambda t: "no training process here yet" in t.screen()), "live: waits for a job")
        job = subprocess.Popen([sys.executable, "-m", "scripts.base_train", "--depth=4"], cwd=folder, stdin=subprocess.PIPE, env=BASE)
        time.sleep(0.3)
        gpus("gpu 0 used 5000", f"gpu 0 process {job.pid} 5000", "gpu 1 used 1")
        expect(session.read(lambda t: f"pid {job.pid}" in t.screen()), "live: attaches")
        gpus("gpu 0 lost 1", "gpu 1 used 1")
        expect(session.read(lambda t: "lost" in t.screen()), "live: one GPU is lost")
        gpus("gpu 0 lost 1", "gpu 1 lost 1")
        expect(session.finish() == 1 and session.put_back(), f"live: all GPUs lost, exit {session.process.returncode}")
        expect(b"error:" in session.process.stderr.read(), "live: and says so")
        session.close()

        # a container: processes hidden, the job found by its command line
        gpus("gpu 0 used 5000", "gpu 0 hidden 1")
        one = json.loads(subprocess.run([DRYFIT, "watch", "--once", "--json"], capture_output=True, text=True, env={**BASE, **live}, timeout=30).stdout)
        expect(one["job"] is not None and one["job"]["pid"] == job.pid and one["measured"]["by_process"] is False and any("container" in n for n in one["notes"]), f"container: {one['job']} {one['notes']}")
        job.stdin.close()
        job.wait()
        done = subprocess.run([DRYFIT, "watch", "--once", "--pid", str(job.pid)], capture_output=True, text=True, env={**BASE, **live}, timeout=30)
        expect(done.returncode == 2 and "no process" in done.stderr, f"a pid that is gone: {done.returncode} {done.stderr}")
else:
    print("FAKE_NVML is not set: live tests skipped")

print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
