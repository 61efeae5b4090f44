"""One rank of many that do not communicate: torch's fake process group, and what DistributedDataParallel must not look at in tensors without
data. tools/oracle uses it too.
"""
import contextlib

import torch  # annotations stay values here: register_comm_hook looks at them
import torch.distributed as dist
from torch.distributed._tools.fake_collectives import create_fakework  # importing it makes collectives return, for fake tensors, what they return
from torch.testing._internal.distributed.fake_pg import FakeStore


_more = torch.library.Library("c10d", "IMPL")  # noqa: TOR901  (lives as long as the process)
for _name in ("allreduce_coalesced_", "allgather_coalesced_", "allgather_into_tensor_coalesced_", "reduce_scatter_tensor_coalesced_"):
    _more.impl(_name, lambda *args: create_fakework(args, return_first_arg=False), "Meta")


def draw_without_values():
    """DTensor's random ops: ranks agree on the state of a generator, which is on the GPU; without values there is nothing to agree on."""
    from torch.distributed.tensor import _random

    class Tracker(_random._RNGStateTracker):
        def __init__(self, device_mesh, run_state_sync=True):
            super().__init__(torch.device(device_mesh.device_type))

        def _distribute_region(self, spec, generator=None):
            return contextlib.nullcontext()
    _random.OffsetBasedRNGTracker = Tracker


def join(rank, world_size):
    dist.init_process_group("fake", rank=rank, world_size=world_size, store=FakeStore())


def sums(_state, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """In place of the all-reduce, which writes onto the bucket: a fake group has no result to hand back."""
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


class Reducer(dist.Reducer):
    """torch's, without what looks into tensors that have no data: the map of parameters that were used (4 bytes each), and the exchange of
    indices before buckets are made anew in the order gradients came."""

    def __init__(self, *args):
        flags = list(args)
        flags[6] = False  # find_unused_parameters
        super().__init__(*flags)

    def _rebuild_buckets(self):
        return False
