"""Ways into the engine, each as a function from a request (include/dryfit/dryfit.h) to (status, bytes). Not a test: doors_test.py and others use it."""
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DRYFIT = os.path.abspath(os.environ.get("DRYFIT", ROOT / "build/release/dryfit"))
INTEGRATION = pathlib.Path(os.environ.get("DRYFIT_INTEGRATION", ROOT / "build/integration"))
SITE = pathlib.Path(os.environ.get("DRYFIT_SITE", ROOT / "build/web/site"))
# what a program's environment or a machine's own runs taught is no part of an answer that is compared
PLAIN = {k: v for k, v in os.environ.items() if k not in ("NANOCHAT_DTYPE", "DRYFIT_PROBE", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")} | {"XDG_DATA_HOME": "/nonexistent"}

OOM = (ROOT / "tests" / "doctor" / "logs" / "fragmentation.txt").read_text()
# what every door is asked
REQUESTS = [
    {"command": "check", "args": {"depth": 26, "device-batch-size": 32, "gpu": "h100", "gpus": 8}},
    {"command": "check", "args": {"gpu": "RTX 4090", "device-batch-size": -1}},
    {"command": "check", "args": {"gpu": "h100"}, "paste": "torchrun --nproc_per_node=8 -m scripts.base_train --depth=26"},
    {"command": "check", "args": {"gpu": "a100 80gb", "gpus": 8, "nanochat": "E1", "depth": 8}},
    {"command": "check", "args": {"gpu": "b200", "fp8": True, "depth": 12, "alloc-conf": "expandable_segments:True"}},
    {"command": "check", "args": {"memory": "17GiB", "depth": 10, "max-seq-len": 4096, "device-batch-size": 2}},
    {"command": "explain", "args": {"depth": 12, "device-batch-size": 8, "gpu": "4090", "timeline": True}},
    {"command": "explain", "args": {"model": "llama-3.2-1b", "mixed": "bf16", "device-batch-size": 1, "gpu": "4090", "alternatives": 0}},
    {"command": "check", "args": {"model": "qwen2.5-0.5b", "parallel": "fsdp2", "gpu": "h100", "gpus": 4}},
    {"command": "plan", "args": {"gpu": "rtx 3060", "depth": 8}},
    {"command": "plan", "args": {"gpu": "RTX 4090"}},
    {"command": "table", "args": {"gpu": ["t4", "h200"], "depths": [4, 12], "gpus": 2}},
    {"command": "doctor", "operands": ["-"], "input": OOM},
    {"command": "check", "args": {"gpu": "h10O"}},
    {"command": "check", "args": {"gpu": "h100", "dept": 4}},
    {"command": "check", "args": {"gpu": "h100", "depth": 4, "total-batch-size": 500000}},
]


def words_of(request):
    words = [request["command"]]
    for name, value in request.get("args", {}).items():
        if value is True:
            words.append(f"--{name}")
        elif value is not False and value is not None:
            words.append(f"--{name}={','.join(map(str, value)) if isinstance(value, list) else value}")
    words += request.get("operands", []) + ["--json"]
    return words + (["--", request["paste"]] if "paste" in request else [])


def command_line(request):
    done = subprocess.run([DRYFIT, *words_of(request)], input=request.get("input", "").encode(), capture_output=True, env=PLAIN, timeout=60)
    return done.returncode, done.stdout


def c_abi(requests, door):
    """All at once, by tests/api/door.c."""
    done = subprocess.run([door], input="".join(json.dumps(r) + "\n" for r in requests).encode(), capture_output=True, timeout=120, check=True)
    rest, replies = done.stdout, []
    while rest:
        head, rest = rest.split(b"\n", 1)
        status, size = map(int, head.split())
        replies.append((status, rest[:size]))
        rest = rest[size:]
    return replies


def web_assembly(requests):
    """All at once, by node and the page's own loader."""
    done = subprocess.run(["node", str(ROOT / "tests/integration/wasm_door.mjs"), str(SITE)], input="".join(json.dumps(r) + "\n" for r in requests), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [(reply["status"], reply["body"].encode()) for reply in map(json.loads, done.stdout.splitlines())]


class Mcp:
    """`dryfit mcp` over pipes, one line at a time."""

    def __init__(self, environment=None):
        self.process = subprocess.Popen([DRYFIT, "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment or PLAIN)
        self.last = 0

    def say(self, line):
        self.process.stdin.write(line if isinstance(line, bytes) else (json.dumps(line) + "\n").encode())
        self.process.stdin.flush()

    def hear(self):
        return json.loads(self.process.stdout.readline())

    def ask(self, method, **params):
        self.last += 1
        self.say({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params})
        reply = self.hear()
        assert reply["id"] == self.last, reply
        return reply

    def tool(self, request):
        """A request in the form of the C ABI, as a call of the tool."""
        arguments = {k.replace("-", "_"): v for k, v in request.get("args", {}).items()}
        if "paste" in request:
            arguments["command"] = request["paste"]
        if "input" in request:
            arguments["text"] = request["input"]
        return self.ask("tools/call", name=f"dryfit_{request['command']}", arguments=arguments)["result"]

    def close(self):
        self.process.stdin.close()
        rest, talk = self.process.stdout.read(), self.process.stderr.read()
        return self.process.wait(timeout=30), rest, talk
