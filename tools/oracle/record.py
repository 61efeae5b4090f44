#!/usr/bin/env python3
"""Records every case of cases.py that is not there yet, then writes the goldens. record.sh sets up what it needs and calls it.

`record.py --trees DIR --raw DIR --golden DIR [--only TEXT] [--draw SEED,COUNT,SHAPES]`: one process per commit (nanochat's package has one name). A raw file per
case lies in --raw, so an interrupted run goes on where it stopped; delete a raw file to record it again.
"""
import argparse
import importlib.metadata
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent


def listed(drawn):
    """The cases in question: those of cases.py, or so many that a seed draws."""
    import cases
    import draw
    if not drawn:
        return cases.every()
    seed, count, shapes = drawn.split(",")
    return draw.draw(int(seed), int(count), shapes)


def record_here(commit, attention, names, drawn, trees, raw):
    """In a process of its own: the cases of one commit and one attention. Imports torch."""
    sys.path[:0] = [str(HERE), str(trees / commit)]
    import pack
    import session
    import torch

    for case in listed(drawn):
        if case.name() not in names:
            continue
        began = time.monotonic()
        run = session.Run(case)
        run.record()
        text = pack.line(pack.pack(case, torch.__version__.split("+")[0], run.tracker))
        (raw / f"{case.name()}.part").write_text(text, encoding="utf-8")
        (raw / f"{case.name()}.part").rename(raw / f"{case.name()}.json")
        print(f"{case.name()}  {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def wanted(only, drawn, raw):
    version = importlib.metadata.version("torch").split("+")[0]
    return [c for c in listed(drawn) if c.torch == version and only in c.name() and not (raw / f"{c.name()}.json").exists()]


def record_all(arguments):
    """One child per (commit, attention, dtype, several GPUs or not, whole steps or not): what can share a process does."""
    groups = {}
    for case in wanted(arguments.only, arguments.draw, arguments.raw):
        alone = case.name() if case.kind in ("step", "resume", "run") else ""  # optimizers compile at import: a process each
        groups.setdefault((case.commit, case.attention, case.dtype, case.checkpoints, case.compile, alone), []).append(case.name())
    failed = []
    dtypes = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    for (commit, attention, dtype, _, _, _), names in sorted(groups.items()):
        done = subprocess.run([sys.executable, __file__, "--trees", arguments.trees, "--raw", arguments.raw, "--golden", arguments.golden,
                               "--draw", arguments.draw, "--child", commit, attention, *names], check=False, env={**os.environ, "NANOCHAT_DTYPE": dtypes[dtype]})
        if done.returncode:
            failed += [n for n in names if not (arguments.raw / f"{n}.json").exists()]
    return failed


def write_goldens(raw, golden):
    import cases
    import pack
    for file, listed in cases.files():
        print(f"{golden / file}: {pack.write_golden(golden / file, listed, raw)} of {len(listed)} recordings", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("trees", "raw", "golden"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="record only cases whose name contains this")
    parser.add_argument("--draw", default="", help="SEED,COUNT,SHAPES: cases that draw.py draws instead, which go into --raw/../drawn.jsonl")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.raw.mkdir(parents=True, exist_ok=True)
    if arguments.child:
        commit, attention, *names = arguments.child
        record_here(commit, attention, set(names), arguments.draw, arguments.trees, arguments.raw)
        return 0
    failed = record_all(arguments)
    if arguments.draw:
        there = [arguments.raw / f"{case.name()}.json" for case in listed(arguments.draw)]
        (arguments.raw.parent / "drawn.jsonl").write_text("".join(f.read_text(encoding="utf-8") + "\n" for f in there if f.exists()), encoding="utf-8")
    else:
        write_goldens(arguments.raw, arguments.golden)
    for name in failed:
        print(f"not recorded: {name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
