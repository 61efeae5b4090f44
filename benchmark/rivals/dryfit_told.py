# dryfit told what no flag says: the date of LitGPT's code and the phase that was measured (`loop` and `phase` of the row). What `dryfit-accuracy` checks on every test run.
NAME = "dryfit, told the loop"
PACKAGES = []
TORCH = False
FIGURE = "allocated or reserved bytes of the phase that was measured"
SETTINGS = "dryfit-accuracy on the same files"

from rows import NotCovered


def settings(row):
    if row["kind"] == "oom":
        raise NotCovered("prints no figure for a run without one")
    return {"id": row["id"], "table": row["table"], "kind": row["kind"], "measured_mib": row["measured_mib"]}


def estimate(s, known={}):
    import os
    import subprocess

    if not known:
        tool = os.environ["DRYFIT"] + "-accuracy"
        for words in (["data/measured/nanochat.csv"], ["--transformers", "data/measured/transformers.csv"]):
            out = subprocess.run([tool, *words, "--errors", "-"], capture_output=True, text=True, check=True, cwd=os.environ["DRYFIT_TOP"]).stdout
            for line in out.splitlines():
                name, _, error = line.partition("\t")
                if not line.startswith(("#", "id\t")):
                    known[name] = float(error)
    off = known[s["id"]]
    return {s["kind"]: s["measured_mib"] + off if s["table"] == "nanochat" else s["measured_mib"] * (1 + off / 100), "seconds": None}
