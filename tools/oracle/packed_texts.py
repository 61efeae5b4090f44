"""Packed rows, rows that are filled up and rows that are neither, as transformers' FlashAttention asks about them."""
import torch
import torch.nn.functional as F
import transformers.masking_utils as masking
import transformers.modeling_flash_attention_utils as utils


def know(implementation, count, length, padded):
    """Where texts begin is a value, which fake tensors have not: packed rows hold `count` of `length` tokens; 0: rows are not packed. padded: some are filled up,
    by so little that all tokens are looked at."""
    real = utils._is_packed_sequence

    def is_packed(position_ids, batch_size):
        torch.Tensor.__bool__ = lambda self: count > 0
        return real(position_ids, batch_size)

    def prepared(position_ids):
        began = position_ids.view(-1) == 0
        indices = torch.empty(count, dtype=torch.int64, device=position_ids.device)
        del began
        ends = torch.cat((indices.to(torch.int32), torch.empty(1, dtype=torch.int32, device=position_ids.device)))
        ends.diff().max()
        return (ends, ends), (length, length)

    def unpadded(attention_mask):
        lengths = attention_mask.sum(dim=-1, dtype=torch.int32)
        tokens = torch.empty(attention_mask.numel(), 1, dtype=torch.int64, device=attention_mask.device).flatten()  # nonzero
        lengths.max()
        return tokens, F.pad(torch.cumsum(lengths, dim=0, dtype=torch.int32), (1, 0)), length

    def mask(*args, **kwargs):
        torch.Tensor.__bool__ = lambda self: not padded  # whether all of the mask is ones
        return masking.flash_attention_mask(*args, **kwargs)

    torch.Tensor.__contains__ = lambda self, value: padded  # Qwen2MoeModel looks for a zero in the mask
    masking.ALL_MASK_ATTENTION_FUNCTIONS[implementation] = mask
    utils._is_packed_sequence = is_packed
    utils.prepare_fa_kwargs_from_position_ids = prepared
    utils._get_unpad_data = unpadded
