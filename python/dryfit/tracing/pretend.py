"""Makes torch believe in a GPU that is not there: answers for its C++ guards (shim/) and for torch.cuda. No kernel runs, no memory is taken.

`load(...)` before torch is imported, `answer(...)` after. Knows nothing of tensors, models or recordings; tools/oracle uses it too.
"""
from __future__ import annotations

import contextlib
import ctypes
import pathlib
import sys
import types

HERE = pathlib.Path(__file__).absolute().parent

class Properties(types.SimpleNamespace):
    """A GPU's, as torch.cuda.get_device_properties gives them."""


# What Inductor's heuristics read (an H100 SXM's cudaDeviceProp).
H100 = Properties(
    name="NVIDIA H100 80GB HBM3", major=9, minor=0, multi_processor_count=132, total_memory=85029158912, warp_size=32,
    regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048, max_threads_per_block=1024, shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448, shared_memory_per_multiprocessor=233472, L2_cache_size=52428800, gcnArchName="",
    is_integrated=0, is_multi_gpu_board=0, uuid="none")


class NotPossible(RuntimeError):
    """This process cannot pretend; args: message, hint."""


def gpu(name, capability, memory):
    """Properties of a GPU: its name, (major, minor) and bytes; what else a program may read is an H100's."""
    return Properties(**{**vars(H100), "name": name, "major": capability[0], "minor": capability[1], "total_memory": memory})


def load(properties, folder=HERE):
    """Puts the shims in front of the CUDA libraries that torch will load: symbols of what is loaded first, for all, win."""
    if not sys.platform.startswith("linux"):
        raise NotPossible("capturing needs Linux", "run it in a container or on the machine that will train; `dryfit check` works everywhere")
    if "torch" in sys.modules:
        raise NotPossible("torch is imported already", "start the script through it: python -m dryfit.capture -- train.py")
    libraries = []
    for name in ("libcuda.so.1", "libdryfit_cudart.so"):
        path = pathlib.Path(folder) / name
        if not path.exists():
            raise NotPossible(f"{name} is missing in {folder}", "it comes with `pip install .`; from source: build the target _engine")
        libraries.append(ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL))
    libraries[1].dryfit_pretend(properties.name.encode(), properties.major, properties.minor, properties.multi_processor_count, ctypes.c_ulong(properties.total_memory))


class Stream:
    """A stream; also the context in which it is the current one. Work never waits; allocations tell which stream they belong to."""

    current = 0
    _count = 0
    cuda_stream = 0
    device_index = 0

    def __init__(self, *_args, **_options):
        Stream._count += 1
        self.number = Stream._count
        self._before = []

    @property
    def device(self):
        import torch
        return torch.device("cuda", 0)

    def __enter__(self):
        self._before.append(Stream.current)
        Stream.current = self.number
        return self

    def __exit__(self, *_error):
        Stream.current = self._before.pop()
        return False

    def record_event(self, event=None):
        return event or Event()

    def wait_event(self, event):
        pass

    wait_stream = wait_event

    def synchronize(self):
        pass

    def query(self):
        return True


class Event:
    """Has happened."""

    def __init__(self, *_args, **_options):
        pass

    def record(self, stream=None):
        return self

    def wait(self, stream=None):
        pass

    def synchronize(self):
        pass

    def query(self):
        return True

    def elapsed_time(self, _end):
        return 1.0


def nothing():
    """A function that does nothing; a new one each time, as Dynamo keeps one rule per function."""
    return lambda *_args, **_kwargs: None


def _default_stream():
    stream = Stream.__new__(Stream)
    stream.number, stream._before = 0, []
    return stream


def _current_stream(device=None):
    stream = _default_stream()
    stream.number = Stream.current
    return stream


def answer(properties, devices=1, index=0):
    """torch.cuda's functions, as `properties` would answer them. Memory's are the caller's to add."""
    import torch
    import torch._subclasses.fake_tensor as fake_tensor
    import torch.cuda.random as cuda_random

    cuda = torch.cuda
    cuda.is_available = lambda: True
    cuda.is_initialized = lambda: True
    cuda.device_count = lambda: devices
    cuda.current_device = lambda: index
    for name in ("set_device", "synchronize", "_lazy_init", "empty_cache"):
        setattr(cuda, name, nothing())
    cuda.get_device_properties = lambda device=None: properties
    cuda.get_device_capability = lambda device=None: (properties.major, properties.minor)
    cuda.get_device_name = lambda device=None: properties.name
    cuda.is_bf16_supported = lambda *_a, **_k: properties.major >= 8
    cuda.current_stream = _current_stream
    cuda.default_stream = lambda device=None: _default_stream()
    cuda.Stream, cuda.Event, cuda.stream = Stream, Event, lambda stream: stream or contextlib.nullcontext()
    cuda._exchange_device = lambda device: index
    cuda._maybe_exchange_device = lambda device: index
    state = torch.zeros(16, dtype=torch.uint8)
    for module in (cuda, cuda_random):
        module.get_rng_state = lambda device=None: state
        module.get_rng_state_all = lambda: [state] * devices
        for name in ("set_rng_state", "set_rng_state_all", "manual_seed", "manual_seed_all", "seed", "seed_all"):
            setattr(module, name, nothing())
    c = torch._C
    c._cuda_getCurrentRawStream = lambda index: 0
    c._cuda_getDevice = lambda: index
    c._cuda_setDevice = nothing()
    c._cuda_exchangeDevice = lambda device: index
    c._cuda_maybeExchangeDevice = lambda device: index
    fake_tensor.init_gpu_context = nothing()  # would allocate a real tensor
