"""torch.compile as scripts use it beside the whole model: on a loss function with a graph break, on blocks, with lengths that change, on an optimizer's arithmetic, by its modes."""
import argparse

import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("way", choices=("whole", "blocks", "broken", "lengths", "optimizer", "autotune", "graphs", "error", "eager", "by_hand", "cond", "other_torch"))
way = parser.parse_args().way
if way == "other_torch":  # whose inner places are others
    import torch._dynamo.eval_frame
    del torch._dynamo.eval_frame.skip_code


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        h = F.gelu(self.up(self.norm(x)))
        if way in ("broken", "error"):
            print("a graph breaks here")
        if way == "by_hand":  # attention, whose products Inductor replaces
            q, k, v, rest = (t.view(*t.shape[:2], 4, 64).transpose(1, 2).contiguous() for t in h.split(256, dim=-1))
            y = torch.matmul(torch.softmax(torch.matmul(q, k.transpose(-2, -1)).div(8.0), dim=-1), v)
            h = torch.cat([y, rest, q, k], dim=1).transpose(1, 2).reshape(h.shape)
        if way == "cond":  # graphs within the graph, which are not followed
            h = torch.cond(h.sum() > 0, lambda h: h.sin(), lambda h: h.cos(), (h,))
        return x + self.down(h)


class Model(nn.Module):
    def __init__(self, width=256, vocab=1024):
        super().__init__()
        self.tokens = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(3))
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, ids):
        x = self.tokens(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@torch.compile
def whitened(gradient):
    x = gradient.bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4 * x + (-4.7 * a + 2.0 * a @ a) @ x
    return x.to(gradient.dtype)


class Own(torch.optim.Optimizer):
    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.02})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(whitened(p.grad) if p.dim() == 2 else p.grad, alpha=-group["lr"])


model = Model().cuda()


def loss_of(ids):
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


if way == "blocks":
    for block in model.blocks:
        block.compile()
options = {"error": {"fullgraph": True}, "autotune": {"mode": "max-autotune"}, "graphs": {"mode": "reduce-overhead"}, "eager": {"backend": "aot_eager"}}.get(way, {})
run = loss_of if way in ("blocks", "optimizer") else torch.compile(loss_of, **options)
optimizer = Own(model.parameters()) if way == "optimizer" else torch.optim.AdamW(model.parameters(), fused=True)
for step in range(4):
    ids = torch.randint(1024, (8, 257 + 64 * step if way == "lengths" else 257)).cuda()
    loss = run(ids)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: {torch.cuda.max_memory_allocated()} bytes")
