"""One measured process: phases with their peaks, stages with what the driver shows, a summary of one step's allocations. Needs torch.

Run by measure.py as `python JOB.py '<configuration as JSON>' RESULT_FILE DEVICE_USED_BEFORE`. Works on a CPU too (numbers of memory are
then null), so that the code can be tried without a GPU.
"""
import contextlib
import json
import os
import sys
import time

import torch

import gpu
import timed
import traces
from configurations import Configuration


class Meter:
    def __init__(self, device, used_before):
        self.device, self.used_before = device, used_before
        self.on_gpu = device == "cuda"
        self.phases, self.stages, self.extra = [], [], {}
        self.began = None
        self.steps = []  # when each began, by the clock, and ended; what is measured between two of them is in neither
        self.resumed = None

    def _sync(self):
        if self.on_gpu:
            torch.cuda.synchronize()

    def begin(self):
        """Peaks are counted from here to `end`."""
        self._sync()
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        self.began = time.time()

    def end(self, name):
        self._sync()
        entry = {"name": name, "began": self.began, "seconds": time.time() - self.began}
        if self.on_gpu:
            entry.update(allocated=torch.cuda.max_memory_allocated(), reserved=torch.cuda.max_memory_reserved(), allocated_end=torch.cuda.memory_allocated())
        self.phases.append(entry)
        self.stage(name)

    def next(self, name):
        """Ends the phase since the last of these; without a name it is not kept, with the name of the one before it is one with that."""
        if name:
            before = self.phases[-1] if self.phases and self.phases[-1]["name"] == name else None
            self.end(name)
            if before:
                last = self.phases.pop()
                for key in ("allocated", "reserved"):
                    if key in last:
                        before[key] = max(before[key], last[key])
                before.update(seconds=before["seconds"] + last["seconds"], **({"allocated_end": last["allocated_end"]} if "allocated_end" in last else {}))
        self.begin()

    def step_ended(self):
        """After each optimizer step: the first, the second and all others are phases of their own."""
        self._sync()
        self.steps.append((self.resumed, time.perf_counter()))
        self.next({1: "first_step", 2: "second_step"}.get(len(self.steps), "train_step"))
        self.resumed = time.perf_counter()

    def step_seconds(self):
        """Mean of the steps after the second; None of fewer than two."""
        steps = [ended - began for began, ended in self.steps[2:]]
        return sum(steps) / len(steps) if len(steps) > 1 else None

    @contextlib.contextmanager
    def phase(self, name):
        self.begin()
        yield
        self.end(name)

    def stage(self, name):
        """What the driver shows now; the last of a name stands."""
        if not self.on_gpu:
            return
        self._sync()
        local = int(os.environ.get("LOCAL_RANK", 0))
        own, all_used = gpu.process_used(local), gpu.device_used(local)
        source = "nvml" if own is not None else "device"
        if own is None and all_used is not None and self.used_before is not None:
            own = all_used - self.used_before
        reserved = torch.cuda.memory_reserved()
        self.stages = [s for s in self.stages if s["name"] != name]
        self.stages.append({"name": name, "process": own, "process_source": source, "device": all_used, "reserved": reserved,
                            "allocated": torch.cuda.memory_allocated(), "context": None if own is None else own - reserved})

    def result(self, outcome="ok", notes=""):
        last = self.stages[-1] if self.stages else {}
        most = [s["process"] for s in self.stages if s.get("process") is not None]
        return {"outcome": outcome, "notes": notes, "allocated": max((p["allocated"] for p in self.phases if "allocated" in p), default=None),
                "reserved": max((p["reserved"] for p in self.phases if "reserved" in p), default=None), "process": max(most, default=None),
                "process_source": last.get("process_source", ""), "device": max((s["device"] for s in self.stages if s.get("device")), default=None),
                "context": last.get("context"), "step_seconds": self.step_seconds(), "phases": self.phases, "stages": self.stages, **self.extra}

def out_of_memory(error):
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def main(run):
    """run(configuration, meter) does the work. Writes the result file whatever happens but a kill."""
    _, given, result_file, used = sys.argv  # what runs here may put its own arguments there
    configuration = Configuration(**json.loads(given))
    used_before = None if used == "unknown" else int(used)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    meter = Meter(device, used_before)
    traced = configuration.trace and meter.on_gpu
    if traced:
        torch.cuda.memory._record_memory_history(enabled="all", context="all", stacks="python", max_entries=1_000_000)
    meter.extra["timed"] = timed.watch(meter.phases)
    if meter.on_gpu:
        meter.extra["bandwidth"] = timed.bandwidth()
    try:
        run(configuration, meter)
        result = meter.result()
    except Exception as error:  # the row must say how it ended
        lines = str(error).strip().splitlines()
        result = meter.result("oom" if out_of_memory(error) else "error", f"{type(error).__name__}: {lines[0][:200] if lines else ''}")
        if result["outcome"] == "error":
            import traceback
            traceback.print_exc()
    if traced:
        traces.write(torch.cuda.memory._snapshot(), result["phases"], result_file + ".trace.json.gz")
    if int(os.environ.get("RANK", 0)) == 0:
        with open(result_file + ".part", "w", encoding="utf-8") as sink:
            json.dump(result, sink)
        os.replace(result_file + ".part", result_file)
    return 0 if result["outcome"] in ("ok", "oom") else 1
