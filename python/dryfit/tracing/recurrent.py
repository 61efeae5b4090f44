"""Recurrent layers as cuDNN runs them: torch's own functions ask it for a handle, which wants a GPU, so its operator is called without asking.

torch's autograd then saves what it saves on a GPU. What cuDNN itself keeps for the backward pass (its reserve) it tells only where there is a
GPU: counted is what no backward pass can do without, and `kept` says so.
"""
from __future__ import annotations

import math

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

aten = torch.ops.aten
MODES = {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}  # torch.backends.cudnn.rnn's
KEPT = {0: 0, 1: 0, 2: 5, 3: 4}  # values of a cell, in its hidden sizes: a LSTM's gates and cell state; a GRU's gates and the new one's hidden half; else the output is enough


class Recurrent:
    """`kept`: bytes of all reserves so far, None before the first."""

    kept = None

    def install(self):
        for name, mode in MODES.items():
            setattr(torch._VF, name, self._function(getattr(torch._VF, name), mode))
        torch.nn.RNNBase.flatten_parameters = lambda layer: None  # it asks where their data lies; that they lie in one buffer adds no byte but the roundings

    def _function(self, own, mode):
        def recurrent(*args):
            data = args[0]
            if not isinstance(data, FakeTensor) or data.device.type != "cuda" or not torch.backends.cudnn.enabled:
                return own(*args)
            packed = not isinstance(args[3], bool)  # (data, batch_sizes, hx, weights, ...), else (input, hx, weights, ...)
            sizes = args[1].tolist() if packed else []
            hidden, weights, biases, layers, dropout, train, both = args[2:9] if packed else args[1:8]
            return self._run(mode, data, hidden, list(weights), biases, layers, dropout, train, both, False if packed else args[8], sizes)
        return recurrent

    @staticmethod
    def _run(mode, data, hidden, weights, biases, layers, dropout, train, both, batch_first, sizes):
        hx, cx = hidden if mode == 2 else (hidden, None)
        size = (hx if cx is None else cx).shape[-1]
        projected = hx.shape[-1] if hx.shape[-1] != size else 0
        if torch.is_autocast_enabled("cuda"):  # all of it in the lower type, weights in a buffer of their own
            kind = torch.get_autocast_dtype("cuda")
            data, hx, cx, *weights = (t if t is None else t.to(kind) for t in (data, hx, cx, *weights))
        with torch.autocast("cuda", enabled=False):
            output, hy, cy, _, _ = torch._cudnn_rnn(data, weights, (4 if biases else 2) + (projected > 0), weights[0].detach(), hx, cx, mode, size, projected, layers, batch_first,
                                                    float(dropout), train, both, sizes, None)
        return (output, hy, cy) if mode == 2 else (output, hy)

    def made(self, packet, args):
        """The results of cuDNN's two operators and of packing rows for them, under FakeTensorMode; NotImplemented for any other."""
        if packet is aten._pack_padded_sequence and not isinstance(args[1], FakeTensor):
            data, lengths, batch_first = args
            with _disable_current_modes():  # sizes: how many rows are as long, of each position
                sizes = (lengths.unsqueeze(0) > torch.arange(int(lengths.max())).unsqueeze(1)).sum(1)
                total = int(sizes.sum())
            return data.new_empty((total, *data.shape[2:])), sizes
        if packet is aten._cudnn_rnn:
            output, hy, cy, _, flat = packet(*args)
            return output, hy, cy, args[0].new_empty((self._reserve(args, output),), dtype=torch.uint8), flat
        if packet is aten._cudnn_rnn_backward:
            data, weights, _, _, hx, cx = args[:6]
            flat = data.new_empty((sum(w.numel() for w in weights),))  # their gradients lie in one buffer
            gradients = [g.view(w.shape) for g, w in zip(flat.split([w.numel() for w in weights]), weights)]
            return torch.empty_like(data), torch.empty_like(hx), None if cx is None else torch.empty_like(cx), gradients
        return NotImplemented

    def _reserve(self, args, output):
        """Bytes: what cells leave, and what the layers between give on (once more where dropout changes it)."""
        mode, size, projected, layers, dropout, train, both = args[6], args[7], args[8], args[9], args[11], args[12], args[13]
        if not train:
            return 0
        cells = math.prod(output.shape[:-1]) * (2 if both else 1)  # of a layer
        values = cells * layers * size * (KEPT[mode] + (projected > 0)) + cells * (layers - 1) * (projected or size) * (2 if dropout else 1)
        size = values * output.element_size()
        self.kept = max(self.kept or 0, size)
        return size

    def notes(self):
        if self.kept is None:
            return []
        return [f"cuDNN tells only a GPU what its recurrent layers keep for the backward pass: counted is the least that it needs ({self.kept / (1 << 20):.1f} MiB of the largest), without its workspaces"]
