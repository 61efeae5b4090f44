"""What axolotl puts into a transformers model: its LoRA kernels, beside 16-bit or 4-bit weights, and cut_cross_entropy. Its own code and that of its fork of
ml-cross-entropy; their Triton kernels, and bitsandbytes' that make weights of 4 bits whole, do not run.
"""
import pathlib
import sys
import types

import torch

import transformers_session


def _without_callbacks():
    """axolotl.utils.callbacks imports what its kernels have no use of."""
    import axolotl.utils

    package = types.ModuleType("axolotl.utils.callbacks")
    package.__path__ = [str(pathlib.Path(axolotl.utils.__file__).parent / "callbacks")]
    sys.modules.setdefault("axolotl.utils.callbacks", package)


def _cut_cross_entropy(model_type):
    import cut_cross_entropy.cce as cce
    from cut_cross_entropy.transformers.patch import cce_patch

    # which targets count, and where tensors lie, are values, which fake tensors have not: all count
    torch.Tensor.nonzero = lambda self: torch.empty(self.numel(), self.dim(), dtype=torch.int64, device=self.device)
    torch.Tensor.data_ptr = lambda self: 0
    cce.sort_logit_avg = lambda average: torch.argsort(average).to(torch.int32)  # compiled: aten.sort and a cast
    cce_patch(model_type)


def _lora_kernels(model):
    _without_callbacks()
    import axolotl.kernels.quantize as quantize
    import axolotl.monkeypatch.lora_kernels as kernels

    nothing = lambda *_args: None  # noqa: E731
    quantize.cdequantize_blockwise_fp32 = quantize.get_ptr = nothing
    quantize._NF4_DEQUANT_KERNELS = dict.fromkeys(quantize._NF4_DEQUANT_KERNELS, nothing)
    config = {"base_model": model.config.model_type, "lora_mlp_kernel": True, "lora_qkv_kernel": True, "lora_o_kernel": True}
    attention = type(model.get_base_model().model.layers[0].self_attn)
    kernels.get_attention_cls_from_config = lambda _cfg: attention
    kernels.patch_self_attn_lora(types.SimpleNamespace(**config, fused_attn_kernel=False))
    kernels.apply_lora_kernel_patches(model, types.SimpleNamespace(**config, lora_embedding_kernel=False, use_scattermoe=False, use_sonicmoe=False))


def put_into(model, case):
    transformers_session._know_what_liger_asks()
    if case.cut:
        _cut_cross_entropy(case.model)
    if case.kernels:
        _lora_kernels(model)
