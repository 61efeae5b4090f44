# Runs one rival in its own environment: settings of rows in, figures out, a line of JSON each, written as they come so that a time limit loses only the rest.
# Usage: worker.py ADAPTER SETTINGS.json RESULTS.jsonl
import contextlib
import importlib
import json
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[0] = str(HERE)  # an adapter may be named as what it adapts: rivals/ itself stays out of the path

from rows import NotCovered  # noqa: E402


def main():
    adapter = importlib.import_module("rivals." + sys.argv[1])
    asked = json.loads(pathlib.Path(sys.argv[2]).read_text())
    known = {}
    with open(sys.argv[3], "w") as results, contextlib.redirect_stdout(sys.stderr):
        for row, settings in asked:
            key = json.dumps(settings, sort_keys=True)
            if key not in known:
                known[key] = answer(adapter, settings)
            results.write(json.dumps({"id": row, **known[key]}) + "\n")
            results.flush()


def answer(adapter, settings):
    """The figures in MiB and the seconds of one estimate; a quick one is asked twice, so that loading of libraries does not count."""
    try:
        best = None
        for _ in range(2):
            start = time.perf_counter()
            figures = adapter.estimate(settings)
            seconds = time.perf_counter() - start
            best = seconds if best is None else min(best, seconds)
            if seconds > 5:
                break
        best = figures.pop("seconds", best)
        return {"figures": figures, "seconds": best}
    except NotCovered as error:
        return {"reason": str(error)}
    except Exception as error:  # whatever a rival raises: it gives no figure for the row
        return {"reason": f"{type(error).__name__}: {error}".splitlines()[0][:160]}


main()
