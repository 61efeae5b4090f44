"""nanochat's Engine under fake tensors: what it asks the GPU for numbers is answered from the host. Every op and lifetime stays nanochat's.

A fake tensor has no values: sampled tokens are some token, positions in the cache are counted here, random generators do nothing.
"""
import importlib
import sys
import types

import torch
from torch._subclasses.fake_tensor import FakeTensor

SOME_TOKEN = 7


class _Tokenizer:
    """Never samples a token that ends a row."""

    def encode_special(self, _name):
        return SOME_TOKEN + 1

    def get_bos_token_id(self):
        return SOME_TOKEN + 2

    def decode(self, _tokens):
        return ""


class _Generator:
    def __init__(self, device=None):
        pass

    def manual_seed(self, _seed):
        return self


def _absent(name, **members):
    """A module that nanochat imports beside the model and does not use here."""
    module = types.ModuleType(name)
    for key, value in members.items():
        setattr(module, key, value)
    sys.modules.setdefault(name, module)


class _Position:
    """Where the cache in use stands; engines of E1 count on the host themselves."""
    now = 0


def _count_on_host(cache):
    if not hasattr(cache, "advance"):
        return
    advance, prefill, init = cache.advance, cache.prefill, cache.__init__

    def counted_init(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.host_position = 0

    def counted_advance(self, tokens):
        advance(self, tokens)
        self.host_position += tokens

    def counted_prefill(self, other):
        prefill(self, other)
        self.host_position = other.host_position

    def get_pos(self):
        _Position.now = self.host_position
        return self.host_position

    cache.__init__, cache.advance, cache.prefill, cache.get_pos = counted_init, counted_advance, counted_prefill, get_pos


def _answer_from_host():
    item, tolist, multinomial = torch.Tensor.item, torch.Tensor.tolist, torch.multinomial
    torch.Tensor.item = lambda self: _Position.now if isinstance(self, FakeTensor) else item(self)
    torch.Tensor.tolist = lambda self: [SOME_TOKEN] * self.numel() if isinstance(self, FakeTensor) else tolist(self)
    torch.multinomial = lambda probs, num_samples, generator=None, **rest: multinomial(probs, num_samples, **rest)
    torch.Generator = _Generator


_engine = None


def engine(model):
    """nanochat.engine.Engine of the tree in use."""
    global _engine
    if _engine is None:
        _absent("nanochat.tokenizer", get_tokenizer=None, get_token_bytes=None)
        _engine = importlib.import_module("nanochat.engine")
        _count_on_host(_engine.KVCache)
        _answer_from_host()
    return _engine.Engine(model, _Tokenizer())


def generate(model, prompt, samples, new_tokens, **how):
    """generate_batch with a prompt of so many tokens."""
    return engine(model).generate_batch([SOME_TOKEN] * prompt, num_samples=samples, max_tokens=new_tokens, **how)
