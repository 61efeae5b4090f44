"""A transformers model from its configuration, trained by a plain loop: config.json, precision, length of the batch from the command line."""
import argparse
import os

import torch
import transformers
from torch.distributed.fsdp import fully_shard

parser = argparse.ArgumentParser()
parser.add_argument("config")
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--length", type=int, default=160)
parser.add_argument("--mixed", action="store_true")
parser.add_argument("--accumulation", type=int, default=1)
parser.add_argument("--checkpointing", choices=("reentrant", "nonreentrant"))
parser.add_argument("--fused", action="store_true")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--parallel", choices=("ddp", "fsdp2"))
args = parser.parse_args()

if args.parallel:
    torch.distributed.init_process_group("nccl")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
config = transformers.AutoConfig.from_pretrained(args.config)
config.use_cache = False
model = transformers.AutoModelForCausalLM.from_config(config, torch_dtype=torch.float32 if args.mixed else torch.bfloat16).to("cuda")
if args.checkpointing:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": args.checkpointing == "reentrant"})
model.train()
if args.parallel == "ddp":
    model = torch.nn.parallel.DistributedDataParallel(model, device_ids=[0], find_unused_parameters=True)
elif args.parallel == "fsdp2":
    for part in (*model.model.layers, model.model.embed_tokens):  # as accelerate does
        fully_shard(part)
    fully_shard([model.model.norm, model.lm_head], reshard_after_forward=False)
    fully_shard(model)
if args.compile:
    model = torch.compile(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=args.fused or None)

for step in range(10):
    for _ in range(args.accumulation):
        ids = torch.randint(config.vocab_size, (args.batch, args.length))
        batch = {"input_ids": ids.to("cuda"), "attention_mask": torch.ones_like(ids).to("cuda"), "labels": ids.clone().to("cuda")}
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=args.mixed):
            outputs = model(**batch)
            loss = outputs.loss
        del outputs, batch, ids
        if args.accumulation > 1:
            loss = loss / args.accumulation
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
if args.parallel:
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
print(f"peak {torch.cuda.max_memory_allocated() / 2**20:.2f} MiB")
