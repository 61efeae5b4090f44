"""One training run of a nanochat checkout with random weights and synthetic tokens, measured. See job.py for how it is run.

The checkout's folder comes in NANOCHAT_DIR. Model, optimizer, loss and loops are nanochat's own; the loop around them follows its
scripts/base_train.py: accumulation, optimizer step, zero_grad, then what the configuration asks for.
"""
import contextlib
import importlib
import inspect
import os
import sys
import time

import torch

import job

sys.path.insert(0, os.environ.get("NANOCHAT_DIR", "."))


class Training:
    def __init__(self, configuration, meter):
        self.c, self.meter = configuration, meter
        self.gpt = importlib.import_module("nanochat.gpt")
        self._attention()
        script = os.path.join(os.path.dirname(os.path.dirname(self.gpt.__file__)), "scripts", "base_train.py")
        with open(script, encoding="utf-8") as source:
            self.clips = "clip_grad_norm_" in source.read()  # until January 2026
        old = "weight.to" not in (inspect.getsource(self.gpt.Linear) if hasattr(self.gpt, "Linear") else "")
        self.autocast = (lambda: torch.amp.autocast(meter.device, dtype=torch.bfloat16)) if old else contextlib.nullcontext

    def _attention(self):
        with contextlib.suppress(ModuleNotFoundError):
            module = importlib.import_module("nanochat.flash_attention")
            if self.c.attention == "sdpa":
                module.USE_FA3 = module.HAS_FA3 = False
            self.meter.extra["attention"] = "fa3" if getattr(module, "USE_FA3", module.HAS_FA3) else "sdpa"

    def build(self):
        width = -(-self.c.depth * 64 // 128) * 128
        settings = dict(sequence_len=self.c.max_seq_len, vocab_size=self.c.vocab_size, n_layer=self.c.depth, n_head=width // 128, n_kv_head=width // 128, n_embd=width)
        if "window_pattern" in inspect.signature(self.gpt.GPTConfig).parameters:
            settings["window_pattern"] = self.c.window_pattern
        with torch.device("meta"):
            model = self.gpt.GPT(self.gpt.GPTConfig(**settings))
        model.to_empty(device=self.meter.device)
        model.init_weights()
        if self.c.fp8:
            fp8 = importlib.import_module("nanochat.fp8")
            fits = lambda m, _n: isinstance(m, torch.nn.Linear) and m.in_features % 16 == 0 == m.out_features % 16 and min(m.in_features, m.out_features) >= 128  # noqa: E731
            fp8.convert_to_float8_training(model, config=fp8.Float8LinearConfig.from_recipe_name("tensorwise"), module_filter_fn=fits)
        self.plain = model
        self.model = torch.compile(model, dynamic=False) if self.c.compile else model
        if hasattr(model, "setup_optimizer"):
            self.optimizers = [model.setup_optimizer()]
        else:
            self.optimizers = model.setup_optimizers()

    def batch(self):
        """Random tokens in one buffer on the device, as nanochat's loader keeps them."""
        n = self.c.device_batch_size * self.c.max_seq_len
        buffer = torch.randint(0, self.c.vocab_size, (2 * n,), device=self.meter.device)
        shape = (self.c.device_batch_size, self.c.max_seq_len)
        return buffer[:n].view(shape), buffer[n:].view(shape)

    def step(self):
        x, y = self.data
        for _ in range(self.c.grad_accum_steps):
            with self.autocast():
                loss = self.model(x, y)
            (loss / self.c.grad_accum_steps).backward()
        if self.clips:
            torch.nn.utils.clip_grad_norm_(self.plain.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.plain.zero_grad(set_to_none=True)
        return loss.item()

    def evaluate(self, rows, length):
        core_eval = importlib.import_module("nanochat.core_eval")
        ids = torch.randint(0, self.c.vocab_size, (rows, length), device=self.meter.device)
        with self.autocast():
            core_eval.forward_model(self.plain, ids)


def run(configuration, meter):
    if configuration.dtype == "fp32":
        os.environ["NANOCHAT_DTYPE"] = "float32"
    if configuration.gpus > 1:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group("nccl")
        torch.distributed.barrier()
    if meter.on_gpu:
        torch.empty(1, device="cuda")
    meter.stage("context")
    training = Training(configuration, meter)
    with meter.phase("load"):
        training.build()
        training.data = training.batch()
    with meter.phase("first_step"):
        training.step()
    with meter.phase("second_step"):
        training.step()
    with meter.phase("train_step"):
        began = time.perf_counter()
        for _ in range(configuration.steps):
            training.step()
        meter.step_seconds = (time.perf_counter() - began) / configuration.steps
    if configuration.snapshot:
        with meter.phase("snapshot_step"):
            meter.summarise_step(training.step)
    if configuration.validate:
        with meter.phase("validation"), torch.no_grad(), training.autocast():
            training.model(*training.data, loss_reduction="none")
    if configuration.evaluate:
        for rows, length in ((1, 256), (4, 512), (4, 1024), (4, 2048)):
            with meter.phase(f"evaluation {rows} x {length}"):
                training.evaluate(rows, length)
    if configuration.gpus > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(job.main(run))
