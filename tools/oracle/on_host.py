"""FSDP with its shards on the host, under FakeTensorMode."""
import torch
from torch._subclasses.fake_tensor import FakeTensor


def let_data_move():
    """`tensor.data = tensor.to(device)`, with which FSDP moves parameters: of a fake tensor it changes the storage alone. Pinned memory is the host's."""
    data = torch.Tensor.data

    def take(tensor, new):
        data.__set__(tensor, new)
        tensor.fake_device = new.fake_device
    FakeTensor.data = property(data.__get__, take)
    torch.Tensor.pin_memory = lambda self, *_args: self
