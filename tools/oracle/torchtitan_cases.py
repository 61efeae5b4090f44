"""What is recorded of torchtitan: small Llamas under its own trainer, two optimizer steps each. As cases.py: `seen()` is what the engine is
fixed against, `unseen()` judges it.
"""
import dataclasses

# name -> TransformerModelArgs, and the same as a config.json. Vocabularies are odd on purpose.
SHAPE = dict(dim=256, n_layers=4, n_heads=4, n_kv_heads=2, multiple_of=16)
CONFIG = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
              max_position_embeddings=512)
MODELS = {
    "gqa": (dict(SHAPE, vocab_size=1003), dict(CONFIG, vocab_size=1003)),
    "mha": (dict(SHAPE, n_layers=3, n_kv_heads=None, vocab_size=2047), dict(CONFIG, num_hidden_layers=3, num_key_value_heads=4, vocab_size=2047)),
    "even": (dict(SHAPE, vocab_size=1024), dict(CONFIG, vocab_size=1024)),  # compiled: Inductor pads the rows of odd ones
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One recording: the trainer's model, then two whole optimizer steps of its loop. Words are those of torchtitan's configuration."""
    model: str
    batch: int = 4
    length: int = 160
    gpus: int = 1                 # 1: autocast; more: fully_shard over all
    checkpoint: str = "none"      # none · full · op · N: every Nth layer
    early_stop: bool = False
    reshard: str = "default"      # fsdp_reshard_after_forward
    optimizer: str = "fused"      # fused · foreach · for-loop
    accumulation: int = 1
    dtype: str = "float32"        # training.dtype
    param: str = "bfloat16"       # mixed_precision_param
    compiled: str = ""            # compile.components: "", "model", "loss", "model+loss"

    kind = "torchtitan"

    def header(self):
        """What the recording says of itself: these fields, and the model's config.json."""
        parallel = {"parallel": "fsdp2"} if self.gpus > 1 else {}
        return {"kind": self.kind, **dataclasses.asdict(self), **parallel, "config": MODELS[self.model][1]}

    def name(self):
        parts = [self.kind, self.model, f"B{self.batch}", f"T{self.length}", f"W{self.gpus}", self.optimizer]
        parts += [f"ac_{self.checkpoint}"] if self.checkpoint != "none" else []
        parts += ["early_stop"] if self.early_stop else []
        parts += [f"reshard_{self.reshard}"] if self.reshard != "default" else []
        parts += [f"A{self.accumulation}"] if self.accumulation > 1 else []
        parts += [self.dtype] if self.dtype != "float32" else []
        parts += [f"param_{self.param}"] if self.param != "bfloat16" else []
        parts += ["compiled_" + self.compiled] if self.compiled else []
        return "-".join(parts)


def seen():
    yield Case("gqa")
    yield Case("mha", optimizer="foreach", accumulation=2)
    yield Case("gqa", checkpoint="full")
    yield Case("gqa", checkpoint="2")
    yield Case("gqa", checkpoint="op")
    yield Case("gqa", gpus=8)
    yield Case("mha", gpus=4, reshard="never", accumulation=2)
    yield Case("gqa", gpus=8, checkpoint="full", reshard="always")
    yield Case("gqa", gpus=8, checkpoint="op")
    yield Case("gqa", gpus=8, checkpoint="2", accumulation=3)
    yield Case("gqa", gpus=8, checkpoint="op", dtype="bfloat16")
    yield Case("even", gpus=8, compiled="model")
    yield Case("even", compiled="model+loss")
    yield Case("even", gpus=8, checkpoint="full", compiled="model+loss")
    yield Case("even", gpus=8, checkpoint="op", compiled="model+loss")
    yield Case("even", checkpoint="2", accumulation=2, compiled="model+loss")


def unseen():
    yield Case("mha", batch=3, length=136, checkpoint="op", early_stop=True, optimizer="for-loop")
    yield Case("mha", batch=2, length=208, gpus=8, checkpoint="full", accumulation=2)
    yield Case("mha", batch=5, length=100, gpus=2, checkpoint="3", reshard="never")
    yield Case("gqa", batch=1, length=384, gpus=4, checkpoint="op", optimizer="foreach")
    yield Case("gqa", batch=3, length=120, checkpoint="full", early_stop=True, accumulation=2)
    yield Case("even", batch=2, length=256, gpus=4, checkpoint="2", compiled="model+loss", reshard="always")
    yield Case("even", batch=3, length=320, checkpoint="op", compiled="model")
    yield Case("even", batch=2, length=384, checkpoint="full", compiled="model+loss", optimizer="foreach")
