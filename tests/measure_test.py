"""tools/measure without a GPU: slices, resuming, rows, several at a time, a job that hangs, traces. Jobs themselves need torch and are not run."""
import csv
import gzip
import io
import json
import pathlib
import sys
import tempfile
import threading
import time
import types
import unittest
import unittest.mock
from contextlib import redirect_stderr, redirect_stdout

TOOL = pathlib.Path(__file__).resolve().parent.parent / "tools" / "measure"
sys.path.insert(0, str(TOOL))

import configurations  # noqa: E402
import measure  # noqa: E402
import rows  # noqa: E402
import traces  # noqa: E402

MACHINE = {"gpu": "NVIDIA H100 80GB HBM3", "gpu_memory_mib": "81559", "driver": "570.1", "count": 1, "torch": "2.9.1", "cuda": "12.8", "capability": (9, 0), "transformers": False}
MIB = 2**20


def nanochat(**rest):
    return configurations.Configuration(**{"kind": "nanochat", "hypothesis": "a, b", "nanochat": "E7", "depth": 4, "device_batch_size": 8, **rest})


def good(allocated=100 * MIB):
    return {"outcome": "ok", "allocated": allocated, "reserved": 120 * MIB, "process": 700 * MIB, "process_source": "nvml", "device": 900 * MIB, "context": 580 * MIB,
            "step_seconds": 0.5, "phases": [{"name": "train_step"}], "stages": [], "script_arguments": ["--depth=4", "--core-metric-every=-1"]}


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
        return measure.Done(0 if answer else 1, answer, trace=answer.pop("trace", None) if answer else None)


