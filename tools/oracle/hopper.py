"""Makes torch believe in one H100 that is not there, so that models trace and compile under FakeTensorMode without a GPU.

Import it before anything touches torch.cuda; needs the two shims of shim/ (record.sh builds and preloads them). Nothing here runs a
kernel: Inductor stops after it has written its wrapper, and hands the text to whoever asked (`take_wrapper`).
"""
import os
import sys
import types

os.environ["TORCHINDUCTOR_FX_GRAPH_CACHE"] = "0"
os.environ["TORCHINDUCTOR_AUTOGRAD_CACHE"] = "0"
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

import torch  # noqa: E402
import torch._dynamo.device_interface as device_interface  # noqa: E402
import torch._inductor.codegen.triton as codegen_triton  # noqa: E402
import torch._inductor.config as inductor_config  # noqa: E402
import torch._inductor.fx_passes.fuse_attention as fuse_attention  # noqa: E402
import torch._inductor.fx_passes.joint_graph as joint_graph  # noqa: E402
import torch._inductor.fx_passes.misc_patterns as misc_patterns  # noqa: E402
import torch._inductor.fx_passes.pad_mm as pad_mm  # noqa: E402
import torch._inductor.graph as inductor_graph  # noqa: E402
import torch._inductor.scheduler  # noqa: E402,F401
import torch._subclasses.fake_tensor as fake_tensor  # noqa: E402
import torch.cuda.random as cuda_random  # noqa: E402
import torch.utils._triton as torch_triton  # noqa: E402
import triton.runtime.driver  # noqa: E402,F401
from triton.backends.compiler import GPUTarget  # noqa: E402

# What Inductor's heuristics read (an H100 SXM's cudaDeviceProp).
H100 = types.SimpleNamespace(
    name="NVIDIA H100 80GB HBM3", major=9, minor=0, multi_processor_count=132, total_memory=85029158912, warp_size=32,
    regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048, max_threads_per_block=1024, shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448, shared_memory_per_multiprocessor=233472, L2_cache_size=52428800, gcnArchName="",
    is_integrated=0, is_multi_gpu_board=0, uuid="none")


