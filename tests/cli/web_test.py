"""The page: served by `dryfit web` on loopback, and used in a real browser where one is installed (./test.sh --integration)."""
import gzip
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

import doors

failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)


# one list of files: what is copied to the site, what is kept for offline, what lies in web/
listed = (doors.ROOT / "web" / "CMakeLists.txt").read_text().split("set(PAGE ", 1)[1].split(")", 1)[0].split()
kept = (doors.ROOT / "web" / "sw.js").read_text().split("FILES = [", 1)[1].split("]", 1)[0]
there = {p.name for p in (doors.ROOT / "web").iterdir()} - {"CMakeLists.txt", "absent.cpp"}
expect(set(listed) == there, f"web/CMakeLists.txt lists {sorted(set(listed) ^ there)} otherwise than web/ holds it")
made = ["first.js", "dryfit.wasm"]  # by the build
expect(all(f"'{name}'" in kept for name in {*listed, *made} - {"sw.js"}), "sw.js does not keep every file")

for words in (["web", "--port", "70000"], ["web", "--port", "x"], ["web", "stray"], ["web", "--depth", "3"]):
    done = subprocess.run([doors.DRYFIT, *words], capture_output=True, text=True, timeout=30)
    expect(done.returncode == 2 and "hint:" in done.stderr, f"{words}: {done}")

server = subprocess.Popen([doors.DRYFIT, "web", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
address = server.stdout.readline().strip()
if not address:
    talk = server.communicate(timeout=30)[1]
    expect(server.returncode == 2 and "built without the page" in talk and "hint:" in talk, f"{server.returncode} {talk}")
    for line in failures:
        print("FAILED", line)
    print("this binary was built without the page (./test.sh --integration builds it in): not served")
    sys.exit(1 if failures else 77)

try:
    host = address.removeprefix("http://").rstrip("/")

    def get(path, method="GET", encoding="gzip"):
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.request(method, path, headers={"Accept-Encoding": encoding})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())

    expect(host.startswith("127.0.0.1:"), address)
    for name in ["", *listed, *made]:
        status, body, headers = get("/" + name)
        expect(status == 200 and len(body) > 100 and int(headers["Content-Length"]) == len(body), f"/{name}: {status} {len(body)}")
        source = doors.SITE / (name or "index.html")
        expect(not source.exists() or gzip.decompress(body) == source.read_bytes(), f"/{name} is not {source}")
    expect(get("/", encoding="identity")[0] == 406, "who refuses gzip is told so")
    expect(get("/dryfit.wasm")[2]["Content-Type"] == "application/wasm", "the type of the engine")
    expect(get("/", "HEAD")[1] == b"" and get("/", "POST")[0] == 405 and get("/../../etc/passwd")[0] == 404, "HEAD, POST, what is not there")
    # what comes answered with the page is what the engine beside it and this program say
    rows = gzip.decompress(get("/first.js")[1]).decode().split("FIRST = [", 1)[1].rsplit("];", 1)[0]
    rows = [(json.loads(request), (answer["status"], answer["body"].encode())) for request, answer in json.loads(f"[{rows.strip().rstrip(',')}]")]
    expect(len(rows) > 3 and rows[0][0]["args"]["timeline"] is True, f"first answers: {len(rows)}")
    for door, replies in (("the program", [doors.command_line(request) for request, _ in rows]), ("WebAssembly", doors.web_assembly([request for request, _ in rows]) if shutil.which("node") and doors.SITE.exists() else None)):
        for (request, came), reply in zip(rows, replies or []):
            expect(came == reply, f"first.js is not what {door} says: {json.dumps(request)}")
    # a client that says nothing, one that never ends, and one that leaves hold nobody up
    idle = socket.create_connection(host.split(":"))
    endless = socket.create_connection(host.split(":"))
    endless.sendall(b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 20000)
    expect(endless.recv(12) == b"HTTP/1.1 400", "a head without end")
    gone = socket.create_connection(host.split(":"))
    gone.sendall(b"GET /dryfit.wasm HTTP/1.1\r\n\r\n")
    gone.close()
    expect(get("/")[0] == 200, "serves the next")
    idle.close()
    endless.close()

    node = doors.INTEGRATION / "node"
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser and shutil.which("node") and (node / "node_modules" / "playwright-core").exists():
        shots = pathlib.Path(os.environ.get("DRYFIT_SCREENSHOTS", tempfile.mkdtemp()))
        shots.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(suffix=".json") as expected:
            expected.write(doors.command_line({"command": "explain", "args": {"gpu": "RTX 4090", "gpus": 1, "depth": 20, "device-batch-size": -1, "max-seq-len": 2048}})[1])
            expected.flush()
            done = subprocess.run(["node", str(doors.ROOT / "tests/integration/page.mjs"), str(node), address, browser, str(shots), expected.name], capture_output=True, text=True, timeout=280)
        if done.returncode != 0:
            failures.append(f"the browser: {done.stderr[-2000:]}")
        else:
            seen = json.loads(done.stdout)
            failures += seen["failures"]
            print(f"in Chromium: {json.dumps(seen['measures'])}; screenshots in {shots}")
    else:
        print("no browser or no playwright-core: the page is served, not used")
finally:
    server.terminate()
    server.wait(timeout=10)

for line in failures:
    print("FAILED", line)
print(f"{len(failures)} failures")
sys.exit(1 if failures else 0)