class Measure(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.table = rows.Table(self.folder.name)
        self.said = []

    def tearDown(self):
        self.folder.cleanup()

    def go(self, listed, runner, minutes=10, machine=MACHINE, parallel=1):
        return measure.measure(listed, machine, {"E7": "/nanochat"}, self.table, runner, minutes, runner.clock, self.said.append, parallel)

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
        listed = [nanochat(fp8=True), nanochat(gpus=2), nanochat(nanochat="E1"), configurations.Configuration(kind="trainer", hypothesis="x", model="gpt2")]
        runner = FakeRunner([])
        self.assertEqual(self.go(listed, runner, machine=old), (0, []))
        self.assertEqual(runner.ran, [])
        self.assertEqual(len(self.said), 4)
        self.assertEqual(self.go([nanochat(attention="fa3")], runner), (0, []))
        self.assertIn("FlashAttention 3", self.said[-1])

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

    def test_caches_of_the_compiler_are_empty_or_what_the_same_run_left(self):
        folder = pathlib.Path(self.folder.name)
        (folder / "nanochat_job.py").write_text(
            "import json, os, pathlib, sys\n"
            "kept = pathlib.Path(os.environ['TORCHINDUCTOR_CACHE_DIR'])\n"
            "kept.mkdir(exist_ok=True)\n"
            "found = len(list(kept.iterdir()))\n"
            "(kept / str(found)).touch()\n"
            "json.dump({'outcome': 'ok', 'found': found}, open(sys.argv[2], 'w'))\n")
        runner = measure.ProcessRunner(folder)
        for caches, found in (("cold", 0), ("warm", 1), ("cold", 0)):
            self.assertEqual(runner.run(nanochat(caches=caches), {}, 60).result["found"], found)
        self.assertEqual([nanochat(caches=c).title().count(c) for c in ("cold", "warm")], [1, 1])

    def test_the_default_list(self):
        listed = configurations.default_list()
        keys = [c.key() for c in listed]
        self.assertEqual(len(keys), len(set(keys)), [c.title() for c in listed if keys.count(c.key()) > 1])
        questions = " ".join(c.hypothesis for c in listed)
        for word in ("context", "cuBLAS", "reserved", "SDPA", "eager", "fp8", "evaluation", "recompute", "collectives", "8-bit", "4-bit", "adapters"):
            self.assertIn(word, questions)
        self.assertLessEqual({"E1", "E4g", "E5", "E6b", "E7"}, {c.nanochat for c in measure.concrete(listed, {"E1": "x", "E7": "x", measure.FA3: "y"}) if c.kind == "nanochat"})
        self.assertEqual([c.title() for c in listed if c.gigabytes > 76], [])  # none that a card of 80 GB could not run

    def test_a_key_does_not_change_when_fields_are_added(self):
        measured = pathlib.Path(__file__).resolve().parent.parent / "data/measured/own.csv"
        with open(measured, newline="", encoding="utf-8") as source:
            there = {row["id"] for row in csv.DictReader(source)}
        keys = {f"M{c.key()}" for c in measure.concrete(configurations.default_list(), {"E7": "x"})}
        self.assertEqual(there - keys, set())
        self.assertNotEqual(nanochat().key(), nanochat(extra=("--head-dim=64",)).key())

    def test_runs_side_by_side_wait_for_room(self):
        room, most = measure.Room(76), []

        def run(gigabytes):
            with room.of(gigabytes):
                most.append(room.taken)
                time.sleep(0.02)

        threads = [threading.Thread(target=run, args=(gigabytes,)) for gigabytes in (40, 30, 20, 90, 10, 36)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((len(most), room.taken), (6, 0))
        self.assertTrue(all(taken <= 76 or taken == 90 for taken in most), most)  # what is larger than the card runs alone

    def test_several_at_a_time_say_nothing_of_time_and_device(self):
        self.go([nanochat(), nanochat(depth=6)], FakeRunner([good(), {"outcome": "oom", "notes": "OutOfMemoryError"}]), parallel=2)
        row, = self.table.rows()  # what ran out of memory beside another stands for nothing
        self.assertEqual((row["outcome"], row["allocated_mib"], row["step_ms"], row["device_mib"]), ("ok", "100.00", "", ""))
        self.go([nanochat(), nanochat(depth=6)], FakeRunner([{"outcome": "oom", "notes": "OutOfMemoryError"}]))
        self.assertEqual(self.table.rows()[-1]["outcome"], "oom")

    def test_what_dryfit_is_asked_about_a_row(self):
        machine = {**MACHINE, "torch": "2.11.0"}
        first = configurations.Configuration(kind="nanochat", hypothesis="x", nanochat="E1", depth=8, vocab_size=65536, alloc_conf="expandable_segments:False,max_split_size_mb:128")
        self.assertEqual(rows.flags(first, {**good(), "script_arguments": ["--depth=8", "--core_metric_every=1000"]}, machine),
                         "--gpu h100 --torch 2.11.0 --alloc-conf expandable_segments:False;max_split_size_mb:128 --nanochat E1 --vocab-size 65536 --attention flash "
                         "--phases load;validation;first_step;train_step;sampling -- python -m scripts.base_train --depth=8 --core_metric_every=1000")
        adapters = configurations.Configuration(kind="trainer", hypothesis="x", model="gpt2", device_batch_size=2, max_seq_len=64, dtype="autocast", lora=8, quantized="nf4-dq", checkpointing=True, compile=False)
        self.assertEqual(rows.flags(adapters, good(), machine), "--gpu h100 --torch 2.11.0 --model gpt2 --device-batch-size 2 --max-seq-len 64 --dtype bf16 --mixed bf16 --recompute full "
                         "-- python sft.py --per_device_train_batch_size 2 --use_peft True --lora_r 8 --lora_dropout 0.05 --load_in_4bit True --use_bnb_nested_quant True")
        self.assertEqual(rows.flags(adapters, {"outcome": "oom"}, machine), "")
        noisy = configurations.Configuration(kind="trainer", hypothesis="x", model="gpt2", max_seq_len=64, dtype="fp16", liger=True, compile=False, extra=("neftune_noise_alpha=5",))
        self.assertEqual(rows.flags(noisy, {**good(), "transformers": "5.17.0"}, machine), "--gpu h100 --torch 2.11.0 --transformers 5.17.0 --model gpt2 --device-batch-size 1 --max-seq-len 64 --dtype fp32 --mixed fp16 --liger 1 "
                         "-- python sft.py --per_device_train_batch_size 1 --neftune_noise_alpha 5")
        tuned = configurations.Configuration(kind="nanochat", hypothesis="x", nanochat="E7", depth=8, script="chat_sft", dtype="fp16")
        self.assertEqual(rows.flags(tuned, {**good(), "script_arguments": ["--device-batch-size=1"]}, machine),
                         "--gpu h100 --torch 2.11.0 --nanochat E7 --vocab-size 32768 --attention flash --depth 8 --window-pattern L --dtype fp16 -- python -m scripts.chat_sft --device-batch-size=1")
        self.assertEqual(rows.flags(nanochat(checkpointing=True), good(), machine), "")  # changed by hand: no flag says it
        compiled = configurations.Configuration(kind="trainer", hypothesis="x", model="gpt2", max_seq_len=64)
        self.assertEqual(rows.flags(compiled, good(), machine), "--gpu h100 --torch 2.11.0 --model gpt2 --device-batch-size 1 --max-seq-len 64 --dtype bf16 --compile 1")

    def test_a_trace_moves_beside_the_rows(self):
        source = pathlib.Path(self.folder.name) / "made.json.gz"
        source.write_bytes(b"x")
        self.go([nanochat(trace=True)], FakeRunner([{**good(), "trace": str(source)}]))
        self.assertEqual([p.name for p in self.table.traces.iterdir()], [f"{self.table.rows()[0]['id']}.json.gz"])
        self.assertFalse(source.exists())

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


class StepTime(unittest.TestCase):
    def test_what_the_meter_does_between_steps_is_in_none(self):
        clock = [0.0]

        def passes(seconds):
            clock[0] += seconds
            return clock[0]

        fake_torch, fake_time = types.ModuleType("torch"), types.SimpleNamespace(time=lambda: clock[0], perf_counter=lambda: clock[0])
        with unittest.mock.patch.dict(sys.modules, {"torch": fake_torch}):
            sys.modules.pop("job", None)
            import job
        with unittest.mock.patch.object(job, "time", fake_time):
            meter = job.Meter("cpu", None)
            meter.begin()
            meter.stage = lambda _name: passes(0.25)  # asks the driver
            for seconds in (9.0, 2.0, 0.016, 0.018):
                passes(seconds)
                meter.step_ended()
            self.assertAlmostEqual(meter.step_seconds(), 0.017)


class Traces(unittest.TestCase):
    def test_what_is_kept_of_a_snapshot(self):
        frames = [{"filename": f"/a/{n}.py", "line": n, "name": "f"} for n in range(7)]
        snapshot = {"device_traces": [[{"action": "alloc", "addr": 512, "size": 1000, "stream": 0, "time_us": 1_000_000, "frames": frames},
                                       {"action": "alloc", "addr": 2048, "size": 10, "stream": 7, "time_us": 2_000_000, "frames": frames},
                                       {"action": "free_completed", "addr": 512, "size": 1000, "stream": 0, "time_us": 3_000_000, "frames": []}]],
                    "segments": [{"address": 512, "total_size": 2097152, "stream": 0, "segment_type": "small", "is_expandable": True, "blocks": [{"size": 512, "state": "inactive"}]}]}
        with tempfile.TemporaryDirectory() as folder:
            traces.write(snapshot, [{"name": "load", "began": 0.5}, {"name": "train_step", "began": 1.5}], f"{folder}/t.json.gz")
            found = json.loads(gzip.decompress(pathlib.Path(f"{folder}/t.json.gz").read_bytes()))
        self.assertEqual(found["events"], [["alloc", 1000, 512, 0, 0], ["alloc", 10, 2048, 7, 0], ["free_completed", 1000, 512, 0, 1]])
        self.assertEqual(found["marks"], [["load", 0], ["train_step", 1]])
        self.assertEqual(found["frames"], ["/a/0.py:0 f < /a/1.py:1 f < /a/2.py:2 f < /a/3.py:3 f < /a/4.py:4 f", ""])
        self.assertEqual(found["segments"], [{"address": 512, "total_size": 2097152, "stream": 0, "type": "small", "expandable": True, "blocks": [[512, "inactive"]]}])


if __name__ == "__main__":
    unittest.main()
