#!/usr/bin/env python3
"""Which kernels Inductor would time before their first launch, and what of theirs it would copy for that, from the kernels' own sources: tests/golden/oracle/timed_kernels.tsv.

`record.sh --nanochat ... --timed` calls it. A line: case, half, then for each timed kernel in the order of first launches the bytes of what it writes in place, joined by "+" (0: a
tensor that the half was given, of which the wrapper does not say the size), "-" where nothing.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
BYTES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "bfloat16": 2, "float16": 2}  # others: 1


def timed_cases():
    import cases
    for epoch in ("E1", "E3", "E4g", "E5", "E7"):
        yield cases.case("compiled", epoch, 4, 8, 2048)
        yield cases.case("validation", epoch, 4, 8, 2048)
    for length in (512, 2048):
        yield cases.case("compiled", "E7", 12, 1, length)
    yield cases.case("compiled", "E7", 4, 8, 512, attention="sdpa", dtype="fp32", window="L")
    yield cases.case("compiled", "E7", 4, 8, 2048, attention="sdpa", window="L")


def configurations(text):
    """Of each kernel of a wrapper: how many configurations it has, which of its arguments it changes, its arguments' names."""
    import torch
    from torch._inductor.runtime import hints, triton_heuristics
    counted = []

    def cached_autotune(_size_hints, configs, *_args, inductor_meta=None, **_rest):
        counted.append((len(triton_heuristics.unique_configs(configs)), inductor_meta["mutated_arg_names"]))
        return lambda function: function

    triton_heuristics.cached_autotune = cached_autotune
    words = {"triton_heuristics": triton_heuristics, "torch": torch, "__file__": "", **{name: getattr(hints, name) for name in ("ReductionHint", "TileHint", "DeviceProperties", "AutotuneHint")}}
    found = {}
    for name, source in re.findall(r"(\w+) = async_compile\.triton\('\w+', '''(.*?)''', device_str", text, re.S):
        heuristics = re.search(r"@(triton_heuristics\.\w+\(.*?\))\n@triton\.jit\ndef \w+\((.*?)\):", source, re.S)
        eval(heuristics[1], words)  # Inductor's own code, written a moment ago
        found[name] = (*counted.pop(), [a.split(":")[0].strip() for a in heuristics[2].split(",")])
    return found


def timed_in(text):
    from dryfit.tracing import wrapper
    kernels = configurations(text)
    _, steps = wrapper.read(text)
    sizes, out, launched = {}, [], set()
    for step in steps:
        if step.kind == "alloc":
            elements = 1
            for n in step.shape:
                elements *= n
            sizes[step.name] = elements * BYTES.get(step.dtype, 1)
        elif step.kind == "alias":
            sizes[step.name] = sizes.get(step.source, 0)
    for name, given in re.findall(r"^\s+(\w+)\.run\((.*?), stream", text, re.M):
        if name not in kernels or name in launched:
            continue
        launched.add(name)
        ways, changed, names = kernels[name]
        arguments = [a.strip() for a in given.split(",")]
        if ways > 1:
            out.append("+".join(str(sizes.get(arguments[names.index(c)], 0)) for c in changed) or "-")
    return out


def record_here(name, trees):
    """In a process of its own. Imports torch."""
    case = next(c for c in timed_cases() if c.name() == name)
    sys.path[:0] = [str(HERE), str(trees / case.commit)]
    import session
    from dryfit.tracing import played
    real = played.Half.__init__

    def heard(self, graph, lowering, text, kind, *rest):
        print("\t".join([name, kind, *timed_in(text)]), flush=True)
        real(self, graph, lowering, text, kind, *rest)

    played.Half.__init__ = heard
    session.Run(case).record()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trees", type=pathlib.Path, required=True)
    parser.add_argument("--golden", type=pathlib.Path, required=True)
    parser.add_argument("--child", default="")
    arguments = parser.parse_args()
    if arguments.child:
        record_here(arguments.child, arguments.trees)
        return
    lines = []
    for case in timed_cases():
        dtype = {"bf16": "bfloat16", "fp32": "float32"}[case.dtype]
        done = subprocess.run([sys.executable, __file__, "--trees", arguments.trees, "--golden", arguments.golden, "--child", case.name()], check=True, stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "NANOCHAT_DTYPE": dtype})
        lines += [line for line in done.stdout.splitlines() if line.startswith(case.name() + "\t")]
        print(case.name(), file=sys.stderr, flush=True)
    head = "# what tools/oracle/timed.py found in PyTorch's kernels (torch 2.9.1): see there\n"
    (arguments.golden / "timed_kernels.tsv").write_text(head + "".join(line + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
