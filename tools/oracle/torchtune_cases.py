"""What is recorded of torchtune: small models under its own recipes, two optimizer steps each. As cases.py: `seen()` is what the engine is
fixed against, `unseen()` judges it.
"""
import dataclasses

# name -> (the module and function of torchtune that builds it, its arguments; the same as a config.json). Vocabularies are odd on purpose.
SHAPE = dict(num_layers=3, num_heads=4, num_kv_heads=2, embed_dim=256, max_seq_len=512)
MODELS = {
    "llama3": ("llama3_1", "llama3_1", dict(SHAPE, vocab_size=1003, intermediate_dim=688),
               dict(model_type="llama", hidden_size=256, intermediate_size=688, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=1003,
                    max_position_embeddings=512)),
    "llama3_tied": ("llama3_2", "llama3_2", dict(SHAPE, vocab_size=1003, intermediate_dim=704),
                    dict(model_type="llama", hidden_size=256, intermediate_size=704, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=1003,
                         max_position_embeddings=512, tie_word_embeddings=True)),
    "llama2": ("llama2", "llama2", dict(SHAPE, num_kv_heads=4, vocab_size=1003, intermediate_dim=688),
               dict(model_type="llama", hidden_size=256, intermediate_size=688, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4, vocab_size=1003,
                    max_position_embeddings=512)),
    "qwen2": ("qwen2", "qwen2", dict(SHAPE, vocab_size=1007, intermediate_dim=704, tie_word_embeddings=True),
              dict(model_type="qwen2", hidden_size=256, intermediate_size=704, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=1007,
                   max_position_embeddings=512, tie_word_embeddings=True)),
}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One recording: the recipe's model, then two whole optimizer steps of its loop."""
    model: str
    batch: int = 4
    length: int = 160
    packed: str = ""              # "": rows of text, is_causal · flex: flex attention and positions · mask: a boolean mask and positions, as before it
    checkpoint: bool = False
    offload: bool = False         # activations on the host; with checkpoint alone
    optimizer: str = "foreach"    # torch.optim.AdamW: foreach · fused; sgd
    in_backward: bool = False     # optimizer_in_bwd
    accumulation: int = 1
    chunked: bool = True          # CEWithChunkedOutputLoss, or CrossEntropyLoss
    lora: int = 0                 # rank; 0: the full recipe
    lora_modules: str = "q_proj,v_proj"
    lora_mlp: bool = False
    lora_output: bool = False
    dropout: float = 0.0          # of the adapters
    quantized: bool = False       # torchao's NF4
    clip: bool = False            # clip_grad_norm
    dtype: str = "bf16"
    compiled: bool = False        # each block and the loss
    gpus: int = 1                 # the recipe for several, as rank 0 holds it
    reshards: bool = True         # fsdp_reshard_after_forward
    apart: str = ""               # custom_sharded_layers
    host: bool = False            # fsdp_cpu_offload

    kind = "torchtune"

    def recipe(self):
        return ("lora_finetune_" if self.lora else "full_finetune_") + ("single_device" if self.gpus == 1 else "distributed")

    def header(self):
        """What the recording says of itself: these fields, and the model's config.json."""
        config = dict(MODELS[self.model][3])
        fields = dataclasses.asdict(self)
        if not self.compiled:
            del fields["compiled"]
        if self.gpus == 1:
            del fields["gpus"], fields["reshards"], fields["apart"]
        if not self.host:
            del fields["host"]
        return {"kind": self.kind, **fields, "config": {**config, "architectures": [ARCHITECTURES[config["model_type"]]]}}

    def name(self):
        parts = [self.kind, self.model, f"B{self.batch}", f"T{self.length}", self.optimizer]
        parts += [f"packed_{self.packed}"] if self.packed else []
        parts += ["checkpoint"] if self.checkpoint else []
        parts += ["offload"] if self.offload else []
        parts += ["in_backward"] if self.in_backward else []
        parts += [f"A{self.accumulation}"] if self.accumulation > 1 else []
        parts += [] if self.chunked else ["whole"]
        parts += [f"lora{self.lora}", self.lora_modules.replace(",", "+")] if self.lora else []
        parts += ["mlp"] if self.lora_mlp else []
        parts += ["output"] if self.lora_output else []
        parts += [f"p{self.dropout}"] if self.dropout else []
        parts += ["nf4"] if self.quantized else []
        parts += ["clip"] if self.clip else []
        parts += [self.dtype] if self.dtype != "bf16" else []
        parts += ["compiled"] if self.compiled else []
        parts += [f"W{self.gpus}"] if self.gpus > 1 else []
        parts += [] if self.reshards else ["keeps"]
        parts += [self.apart.replace(",", "+")] if self.apart else []
        parts += ["host"] if self.host else []
        return "-".join(parts)


