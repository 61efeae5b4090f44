"""Small scripts as tutorials write them; the first word names one."""
import os
import sys

import torch
import torch.nn.functional as F


def recurrent(kind="LSTM", half=False, packed=False):
    """An LSTM of two layers, both ways, with dropout, on whole or packed rows."""
    model = getattr(torch.nn, kind)(64, 256, 2, batch_first=True, dropout=0.1, bidirectional=True).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rows = torch.randn(16, 100, 64, device="cuda")
    lengths = torch.arange(100, 84, -1)
    for _ in range(4):
        given = torch.nn.utils.rnn.pack_padded_sequence(rows, lengths, batch_first=True) if packed else rows
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
            output, _ = model(given)
        (output.data if packed else output).float().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def by_hand(data=True):
    """No optimizer: parameters are written by the script, as nn.Linear's or as bare tensors."""
    model = torch.nn.Linear(1000, 1000, device="cuda") if data else None
    weights = list(model.parameters()) if data else [torch.randn(1000, 1000, device="cuda", requires_grad=True)]
    while True:  # until the capture has seen enough
        for p in weights:
            p.grad = None
        x = torch.randn(8, 1000, device="cuda")
        (model(x) if data else x @ weights[0]).sum().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        if data:
            for p in weights:
                p.data.add_(p.grad, alpha=-0.1)
        else:
            with torch.no_grad():
                for p in weights:
                    p -= 0.1 * p.grad


def saving():
    """Images are drawn on the host, and a checkpoint is written at each step over what stands there."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 10)).cuda()
    optimizer = torch.optim.Adam(model.parameters())
    torch.save({"seen": torch.arange(5)}, "seen.pt")
    assert torch.load("seen.pt")["seen"].tolist() == [0, 1, 2, 3, 4]
    for _ in range(4):
        image = torch.randn(3, 224, 224)
        assert image.numpy().shape == (3, 224, 224) and len(image.tolist()) == 3
        images = image.expand(4, 3, 224, 224).cuda()
        F.cross_entropy(model(images), torch.zeros(4, dtype=torch.long, device="cuda")).backward()
        optimizer.step()
        assert images.cpu().numpy().shape == (4, 3, 224, 224)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "kept.pt")
        torch.save(model, "kept.pt")
        optimizer.zero_grad()


def _rank(rank, world):
    assert rank == 0
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "localhost", "12355"
    torch.distributed.init_process_group("nccl", rank=rank, world_size=world)
    assert torch.distributed.get_world_size() == world
    torch.cuda.set_device(rank)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1000, 1000).to(rank), device_ids=[rank])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        model(torch.randn(8, 1000, device=rank)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.distributed.destroy_process_group()


def spawn():
    """The processes of several GPUs, started by the script."""
    import torch.multiprocessing as mp
    world = torch.cuda.device_count()
    mp.spawn(_rank, args=(world,), nprocs=world)


def sharded():
    """fully_shard of a model on the meta device, whose initial weights are drawn once it is on the GPU."""
    from torch.distributed.fsdp import fully_shard
    torch.distributed.init_process_group("nccl")
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Dropout(0.1), torch.nn.Linear(512, 512))
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    model.to_empty(device="cuda")
    for p in model.parameters():
        torch.nn.init.normal_(p)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(3):
        model(torch.randn(8, 512, device="cuda")).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def first_step():
    model = torch.nn.Linear(10, 10).cuda()
    model(torch.randn(8, 10, device="cuda")).sum().backward()
    raise RuntimeError("on the way")


if __name__ == "__main__":
    {"lstm": recurrent, "gru": lambda: recurrent("GRU"), "rnn": lambda: recurrent("RNN"), "lstm_half": lambda: recurrent(half=True), "lstm_packed": lambda: recurrent(packed=True),
     "by_hand": by_hand, "bare": lambda: by_hand(False), "saving": saving, "spawn": spawn, "sharded": sharded, "first_step": first_step}[sys.argv[1]]()
