"""tools/measure without a GPU: slices, resuming, rows, a job that hangs, the summary of a snapshot. Jobs themselves need torch and are not run."""
import io
import pathlib
import sys
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout

TOOL = pathlib.Path(__file__).resolve().parent.parent / "tools" / "measure"
sys.path.insert(0, str(TOOL))

import configurations  # noqa: E402
import measure  # noqa: E402
import rows  # noqa: E402
import snapshots  # noqa: E402

MACHINE = {"gpu": "NVIDIA H100 80GB HBM3", "gpu_memory_mib": "81559", "driver": "570.1", "count": 1, "torch": "2.9.1", "cuda": "12.8", "capability": (9, 0), "transformers": False}
MIB = 2**20


def nanochat(**rest):
    return configurations.Configuration(**{"kind": "nanochat", "hypothesis": "a, b", "nanochat": "E7", "depth": 4, "device_batch_size": 8, **rest})


def good(allocated=100 * MIB):
    return {"outcome": "ok", "allocated": allocated, "reserved": 120 * MIB, "process": 700 * MIB, "process_source": "nvml", "device": 900 * MIB, "context": 580 * MIB,
            "step_seconds": 0.5, "phases": [{"name": "train_step"}], "stages": []}


class FakeRunner(measure.ProcessRunner):
    """Answers from a list; takes `seconds` of the fake clock for each run."""

    def __init__(self, answers, seconds=100):
        super().__init__()
        self.answers, self.seconds, self.now, self.ran = list(answers), seconds, 0, []

    def clock(self):
        return self.now

    def run(self, configuration, checkouts, limit):
        self.ran.append(configuration.title())
        self.now += min(self.seconds, limit)
        if self.seconds > limit:
            return measure.Done(-9, None, True)
        answer = self.answers.pop(0)
        return measure.Done(0 if answer else 1, answer)


