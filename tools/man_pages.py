#!/usr/bin/env python3
"""Man pages from the command table (`dryfit help --json`): dryfit.1 and one for each command. Usage: tools/man_pages.py DRYFIT FOLDER. No words of its own but the frame."""
import json
import pathlib
import re
import subprocess
import sys

EXIT = [("0", "fits, or tight; the command did what it was asked"), ("1", "does not fit"), ("2", "bad input: what, where and what to do instead stand on standard error, or with --json on standard output"), ("70", "an internal error")]


def roff(text):
    """Text as roff takes it: backslashes, leading dots and quotes, and dashes that are to be pasted."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def section(name, body):
    return f".SH {name}\n{body.rstrip()}\n"


def head(name, version):
    return f'.TH "{name.upper()}" 1 "" "dryfit {version}" "dryfit"\n'


def flag(entry):
    argument = f" \\fI{roff(entry['argument'])}\\fR" if entry["argument"] else ""
    return f".TP\n\\fB\\-\\-{roff(entry['name'])}\\fR{argument}\n{roff(entry['help'])}\n"


def examples(text):
    return ".nf\n" + roff(text.rstrip("\n")) + "\n.fi"


def statuses():
    return "".join(f".TP\n{code}\n{roff(meaning)}\n" for code, meaning in EXIT)


def page(command, version):
    name = f"dryfit-{command['name']}"
    out = head(name, version) + section("NAME", f"{roff(name)} \\- {roff(command['summary'])}")
    out += section("SYNOPSIS", f"\\fBdryfit {roff(command['name'])}\\fR [\\fIflags\\fR]")
    out += section("EXAMPLES", examples(command["examples"]))
    out += section("OPTIONS", "".join(flag(f) for f in command["flags"]))
    return out + section("EXIT STATUS", statuses()) + section("SEE ALSO", "\\fBdryfit\\fR(1)")


def overview(commands, version, screen):
    summary = screen.splitlines()[0].removeprefix("dryfit: ")
    shown = screen.split("\nExamples\n")[1].split("\n\n")[0]
    out = head("dryfit", version) + section("NAME", f"dryfit \\- {roff(summary)}") + section("SYNOPSIS", "\\fBdryfit\\fR \\fIcommand\\fR [\\fIflags\\fR] [\\-\\- \\fItraining command\\fR]")
    out += section("EXAMPLES", examples(shown))
    out += section("COMMANDS", "".join(f".TP\n\\fBdryfit\\-{roff(c['name'])}\\fR(1)\n{roff(c['summary'])}\n" for c in commands))
    return out + section("EXIT STATUS", statuses())


def main():
    binary, folder = sys.argv[1], pathlib.Path(sys.argv[2])

    def ask(*words):
        return subprocess.run([binary, *words], capture_output=True, text=True, check=True).stdout

    version = ask("version").split()[-1]
    commands = json.loads(ask("help", "--json"))["commands"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dryfit.1").write_text(overview(commands, version, ask("help")))
    for command in commands:
        (folder / f"dryfit-{command['name']}.1").write_text(page(command, version))


if __name__ == "__main__":
    main()
