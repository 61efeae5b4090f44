"""A stand-in for FlashAttention 3 with sequences of many lengths in one row, for captures: it allocates what the real one does and computes nothing.

Shapes follow hopper/flash_api.cpp and flash_attn_interface.py of Dao-AILab/flash-attention: out like q (tokens, heads, head), log-sum-exp
(heads, tokens) fp32; backward fills dq, dk, dv, and allocates inside dq in fp32 and two sums of each query, rows padded to the kernel's tile for each document.
"""
import torch
from torch import Tensor


def _padded(q, documents, window):
    """Rows of backward's fp32 buffers; its tile is 80 queries of a head of 128, 64 where the mask is causal or local."""
    tile = (64 if window else 80) if q.shape[-1] > 96 else 128
    return -(-(q.shape[0] + documents * tile) // tile) * tile


@torch.library.custom_op("dryfit_stand_in::varlen_forward", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    _queue = torch.empty((4 * ((starts.shape[0] - 1 + 3) // 4) + 1,), dtype=torch.int32, device=q.device)
    return torch.empty((*q.shape[:-1], v.shape[-1]), dtype=q.dtype, device=q.device), torch.empty((q.shape[1], q.shape[0]), dtype=torch.float32, device=q.device)


@_forward.register_fake
def _(q, k, v, starts):
    return q.new_empty((*q.shape[:-1], v.shape[-1])), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@torch.library.custom_op("dryfit_stand_in::varlen_backward", mutates_args=("dq", "dk", "dv"))
def _backward(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, starts: Tensor, dq: Tensor, dk: Tensor, dv: Tensor, window: bool) -> None:
    rows, heads = _padded(q, starts.shape[0] - 1, window), q.shape[1]
    _sums = [torch.empty((heads, rows), dtype=torch.float32, device=q.device) for _ in range(2)]
    _dq = torch.empty((heads, rows * 128 if q.shape[-1] > 96 else rows * q.shape[-1]), dtype=torch.float32, device=q.device)


@_backward.register_fake
def _(dout, q, k, v, out, lse, starts, dq, dk, dv, window):
    return None


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, starts, window):
        out, lse = _forward(q, k, v, starts)
        ctx.save_for_backward(q, k, v, out, lse, starts)
        ctx.window = window
        return out

    @staticmethod
    def backward(ctx, dout):
        q, k, v, out, lse, starts = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        _backward(dout, q, k, v, out, lse, starts, dq, dk, dv, ctx.window)
        return dq, dk, dv, None, None


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k=None, max_seqlen_q=0, max_seqlen_k=0, causal=False, softmax_scale=None, window_size=(-1, -1), **_rest):
    """Of flash_attn_interface. cu_seqlens_q: where documents begin and end, int32."""
    return _Attention.apply(q, k, v, cu_seqlens_q, bool(causal) or tuple(window_size) != (-1, -1))
