"""Training scripts captured under a real torch, and what the engine derives of the same runs by itself. Needs torch with CUDA (no GPU), transformers and the
package in one Python: `tools/install.sh capture` makes it, or DRYFIT_TORCH_PYTHON names one. timm and a Trainer's accelerate where they are installed.
"""
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "tests" / "capture" / "scripts"
PYTHON = os.environ.get("DRYFIT_TORCH_PYTHON", str(ROOT / "build" / "integration" / "torch" / "bin" / "python"))
if os.environ.get("DRYFIT_CAPTURE_TEST") != "inside":
    found = pathlib.Path(PYTHON).exists() and subprocess.run([PYTHON, "-c", "import dryfit, torch, transformers; assert torch.version.cuda"], cwd="/", capture_output=True).returncode == 0
    if not found:
        print(f"no torch with CUDA, transformers and dryfit in {PYTHON}: tools/install.sh capture installs them, or set DRYFIT_TORCH_PYTHON")
        sys.exit(77)
    os.environ.update(DRYFIT_CAPTURE_TEST="inside", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    os.chdir("/")
    os.execv(PYTHON, [PYTHON, __file__])

import dryfit  # noqa: E402

CONFIGS = {
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1003, "max_position_embeddings": 512},
    "gpt2": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 192, "n_layer": 3, "n_head": 3, "vocab_size": 1003, "n_positions": 512},
}
TRANSFORMERS = importlib.metadata.version("transformers")
failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)


def command(*words):
    return subprocess.run([sys.executable, "-m", "dryfit.capture", *map(str, words)], capture_output=True, text=True, timeout=280)


def most(report, phase=None):
    """Bytes alive at the peak, in blocks of 512: what both derivations share, whatever the allocator makes of their order."""
    return max(p.allocated_bytes for p in report.timeline.points if phase in (None, p.phase))


def installed(name):
    return subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True).returncode == 0


def an_afternoons_script():
    done = command("--gpu", "4090", "--json", "--", SCRIPTS / "small_gpt.py", "--layers", 2)
    report = json.loads(done.stdout)
    printed = [line.rsplit("peak ", 1)[1] for line in done.stderr.splitlines() if "peak " in line and "iteration" in line]
    expect(done.returncode == 0 and report["workload"]["family"] == "captured", done.stderr)
    expect(printed[-1] == f"{report['memory']['allocated']['bytes'] / 2**20:.1f} MiB", f"what the script printed: {printed}, {report['memory']['allocated']}")
    expect([p["name"] for p in report["phases"]] == ["load", "validation", "first_step", "train_step"], str(report["phases"]))
    expect(report["workload"]["model"]["steps"] == 3 and report["workload"]["run"]["grad_accum_steps"] == 2, str(report["workload"]))
    expect(any("small_gpt.py:" in note for note in report["warnings"]), str(report["warnings"]))
    expect(report["memory"]["static"]["weights"] == 4 * report["workload"]["params"], f"a tied weight counts once: {report['memory']['static']}, {report['workload']['params']}")
    half = command("--gpu", "4090", "--json", "--steps", 2, "--", SCRIPTS / "small_gpt.py", "--layers", 1, "--dtype", "float16", "--compile")
    report = json.loads(half.stdout)
    expect(report["memory"]["static"]["optimizer"] > 0, "a scaler lets the optimizer step")
    expect(report["workload"]["model"]["compile"] == "graphs" and not any("op by op" in w for w in report["warnings"]), str(report["warnings"]))


