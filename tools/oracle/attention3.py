"""A stand-in for the external FlashAttention 3 package: the shapes of its operators, as fake kernels. It computes nothing.

Shapes follow hopper/flash_api.cpp and flash_attn_interface.py of Dao-AILab/flash-attention: out like q (B, T, H, h), log-sum-exp
(B, H, T) fp32; backward fills dq, dk, dv and returns one row sum per query, rows padded to the kernel's tile. Scratch that the real
kernel allocates inside (dq in fp32) is not seen by any graph and not recorded.
"""
import sys
import types
from typing import Optional, Tuple

import torch
from torch import Tensor


@torch.library.custom_op("flash_attn_3::_flash_attn_forward", mutates_args=(), device_types="cuda")
def _forward(q: Tensor, k: Tensor, v: Tensor, softmax_scale: Optional[float] = None, causal: bool = False,
             window_size_left: int = -1, window_size_right: int = -1) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    raise RuntimeError("the stand-in computes nothing")


@_forward.register_fake
def _(q, k, v, softmax_scale=None, causal=False, window_size_left=-1, window_size_right=-1):
    batch, length, heads, _ = q.shape
    nothing = [torch.empty((0,), device=q.device) for _ in range(2)]
    return (torch.empty((batch, length, heads, v.shape[-1]), dtype=q.dtype, device=q.device),
            torch.empty((batch, heads, length), dtype=torch.float32, device=q.device), *nothing)


@torch.library.custom_op("flash_attn_3::_flash_attn_backward", mutates_args=("dq", "dk", "dv"), device_types="cuda")
def _backward(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, softmax_lse: Tensor, dq: Optional[Tensor] = None,
              dk: Optional[Tensor] = None, dv: Optional[Tensor] = None, softmax_scale: Optional[float] = None, is_causal: bool = False,
              window_size_left: int = -1, window_size_right: int = -1, deterministic: bool = False) -> Tensor:
    raise RuntimeError("the stand-in computes nothing")


@_backward.register_fake
def _(dout, q, k, v, out, softmax_lse, dq=None, dk=None, dv=None, softmax_scale=None, is_causal=False, window_size_left=-1,
      window_size_right=-1, deterministic=False):
    batch, length, heads, head = q.shape
    tile = 64 if head > 64 else 128
    return torch.empty((batch, heads, -(-length // tile) * tile), dtype=torch.float32, device=q.device)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, scale, causal, window):
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        out, lse, *_ = _forward(q, k, v, scale, causal, window[0], window[1])
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.settings = (scale, causal, window)
        return out

    @staticmethod
    def backward(ctx, dout):
        q, k, v, out, lse = ctx.saved_tensors
        scale, causal, window = ctx.settings
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        _backward(dout, q, k, v, out, lse, dq, dk, dv, scale, causal, window[0], window[1])
        return dq[..., :q.shape[-1]], dk[..., :k.shape[-1]], dv[..., :v.shape[-1]], None, None, None


def flash_attn_func(q, k, v, softmax_scale=None, causal=False, window_size=(-1, -1), **_rest):
    return _Attention.apply(q, k, v, softmax_scale, causal, window_size)


def flash_attn_with_kvcache(q, _k_cache, _v_cache, **_rest):
    """Keys and values are written into the caches in place; out, and a log-sum-exp that is let go."""
    batch, length, heads, _ = q.shape
    out, _lse = torch.empty_like(q), torch.empty((batch, heads, length), dtype=torch.float32, device=q.device)
    return out


def install():
    """Puts the stand-in where nanochat looks: the `kernels` package that downloads FlashAttention 3."""
    module = types.ModuleType("kernels")
    module.get_kernel = lambda name, *_a, **_k: types.SimpleNamespace(flash_attn_interface=sys.modules[__name__])
    module.has_kernel = lambda name, *_a, **_k: True
    sys.modules["kernels"] = module
