"""Stands in for NCCL on one rank of many: collectives that move nothing and keep what ProcessGroupNCCL would keep.

An asynchronous collective stashes its tensors on its Work. nanochat waits on futures and never on works, so nothing unstashes them before
the watchdog hands the shelf over and the next collective empties it: the next step's first, as Python enqueues a step faster than the GPU is
through with it; and in the first step, where the optimizer's functions are compiled for seconds, the next after that. List versions flatten first: one more buffer, as large
as the list. Source: torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp (2.8, 2.9); this is our reading of it, not PyTorch's own run.
"""
import os

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore


class _Work:
    def get_future(self):
        future = torch.futures.Future()
        future.set_result(None)
        return future

    def wait(self, *_timeout):
        return True

    def is_completed(self):
        return True


class Shelf:
    """What un-waited works hold. `wait()` is called when an optimizer step begins, and when the compiler makes Python wait: the next collective empties the shelf."""

    def __init__(self):
        self._held, self._empty_next = [], False

    def wait(self):
        self._empty_next = True

    def clear(self):
        self._held.clear()

    def put(self, *tensors):
        if self._empty_next:
            self.clear()
            self._empty_next = False
        self._held.append(tensors)
        return _Work()


def install(gpus):
    """Rank 0 of `gpus`; returns the shelf."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(gpus))
    dist.init_process_group("fake", rank=0, world_size=gpus, store=FakeStore())
    shelf = Shelf()

    def flat(tensors):
        return tensors[0].new_empty((len(tensors), *tensors[0].shape))

    def all_reduce(tensor, *_args, **_kwargs):
        return shelf.put(tensor)

    def reduce_scatter_tensor(output, source, *_args, **_kwargs):
        return shelf.put(output, source)

    def all_gather_into_tensor(output, source, *_args, **_kwargs):
        return shelf.put(output, source)

    def reduce_scatter(output, sources, *_args, **_kwargs):
        return shelf.put(output, list(sources), flat(sources))

    def all_gather(outputs, source, *_args, **_kwargs):
        return shelf.put(list(outputs), source, flat(outputs))

    for function in (all_reduce, reduce_scatter_tensor, all_gather_into_tensor, reduce_scatter, all_gather):
        setattr(dist, function.__name__, function)
    return shelf
