"""Makes torch believe in one H100 that is not there, so that models trace and compile under FakeTensorMode without a GPU.

Import it before anything touches torch.cuda; needs the two shims of python/dryfit/tracing/shim (record.sh builds and preloads them). Nothing here runs a
kernel. What does it lies in python/dryfit/tracing, which `dryfit.tracing` names from here on, without the engine that the whole package loads.
"""
import os
import pathlib
import sys
import types

os.environ["TORCHINDUCTOR_FX_GRAPH_CACHE"] = "0"
os.environ["TORCHINDUCTOR_AUTOGRAD_CACHE"] = "0"
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

import torch  # noqa: E402
import torch._inductor.fx_passes.fuse_attention as fuse_attention  # noqa: E402
import torch._inductor.fx_passes.misc_patterns as misc_patterns  # noqa: E402
import torch._inductor.fx_passes.pad_mm as pad_mm  # noqa: E402

_package = types.ModuleType("dryfit")
_package.__path__ = [str(pathlib.Path(__file__).resolve().parent.parent.parent / "python" / "dryfit")]
sys.modules["dryfit"] = _package
from dryfit.tracing import inductor, pretend  # noqa: E402


def _answer_torch():
    """What pretend.py answers, and a tensor with values without them: here every tensor is fake, those of the host too."""
    pretend.answer(pretend.H100)
    real_tensor = torch.tensor  # with a number and a GPU it would really copy; `full` is faked

    def tensor(data, *, device=None, **options):
        if device is None or torch.device(device).type != "cuda":
            return real_tensor(data, device=device, **options)
        if isinstance(data, list):
            host = real_tensor(data, **options)
            return torch.empty(host.shape, dtype=host.dtype, device=device)
        return torch.full((), data, device=device, **options)

    torch.tensor = tensor


def _swap_what_fakes_are_known_by():
    """Modules swap their fake parameters; from torch 2.11 on the mode knows fakes by number, through weak references, at which `swap_tensors` stops."""
    torch.utils.weakref = types.SimpleNamespace(getweakrefs=lambda _tensor: [])


def _leave_patterns_out():
    """Attention is called by name here. Whether padding nanochat's odd-sized products (gates of 12, 24 or 32 columns) pays is timed on the GPU
    (tests/golden/traces/nanochat_d4.txt shows it); runs on an H100 have the peaks of unpadded ones."""
    fuse_attention._sfdp_init = pad_mm._pad_mm_init = misc_patterns._misc_patterns_init = pretend.nothing()


REAL_COMPILE = torch.compile  # nanochat's decorators are replaced while it is imported

_answer_torch()
_swap_what_fakes_are_known_by()
inductor.answer(pretend.H100)
_leave_patterns_out()