ALL = "q_proj,k_proj,v_proj,output_proj"


def seen():
    for model in MODELS:
        yield Case(model)
    yield Case("llama3", chunked=False)
    yield Case("llama3", chunked=False, accumulation=2, optimizer="fused", clip=True)
    yield Case("llama3_tied", accumulation=2, optimizer="fused")
    yield Case("llama3", batch=2, packed="mask")
    yield Case("llama3_tied", checkpoint=True)
    yield Case("llama3_tied", checkpoint=True, chunked=False, optimizer="fused")
    yield Case("llama3", in_backward=True, optimizer="fused")
    yield Case("llama3_tied", in_backward=True, checkpoint=True)
    yield Case("llama3", optimizer="sgd")
    yield Case("llama3", lora=8)
    yield Case("llama3", lora=8, lora_modules=ALL, lora_mlp=True, lora_output=True, optimizer="fused")
    yield Case("llama3_tied", lora=8, lora_modules=ALL, lora_mlp=True, checkpoint=True, optimizer="fused", accumulation=2)
    yield Case("qwen2", lora=8, lora_modules="q_proj,output_proj", dropout=0.05)
    yield Case("llama2", lora=8, checkpoint=True, packed="mask", chunked=False)
    yield Case("llama3", dtype="fp32")
    yield Case("llama3_tied", lora=8, optimizer="fused", quantized=True)
    yield Case("llama3_tied", lora=8, lora_modules=ALL, lora_mlp=True, checkpoint=True, optimizer="fused", quantized=True)
    yield Case("llama3", compiled=True)
    yield Case("llama3", compiled=True, chunked=False, optimizer="fused")
    yield Case("llama3_tied", compiled=True, checkpoint=True)
    yield Case("llama2", compiled=True, batch=2, length=256, in_backward=True, optimizer="fused", checkpoint=True)
    yield Case("llama3", compiled=True, lora=8)
    yield Case("llama3", compiled=True, lora=8, lora_modules="q_proj,v_proj,output_proj", lora_mlp=True, optimizer="fused")
    yield Case("llama3_tied", compiled=True, lora=8, lora_modules=ALL, lora_mlp=True, checkpoint=True, optimizer="fused", accumulation=2)
    yield Case("llama2", compiled=True, lora=4, lora_modules="k_proj", dropout=0.1, lora_output=True, batch=2, length=256, chunked=False)
    yield Case("llama3", compiled=True, lora=16, lora_mlp=True, dropout=0.05, batch=2, length=208, checkpoint=True, lora_output=True)
    yield Case("llama3_tied", compiled=True, lora=8, quantized=True, optimizer="fused")
    yield Case("llama3", packed="flex", batch=2, length=256)
    yield Case("llama3", packed="flex", compiled=True, batch=2, length=256)
    yield Case("llama3_tied", packed="flex", compiled=True, checkpoint=True, batch=2, length=256, optimizer="fused")
    yield Case("llama3", packed="flex", compiled=True, lora=8, lora_modules="q_proj,v_proj,output_proj", lora_mlp=True, batch=2, length=256, optimizer="fused", dropout=0.05)
    yield Case("llama2", packed="flex", compiled=True, lora=8, lora_mlp=True, lora_modules="output_proj", checkpoint=True, batch=3, length=128)
    yield Case("llama3", checkpoint=True, offload=True)
    yield Case("llama3_tied", checkpoint=True, offload=True, chunked=False, accumulation=2, batch=2, length=240, optimizer="fused")
    yield Case("llama3", checkpoint=True, offload=True, lora=8, lora_modules=ALL, lora_mlp=True, batch=2, length=208)
    yield Case("llama3", checkpoint=True, offload=True, compiled=True, in_backward=True, optimizer="fused", batch=2, length=256)
    yield Case("llama3", gpus=2)
    yield Case("llama3_tied", gpus=3, checkpoint=True, accumulation=2, optimizer="fused", clip=True, batch=2, length=240)
    yield Case("llama3", gpus=4, checkpoint=True, chunked=False, reshards=False)
    yield Case("llama3", gpus=2, lora=8)
    yield Case("llama3_tied", gpus=4, lora=8, lora_modules=ALL, lora_mlp=True, checkpoint=True, optimizer="fused", accumulation=2)
    yield Case("qwen2", gpus=2, checkpoint=True, in_backward=True, optimizer="fused")
    yield Case("llama3", gpus=2, packed="flex", checkpoint=True, batch=2, length=256)
    yield Case("llama3", gpus=2, checkpoint=True, apart="tok_embeddings,output", in_backward=True)
    yield Case("llama3", gpus=2, host=True)
    yield Case("llama2", gpus=4, checkpoint=True, apart="tok_embeddings", chunked=False, optimizer="fused")
    yield Case("llama2", packed="flex", checkpoint=True, offload=True, compiled=True, lora=8, lora_mlp=True, batch=3, length=144, dropout=0.05)


