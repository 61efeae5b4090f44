"""Which tokens an expert gets are values, which fake tensors have not: here each gets the same number. A mode, so that Dynamo sees torch's own functions, and
leaves to Python what it would leave.
"""
import itertools

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class Routed(TorchDispatchMode):
    """For blocks as Mixtral's: `nonzero` of a value for each expert finds all of them, and of a mask of one expert's tokens an even share."""

    def __init__(self, experts):
        super().__init__()
        self.experts, self.more, self._asked = experts, 0, itertools.count()

    @classmethod
    def is_infra_mode(cls):
        """Dynamo goes on under it."""
        return True

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is aten.nonzero.default:
            marks = args[0]
            found = self.experts if marks.dim() == 1 else marks.numel() // self.experts + self.more  # of top_k x tokens choices
            return torch.empty(found, marks.dim(), dtype=torch.int64, device=marks.device)
        if function is aten._local_scalar_dense.default:  # the number of the next expert
            return next(self._asked) % self.experts
        return function(*args, **(kwargs or {}))
