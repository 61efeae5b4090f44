"""nanochat's own scripts/base_train.py, whole and unmodified, on random text, measured. See job.py for how it is run.

chat_sft likewise, on the checkpoint that one step of base_train wrote before it, in a process of its own. The checkout's folder comes in NANOCHAT_DIR. Its data folder is made here: two files of text, a table of token lengths. Stood in for are the tokenizer,
the checkpoint's writing, the questions of the CORE evaluation (passes of chosen lengths instead), and packages that it imports and does not need here.
"""
import dataclasses
import json
import os
import pathlib
import random
import re
import runpy
import subprocess
import sys
import tempfile
import types

CHECKOUT = pathlib.Path(os.environ.get("NANOCHAT_DIR", ".")).resolve()
SCRIPT = CHECKOUT / "scripts" / f"{json.loads(sys.argv[1]).get('script', 'base_train') if len(sys.argv) > 1 else 'base_train'}.py"
KEPT = "MEASURED_CHECKPOINT"  # where a run of this job that only writes the checkpoint for another puts it


def set_as_the_script_does():
    """The allocator's settings, which it writes before it imports torch: here torch is there first."""
    if SCRIPT.exists():
        os.environ.update(re.findall(r'^os\.environ\["(PYTORCH_\w+)"\] = "(.*)"', SCRIPT.read_text(encoding="utf-8"), re.MULTILINE))


set_as_the_script_does()

import torch  # noqa: E402

import job  # noqa: E402

EVALUATIONS = ((1, 256), (4, 512), (4, 1024), (4, 2048))  # sequences, tokens


