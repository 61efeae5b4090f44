"""Operators that Python wrote (torch.library.custom_op): their own code, which may allocate what their fake implementation does not tell. It runs
as it would on the GPU; kernels of Triton that it starts do nothing.
"""
from __future__ import annotations

import contextlib

import torch
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import _disable_current_modes, _pop_mode, _push_mode


def of(function):
    """The code of an operator (torch.ops.space.name.default) on the GPU; None where a script's Python did not write it, or not for a GPU."""
    if not isinstance(function, torch._ops.OpOverload) or function.namespace in ("aten", "prims", "rngprims"):
        return None
    definition = OPDEFS.get(f"{function.namespace}::{function._schema.name.partition('::')[2]}")
    return definition and (definition._backend_fns.get("cuda") or definition._backend_fns.get(None))


def named(name):
    """The same of an operator as a wrapper of Inductor's names it."""
    parts = name.split(".")
    if len(parts) != 5 or parts[:2] != ["torch", "ops"] or f"{parts[2]}::{parts[3]}" not in OPDEFS:
        return None
    return of(getattr(getattr(getattr(torch.ops, parts[2]), parts[3]), parts[4]))


failed = {}  # operators whose code did not run: name -> why


def run(name, body, args, kwargs):
    """What it returns; NotImplemented where it wants what a GPU that is not there has not."""
    try:
        return body(*args, **kwargs)
    except Exception as error:
        line = str(error).strip().splitlines()
        failed[name] = f"{type(error).__name__}{': ' + line[0][:160] if line else ''}"
        return NotImplemented


@contextlib.contextmanager
def under(modes):
    """These modes and no others; the last one is asked first."""
    with _disable_current_modes():
        for mode in modes:
            _push_mode(mode)
        try:
            yield
        finally:
            for _ in modes:
                _pop_mode()


class Kernel:
    """Of CUDA source that a script gave to torch.cuda._compile_kernel: it is not compiled."""

    def __call__(self, *_arguments, **_options):
        return None

    def set_shared_memory_config(self, *_arguments):
        return None


def start_no_kernels():
    """Triton's and CUDA's, where a script calls them itself: their tensors have no values."""
    torch.cuda._compile_kernel = lambda *_arguments, **_options: Kernel()
    try:
        from triton.runtime import autotuner, jit
    except ImportError:
        return
    for owner in (jit.JITFunction, autotuner.Autotuner, autotuner.Heuristics):
        owner.run = lambda self, *_arguments, **_options: None