class _Stream:
    """The default stream; also a context in which nothing changes."""
    cuda_stream = 0
    device_index = 0
    device = torch.device("cuda", 0)

    def __init__(self, *_args, **_kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        return False

    def record_event(self, event=None):
        return event or _Event()

    def wait_event(self, event):
        pass

    wait_stream = wait_event

    def synchronize(self):
        pass


class _Event:
    """Has happened."""

    def __init__(self, *_args, **_kwargs):
        pass

    def record(self, stream=None):
        return self

    def synchronize(self):
        pass

    def query(self):
        return True


def _nothing():
    """A function that does nothing; a new one each time, as Dynamo keeps one rule per function."""
    return lambda *_args, **_kwargs: None


def _answer_torch_cuda():
    cuda = torch.cuda
    cuda.is_available = lambda: True
    cuda.is_initialized = lambda: True
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: 0
    for name in ("set_device", "synchronize", "_lazy_init", "empty_cache"):
        setattr(cuda, name, _nothing())
    cuda.get_device_properties = lambda device=None: H100
    cuda.get_device_capability = lambda device=None: (H100.major, H100.minor)
    cuda.get_device_name = lambda device=None: H100.name
    cuda.is_bf16_supported = lambda *_a, **_k: True
    cuda.current_stream = lambda device=None: _Stream()
    cuda.Stream, cuda.Event, cuda.stream = _Stream, _Event, lambda stream: stream
    cuda._exchange_device = lambda device: 0
    cuda._maybe_exchange_device = lambda device: 0
    state = torch.zeros(16, dtype=torch.uint8)
    for module in (cuda, cuda_random):
        module.get_rng_state = lambda *_a: state
        module.set_rng_state = _nothing()
    c = torch._C
    c._cuda_getCurrentRawStream = lambda index: 0
    c._cuda_getDevice = lambda: 0
    c._cuda_setDevice = _nothing()
    c._cuda_exchangeDevice = lambda device: 0
    c._cuda_maybeExchangeDevice = lambda device: 0
    fake_tensor.init_gpu_context = _nothing()  # would allocate a real tensor
    real_tensor = torch.tensor  # with a number and a GPU it would really copy; `full` is faked

    def tensor(data, *, device=None, **options):
        if device is None or torch.device(device).type != "cuda":
            return real_tensor(data, device=device, **options)
        if isinstance(data, list):
            host = real_tensor(data, **options)
            return torch.empty(host.shape, dtype=host.dtype, device=device)
        return torch.full((), data, device=device, **options)

    torch.tensor = tensor


def _answer_dynamo():
    interface = device_interface.CudaInterface
    answers = {
        "is_available": lambda: True, "get_compute_capability": lambda device=None: 90, "is_triton_capable": lambda device=None: True,
        "raise_if_triton_unavailable": _nothing(), "get_device_properties": lambda device=None: H100, "current_device": lambda: 0,
        "device_count": lambda: 1, "synchronize": _nothing(), "is_bf16_supported": lambda *_a, **_k: True, "_set_stream_by_id": _nothing(),
    }
    for name, function in answers.items():
        setattr(interface, name, staticmethod(function))
    interface.Worker.get_device_properties = staticmethod(lambda device=None: H100)
    interface.Worker.current_device = staticmethod(lambda: 0)
    interface.device = _Stream


def _answer_triton():
    yes = lambda *_a, **_k: True  # noqa: E731
    torch_triton.has_triton = yes
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("torch") and "has_triton" in vars(module):
            module.has_triton = yes
    for module in (torch_triton, codegen_triton):
        module.triton_hash_with_backend = lambda: "none"

    class Driver:
        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self):
            return 0

        def get_active_torch_device(self):
            return torch.device("cuda", 0)

    sys.modules["triton.runtime.driver"].driver.set_active(Driver())


def _quiet_inductor():
    inductor_config.compile_threads = 1
    inductor_config.fx_graph_cache = False
    # These trace patterns on real tensors. None of them can match here: attention is called by name; mm padding asks first whether the
    # product is bound by arithmetic, and nanochat's odd-sized products (gates of 12, 24 or 32 columns) are not.
    fuse_attention._sfdp_init = pad_mm._pad_mm_init = misc_patterns._misc_patterns_init = _nothing()
    _fold_constants_on_cpu()


def _fold_constants_on_cpu():
    """The constant folder computes uniform values with real tensors: let it do so on the CPU."""
    folder = joint_graph.UniformValueConstantFolder
    original = folder._deduce_value

    def deduce(self, node):
        if node.kwargs.get("device") is None:
            return original(self, node)
        kept = node.kwargs
        node.kwargs = {**kept, "device": torch.device("cpu")}
        try:
            return original(self, node)
        finally:
            node.kwargs = kept

    folder._deduce_value = deduce


REAL_COMPILE = torch.compile  # nanochat's decorators are replaced while it is imported


class WrapperWritten(Exception):
    """Inductor has written its wrapper; there is nothing to compile it for."""


_last = []


def _stop_at_wrapper():
    def compile_to_module(self):
        code = self.codegen()[0]
        _last[:] = [(self, getattr(code, "value", code))]
        raise WrapperWritten

    inductor_graph.GraphLowering.compile_to_module = compile_to_module


def take_wrapper(lower):
    """Runs `lower()`, which ends in Inductor's code generation; returns its GraphLowering and the wrapper's text."""
    _last.clear()
    try:
        lower()
    except Exception:
        if not _last:
            raise
    return _last.pop()


_answer_torch_cuda()
_answer_dynamo()
_answer_triton()
_quiet_inductor()
_stop_at_wrapper()
