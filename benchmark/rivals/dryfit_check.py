# dryfit as a user runs it: `dryfit check` with the row's flags, a whole process each.
NAME = "dryfit"
PACKAGES = []
TORCH = False
FIGURE = "allocated, reserved and process bytes"
SETTINGS = "`dryfit check` with the row's flags, or its command pasted; newest LitGPT and transformers whatever ran; the peak of the whole run"


def settings(row):
    return {"gpu": row["gpu"], "flags": row["flags"]}


def estimate(s):
    import json
    import os
    import subprocess

    run = subprocess.run([os.environ["DRYFIT"], "check", "--json", "--gpu", s["gpu"], *s["flags"].split()], capture_output=True, text=True, cwd=os.environ["DRYFIT_TOP"])
    answer = json.loads(run.stdout)
    if "error" in answer:
        raise RuntimeError(answer["error"]["message"])
    return {kind: answer["memory"][kind]["bytes"] / 2**20 for kind in ("allocated", "reserved", "process")}