def what_the_engine_derives(folder):
    for model, script, engine in (
            ("llama", [], {"dtype": "bf16", "optimizer": "adamw_torch", "no_cache": True}),
            ("gpt2", ["--checkpointing", "nonreentrant"], {"dtype": "bf16", "optimizer": "adamw_torch", "recompute": "full", "no_cache": True}),
            ("llama", ["--mixed", "--accumulation", "2", "--fused"], {"no_cache": True, "dtype": "fp32", "mixed": "bf16", "optimizer": "adamw_torch_fused", "grad_accum_steps": 2}),
            ("llama", ["--fused", "--compile"], {"dtype": "bf16", "optimizer": "adamw_torch_fused", "compile": "1", "cold_caches": "0", "no_cache": True}),
            ("llama", ["--checkpointing", "nonreentrant", "--compile"], {"dtype": "bf16", "optimizer": "adamw_torch", "compile": "1", "cold_caches": "0", "recompute": "full", "no_cache": True}),
            ("llama", ["--parallel", "ddp"], {"dtype": "bf16", "optimizer": "adamw_torch", "gpus": 2, "parallel": "ddp", "no_cache": True}),
            ("llama", ["--parallel", "fsdp2"], {"dtype": "bf16", "optimizer": "adamw_torch", "gpus": 2, "parallel": "fsdp2", "no_cache": True})):
        config = str(folder / f"{model}.json")
        captured = dryfit.capture([str(SCRIPTS / "hugging_face.py"), config, *script], gpu="h100", gpus=engine.get("gpus"), timeline=True, local=False)
        derived = dryfit.explain(gpu="h100", config=config, device_batch_size=4, max_seq_len=160, timeline=True, alternatives="0", local=True, transformers=TRANSFORMERS, **engine)
        # the engine lays out Trainer, which holds ids, mask and labels of every micro-step; this loop drops them before backward
        held = 3 * engine.get("grad_accum_steps", 1) * 4 * 160 * 8
        expect(0 <= most(derived) - most(captured) <= held, f"{model} {script}: captured {most(captured)}, derived {most(derived)}")
        expect(captured.machine.gpus == engine.get("gpus", 1) and captured.fits, repr(captured)[:300])


def models_that_are_read(folder):
    """from_pretrained and Trainer on one GPU and several, by torchrun and accelerate's file: what PyTorch allocates of them, and what the engine derives."""
    if not installed("accelerate"):
        return print("left out: accelerate is not installed")
    small = folder / "small"
    config = {**CONFIGS["llama"], "vocab_size": 1024}
    subprocess.run([sys.executable, "-c", "import sys, json, transformers as t; c = json.loads(sys.argv[1]); t.AutoModelForCausalLM.from_config(t.AutoConfig.for_model(**c)).save_pretrained(sys.argv[2])", json.dumps(config), str(small)], check=True, capture_output=True)
    (folder / "sharded.yaml").write_text("compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\nmixed_precision: bf16\nnum_machines: 1\nnum_processes: 8\nfsdp_config:\n  fsdp_version: 2\n  fsdp_reshard_after_forward: true\n"
                                         "  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP\n  fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer\n  fsdp_state_dict_type: SHARDED_STATE_DICT\n")
    script, torchrun = str(SCRIPTS / "pretrained.py"), "torchrun --nproc_per_node=8"
    sharded, zero = folder / "sharded.yaml", folder / "zero.json"
    zero.write_text(json.dumps({"bf16": {"enabled": True}, "zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto"}))
    fsdp = """--fsdp "full_shard auto_wrap" --fsdp_config '{"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}'"""
    for gpus, launcher, words, flags in ((1, "python", [], ""), (1, "python", ["--device-map", "auto"], ""), (8, torchrun, [], ""), (8, torchrun, ["--fsdp", "full_shard auto_wrap"], fsdp),
                                         (8, f"accelerate launch --config_file {sharded}", [], ""), *([(8, torchrun, ["--deepspeed", str(zero)], f"--deepspeed {zero}")] if installed("deepspeed") else [])):
        captured = dryfit.capture([*launcher.split(), script, str(small), *words], gpu="a100-sxm4-80gb", timeline=True, local=False)
        derived = dryfit.explain(f"{launcher} run_clm.py --per_device_train_batch_size 4 --bf16 True {flags}", gpu="a100-sxm4-80gb", config=str(small / "config.json"), max_seq_len=160, dtype="fp32", timeline=True, alternatives="0", transformers=TRANSFORMERS)
        expect(abs(most(captured) - most(derived)) <= 24 << 10, f"{launcher} {words}: captured {most(captured)}, derived {most(derived)}")
        expect(captured.machine.gpus == derived.machine.gpus == gpus, f"{launcher} {words}: {captured.machine}")


def what_a_gpu_would_know():
    done = command("--gpu", "h100", "--", SCRIPTS / "values.py")
    expect(done.returncode == 0 and "the script stopped" not in done.stdout + done.stderr, done.stderr[-2000:])


