"""One input, the same bytes through every door: command line, C ABI, MCP, and, where they are built, WebAssembly and Python."""
import json
import os
import shutil
import subprocess
import sys

import doors

failures = []


def compare(door, replies):
    for request, expected, got in zip(doors.REQUESTS, lines, replies, strict=True):
        if got != expected:
            failures.append(f"{door}: {request['command']} {request.get('args')}: {got[0]} {got[1][:200]!r}\n  instead of {expected[0]} {expected[1][:200]!r}")


lines = [doors.command_line(r) for r in doors.REQUESTS]
if sorted({status for status, _ in lines}) != [0, 1, 2]:
    failures.append("the requests do not meet every status")
compared = ["command line"]
if "DRYFIT_DOOR" in os.environ:
    compare("C ABI", doors.c_abi(doors.REQUESTS, os.environ["DRYFIT_DOOR"]))
    compared.append("C ABI")
else:
    print("DRYFIT_DOOR is not set: the C ABI is not compared")

server = doors.Mcp()
server.ask("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "test", "version": "0"})
for request, (status, body) in zip(doors.REQUESTS, lines):
    result = server.tool(request)
    if result["content"][0]["text"].encode() != body or result["isError"] != (status not in (0, 1)):
        failures.append(f"MCP: {request['command']} {request.get('args')}: {result['content'][0]['text'][:300]}")
    if not result["isError"] and result["structuredContent"] != json.loads(body):
        failures.append(f"MCP: structured content of {request['command']} {request.get('args')}")
if server.close() != (0, b"", b""):
    failures.append("MCP: something left over at the end")
compared.append("MCP")

if shutil.which("node") and (doors.SITE / "dryfit.wasm").exists():
    compare("WebAssembly", doors.web_assembly(doors.REQUESTS))
    compared.append("WebAssembly")
else:
    print("build/web/site is not built (./test.sh --integration does): WebAssembly is not compared")

python = doors.INTEGRATION / "venv" / "bin" / "python"
if python.exists() and subprocess.run([python, "-c", "import dryfit"], capture_output=True).returncode == 0:
    script = "import sys, json, dryfit\nfor line in sys.stdin:\n r = dryfit.call(json.loads(line))\n print(json.dumps([r.status, r.json]))"
    done = subprocess.run([python, "-c", script], input="".join(json.dumps(r) + "\n" for r in doors.REQUESTS), capture_output=True, text=True, env=doors.PLAIN, timeout=120)
    compare("Python", [(status, body.encode()) for status, body in map(json.loads, done.stdout.splitlines())])
    compared.append("Python")

for line in failures:
    print("FAILED", line)
print(f"{len(doors.REQUESTS)} requests through {', '.join(compared)}; {len(failures)} failures")
sys.exit(1 if failures else 0)
