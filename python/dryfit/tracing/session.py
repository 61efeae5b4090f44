"""Runs a training script, or a function, on a GPU that is not there, and returns what it allocated. The process is given up to it: torch's own
functions are replaced and stay so.
"""
from __future__ import annotations

import contextlib
import os
import runpy
import sys
import threading

import torch
import torch.utils._foreach_utils as foreach_utils
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim import optimizer as optimizers
from torch.utils._pytree import tree_flatten, tree_map

from dryfit.tracing import bodies, files, form, imports, launchers, parameters, pretend
from dryfit.tracing.compiler import Compiler
from dryfit.tracing.mode import GpuMode
from dryfit.tracing.recorder import Enough, Recorder
from dryfit.tracing.recurrent import Recurrent
from dryfit.tracing.values import Answers


class _OnHost(type):
    """Of torch.Generator, wherever it is to be."""

    def __instancecheck__(cls, thing):
        return isinstance(thing, torch._C.Generator)


class Session:
    """One script. `gpu`: properties (pretend.gpu). `predict`: text of a capture -> (allocated, reserved) peaks in bytes, for scripts that print them.
    `launched`: by torchrun, which tells a script its rank even where it is alone. `told`: how many GPUs was said, and no launcher's file says otherwise."""

    def __init__(self, gpu, gpus=1, steps=3, workspace=8519680, predict=None, launched=False, told=False):
        self.gpu, self.gpus, self.predict, self.told = gpu, gpus, predict, told
        self.answers = Answers()
        self.recorder = Recorder(steps, workspace)
        self.fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.recurrent = Recurrent()
        self.mode = GpuMode(self.fake_mode, self.answers, self.recurrent)
        self.compiler = Compiler(gpu, self.fake_mode, self.recorder)
        self.notes, self._predicted = [], (-1, None)
        self._threads = []
        self._answer(launched)

    # -- what scripts call

    def _answer(self, launched):
        pretend.answer(self.gpu, devices=max(1, self.gpus), index=0)
        imports.install()
        bodies.start_no_kernels()
        parameters.install()
        for module in (optimizers, foreach_utils):
            if FakeTensor not in module._foreach_supported_types:
                module._foreach_supported_types.append(FakeTensor)
        self._answer_memory()
        self._answer_tensors()
        self._answer_training()
        self.recurrent.install()
        files.install(lambda name: self.notes.append(f"{name} was not written: what a script saves of the GPU has no values"))
        self._answer_data()
        self.compiler.install()
        self._answer_processes()
        if self.gpus > 1 or launched:
            self._answer_distributed()

    def _answer_memory(self):
        cuda, recorder = torch.cuda, self.recorder

        def peaks(device=None):
            return self._peaks()

        def reset(device=None):
            recorder.poll()
            recorder.reset_at = len(recorder.events)

        def live(device=None):
            recorder.poll()
            return recorder.live
        cuda.max_memory_allocated = lambda device=None: peaks()[0]
        cuda.max_memory_reserved = cuda.max_memory_cached = lambda device=None: peaks()[1]
        cuda.memory_allocated = live
        cuda.memory_reserved = cuda.memory_cached = lambda device=None: max(live(), peaks()[1])
        cuda.reset_peak_memory_stats = cuda.reset_max_memory_allocated = cuda.reset_accumulated_memory_stats = reset
        cuda.mem_get_info = lambda device=None: (max(0, self.gpu.total_memory - peaks()[1]), self.gpu.total_memory)
        cuda.memory_stats = lambda device=None: {"allocated_bytes.all.current": live(), "allocated_bytes.all.peak": peaks()[0], "reserved_bytes.all.current": peaks()[1], "reserved_bytes.all.peak": peaks()[1], "num_ooms": 0, "num_alloc_retries": 0}
        cuda.memory_summary = lambda device=None, abbreviated=False: f"captured by dryfit: {live()} bytes allocated, {peaks()[0]} at most\n"
        for name in ("get_allocator_backend",):
            setattr(cuda, name, lambda: "native")
        for module in (cuda.memory,):
            for name in ("max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved", "reset_peak_memory_stats", "mem_get_info", "memory_stats"):
                setattr(module, name, getattr(cuda, name))

    def _peaks(self):
        """(allocated, reserved) as the two max_memory functions would print them now."""
        recorder = self.recorder
        recorder.poll()
        if recorder.reset_at:
            most = max((e.live for e in recorder.events[recorder.reset_at - 1:]), default=recorder.live)
            reserved = self._whole()[1]
            return (most, max(most, reserved))
        return self._whole()

    def _whole(self):
        recorder = self.recorder
        if self._predicted[0] != len(recorder.events):
            found = self.predict(self.text()) if self.predict and recorder.events else None
            self._predicted = (len(recorder.events), found or (recorder.peak, recorder.peak))
        return self._predicted[1]

    def _answer_tensors(self):
        answers, make = self.answers, torch.tensor

        def tensor(data, *, dtype=None, device=None, requires_grad=False, pin_memory=False):
            if device is not None and torch.device(device).type == "cuda" and torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:  # Inductor's own
                return torch.full((), data, dtype=dtype, device=device) if not isinstance(data, (list, tuple)) else torch.empty(make(data).shape, dtype=dtype or make(data).dtype, device=device)
            result = make(data, dtype=dtype)
            if device is not None:
                result = result.to(device)
            return result.requires_grad_(requires_grad) if requires_grad else result

        torch.tensor = tensor
        torch.Tensor.new_tensor = lambda self, data, *, dtype=None, device=None, requires_grad=False: tensor(data, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)
        for name in ("asarray", "as_tensor"):
            def moved(data, *args, _own=getattr(torch, name), device=None, **options):
                result = _own(data, *args, **options)
                return result if device is None else result.to(device)
            setattr(torch, name, moved)
        torch.Tensor.pin_memory = lambda self, device=None: self
        torch.Tensor.is_pinned = lambda self, device=None: False
        torch.Tensor.record_stream = lambda self, s=None, stream=None: None
        for owner in (torch, torch.Tensor):
            def isfinite(value, _own=owner.isfinite):
                result = _own(value)
                return answers.finite(result) if isinstance(result, FakeTensor) else result
            owner.isfinite = isfinite
        tolist, numpy = torch.Tensor.tolist, torch.Tensor.numpy

        def host(value):
            result = answers.host(value)
            if result is None:
                raise RuntimeError("more than 16 million values of the GPU were asked for on the host; a capture has none")
            return result
        torch.Tensor.tolist = FakeTensor.tolist = lambda self: tolist(host(self) if isinstance(self, FakeTensor) else self)  # a fake's own goes element by element
        torch.Tensor.numpy = lambda self, **options: numpy(host(self) if isinstance(self, FakeTensor) else self, **options)
        torch.Tensor.__array__ = lambda self, dtype=None, **_o: (lambda a: a if dtype is None else a.astype(dtype))(self.detach().numpy())
        FakeTensor.__format__ = lambda self, how: format(self.item(), how) if self.dim() == 0 and how else object.__format__(self, "")
        torch.Generator = _OnHost("Generator", (), {"__new__": lambda cls, device="cpu": torch._C.Generator("cpu")})

        load = torch.load

        def load_on_host(file, map_location=None, **options):
            result = load(file, map_location="cpu", **options)
            wanted = map_location if isinstance(map_location, (str, torch.device)) else None
            if wanted is None or torch.device(wanted).type != "cuda":
                return result
            return tree_map(lambda t: t.to(wanted) if isinstance(t, torch.Tensor) else t, result)
        torch.load = load_on_host

    def _answer_training(self):
        recorder, answers = self.recorder, self.answers
        call = torch.nn.Module.__call__

        def module_call(module, *args, **kwargs):
            if torch.compiler.is_dynamo_compiling():
                return call(module, *args, **kwargs)
            return recorder.call(call, module, args, kwargs)
        module_call.__name__ = call.__name__  # by which Dynamo knows it
        torch.nn.Module.__call__ = module_call

        for owner, name in ((torch.autograd, "backward"), (torch.autograd, "grad")):
            def outer(*args, _own=getattr(owner, name), **kwargs):
                if torch._C._current_autograd_node() is not None or torch._guards.TracingContext.try_get() is not None:  # a checkpoint in a backward pass; a graph that is being traced
                    return _own(*args, **kwargs)
                recorder.backward_begins([t for t in tree_flatten(args[:1])[0] if isinstance(t, torch.Tensor)])
                try:
                    return _own(*args, **kwargs)
                finally:
                    recorder.backward_ends()
            setattr(owner, name, outer)
        optimizers.register_optimizer_step_pre_hook(lambda optimizer, *_: recorder.optimizer_begins(optimizer))
        optimizers.register_optimizer_step_post_hook(lambda optimizer, *_: recorder.optimizer_ends(optimizer))
        scaler = torch.amp.grad_scaler.GradScaler
        for name in ("_maybe_opt_step", "unscale_", "update"):
            def known(self, *args, _own=getattr(scaler, name), **kwargs):
                answers.quiet += 1  # found_inf is 0: nothing overflows
                try:
                    return _own(self, *args, **kwargs)
                finally:
                    answers.quiet -= 1
            setattr(scaler, name, known)

    def _answer_data(self):
        loader = torch.utils.data.DataLoader
        init, notes = loader.__init__, self.notes

        def in_this_process(self, *args, **options):
            if options.get("num_workers"):
                notes.append("DataLoader workers were left out: batches were made in the script's own process")
            options.update(num_workers=0, pin_memory=False)
            for name in ("prefetch_factor", "persistent_workers", "multiprocessing_context", "timeout"):
                options.pop(name, None)
            init(self, *args[:5], **options) if len(args) > 5 else init(self, *args, **options)
        loader.__init__ = in_this_process
        os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")  # from_pretrained of transformers 5 reads in threads, in an order of chance
        start, mode = threading.Thread.run, self.mode

        def on_the_gpu(thread):
            """A script's own thread that loads what comes next: it sees the GPU too; what it makes there is not followed."""
            with bodies.under([mode]):
                start(thread)
        threading.Thread.run = on_the_gpu

    def _answer_processes(self):
        """torch.distributed, for scripts that start their processes themselves: the first of them is this one."""
        import torch.distributed as dist
        import torch.multiprocessing as multiprocessing
        real = dist.init_process_group

        def init(backend=None, *_args, **_options):
            from dryfit.tracing import group
            if not dist.is_initialized():
                real("fake", rank=0, world_size=self.gpus, store=group.FakeStore())

        def spawn(function, args=(), nprocs=1, **_options):
            if nprocs > 1:
                self.gpus = nprocs
                self._answer_distributed()
            self.notes.append(f"of the {nprocs} processes that the script starts, the first was run, in the script's own process")
            function(0, *args)
        dist.init_process_group = dist.distributed_c10d.init_process_group = init
        multiprocessing.spawn = spawn
        launchers.install(self._world)

    def _world(self, gpus):
        """A launcher starts so many processes: this one is the first."""
        if not self.told:
            self.gpus = gpus
        self._answer_distributed()

    def _answer_distributed(self):
        import torch.distributed as dist
        from dryfit.tracing import group
        for name, value in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", self.gpus), ("LOCAL_WORLD_SIZE", self.gpus), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", 29500)):
            os.environ[name] = str(value)
        if dist.Reducer is group.Reducer:
            return
        group.draw_without_values()
        ddp = torch.nn.parallel.DistributedDataParallel
        dist.Reducer = group.Reducer
        own = ddp.__init__

        def ddp_init(self, module, *args, **options):
            own(self, module, *args, **{**options, "init_sync": False})
            self.register_comm_hook(None, group.sums)
        ddp.__init__ = ddp_init

    # -- the run

    @contextlib.contextmanager
    def watched(self):
        with self.mode, self.recorder:
            yield

    def run(self, function):
        """Calls it until it returns or has made its optimizer steps; what it raises otherwise is the caller's."""
        with self.watched():
            try:
                function()
            except Enough:
                pass
            except SystemExit as stop:
                if stop.code not in (None, 0):
                    raise
            finally:
                if self.recorder.stepped:  # the script ended behind its last step
                    self.recorder.steps += 1
                    self.recorder.last_micro = self.recorder.micro
                self.recorder.poll()

    def text(self):
        recorder = self.recorder
        recorder.settle()
        notes = [*dict.fromkeys(self.notes), *self.compiler.notes(), *self.recurrent.notes(), *self.answers.notes()]
        notes += [f"what {name} allocates inside is not seen, as its code did not run: {why}" for name, why in bodies.failed.items()]
        if recorder.convolved:
            notes.append("the workspaces that cuDNN takes for convolutions are not seen: they come on top, and more of them where torch.backends.cudnn.benchmark is on")
        if recorder.skipped:
            notes.append(f"{recorder.skipped} forward passes without gradients, of shapes seen before, were not run again")
        conf = os.environ.get("PYTORCH_ALLOC_CONF") if torch.__version__ >= "2.10" else None
        return form.text(
            recorder, script=" ".join(sys.argv), torch=torch.__version__.split("+")[0], gpu=self.gpu.name, capability=f"{self.gpu.major}.{self.gpu.minor}", gpus=self.gpus,
            alloc_conf=[c for c in [conf or os.environ.get("PYTORCH_CUDA_ALLOC_CONF")] if c], compile=self.compiler.how(), parameters=recorder.parameters,
            steps=recorder.steps, micro_steps=recorder.last_micro or recorder.micro, note=notes)


def target(settings):
    """A function that runs what SETTINGS names as Python would: `train.py --flag`, `-m package.module --flag`, or a function of a file."""
    words = settings["words"]
    if settings["function"]:
        file, name = settings["function"]

        def go():
            sys.argv = [file]
            sys.path.insert(0, os.path.dirname(file))
            found = runpy.run_path(file, run_name="dryfit_captured")
            function = found[name.split(".")[0]]
            for part in name.split(".")[1:]:
                function = getattr(function, part)
            function()
    elif settings["program"]:
        def go():
            launchers.program(settings["program"])
    else:
        def go():
            launchers.script(words)
    return go