def preferences(folder):
    for what, needs in (("grpo", "trl"), ("quantized", "bitsandbytes, peft")):
        if not installed(needs):
            print(f"left out: {needs} is not installed")
            continue
        captured = dryfit.capture([str(SCRIPTS / "preferences.py"), str(folder / "small"), what], gpu="a100-sxm4-80gb", timeline=True, local=False)
        expect(captured.workload.model["steps"] == 3, repr(captured)[:300])
        if what == "grpo":  # nine bytes of a prompt and twelve of an answer; a capture calls passes without gradients validation
            derived = dryfit.explain("trl grpo --per_device_train_batch_size 4 --num_generations 4 --max_completion_length 12", gpu="a100-sxm4-80gb", config=str(folder / "small" / "config.json"), max_seq_len=21, timeline=True, alternatives="0", transformers=TRANSFORMERS)
            for phase, here in (("rollout", "validation"), ("train_step", "train_step")):
                both = most(derived, phase), most(captured, here)
                expect(abs(both[0] - both[1]) <= 24 << 10, f"{what}, {phase}: derived and captured {both}")
        else:
            derived = dryfit.explain(gpu="a100-sxm4-80gb", config=str(folder / "small" / "config.json"), device_batch_size=4, max_seq_len=160, mixed="bf16", dtype="bf16", lora_rank=8, load_in_4bit=True, recompute="full", optimizer="adamw_torch", timeline=True, alternatives="0",
                                     transformers=TRANSFORMERS)
            expect(abs(most(captured) - most(derived)) <= 64 << 10, f"{what}: captured {most(captured)}, derived {most(derived)}")


def other_peoples_models(folder):
    if installed("timm"):
        done = command("--gpu", "t4", "--json", "--", SCRIPTS / "images.py", "--batch", 4)
        report = json.loads(done.stdout)
        expect(done.returncode == 0 and report["workload"]["model"]["steps"] == 3, done.stderr[-2000:])
        expect(any("DataLoader" in w for w in report["warnings"]), str(report["warnings"]))
    else:
        print("left out: timm is not installed")
    if not installed("accelerate"):
        return print("left out: accelerate is not installed")
    even = folder / "even.json"  # whether rows of odd length are padded Inductor decides by timing
    even.write_text(json.dumps({**CONFIGS["llama"], "vocab_size": 1024}))
    for model, script, more in (("gpt2", [], {"no_cache": True}), ("even", ["--compile"], {"compile": "1", "cold_caches": "0", "no_cache": True})):
        engine = dryfit.explain(gpu="h100", config=str(folder / f"{model}.json"), device_batch_size=4, max_seq_len=160, dtype="fp32", mixed="bf16", optimizer="adamw_torch_fused", grad_accum_steps=2, timeline=True, alternatives="0", transformers=TRANSFORMERS, **more)
        captured = dryfit.capture([str(SCRIPTS / "trainer.py"), str(folder / f"{model}.json"), "--use-cache", "0", *script], gpu="h100", timeline=True, local=False)
        # Trainer keeps a few blocks more than the engine has of its loop: the loss it has logged and the count of its tokens are two of them
        expect(0 <= most(captured) - most(engine) <= 6 * 512, f"Trainer {model}: captured {most(captured)}, derived {most(engine)}")


