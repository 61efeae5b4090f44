"""GPT-2 from scratch with transformers' Trainer, as its examples go."""
import argparse
import tempfile

import torch
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

parser = argparse.ArgumentParser()
parser.add_argument("config")
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--length", type=int, default=160)
parser.add_argument("--use-cache", type=int, default=1)
parser.add_argument("--compile", action="store_true")
options = parser.parse_args()

config = AutoConfig.from_pretrained(options.config)
config.use_cache = bool(options.use_cache)
model = AutoModelForCausalLM.from_config(config)
rows = [{"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids} for ids in torch.randint(config.vocab_size, (64, options.length))]
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(folder, per_device_train_batch_size=options.batch, gradient_accumulation_steps=2, max_steps=20, bf16=True, optim="adamw_torch_fused", logging_steps=1,
                                  torch_compile=options.compile, report_to=[], dataloader_num_workers=2, save_strategy="no")
    Trainer(model=model, args=arguments, train_dataset=rows).train()
