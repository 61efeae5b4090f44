"""The binary under a pseudo-terminal: colour only where wanted, lines within the width, a closed pipe is no error."""
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

DRYFIT = os.environ["DRYFIT"]
BASE = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS")}
failures = []


def on_terminal(words, columns=80, **extra):
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([DRYFIT, *words], stdout=secondary, stderr=subprocess.DEVNULL, env={**BASE, "TERM": "xterm", **extra})
    os.close(secondary)
    out = b""
    while True:
        try:
            piece = os.read(primary, 65536)
        except OSError:
            break
        if not piece:
            break
        out += piece
    process.wait()
    os.close(primary)
    return out.decode()


try:
    for end in pty.openpty():
        os.close(end)
except OSError as problem:
    print(f"no pseudo-terminals here: {problem}")
    sys.exit(77)


def piped(words, **extra):
    return subprocess.run([DRYFIT, *words], capture_output=True, text=True, env={**BASE, "TERM": "xterm", **extra}).stdout


def expect(condition, what):
    if not condition:
        failures.append(what)


CHECK = ["check", "--depth", "12", "--device-batch-size", "8", "--gpu", "h100"]
expect("\x1b[" in on_terminal(CHECK), "colour on a terminal")
expect("\x1b[" not in on_terminal(CHECK, NO_COLOR="1"), "none with NO_COLOR")
expect("\x1b[" not in on_terminal(CHECK, TERM="dumb"), "none on a dumb terminal")
expect("\x1b[" not in on_terminal([*CHECK, "--color", "never"]), "none with --color never")
expect("\x1b[" not in piped(CHECK), "none in a pipe")
expect("\x1b[" in piped(CHECK, FORCE_COLOR="1", NO_COLOR="1"), "FORCE_COLOR beats NO_COLOR")
expect("\x1b[" in piped([*CHECK, "--color", "always"]), "--color always in a pipe")
for columns in (40, 60, 80, 120, 200):
    screen = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(["explain", "--depth", "12", "--device-batch-size", "8", "--gpu", "h100"], columns))
    bar = next(line for line in screen.splitlines() if "usable" in line and "|" in line and "GiB" in line and "█" in line)
    expect(len(bar) <= max(columns, 46), f"bar of {len(bar)} in {columns} columns")
reader, writer = os.pipe()
os.close(reader)
process = subprocess.run([DRYFIT, "list", "gpus"], stdout=writer, stderr=subprocess.PIPE)
os.close(writer)
expect(process.returncode == 0 and process.stderr == b"", f"closed pipe: {process.returncode} {process.stderr}")
script = piped(["completions", "bash"])
done = subprocess.run(["bash", "-c", script + "\nCOMP_WORDS=(dryfit pl); COMP_CWORD=1; _dryfit; echo ${COMPREPLY[0]}"], capture_output=True, text=True)
expect(done.stdout.strip() == "plan" and done.stderr == "", f"bash completion: {done.stdout!r} {done.stderr!r}")

for line in failures:
    print("FAILED", line)
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