def other_ways_to_compile(folder):
    """way: what compile says, a word among the notes (none: no note of op by op), an op among the allocations."""
    ways = {"whole": ("graphs", "", "mm"), "blocks": ("graphs", "", "triton_poi_fused"), "broken": ("graphs", "", "triton_poi_fused"), "lengths": ("graphs", "", "triton_poi_fused"), "optimizer": ("graphs", "", "linalg_vector_norm"),
            "autotune": ("graphs", "timing", "mm"), "graphs": ("graphs", "CUDA graphs are recorded", "mm"), "by_hand": ("graphs", "", "aten._scaled_dot_product_efficient_attention 0"), "operator": ("graphs", "", "triton_poi_fused__to_copy_mul"), "operator_eager": ("graphs", "", "triton_poi_fused__to_copy_mul"), "operator_fails": ("graphs", "dryfit_test.scaled allocates inside is not seen", "dryfit_test.scaled 0"),
            "flex": ("graphs", "", "triton_tem_fused"), "cond": ("eager", "op by op", "aten.erf"), "eager": ("eager", "aot_eager", "aten.gelu"), "other_torch": ("eager", "has not what a capture replaces", "aten.gelu")}
    peaks = {}
    for way, (how, word, op) in ways.items():
        file = folder / f"{way}.capture"
        done = command("--gpu", "h100", "--json", "--out", file, "--", SCRIPTS / "compiled.py", way)
        report = json.loads(done.stdout)
        expect(done.returncode == 0 and report["workload"]["model"]["compile"] == how and report["workload"]["model"]["steps"] == 3, f"{way}: {report} {done.stderr[-500:]}")
        told = any(word in w for w in report["warnings"]) if word else not any("op by op" in w for w in report["warnings"])
        expect(told, f"{way}: {report['warnings']}")
        expect(op in file.read_text(), f"{way}: no {op}")
        expect(report["workload"]["params"] == 2102528, f"{way}: {report['workload']['params']} parameters")
        peaks[way] = report["memory"]["allocated"]["bytes"]
    expect(peaks["whole"] < peaks["blocks"] and peaks["whole"] < peaks["broken"] < peaks["eager"], str(peaks))
    expect(peaks["autotune"] == peaks["graphs"], str(peaks))  # whose mode makes CUDA graphs, too
    expect(peaks["whole"] - peaks["graphs"] >= 32 << 20, f"cuBLAS's workspace of forward is given back before backward is recorded: {peaks}")
    steps = (folder / "graphs.capture").read_text().split("segment\t")
    later = [s for s in steps if s.startswith("train_step\tbackward")][-1]
    expect("\t127\t" not in later and sum("\t127\t" in s for s in steps) > 2, "a CUDA graph that is replayed allocates nothing")
    expect(min(peaks["operator"], peaks["operator_eager"]) > 512 << 20 > peaks["operator_fails"], f"what an operator's own code allocates: {peaks}")
    expect("\tbackward\t2\n" not in (folder / "flex.capture").read_text(), "a graph that is traced is no backward pass")
    for parallel in ("ddp", "fsdp2"):
        report = json.loads(command("--gpu", "h100", "--gpus", 2, "--json", "--", SCRIPTS / "hugging_face.py", folder / "llama.json", "--compile", "--parallel", parallel).stdout)
        expect(report["workload"]["model"]["compile"] == "graphs" and not any("op by op" in w for w in report["warnings"]), f"{parallel}: {report['warnings']}")
    done = command("--gpu", "h100", "--json", "--", SCRIPTS / "compiled.py", "error")
    error = json.loads(done.stdout)["error"]
    expect(done.returncode == 2 and error["code"] == "script_failed" and "compiled.py:" in error["where"], done.stdout)