class Tokenizer:
    """Four characters a token, tokens at random."""

    def __init__(self, vocab_size):
        self.vocab_size, self.random = vocab_size, random.Random(1)

    def get_vocab_size(self):
        return self.vocab_size

    def get_bos_token_id(self):
        return 0

    def encode_special(self, _text):
        return 1

    def encode(self, text, prepend=None, append=None, num_threads=None):
        if isinstance(text, list):
            return [self.encode(t, prepend, append) for t in text]
        tokens = [self.random.randrange(2, self.vocab_size) for _ in range(max(1, len(text) // 4))]
        return ([0] if prepend is not None else []) + tokens + ([0] if append is not None else [])

    __call__ = encode

    def render_conversation(self, _conversation, max_tokens=2048):
        """Ids and a mask that has the answers only."""
        length = self.random.randrange(20, 1200)
        ids = [self.random.randrange(2, self.vocab_size) for _ in range(min(length, max_tokens))]
        return ids, [int(i >= length // 3) for i in range(len(ids))]

    def decode(self, tokens):
        return " ".join(map(str, tokens))


def flags(configuration):
    """The script's arguments, with dashes; -1 switches off."""
    c = configuration
    if c.script == "chat_sft":
        return {"device-batch-size": c.device_batch_size, "max-seq-len": c.max_seq_len, "total-batch-size": c.total_batch_size(), "num-iterations": c.steps,
                "eval-every": 1000 if c.validate else -1, "eval-tokens": 2 * c.device_batch_size * c.max_seq_len * c.gpus, "chatcore-every": -1}
    out = {"depth": c.depth, "device-batch-size": c.device_batch_size, "max-seq-len": c.max_seq_len, "total-batch-size": c.total_batch_size(), "num-iterations": c.steps,
           "eval-every": 1000 if c.validate else -1, "eval-tokens": 2 * c.device_batch_size * c.max_seq_len * c.gpus, "core-metric-every": 1000 if c.evaluate else -1,
           "sample-every": 1000 if c.validate else -1, "window-pattern": c.window_pattern}
    return out | ({"fp8": True} if c.fp8 else {})


def arguments(configuration, script):
    """As the script of that version takes them: one with dashes, or the first one's, which has no windows and switches nothing off."""
    given = flags(configuration)
    for name, unsaid in (("window-pattern", "L"), ("chatcore-every", -1)):
        if given.get(name) == unsaid and name.replace("-", "_") not in script and name not in script:
            del given[name]
    if "argparse" not in script:
        given = {name.replace("-", "_"): 1000 if value == -1 else value for name, value in given.items()}
    elif "--device-batch-size" not in script:
        given = {name.replace("-", "_"): value for name, value in given.items()}
    return [*("--" + name if value is True else f"--{name}={value}" for name, value in given.items()), *configuration.extra]


def make_data(folder, vocab_size):
    import pyarrow
    import pyarrow.parquet
    source = random.Random(2)
    for name in ("base_data", "base_data_climbmix"):
        (folder / name).mkdir()
        for shard in range(2):
            texts = ["x" * source.randrange(400, 16000) for _ in range(2000)]
            pyarrow.parquet.write_table(pyarrow.table({"text": texts}), folder / name / f"shard_{shard:05d}.parquet", row_group_size=500)
    (folder / "tokenizer").mkdir()
    torch.save(torch.full((vocab_size,), 4, dtype=torch.int32), folder / "tokenizer" / "token_bytes.pt")


class Task:
    """Of the package `tasks`, any: as many conversations as one likes."""

    def __init__(self, *_args, **_kwargs):
        pass

    def __len__(self):
        return 20000

    def __getitem__(self, _index):
        return {"messages": []}


def task_named(name):
    if name.startswith("_"):
        raise AttributeError(name)
    return Task


def stand_in_tasks():
    for path in (CHECKOUT / "tasks").glob("*.py"):
        if path.stem != "common":
            module = types.ModuleType(f"tasks.{path.stem}")
            module.__getattr__ = task_named
            sys.modules[module.__name__] = module


def stand_in(configuration, meter):
    """What the script imports and this process has not, and where phases begin."""
    for name in ("wandb", "rustbpe"):
        sys.modules.setdefault(name, types.ModuleType(name))
    stand_in_tasks()
    import nanochat.checkpoint_manager
    import nanochat.core_eval
    import nanochat.loss_eval
    import nanochat.tokenizer
    tokenizer = Tokenizer(configuration.vocab_size)
    nanochat.tokenizer.get_tokenizer = lambda: tokenizer
    nanochat.checkpoint_manager.get_tokenizer = nanochat.tokenizer.get_tokenizer
    if KEPT not in os.environ:
        nanochat.checkpoint_manager.save_checkpoint = lambda *_args, **_kwargs: None
    import scripts.base_eval

    def evaluate(model, *_args, **_kwargs):
        meter.next("")
        for rows, length in EVALUATIONS if configuration.evaluate else ():
            ids = torch.randint(0, configuration.vocab_size, (rows, length), device=meter.device)
            nanochat.core_eval.forward_model(model, ids)
            del ids
            meter.next(f"evaluation {rows} x {length}")
        return {"core_metric": 0.0, "centered_results": {}}

    for name in ("evaluate_core", "evaluate_model"):
        if hasattr(scripts.base_eval, name):
            setattr(scripts.base_eval, name, evaluate)

    real_bpb = nanochat.loss_eval.evaluate_bpb

    def evaluate_bpb(*args, **kwargs):
        meter.next("")
        found = real_bpb(*args, **kwargs)
        meter.next("validation")
        return found

    nanochat.loss_eval.evaluate_bpb = evaluate_bpb
    real_compile, real_zero = torch.compile, torch.nn.Module.zero_grad

    def compile_model(*args, **kwargs):
        if args and isinstance(args[0], torch.nn.Module):
            meter.next("load")
        return real_compile(*args, **kwargs)

    def zero_grad(model, *args, **kwargs):
        real_zero(model, *args, **kwargs)
        meter.step_ended()

    torch.compile, torch.nn.Module.zero_grad = compile_model, zero_grad


def write_checkpoint(configuration, folder):
    """One step of base_train in a process of its own, its checkpoint and its data in `folder`."""
    first = dataclasses.replace(configuration, script="base_train", extra=(), trace=False, validate=False, evaluate=False, steps=1, grad_accum_steps=1, device_batch_size=1)
    subprocess.run([sys.executable, __file__, json.dumps(dataclasses.asdict(first)), f"{folder}/first.json", "unknown"], check=True, stdout=sys.stderr, env={**os.environ, KEPT: folder, "TORCHDYNAMO_DISABLE": "1"})


def run(configuration, meter):
    os.chdir(CHECKOUT)
    sys.path.insert(0, str(CHECKOUT))
    with tempfile.TemporaryDirectory() as own:
        folder = os.environ.get(KEPT, own)
        os.environ["NANOCHAT_BASE_DIR"] = folder
        if configuration.script == "base_train":
            make_data(pathlib.Path(folder), configuration.vocab_size)
        else:
            write_checkpoint(configuration, folder)
        stand_in(configuration, meter)
        sys.argv = [configuration.script, *arguments(configuration, SCRIPT.read_text(encoding="utf-8"))]
        meter.extra["script_arguments"] = sys.argv[1:]
        meter.begin()
        if meter.on_gpu:
            torch.empty(1, device="cuda")
        meter.stage("context")
        found = runpy.run_module(f"scripts.{configuration.script}", run_name="__main__")
        meter.next("end")
        meter.extra["alloc_conf"] = {name: value for name, value in os.environ.items() if name.startswith("PYTORCH_")}
        meter.extra["attention"] = "fa3" if found.get("using_fa3", found.get("HAS_FA3", "flash_attn_interface" in sys.modules)) else "sdpa"


if __name__ == "__main__":
    sys.exit(job.main(run))
