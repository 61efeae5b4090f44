"""`dryfit mcp` as a process: what an agent's pipes carry, and nothing else on them."""
import json
import os
import subprocess
import sys
import tempfile

import jsonschema

import doors

failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)


# the whole of an ordinary session
server = doors.Mcp()
hello = server.ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "test", "version": "0"})["result"]
expect(hello["protocolVersion"] == "2025-11-25" and hello["capabilities"] == {"tools": {"listChanged": False}}, hello)
server.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
tools = server.ask("tools/list")["result"]["tools"]
expect([t["name"] for t in tools] == ["dryfit_plan", "dryfit_check", "dryfit_explain", "dryfit_table", "dryfit_doctor"], [t["name"] for t in tools])
for tool in tools:  # every flag that help knows, but for those of a terminal
    command = json.loads(subprocess.run([doors.DRYFIT, "help", tool["name"][7:], "--json"], capture_output=True, text=True).stdout)["commands"][0]
    known = {flag["name"].replace("-", "_") for flag in command["flags"]} - {"json", "color", "ascii", "quiet", "verbose", "help", "csv", "svg"}
    expect(known <= set(tool["inputSchema"]["properties"]), f"{tool['name']}: {known - set(tool['inputSchema']['properties'])}")
    expect(all(p.get("description") for p in tool["inputSchema"]["properties"].values()), f"{tool['name']}: an argument without a description")
with tempfile.TemporaryDirectory() as folder:
    log = os.path.join(folder, "train.log")
    with open(log, "w") as file:
        file.write((doors.ROOT / "tests" / "doctor" / "logs" / "fragmentation.txt").read_text())
    result = server.ask("tools/call", name="dryfit_doctor", arguments={"file": log})["result"]
    expect(not result["isError"] and result["structuredContent"]["finding"] == "failure", result)
    told = result["structuredContent"]
snapshot = server.ask("tools/call", name="dryfit_doctor", arguments={"file": str(doors.ROOT / "tests" / "doctor" / "snapshots" / "leak.pickle")})["result"]
expect(not snapshot["isError"] and snapshot["structuredContent"]["devices"], f"a memory snapshot: {str(snapshot)[:300]}")
# clients validate an answer by its tool's schema, which stands alone
schemas = {tool["name"]: jsonschema.Draft202012Validator(tool["outputSchema"]) for tool in tools}
for tool, answer in [("dryfit_doctor", told), ("dryfit_doctor", snapshot["structuredContent"])] + [
        (name, server.ask("tools/call", name=name, arguments=arguments)["result"]["structuredContent"]) for name, arguments in (
            ("dryfit_check", {"depth": 26, "gpu": "h100", "gpus": 8}), ("dryfit_explain", {"depth": 4, "gpu": "4090", "timeline": True}), ("dryfit_plan", {"gpu": "4090", "depth": 8}),
            ("dryfit_plan", {"depth": 4, "offers": True}), ("dryfit_table", {"gpu": ["t4"], "depths": [4]}))]:
    problems = [error.message for error in schemas[tool].iter_errors(answer)]
    expect(not problems, f"{tool}: {str(problems)[:300]}")
# what is wrong gets its error, and the next message its answer
for line, code in ((b"{oops\n", -32700), (b"\xff\xfe\x00\n", -32700), (b'{"jsonrpc":"2.0","id":7,"method":"no/such"}\n', -32601), (b"[" * 100000 + b"\n", -32700), (b"x" * (17 << 20) + b"\n", -32600)):
    server.say(line)
    reply = server.hear()
    expect(reply["error"]["code"] == code, f"{line[:40]!r}: {reply}")
expect(server.ask("ping")["result"] == {}, "ping after all that")
code, rest, talk = server.close()
expect((code, rest, talk) == (0, b"", b""), f"at the end: {code} {rest[:200]} {talk[:200]}")

# a last line without its end is answered; a client that is gone ends the server quietly
done = subprocess.run([doors.DRYFIT, "mcp"], input=b'{"jsonrpc":"2.0","id":1,"method":"ping"}', capture_output=True, timeout=30)
expect((done.returncode, done.stdout) == (0, b'{"jsonrpc":"2.0","id":1,"result":{}}\n'), done)
gone = doors.Mcp()
gone.process.stdout.close()
try:
    gone.say({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    gone.process.stdin.close()
except BrokenPipeError:
    pass
expect(gone.process.wait(timeout=30) == 0, f"a closed pipe: {gone.process.returncode}")
gone.process.stderr.close()
# the GPUs of this machine stand in where none is named
recorded = doors.ROOT / "tests" / "machine" / "recordings"
samples = sorted(recorded.glob("*.csv")) if recorded.exists() else []
if samples:
    local = doors.Mcp({**doors.PLAIN, "DRYFIT_PROBE": str(samples[0])})
    answer = local.ask("tools/call", name="dryfit_check", arguments={"depth": 4, "device_batch_size": 1})["result"]
    expect(answer["isError"] or answer["structuredContent"]["machine"]["source"] != "default", answer)
    local.close()
# wrong words
for words in (["mcp", "stray"], ["mcp", "--depth", "3"]):
    done = subprocess.run([doors.DRYFIT, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    expect(done.returncode == 2 and "hint:" in done.stderr and done.stdout == "", f"{words}: {done}")

for line in failures:
    print("FAILED", line)
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