def train_a_little():
    import torch
    model = torch.nn.Linear(1000, 1000, device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        model(torch.ones(8, 1000, device="cuda")).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def tutorials(folder):
    """LSTMs, steps without an optimizer, checkpoints, processes that a script starts."""
    def of(way, *flags, cwd=folder):
        file = folder / f"{way}.capture"
        done = subprocess.run([sys.executable, "-m", "dryfit.capture", "--gpu", "4090", "--json", "--out", str(file), *flags, "--", *(["torchrun", "--nproc_per_node=2"] if way == "sharded" else []), str(SCRIPTS / "tutorials.py"), way], capture_output=True, text=True, timeout=280, cwd=cwd)
        report = json.loads(done.stdout)
        expect(done.returncode == 0 and report["workload"]["model"]["steps"] == 3, f"{way}: {report} {done.stderr[-1500:]}")
        return report, file.read_text()

    cells = 16 * 100 * 2  # rows, positions, both ways
    inner = cells * 256 * 2  # what the first layer gives to the second, and the same after dropout
    for way, kept in (("lstm", 4 * (cells * 2 * 256 * 5 + inner)), ("gru", 4 * (cells * 2 * 256 * 4 + inner)), ("rnn", 4 * inner), ("lstm_half", 2 * (cells * 2 * 256 * 5 + inner)), ("lstm_packed", 4 * (cells * 2 * 256 * 5 + inner) * sum(range(85, 101)) // 1600)):
        report, text = of(way)
        expect(f"+\t{kept}\t0\tactivations\tuint8\t{kept}\taten._cudnn_rnn\t" in text, f"{way}: what cuDNN keeps is not {kept} bytes")
        expect(any("least" in w for w in report["warnings"]), f"{way}: {report['warnings']}")
    expect(report["workload"]["params"] == 4 * (2 * (64 + 256) + 2 * (512 + 256) + 8) * 256 + 0, str(report["workload"]["params"]))
    for way, parameters in (("by_hand", 1001000), ("bare", 1000000)):
        report, text = of(way)
        expect(report["workload"]["params"] == parameters and report["memory"]["static"]["weights"] == 4 * parameters, f"{way}: {report['workload']}, {report['memory']['static']}")
        expect("\tgradients\tfloat32\t1000x1000\t" in text, f"{way}: no gradients")
    (folder / "kept.pt").write_text("of a real run")
    report, _ = of("saving")
    expect((folder / "kept.pt").read_text() == "of a real run" and (folder / "seen.pt").stat().st_size > 0, "a checkpoint without values was written")
    expect(any("kept.pt was not written" in w for w in report["warnings"]) and any("cuDNN takes for convolutions" in w for w in report["warnings"]), str(report["warnings"]))
    report, _ = of("spawn", "--gpus", "2")
    expect(report["machine"]["gpus"] == 2 and any("of the 2 processes" in w for w in report["warnings"]), str(report["warnings"]))
    report, text = of("sharded")
    expect(report["machine"]["gpus"] == 2 and "\t256x512\t" in text, "half of each weight is here")


def launchers():
    from dryfit._capture import _pasted
    for words, target in (("python -u train.py --x", (["train.py", "--x"], None, False)), ("torchrun --standalone train.py", (["train.py"], 1, True)), ("torchrun --nnodes 2 --nproc-per-node=8 -m pkg.train", (["-m", "pkg.train"], 16, True)),
                          ("python3 -m torch.distributed.run --nproc_per_node 4 train.py", (["train.py"], 4, True)), ("deepspeed --num_gpus=4 train.py --deepspeed ds.json", (["train.py", "--deepspeed", "ds.json"], 4, True)),
                          ("accelerate launch --multi_gpu --num_processes 2 train.py", (["train.py"], 2, False)), ("-m package.train", (["-m", "package.train"], None, False))):
        got = _pasted(words.split())
        expect((got.words, got.gpus, got.launched) == target and (got.program is None) == (not words.startswith("accelerate")), f"{words}: {got}")
    for words, target in (("trl sft --num_processes 8 --dataset_name x", (["trl", "sft", "--num_processes", "8", "--dataset_name", "x"], 8, False)), ("tune run --nproc_per_node=2 full_finetune_distributed", (["tune", "run", "--nproc_per_node=2", "full_finetune_distributed"], 2, False)),
                          ("swift sft --model x", (["-m", "swift.cli.sft", "--model", "x"], None, False)), ("llamafactory-cli train a.yaml", (["-m", "llamafactory.launcher", "a.yaml"], None, False)),
                          ("axolotl train c.yml", (["-m", "axolotl.cli.train", "c.yml"], None, False)), ("swift export", (["swift", "export"], None, False))):
        got = _pasted(words.split())
        expect((got.words, got.gpus, got.launched) == target and (got.program is not None) == (words.split()[0] in ("trl", "tune")), f"{words}: {got}")


def a_function_and_what_goes_wrong(folder):
    report = dryfit.capture(train_a_little, gpu="3090", local=False)
    expect(report.workload.params == 1001000 and report.memory.static.weights == 4 * 1001000 and report.fits, repr(report)[:300])
    for text, code in (("import torch\nraise ValueError('no data')\n", "script_failed"), ("import torch\ntorch.ones(3)\n", "empty_capture"), ("import sys\nsys.exit(3)\n", "script_failed"), ("def x(:\n", "script_failed")):
        (folder / "bad.py").write_text(text)
        done = command("--gpu", "h100", "--json", "--", folder / "bad.py")
        error = json.loads(done.stdout).get("error", {})
        expect(done.returncode == 2 and error.get("code") == code and error.get("hint"), f"{text!r}: {done.returncode} {done.stdout} {done.stderr[-500:]}")
    done = command("--gpu", "h100", "--json", "--", SCRIPTS / "tutorials.py", "first_step")
    error = json.loads(done.stdout).get("error", {})
    expect(done.returncode == 2 and "in its first step" in error.get("message", "") and "tutorials.py:" in error.get("where", ""), f"no step was made: {done.stdout}")
    for words in (["--", folder / "absent.py"], ["--steps", "0", "--", folder / "bad.py"], ["--gpu", "h10O", "--", folder / "bad.py"], [], ["--", "-m"]):
        done = command(*words)
        expect(done.returncode == 2 and "hint:" in done.stderr, f"{words}: {done.returncode} {done.stderr[-500:]}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        for model, config in CONFIGS.items():
            (place / f"{model}.json").write_text(json.dumps(config))
        an_afternoons_script()
        what_the_engine_derives(place)
        models_that_are_read(place)
        what_a_gpu_would_know()
        preferences(place)
        other_peoples_models(place)
        other_ways_to_compile(place)
        launchers()
        tutorials(place)
        a_function_and_what_goes_wrong(place)
    for failure in failures:
        print("FAILED", failure)
    sys.exit(1 if failures else 0)
