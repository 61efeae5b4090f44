"""Packages that would go another way than on a GPU: deepspeed looks for a CUDA compiler when it is imported where a GPU seems to be, so there is none meanwhile; transformers 5 leaves
out what depends on values (masks that hide nothing) where tensors are fake, so they are not said to be."""
from __future__ import annotations

import importlib.abc
import importlib.util
import os
import sys

import torch


WATCHED = ("deepspeed", "transformers.utils.import_utils")


class _Loader(importlib.abc.Loader):
    def __init__(self, real):
        self.real = real

    def create_module(self, spec):
        return self.real.create_module(spec)

    def exec_module(self, module):
        if module.__name__ != "deepspeed":
            self.real.exec_module(module)
            module.is_fake_tensor = lambda _tensor: False
            return
        available = torch.cuda.is_available
        torch.cuda.is_available = lambda: False
        try:
            self.real.exec_module(module)
        finally:
            torch.cuda.is_available = available


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in WATCHED:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def install():
    os.environ.setdefault("DS_ACCELERATOR", "cuda")
    sys.meta_path.insert(0, _Finder())
