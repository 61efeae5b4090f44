"""Operators of torch's own whose C++ allocates beside their results, which fake tensors do not show: what a capture says of a call, so that its reader
(src/capture) can lay out what that takes on the GPU that is asked about.
"""
from __future__ import annotations

import torch

aten = torch.ops.aten
TORCH = tuple(map(int, torch.__version__.split(".")[:2]))


def on_host(label, shape):
    """Whether a result that fake tensors show on the GPU is made in the host's memory: the two numbers of dropout's that the memory-efficient kernel returns, outside
    CUDA graphs (aten/src/ATen/native/transformers/cuda/attention.cu; on the GPU since torch 2.13)."""
    return TORCH < (2, 13) and tuple(shape) == () and label.startswith("aten._scaled_dot_product_efficient_attention") and "backward" not in label


def _attention(a):
    flags = [word for word, on in (("causal", a.get("is_causal")), ("dropout", a.get("dropout_p", 0.0) > 0)) if on]
    return a["query"].dtype, [a["query"].shape, a["key"].shape, a["value"].shape], flags


def _embedding(a):
    gradient = a["grad_output"]
    return gradient.dtype, [a["indices"].shape, (a["num_weights"], gradient.shape[-1])], []


KERNELS = {
    **{getattr(aten, name): _attention for name in (
        "_scaled_dot_product_flash_attention_backward", "_scaled_dot_product_efficient_attention", "_scaled_dot_product_efficient_attention_backward",
        "_scaled_dot_product_cudnn_attention_backward") if hasattr(aten, name)},
    aten.embedding_dense_backward: _embedding,
}


def packet(operator):
    """One of them by the name that a wrapper of Inductor's calls it by, torch.ops.aten.NAME.default; else None."""
    parts = operator.split(".")
    found = getattr(aten, parts[3], None) if parts[:3] == ["torch", "ops", "aten"] and len(parts) > 3 else None
    return found if found in KERNELS else None


def said(packet, args, kwargs):
    """Of a call of one of them: its name, the dtype, shapes and flags; None where it runs on the host."""
    named = dict(zip((argument.name for argument in packet.default._schema.arguments), args)) | (kwargs or {})
    if not any(isinstance(value, torch.Tensor) and value.device.type == "cuda" for value in named.values()):
        return None
    dtype, shapes, flags = KERNELS[packet](named)
    return [packet.__name__, str(dtype).removeprefix("torch."), " ".join("x".join(str(int(n)) for n in shape) for shape in shapes), ",".join(flags)]
