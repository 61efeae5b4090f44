"""python -m dryfit.capture [flags] -- train.py [its flags]: the memory of any PyTorch training script, on a GPU that is not there.

  python -m dryfit.capture --gpu 4090 -- train.py --batch 8
  python -m dryfit.capture --gpu h100 -- torchrun --nproc_per_node=8 train.py
  python -m dryfit.capture --explain --svg memory.svg -- -m package.train
  python -m dryfit.capture --out run.capture -- train.py      then: dryfit check --capture run.capture --gpu 3090

The script runs as it is, under the torch it is installed with, until it has made three optimizer steps (--steps); tensors on the GPU have
shapes and no values. Then `dryfit check` (or explain) answers, with its flags and exit status. docs/capture.md says what is followed.
From Python it is a function: dryfit.capture("train.py", gpu="4090").
"""
from __future__ import annotations

import argparse
import os
import sys
import tempfile

from dryfit import _capture, _engine
from dryfit._call import Error


def _flags(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="python -m dryfit.capture", usage="python -m dryfit.capture [flags] -- train.py [its flags]", description="\n".join(__doc__.splitlines()[2:]),
                                     formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, epilog="other flags go to dryfit check, or with --explain to dryfit explain: --json, --timeline, --svg FILE, --alloc-conf S, --memory SIZE, -v")
    parser.add_argument("--gpu", metavar="NAME", help="\"RTX 4090\", h100, ... [found here, else h100]")
    parser.add_argument("--gpus", type=int, metavar="N", help="as one of so many [1, or as torchrun is told]")
    parser.add_argument("--steps", type=int, default=3, metavar="N", help="optimizer steps to follow [3]")
    parser.add_argument("--out", metavar="FILE", help="keep the capture: dryfit check --capture FILE reads it, for any GPU")
    parser.add_argument("--explain", action="store_true", help="where every GiB goes, and when")
    return parser.parse_known_args(words)


def main(words: list[str]) -> int:
    own, script = (words[:words.index("--")], words[words.index("--") + 1:]) if "--" in words else (words, [])
    flags, more = _flags(own)
    try:
        text = _capture.record(script, gpu=flags.gpu, gpus=flags.gpus, steps=flags.steps)
    except Error as error:
        if "--json" in more:
            import json
            print(json.dumps({"schema_version": 1, "error": {"code": error.code, "message": error.message, "hint": error.hint, "where": error.where}}, indent=1))
        else:
            where = f" ({error.where})" if error.where and error.where not in error.message else ""
            print(f"error: {error.message}{where}\nhint:  {error.hint}", file=sys.stderr)
        return error.status
    place = flags.out
    if place is None:
        handle, place = tempfile.mkstemp(prefix="dryfit-", suffix=".capture")
        os.close(handle)
    try:
        with open(place, "w", encoding="utf-8") as file:
            file.write(text)
        sys.stdout.flush()
        return _engine.run(["explain" if flags.explain else "check", f"--capture={place}", *([f"--gpu={flags.gpu}"] if flags.gpu else []), *more])
    except OSError as error:
        print(f"error: '{place}' cannot be written: {error.strerror}\nhint:  name another file: --out FILE", file=sys.stderr)
        return 2
    finally:
        if flags.out is None:
            os.unlink(place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
