"""Completions read by the real shells, and man pages by mandoc where it is installed (./test.sh --integration installs all); every command and flag is in both."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import doors

failures, missing = [], []


def expect(holds, what):
    if not holds:
        failures.append(what)


def dryfit(*words):
    return subprocess.run([doors.DRYFIT, *words], capture_output=True, text=True, check=True, env=doors.PLAIN).stdout


def clean(words, text=None):
    """What a reader says of a file: nothing at all when it takes it."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=60)
    expect(done.returncode == 0 and done.stderr == "", f"{' '.join(words[:2])}: exit {done.returncode}, {done.stderr[:300]!r}")
    return done.stdout


COMMANDS = json.loads(dryfit("help", "--json"))["commands"]
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    scripts = {}
    for shell in ("bash", "zsh", "fish", "powershell"):
        scripts[shell] = dryfit("completions", shell)
        (folder / shell).write_text(scripts[shell])
        for command in COMMANDS:
            expect(command["name"] in scripts[shell], f"{shell}: no {command['name']}")
            for flag in command["flags"]:
                word = f"-l {flag['name']}\n" if shell == "fish" else "--" + flag["name"]
                expect(word in scripts[shell], f"{shell}: no {flag['name']} of {command['name']}")
    clean(["bash", "-n", str(folder / "bash")])
    for shell, check in (("zsh", ["zsh", "-n"]), ("fish", ["fish", "--no-execute"])):
        if shutil.which(shell):
            clean([*check, str(folder / shell)])
        else:
            missing.append(shell)
    if shutil.which("zsh"):
        # compinit must be loaded first, as every zsh with completion has it
        clean(["zsh", "-f", "-c", f"autoload -U compinit && compinit -D && source {folder / 'zsh'} && (( $+functions[_dryfit] ))"])
    if shutil.which("fish"):
        for line, wanted in (("dryfit ru", "rule-of-thumb\tthe seed's calculator"), ("dryfit check --device-b", "--device-batch-size")):
            out = clean(["fish", "--no-config", "-c", f"source {folder / 'fish'}; complete -C '{line}'"])
            expect(out.startswith(wanted), f"fish completes {line!r} to {out[:200]!r}")
    if shutil.which("pwsh"):
        clean(["pwsh", "-NoProfile", "-Command", f"$e = $null; [void][System.Management.Automation.Language.Parser]::ParseFile('{folder / 'powershell'}', [ref]$null, [ref]$e); exit $e.Count"])
    else:
        missing.append("pwsh")

    pages = folder / "man"
    subprocess.run([sys.executable, str(doors.ROOT / "tools/man_pages.py"), doors.DRYFIT, str(pages)], check=True)
    expect(sorted(p.name for p in pages.iterdir()) == sorted(["dryfit.1", *(f"dryfit-{c['name']}.1" for c in COMMANDS)]), f"pages: {sorted(p.name for p in pages.iterdir())}")
    for command in COMMANDS:
        text = (pages / f"dryfit-{command['name']}.1").read_text()
        for flag in command["flags"]:
            expect("\\fB\\-\\-" + flag["name"].replace("-", "\\-") + "\\fR" in text, f"man: no {flag['name']} of {command['name']}")
    if shutil.which("mandoc"):
        for page in sorted(pages.iterdir()):
            said = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", str(page)], capture_output=True, text=True).stdout
            said = [line for line in said.splitlines() if "missing date" not in line]  # a page without a date is the same bytes from every build
            expect(said == [], f"mandoc: {said[:3]}")
        shown = subprocess.run(["mandoc", "-T", "utf8", str(pages / "dryfit-check.1")], capture_output=True, text=True).stdout
        expect("--device-batch-size" in shown.replace("\b", "").replace("-" * 4, "--"), "mandoc shows no flags")
    else:
        missing.append("mandoc")

for line in failures:
    print("FAILED", line)
print(f"{len(failures)} failures" + (f"; not here: {', '.join(missing)}" if missing else ""))
sys.exit(1 if failures else 0)
