"""`dryfit mcp` with the official clients of Python and TypeScript; ./test.sh --integration installs them."""
import json
import subprocess
import sys

import doors

PYTHON, NODE = doors.INTEGRATION / "venv" / "bin" / "python", doors.INTEGRATION / "node"
SNAPSHOT = str(doors.ROOT / "tests" / "doctor" / "snapshots" / "leak.pickle")
HERE = doors.ROOT / "tests" / "integration"
clients = {}
if PYTHON.exists():
    clients["Python"] = [str(PYTHON), str(HERE / "mcp_client.py"), doors.DRYFIT, SNAPSHOT]
if (NODE / "node_modules" / "@modelcontextprotocol").exists():
    clients["TypeScript"] = ["node", str(HERE / "mcp_client.mjs"), str(NODE), doors.DRYFIT, SNAPSHOT]
if not clients:
    print(f"no official client in {doors.INTEGRATION}: ./test.sh --integration installs them")
    sys.exit(77)

_, expected = doors.command_line({"command": "check", "args": {"depth": 26, "device-batch-size": 32, "gpu": "h100", "gpus": 8}})
failures = []
for name, words in clients.items():
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    if done.returncode != 0:
        failures.append(f"{name}: {done.stderr[-1500:]}")
        continue
    seen = json.loads(done.stdout)
    sessions = seen if name == "Python" else {"handshake": seen}
    for mode, saw in sessions.items():
        for what, good in {
            "tools": saw["tools"] == ["dryfit_plan", "dryfit_check", "dryfit_explain", "dryfit_table", "dryfit_doctor"], "read_only": saw["read_only"], "text": saw["text"] == expected.decode(), "verdict": saw["verdict"] == "wont_fit",
            "points": saw["points"] > 10, "plans": saw["plans"] > 1, "rows": saw["rows"] == 4, "finding": saw["finding"] == "failure", "devices": saw["devices"] >= 1, "offers": saw["offers"] >= 1, "errors": saw["errors"] == [False, False, True], "hint": "did you mean" in saw["hint"],
        }.items():
            if not good:
                failures.append(f"{name}, {mode}: {what}: {str(saw[what])[:300]}")
    if name == "Python" and [s["version"] for s in seen.values()] != ["2025-11-25", "2026-07-28"]:
        failures.append(f"Python: revisions {[s['version'] for s in seen.values()]}")
for line in failures:
    print("FAILED", line)
print(f"{', '.join(clients)}; {len(failures)} failures")
sys.exit(1 if failures else 0)
