"""FlashAttention 2 and packed rows as transformers calls them: flash-attn's own Python (2.8.3), whose kernels do not run. What its library takes for itself in
backward is made here as csrc/flash_attn/flash_api.cpp does (mha_bwd, mha_varlen_bwd): dq gathered in fp32, and dk and dv for every head where they share keys.
"""
import sys
import types

sys.modules["flash_attn_2_cuda"] = types.ModuleType("flash_attn_2_cuda")

import flash_attn.flash_attn_interface as interface  # noqa: E402
import torch  # noqa: E402


def _round(n, to):
    return -(-n // to) * to


def _with_library(real, rows_of):
    def backward(dout, q, k, v, out, softmax_lse, dq, dk, dv, *rest, **options):
        heads, size = q.shape[-2:]
        accumulated = torch.empty(*rows_of(q, rest), heads, _round(size, 32), dtype=torch.float32, device=q.device)
        expanded = [torch.empty(*k.shape[:-2], heads, size, dtype=k.dtype, device=k.device) for _ in range(2 if k.shape[-2] != heads else 0)]
        result = real(dout, q, k, v, out, softmax_lse, dq, dk, dv, *rest, **options)
        del accumulated, expanded
        return result

    return backward


interface._wrapped_flash_attn_backward = _with_library(interface._wrapped_flash_attn_backward, lambda q, _rest: (q.shape[0], _round(q.shape[1], 128)))
interface._wrapped_flash_attn_varlen_backward = _with_library(interface._wrapped_flash_attn_varlen_backward, lambda q, rest: (q.shape[0] + 128 * (rest[0].shape[0] - 1),))
