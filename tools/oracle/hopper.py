"""Makes torch believe in one H100 that is not there, so that models trace and compile under FakeTensorMode without a GPU.

Import it before anything touches torch.cuda; needs the two shims of python/dryfit/tracing/shim (record.sh builds and preloads them). Nothing here runs a
kernel: Inductor stops after it has written its wrapper, and hands the text to whoever asked (`take_wrapper`).
"""
import os
import pathlib
import sys

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
import torch.utils._triton as torch_triton  # noqa: E402
import triton.runtime.driver  # noqa: E402,F401
from triton.backends.compiler import GPUTarget  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "python" / "dryfit" / "tracing"))  # what it shares with python -m dryfit.capture
import pretend  # noqa: E402
from pretend import H100  # noqa: E402

def _answer_torch():
    """What pretend.py answers, and a tensor with values without them: here every tensor is fake, those of the host too."""
    pretend.answer(H100)
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
        "raise_if_triton_unavailable": pretend.nothing(), "get_device_properties": lambda device=None: H100, "current_device": lambda: 0,
        "device_count": lambda: 1, "synchronize": pretend.nothing(), "is_bf16_supported": lambda *_a, **_k: True, "_set_stream_by_id": pretend.nothing(),
    }
    for name, function in answers.items():
        setattr(interface, name, staticmethod(function))
    interface.Worker.get_device_properties = staticmethod(lambda device=None: H100)
    interface.Worker.current_device = staticmethod(lambda: 0)
    interface.device = pretend.Stream


class Generator(torch.Generator):
    """The GPU's: a compiled checkpoint hands its state to what is computed again."""

    device = torch.device("cuda", 0)

    def clone_state(self):
        return Generator()


def _answer_random():
    torch.cuda.default_generators = (Generator(),)


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
    fuse_attention._sfdp_init = pad_mm._pad_mm_init = misc_patterns._misc_patterns_init = pretend.nothing()
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


_answer_torch()
_answer_dynamo()
_answer_random()
_answer_triton()
_quiet_inductor()
_stop_at_wrapper()
