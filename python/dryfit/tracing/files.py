"""What a script saves of a GPU that is not there: nothing, as there are no values, and what stands under that name may be of a real run."""
from __future__ import annotations

import io
import os

import torch
from torch._subclasses.fake_tensor import FakeTensor


class _NoValues(Exception):
    """A tensor without values was to be written."""


def install(told):
    """told: called with the name of each file that is left out. What has all its values is written as ever."""
    save, reduce, saving = torch.save, FakeTensor.__reduce_ex__, [0]

    def reduce_ex(tensor, protocol):
        if saving[0]:
            raise _NoValues
        return reduce(tensor, protocol)
    FakeTensor.__reduce_ex__ = reduce_ex

    def save_what_has_values(thing, file, *args, **options):
        made = io.BytesIO()
        saving[0] += 1
        try:
            save(thing, made, *args, **options)
        except _NoValues:
            return told(os.fspath(file) if isinstance(file, (str, os.PathLike)) else str(getattr(file, "name", "a file")))
        finally:
            saving[0] -= 1
        if not isinstance(file, (str, os.PathLike)):
            file.write(made.getbuffer())
            return None
        with open(file, "wb") as opened:
            opened.write(made.getbuffer())
    torch.save = save_what_has_values

    try:
        import safetensors.torch as safetensors
    except ImportError:
        return
    write = safetensors.save_file

    def write_what_has_values(tensors, filename, *args, **options):
        if any(isinstance(t, FakeTensor) for t in tensors.values()):
            return told(os.fspath(filename))
        return write(tensors, filename, *args, **options)
    safetensors.save_file = write_what_has_values
