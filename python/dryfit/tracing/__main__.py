"""The process given up to a script: `python -m dryfit.tracing SETTINGS` with SETTINGS as dryfit._capture writes them. Leaves a capture, or the
reason why there is none, in files that SETTINGS names.
"""
from __future__ import annotations

import json
import pathlib
import sys
import traceback

from dryfit import _call
from dryfit.tracing import pretend


def predict(gpu):
    """Peaks of the events so far: what the two max_memory functions print."""
    def peaks(text):
        reply = _call.call({"command": "check", "args": {"capture": "-", "gpu": gpu}, "input": text})
        if reply.status not in (0, 1):
            return None
        memory = json.loads(reply.json)["memory"]
        return memory["allocated"]["bytes"], memory["reserved"]["bytes"]
    return peaks


def place(error):
    """Where in the user's own files it was raised."""
    from dryfit.tracing.values import LIBRARIES
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*LIBRARIES, "<"))]
    return f"{pathlib.Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def refuse(settings, code, message, hint, where=""):
    pathlib.Path(settings["error"]).write_text(json.dumps({"code": code, "message": message, "hint": hint, "where": where}), encoding="utf-8")
    return 2


def main():
    settings = json.loads(sys.argv[1])
    gpu = pretend.gpu(settings["gpu"], tuple(settings["capability"]), settings["total_bytes"])
    try:
        pretend.load(gpu)
        import torch
    except pretend.NotPossible as error:
        return refuse(settings, "not_here", *error.args)
    except ImportError as error:
        return refuse(settings, "no_torch", f"torch cannot be imported: {error}", "install it where your script runs: pip install torch (no GPU is needed)", sys.executable)
    if torch.version.cuda is None:
        return refuse(settings, "no_torch", f"torch {torch.__version__} was built without CUDA", "install the wheel with CUDA: pip install torch (no GPU is needed)", sys.executable)
    from dryfit.tracing import session
    run = session.Session(gpu, settings["gpus"], settings["steps"], settings["workspace"], predict(settings["gpu"]), settings["launched"], settings["told"])
    try:
        run.run(session.target(settings))
    except (Exception, SystemExit) as error:
        traceback.print_exception(error)
        what = f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}".rstrip(": ")
        if run.recorder.steps < min(2, settings["steps"]):  # the optimizer's state stands beside activations from the second on
            when = "in its second step" if run.recorder.steps else "in its first step" if run.recorder.training else "before it trained"
            hint = "its traceback stands above; --steps 1 answers for its first step alone" if run.recorder.steps else f"install it for the Python that runs this: {sys.executable}" if isinstance(error, ModuleNotFoundError) else "its traceback stands above; does it run on a GPU? What a capture cannot follow: docs/capture.md"
            return refuse(settings, "script_failed", f"the script stopped {when}: {what}", hint, place(error))
        run.notes.append(f"the script stopped after {run.recorder.steps} optimizer steps, at {place(error)}: {what}")
    pathlib.Path(settings["out"]).write_text(run.text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