def unseen():
    yield Case("qwen2", batch=3, length=136, checkpoint=True, in_backward=True, optimizer="fused")
    yield Case("llama3", batch=2, length=208, lora=16, lora_modules="q_proj,k_proj,v_proj", lora_output=True, checkpoint=True, dropout=0.1)
    yield Case("llama3_tied", batch=5, length=100, chunked=False, accumulation=2, optimizer="sgd", clip=True)
    yield Case("llama2", batch=1, length=352, lora=4, lora_mlp=True, accumulation=2, packed="mask", optimizer="fused")
    yield Case("qwen2", batch=2, length=240, lora=8, lora_modules=ALL, lora_mlp=True, checkpoint=True, chunked=False)
    yield Case("llama3_tied", batch=3, length=120, lora=4, lora_modules="k_proj,output_proj", dropout=0.05, accumulation=2, quantized=True)
    yield Case("llama2", compiled=True, batch=2, length=256, in_backward=True, optimizer="fused")
    yield Case("llama3_tied", compiled=True, lora=4, lora_modules="v_proj,output_proj", chunked=False, accumulation=2, batch=5, length=96, optimizer="sgd")
    yield Case("llama2", compiled=True, lora=16, lora_modules=ALL, lora_mlp=True, lora_output=True, dropout=0.05, batch=3, length=144, optimizer="fused", clip=True)
    yield Case("llama3", compiled=True, lora=8, lora_modules="q_proj", lora_mlp=True, dropout=0.1, batch=2, length=320, checkpoint=True)
    yield Case("llama2", packed="flex", compiled=True, lora=16, lora_modules=ALL, lora_output=True, batch=2, length=384, accumulation=2)
    yield Case("llama2", checkpoint=True, offload=True, lora=8, lora_mlp=True, dropout=0.1, batch=5, length=96, accumulation=2, optimizer="fused")
    yield Case("llama2", checkpoint=True, offload=True, compiled=True, batch=3, length=144, chunked=False, clip=True)
    yield Case("llama2", gpus=3, checkpoint=True, lora=16, lora_output=True, dropout=0.05, batch=2, length=208, clip=True)
    yield Case("llama3", gpus=8, checkpoint=True, accumulation=2, optimizer="fused", batch=3, length=120, apart="tok_embeddings,output")
    yield Case("llama3", gpus=4, host=True, lora=8, lora_mlp=True, clip=True, accumulation=2, checkpoint=True)
    yield Case("llama2", gpus=8, host=True, batch=2, length=256, optimizer="fused", chunked=False)
    yield Case("llama3_tied", gpus=2, checkpoint=True, offload=True, batch=2, length=176, chunked=False)
    yield Case("llama3_tied", packed="flex", compiled=True, batch=1, length=256, lora=8, lora_modules=ALL, lora_mlp=True, checkpoint=True, optimizer="fused")
    yield Case("qwen2", packed="flex", batch=2, length=384, checkpoint=True)
    yield Case("qwen2", checkpoint=True, offload=True, dtype="fp32", batch=3, length=120, clip=True)
    yield Case("llama3_tied", compiled=True, lora=8, quantized=True, lora_modules=ALL, lora_mlp=True, checkpoint=True, optimizer="fused", batch=2, length=224)
    yield Case("llama3_tied", packed="flex", compiled=True, lora=4, quantized=True, lora_modules="q_proj,output_proj", batch=2, length=256, checkpoint=True, offload=True)
    yield Case("llama3", gpus=2, checkpoint=True, compiled=True)
    yield Case("llama2", gpus=4, checkpoint=True, compiled=True, lora=8, lora_mlp=True, chunked=False, optimizer="fused", batch=2, length=256)
