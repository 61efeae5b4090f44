"""A small GPT on bytes, as people write it in an afternoon: the model, AdamW, mixed precision, gradient accumulation, an evaluation loop."""
import argparse
import math
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (t.view(B, T, self.heads, C // self.heads).transpose(1, 2) for t in self.qkv(x).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, vocab, length, width, layers, heads):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)
        self.head.weight = self.tokens.weight
        self.apply(self.init)

    @staticmethod
    def init(module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, idx, targets=None):
        x = self.tokens(idx) + self.positions(torch.arange(idx.shape[1], device=idx.device))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        loss = None if targets is None else F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))
        return logits, loss


parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--length", type=int, default=256)
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--accumulation", type=int, default=2)
parser.add_argument("--dtype", default="bfloat16")
parser.add_argument("--iterations", type=int, default=100)
parser.add_argument("--compile", action="store_true")
args = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(1337)
data = np.random.default_rng(0).integers(0, 256, 100_000).astype(np.uint8)


def get_batch():
    starts = torch.randint(len(data) - args.length, (args.batch,))
    x = torch.stack([torch.from_numpy(data[i:i + args.length].astype(np.int64)) for i in starts])
    y = torch.stack([torch.from_numpy(data[i + 1:i + 1 + args.length].astype(np.int64)) for i in starts])
    return x.pin_memory().to(device, non_blocking=True), y.pin_memory().to(device, non_blocking=True)


@torch.no_grad()
def estimate_loss(model):
    model.eval()
    losses = torch.zeros(20)
    for k in range(20):
        with context:
            losses[k] = model(*get_batch())[1].item()
    model.train()
    return losses.mean()


model = GPT(512, args.length, 256, args.layers, 4).to(device)
context = torch.amp.autocast(device_type="cuda", dtype=getattr(torch, args.dtype))
scaler = torch.amp.GradScaler("cuda", enabled=args.dtype == "float16")
decay = [p for p in model.parameters() if p.dim() >= 2]
other = [p for p in model.parameters() if p.dim() < 2]
optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": other, "weight_decay": 0.0}], lr=6e-4, betas=(0.9, 0.95))
if args.compile:
    model = torch.compile(model)

for iteration in range(args.iterations):
    if iteration % 50 == 0:
        print(f"step {iteration}: validation loss {estimate_loss(model):.4f}")
    start = time.time()
    for _ in range(args.accumulation):
        x, y = get_batch()
        with context:
            logits, loss = model(x, y)
            loss = loss / args.accumulation
        scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    if math.isnan(loss.item()):
        raise SystemExit("the loss is not a number")
    print(f"iteration {iteration}: loss {loss.item() * args.accumulation:.4f}, norm {norm:.2f}, {time.time() - start:.2f} s, peak {torch.cuda.max_memory_allocated() / 2**20:.1f} MiB")
