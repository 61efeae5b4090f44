"""FlashAttention 3 as transformers calls it: the functions of its `flash_attn_interface`, whose kernels do not run. What its library takes for itself is made here as
hopper/flash_api.cpp does for an H100 (mha_fwd, mha_bwd): the log-sum-exp, and in backward rows in the kernels' tiles, dq in fp32, dk and dv too where heads share keys.
"""
import sys
import types

import torch
import transformers.utils.import_utils as imports


def _round(n, to):
    return -(-n // to) * to


def _scratch(q, k, texts, longest, causal):
    """(fp32 sums, semaphores) of one backward call. texts: 0 where rows are not packed."""
    heads, size = q.shape[-2:]
    head = next(n for n in (64, 96, 128, 192, 256) if size <= n)
    tile = 128 if head <= 64 else 80 if head == 128 and not causal else 64
    key_tile = 128 if head <= 128 else 96 if head <= 192 else 80

    def padded(x, to):
        return (_round(x.shape[0] + texts * to, to),) if texts else (x.shape[0], _round(x.shape[1], to))

    def sums(x, heads_of_x, to, *columns):
        *batch, rows = padded(x, to)
        return torch.empty(*batch, heads_of_x, rows, *columns, dtype=torch.float32, device=q.device)

    made = [sums(q, heads, tile), sums(q, heads, tile), sums(q, heads, tile, head)]
    if k.shape[-2] != heads:
        made += [sums(k, k.shape[-2], key_tile, head) for _ in range(2)]
    return [*made, torch.empty(-(-longest // tile), texts or q.shape[0], heads, dtype=torch.int32, device=q.device)]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, causal, texts, longest):
        out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=q.dtype, device=q.device)
        lse = torch.empty(*((q.shape[-2], q.shape[0]) if texts else (q.shape[0], q.shape[-2], q.shape[1])), dtype=torch.float32, device=q.device)
        turns = torch.empty(1 + 4 * _round(texts, 4), dtype=torch.int32, device=q.device)  # of the scheduler
        del turns
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.rest = causal, texts, longest
        return out

    @staticmethod
    def backward(ctx, _dout):
        q, k, v, _out, _lse = ctx.saved_tensors
        causal, texts, longest = ctx.rest
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        scratch = _scratch(q, k, texts, longest, causal)
        del scratch
        return dq, dk, dv, None, None, None


def flash_attn_func(q, k, v, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, deterministic=False):
    return _Attention.apply(q, k, v, causal, 0, q.shape[1])


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, deterministic=False):
    return _Attention.apply(q, k, v, causal, cu_seqlens_q.shape[0] - 1, max_seqlen_q)


module = types.ModuleType("flash_attn_interface")
module.flash_attn_func, module.flash_attn_varlen_func = flash_attn_func, flash_attn_varlen_func
sys.modules["flash_attn_interface"] = module
imports.is_flash_attn_3_available.cache_clear()
_real = imports._is_package_available
imports._is_package_available = lambda name, *args, **options: True if name == "flash_attn_3" else _real(name, *args, **options)
