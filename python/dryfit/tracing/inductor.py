"""Makes Dynamo, Inductor and Triton believe in a GPU that is not there (`answer`), and stops Inductor once it has written the wrapper of a graph
(`take_wrapper`). No kernel is compiled. Knows nothing of tensors' lifetimes or recordings; tools/oracle uses it too.

Everything that it replaces is of torch 2.8 and 2.9; where one of these places is missing, `answer` raises what Python raises then.
"""
from __future__ import annotations

import os
import sys

import torch

from dryfit.tracing import pretend

untimed = set()  # products (rows, inner, columns) that Inductor would have timed on the GPU with and without padding


class WrapperWritten(Exception):
    """Inductor has written its wrapper; there is nothing to compile it for."""


_last = []


def answer(properties):
    """`properties`: pretend.gpu's. After pretend.answer; imports Inductor."""
    _settings()
    _answer_dynamo(properties)
    _answer_random()
    _answer_triton(properties)
    _fold_constants_on_cpu()
    _stop_at_wrapper()


def _settings():
    """Nothing is kept between processes, nothing compiled in others."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    import torch._functorch.config as functorch_config
    import torch._inductor.config as config
    config.compile_threads = 1
    config.fx_graph_cache = functorch_config.enable_autograd_cache = False


def _answer_dynamo(properties):
    import torch._dynamo.device_interface as device_interface
    interface = device_interface.CudaInterface
    answers = {
        "is_available": lambda: True, "get_compute_capability": lambda device=None: properties.major * 10 + properties.minor, "is_triton_capable": lambda device=None: True,
        "raise_if_triton_unavailable": pretend.nothing(), "get_device_properties": lambda device=None: properties, "current_device": lambda: 0,
        "device_count": lambda: 1, "synchronize": pretend.nothing(), "is_bf16_supported": lambda *_a, **_k: properties.major >= 8, "_set_stream_by_id": pretend.nothing(),
    }
    for name, function in answers.items():
        setattr(interface, name, staticmethod(function))
    interface.Worker.get_device_properties = staticmethod(lambda device=None: properties)
    interface.Worker.current_device = staticmethod(lambda: 0)
    interface.device = pretend.Stream
    from torch._dynamo import utils
    from torch._dynamo.variables import torch as of_torch
    utils.common_constant_types.add(pretend.Properties)
    for name in ("get_device_properties", "get_device_capability", "get_device_name", "is_available", "is_initialized", "current_device"):  # asked within a graph
        of_torch.constant_fold_functions[getattr(torch.cuda, name)] = None


class Generator(torch._C.Generator):
    """The GPU's: a compiled checkpoint hands its state to what is computed again."""

    device = torch.device("cuda", 0)

    def clone_state(self):
        return Generator()


def _answer_random():
    torch.cuda.default_generators = (Generator(),)


def _answer_triton(properties):
    import torch._inductor.codegen.triton as codegen_triton
    import torch._inductor.scheduler  # noqa: F401  (asks has_triton)
    import torch.utils._triton as torch_triton
    import triton.runtime.driver  # noqa: F401
    from triton.backends.compiler import GPUTarget

    yes = lambda *_a, **_k: True  # noqa: E731
    torch_triton.has_triton = yes
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("torch") and "has_triton" in vars(module):
            module.has_triton = yes
    for module in (torch_triton, codegen_triton):
        module.triton_hash_with_backend = lambda: "none"

    class Driver:
        def get_current_target(self):
            return GPUTarget("cuda", properties.major * 10 + properties.minor, 32)

        def get_current_device(self):
            return 0

        def get_active_torch_device(self):
            return torch.device("cuda", 0)

    sys.modules["triton.runtime.driver"].driver.set_active(Driver())


def _fold_constants_on_cpu():
    """The constant folder computes uniform values with real tensors: let it do so on the CPU."""
    import torch._inductor.fx_passes.joint_graph as joint_graph
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


def leave_products_unpadded():
    """Whether padding a product pays is timed on the GPU, which nobody can here: they stay as they are, and `untimed` knows of them."""
    import torch._inductor.fx_passes.pad_mm as pad_mm
    decide = pad_mm._should_pad_bench

    def decide_without(match, mat1, mat2, op, input=None):  # noqa: A002
        try:
            return decide(match, mat1, mat2, op, input)
        except Exception:  # it has no GPU to make its inputs on
            untimed.add((*map(int, mat1.shape), int(mat2.shape[-1])))
            return False
    pad_mm._should_pad_bench = decide_without


def _stop_at_wrapper():
    import torch._inductor.graph as inductor_graph

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
    _report_strides(_last[0][0])
    return _last.pop()


def _report_strides(lowering):
    """As the end of Inductor's own compilation does (utils.py, set_tracing_context_output_strides): autograd compiles backward for what forward really lays out, with rows padded."""
    context = torch._guards.TracingContext.try_get()
    if context is None or context.output_strides is None or context.output_strides:
        return
    for output in lowering.graph_outputs:
        strides = output.get_stride() if hasattr(output, "has_tensor_output") and output.has_tensor_output() else [None]
        known = all(isinstance(s, int) or getattr(s, "is_number", False) for s in strides)
        context.output_strides.append(tuple(int(s) for s in strides) if known else None)