class Measure(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.table = rows.Table(self.folder.name)
        self.said = []

    def tearDown(self):
        self.folder.cleanup()

    def go(self, listed, runner, minutes=10, machine=MACHINE):
        return measure.measure(listed, machine, {"E7": "/nanochat"}, self.table, runner, minutes, runner.clock, self.said.append)

    def test_rows_hold_what_was_measured(self):
        self.go([nanochat(grad_accum_steps=2)], FakeRunner([good()]))
        row, = self.table.rows()
        self.assertEqual(list(row), rows.COLUMNS)
        self.assertEqual((row["allocated_mib"], row["reserved_mib"], row["process_mib"], row["context_mib"]), ("100.00", "120.00", "700.00", "580.00"))
        self.assertEqual((row["total_batch_size"], row["step_ms"], row["tokens_per_second"]), ("32768", "500.0", "65536"))
        self.assertEqual(row["notes"], "a; b")
        self.assertEqual(len(self.table.csv.read_text().splitlines()[1].split(",")), len(rows.COLUMNS))  # no field needs quotes
        self.assertIn('"train_step"', self.table.details.read_text())

    def test_nothing_is_measured_twice_but_on_another_gpu_or_torch(self):
        self.go([nanochat()], FakeRunner([good()]))
        again = FakeRunner([])
        self.assertEqual(self.go([nanochat(hypothesis="said otherwise")], again)[0], 0)
        self.assertEqual(again.ran, [])
        self.assertEqual(self.go([nanochat()], FakeRunner([good()]), machine={**MACHINE, "torch": "2.10.0"})[0], 1)
        self.assertEqual(self.go([nanochat()], FakeRunner([good()]), machine={**MACHINE, "gpu": "NVIDIA H200"})[0], 1)

    def test_out_of_memory_stands_and_an_error_is_tried_again(self):
        self.go([nanochat(), nanochat(depth=6)], FakeRunner([{"outcome": "oom", "notes": "OutOfMemoryError: Tried to allocate 8.00 GiB"}, None]))
        self.assertEqual([r["outcome"] for r in self.table.rows()], ["oom", "error"])
        self.assertEqual(self.table.rows()[0]["allocated_mib"], "")
        second = FakeRunner([good()])
        self.go([nanochat(), nanochat(depth=6)], second)
        self.assertEqual(second.ran, [nanochat(depth=6).title()])

    def test_a_slice_ends_and_the_next_goes_on(self):
        listed = [nanochat(depth=d) for d in (2, 4, 6, 8, 10, 12, 14)]
        measured, left = self.go(listed, FakeRunner([good()] * 7, seconds=130))
        self.assertEqual((measured, len(left)), (4, 3))  # 130, 260, 390, 520 s; the fifth has only 80 s and is cut off
        self.assertEqual(len(self.table.rows()), 4)      # what the slice cut off is no result
        measured, left = self.go(listed, FakeRunner([good()] * 3, seconds=130))
        self.assertEqual((measured, left), (3, []))

    def test_a_run_that_takes_too_long_by_itself_is_a_row(self):
        self.go([nanochat()], FakeRunner([], seconds=1000), minutes=10)
        self.assertEqual([r["outcome"] for r in self.table.rows()], ["timeout"])

    def test_what_the_machine_cannot_do_is_said_and_skipped(self):
        old = {**MACHINE, "capability": (8, 6)}
        listed = [nanochat(fp8=True), nanochat(gpus=2), nanochat(nanochat="E1"), configurations.Configuration(kind="transformers", hypothesis="x", model="gpt2")]
        runner = FakeRunner([])
        self.assertEqual(self.go(listed, runner, machine=old), (0, []))
        self.assertEqual(runner.ran, [])
        self.assertEqual(len(self.said), 4)

    def test_a_job_that_hangs_is_killed_and_one_that_answers_is_read(self):
        job = pathlib.Path(self.folder.name) / "nanochat_job.py"
        job.write_text("import sys, json, os\njson.dump({'outcome': 'ok', 'said': os.environ['PYTORCH_ALLOC_CONF']}, open(sys.argv[2], 'w'))\n")
        runner = measure.ProcessRunner(self.folder.name)
        done = runner.run(nanochat(alloc_conf="max_split_size_mb:128"), {}, 30)
        self.assertEqual((done.status, done.result), (0, {"outcome": "ok", "said": "max_split_size_mb:128"}))
        job.write_text("import time\ntime.sleep(60)\n")
        done = runner.run(nanochat(), {}, 0.5)
        self.assertTrue(done.timed_out)
        self.assertIsNone(done.result)

    def test_the_default_list(self):
        listed = configurations.default_list()
        keys = [c.key() for c in listed]
        self.assertEqual(len(keys), len(set(keys)), [c.title() for c in listed if keys.count(c.key()) > 1])
        questions = " ".join(c.hypothesis for c in listed)
        for word in ("context", "cuBLAS", "reserved", "SDPA", "eager", "fp8", "evaluation", "recompute", "collectives"):
            self.assertIn(word, questions)
        self.assertTrue(all(c.nanochat == "E7" for c in measure.concrete(listed, {"E7": "x"}) if c.kind == "nanochat"))

    def test_dry_run_and_list_need_no_gpu(self):
        for flag in ("--dry-run", "--list"):
            out = io.StringIO()
            with redirect_stdout(out):
                self.assertEqual(measure.main([flag, "--only", "cuBLAS"]), 0)
            self.assertEqual(len(out.getvalue().splitlines()), 2)

    def test_bad_checkout_is_an_error_with_a_way_out(self):
        err = io.StringIO()
        with redirect_stderr(err), self.assertRaises(SystemExit) as end:
            measure.parse(["--nanochat", "E7=/nowhere"])
        self.assertEqual(end.exception.code, 2)
        self.assertIn("expected LABEL=PATH", err.getvalue())


class Snapshots(unittest.TestCase):
    def test_peak_and_what_is_alive_there(self):
        before = snapshots.blocks({"segments": [{"address": 0, "blocks": [{"size": 1024, "state": "active_allocated"}, {"size": 512, "state": "inactive"},
                                                                         {"size": 2048, "state": "active_allocated"}]}]})
        self.assertEqual(before, {0: 1024, 1536: 2048})
        trace = [{"action": "alloc", "addr": 10000, "size": 1000}, {"action": "segment_alloc", "addr": 1, "size": 9999}, {"action": "alloc", "addr": 20000, "size": 512},
                 {"action": "free_requested", "addr": 10000, "size": 1000}, {"action": "free_completed", "addr": 10000, "size": 1000},
                 {"action": "alloc", "addr": 30000, "size": 512}, {"action": "free_completed", "addr": 0, "size": 1024}]
        found = snapshots.summary(before, trace, [2097152, 2097152])
        self.assertEqual((found["start"], found["peak"], found["peak_event"], found["events"]), (3072, 4608, 2, 5))
        self.assertEqual(found["live_at_peak"], [{"bytes": 1024, "count": 2}, {"bytes": 2048, "count": 1}, {"bytes": 512, "count": 1}])
        self.assertEqual(found["segments"], [{"bytes": 2097152, "count": 2}])


if __name__ == "__main__":
    unittest.main()
