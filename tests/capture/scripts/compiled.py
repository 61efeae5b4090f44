"""torch.compile as scripts use it beside the whole model: on a loss function with a graph break, on blocks, with lengths that change, on an optimizer's arithmetic, by its modes."""
import argparse
import copy
import threading

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.attention.flex_attention import flex_attention

parser = argparse.ArgumentParser()
parser.add_argument("way", choices=("whole", "blocks", "broken", "lengths", "optimizer", "autotune", "graphs", "error", "eager", "by_hand", "cond", "operator", "operator_eager", "operator_fails", "flex", "other_torch"))
way = parser.parse_args().way
if way == "other_torch":  # whose inner places are others
    import torch._dynamo.eval_frame
    del torch._dynamo.eval_frame.skip_code


SCRATCH = 512 << 20  # bytes


@torch.compile
def halves(x):
    return x.to(torch.float16) * 0.5, x.new_tensor(0.25)


@torch.library.custom_op("dryfit_test::scaled", mutates_args=())
def scaled(x: torch.Tensor, factor: float) -> torch.Tensor:
    """Python's own operator, with memory of its own that nobody is handed."""
    if way == "operator_fails":
        raise RuntimeError("it wants a GPU that is there")
    scratch = torch.empty((SCRATCH,), dtype=torch.uint8, device=x.device)
    half, quarter = halves(x.view(-1, 64))
    del scratch
    return (half * quarter).to(x.dtype).view_as(x) * factor


@scaled.register_fake
def _(x, factor):
    return torch.empty_like(x)


scaled.register_autograd(lambda _context, gradient: (gradient * 0.5, None))


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
        if way.startswith("operator_") or way == "operator":
            h = scaled(h, 0.5)
        if way == "flex":
            q, k, v = (t.view(t.shape[0], t.shape[1], 4, 64).transpose(1, 2) for t in h[:, :256, :768].split(256, dim=-1))
            h = h + F.pad(flex_attention(q, k, v).transpose(1, 2).flatten(2), (0, 768))
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
    assert torch.cuda.get_device_properties("cuda").multi_processor_count > 100 and torch.cuda.get_device_capability() == (9, 0)
    x = gradient.bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4 * x + (-4.7 * a + 2.0 * a @ a) @ x
    return x.to(gradient.dtype)


@torch.compile(fullgraph=True)
def stepped(p, update, rate):
    """rate: a number on the host, of another value each time, for which nothing is compiled again."""
    p.sub_(update * rate)


class Own(torch.optim.Optimizer):
    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.02})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                stepped(p, whitened(p.grad) if p.dim() == 2 else p.grad, torch.rand(2)[0] * group["lr"])


model = Model()
model.head.weight.role = "head"  # scripts note such things for their optimizers
model = model.cuda()
assert model.head.weight.role == "head"
rows, alive = torch.empty((8, 1 << 20), device="cuda"), torch.cuda.memory_allocated()
twins = copy.deepcopy([rows, *rows])
assert torch.cuda.memory_allocated() - alive == rows.nbytes, f"views of one storage are copied once: {torch.cuda.memory_allocated() - alive}"
assert isinstance(copy.deepcopy(model).head.weight, nn.Parameter)
del rows, twins
loaded = []
thread = threading.Thread(target=lambda: loaded.append(torch.empty((1000,), dtype=torch.uint8, pin_memory=True)))
thread.start()
thread.join()
assert loaded[0].numel() == 1000


def loss_of(ids):
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


if way == "blocks":
    for block in model.blocks:
        block.compile()
options = {"error": {"fullgraph": True}, "autotune": {"mode": "max-autotune"}, "graphs": {"mode": "reduce-overhead"}, "eager": {"backend": "aot_eager"}}.get(way, {})
run = loss_of if way in ("blocks", "optimizer", "operator_eager") else torch.compile(loss_of, **options)
optimizer = Own(model.parameters()) if way == "optimizer" else torch.optim.AdamW(model.parameters(), fused=True)
for step in range(4):
    ids = torch.randint(1024, (8, 257 + 64 * step if way == "lengths" else 257)).cuda()
    loss = run(ids)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: {torch.cuda.max_memory_allocated()} bytes")
