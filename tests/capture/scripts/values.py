"""What a GPU would know of values that came from the host: a script that asks is told the truth, and loops that wait for it end."""
import torch

ids = torch.tensor([[5, 6, 7, 0], [5, 6, 0, 0]], device="cuda")
mask = ids != 0
unknown = torch.randn(2, 4, device="cuda") > 0
assert int(mask.sum()) == 5 and ids[mask].tolist() == [5, 6, 7, 5, 6]
assert torch.randn(2, 4, 3, device="cuda")[mask].shape == (5, 3)
assert torch.unique(ids).tolist() == [0, 5, 6, 7]
assert torch.repeat_interleave(ids[0], torch.tensor([1, 2, 0, 3], device="cuda")).tolist() == [5, 6, 6, 0, 0, 0]
assert (unknown | torch.ones_like(unknown)).all().item() and not (unknown & torch.zeros_like(unknown)).any().item()

# a text is at its longest, whatever was drawn
written, done = ids, torch.zeros(2, dtype=torch.bool, device="cuda")
while not done.all():
    written = torch.cat([written, torch.multinomial(torch.softmax(torch.randn(2, 9, device="cuda"), -1), 1)], 1)
    ended = (written[:, -1] == 3) | torch.full((2,), written.shape[1] >= 12, device="cuda")
    done = done | ended
assert written.shape == (2, 12)

total = torch.zeros(8, 8, device="cuda")
half = torch.ones(8, 8, device="cuda", dtype=torch.bfloat16)
torch.addmm(total, half, half, out_dtype=torch.float32, out=total)
assert torch.mm(half, half, out_dtype=torch.float32).dtype is torch.float32

layer = torch.nn.Linear(300, 300)  # large enough to be without values on the host
layer.weight.data = layer.weight.data.to("cuda")
small = torch.nn.Parameter(torch.ones(4))  # small enough to have them
small.data = small.data.to("cuda")
again = type(layer.weight)(layer.weight.to("meta"), **vars(layer.weight))  # as models are made before their weights are read
assert layer.weight.is_cuda and small.is_cuda and isinstance(small, torch.nn.Parameter) and again.is_meta and isinstance(again, torch.nn.Parameter)

weight = torch.nn.Parameter(torch.randn(1000, 1000, device="cuda"))
optimizer = torch.optim.SGD([weight], 0.1)
for _ in range(2):
    weight.square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()

# torch.cuda's questions take their device by name
assert torch.cuda.max_memory_allocated(device=0) >= 4_000_000 and torch.cuda.max_memory_reserved(device="cuda") >= torch.cuda.memory_allocated(device=0) > 0
assert torch.cuda.mem_get_info(device=0)[0] < torch.cuda.mem_get_info()[1] and torch.cuda.memory_stats(device=0)["allocated_bytes.all.peak"] > 0
torch.cuda.current_stream(device=0), torch.cuda.default_stream(device=0), torch.cuda.get_rng_state(device="cuda"), torch.cuda.memory_summary(device=0, abbreviated=True)
torch.cuda.reset_peak_memory_stats(device=0)
