"""What tools/release.sh built into build/integration/dist (./test.sh --integration), as its users meet it. Archives: every golden screen, of aarch64 under qemu.
Wheels: what they need of a machine, then the x86_64 one installed where no compiler is found and tests/python/package_test.py against it, and the aarch64 one's library
answering under qemu as the program does."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "cli"))
import doors  # noqa: E402

DIST = doors.INTEGRATION / "dist"
VERSION = re.search(r"project\(dryfit VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
NEEDED = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libutil.so.1", "librt.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}  # glibc's own
QEMU = shutil.which("qemu-aarch64-static")
SYSROOT = pathlib.Path("/usr/aarch64-linux-gnu")  # Debian's libc6-arm64-cross
failures, done_here = [], []


def expect(holds, what):
    if not holds:
        failures.append(what)


def run(words, **more):
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, **more)


def golden_screens(processor, folder):
    """The archive's program against tests/golden/cli."""
    archive = DIST / f"dryfit-{VERSION}-linux-{processor}.tar.gz"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    binary = folder / archive.name.removesuffix(".tar.gz") / "dryfit"
    head = run(["readelf", "-hld", binary]).stdout
    expect("INTERP" not in head and "NEEDED" not in head and ("AArch64" in head) == (processor == "aarch64"), f"{archive.name}: not a static program of {processor}")
    made_of = {c["name"] for c in json.loads((binary.parent / "dryfit.cdx.json").read_text())["components"]}
    expect(made_of == {"fmt", "libyaml", "nlohmann-json", "libc++", "libc++abi", "libunwind", "musl", "zig-compiler-rt"}, f"{archive.name}: components {made_of}")
    if processor != os.uname().machine:
        (program := folder / "emulated").write_text(f"#!/bin/sh\nexec {QEMU} {binary} \"$@\"\n")
        program.chmod(0o755)
        binary = program
    done = run([sys.executable, ROOT / "tests/cli/golden_test.py"], cwd=ROOT, env=os.environ | {"DRYFIT": str(binary), "XDG_DATA_HOME": str(folder)})
    expect(done.returncode == 0, f"{archive.name}: {done.stdout[-2000:]}{done.stderr[-1000:]}")
    done_here.append(f"{archive.name} (golden screens)")


def wheel_of(processor, folder):
    """Unpacks it, and looks at what its libraries ask of a machine and show to it."""
    wheel = DIST / f"dryfit-{VERSION}-py3-none-manylinux_2_17_{processor}.whl"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    for library in (folder / "dryfit/libdryfit.so", folder / "dryfit/tracing/libdryfit_cudart.so", folder / "dryfit/tracing/libcuda.so.1"):
        table = run(["readelf", "-hdVW", library]).stdout
        expect(("AArch64" in table) == (processor == "aarch64") and "ELF64" in table, f"{wheel.name}: {library.name} is of another processor")
        expect((needed := set(re.findall(r"\(NEEDED\).*\[(.*)\]", table))) <= NEEDED, f"{wheel.name}: {library.name} needs {needed - NEEDED}")
        versions = {tuple(map(int, v.split("."))) for v in re.findall(r"Name: GLIBC_([0-9.]+)", table)}
        newest = max(versions, default=(2, 0))
        expect(newest <= (2, 17), f"{wheel.name}: {library.name} needs glibc {newest}")
    shown = {line.split()[-1] for line in run(["nm", "-D", "--defined-only", folder / "dryfit/libdryfit.so"]).stdout.splitlines()}
    expect(shown == {"dryfit_call", "dryfit_free", "dryfit_main", "dryfit_version"}, f"{wheel.name}: it shows {sorted(shown)[:20]}")
    return wheel


def installed(wheel, folder):
    """In an environment of its own, with nothing on the path that compiles."""
    python = folder / "venv/bin/python"
    run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    bare = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CC", "CXX")} | {"PATH": str(folder / "venv/bin"), "DRYFIT_INTEGRATION": str(folder), "DRYFIT": doors.DRYFIT}
    done = run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--only-binary", ":all:", wheel], env=bare)
    expect(done.returncode == 0, f"{wheel.name}: {done.stderr[-1000:]}")
    done = run([python, ROOT / "tests/python/package_test.py"], env=bare)
    expect(done.returncode == 0, f"{wheel.name}: {done.stdout[-2000:]}{done.stderr[-1000:]}")
    done_here.append(f"{wheel.name} (installed, package_test)")


def answers_under_qemu(wheel, folder):
    """tests/api/door.c for that processor, over the wheel's library and Debian's C library for it."""
    (zig,) = (ROOT / "build/release-tools/venv/lib").glob("python3*/site-packages/ziglang/zig")
    done = run([zig, "cc", "-target", "aarch64-linux-gnu.2.17", "-std=gnu11", f"-I{ROOT}/include", ROOT / "tests/api/door.c", folder / "dryfit/libdryfit.so", "-o", folder / "door.aarch64"])
    expect(done.returncode == 0, f"door.c for aarch64: {done.stderr[-1000:]}")
    (door := folder / "door").write_text(f"#!/bin/sh\nexec {QEMU} -L {SYSROOT} -E LD_LIBRARY_PATH={folder}/dryfit {folder}/door.aarch64\n")
    door.chmod(0o755)
    for request, reply in zip(doors.REQUESTS, doors.c_abi(doors.REQUESTS, door), strict=True):
        expect(reply == doors.command_line(request), f"{wheel.name}: {request}: {reply[0]} {reply[1][:200]!r}")
    done_here.append(f"{wheel.name} ({len(doors.REQUESTS)} requests)")


if not DIST.exists() or os.uname().machine != "x86_64" or QEMU is None or not SYSROOT.exists():
    print(f"no release in {DIST}, or no qemu to try it with: ./test.sh --integration builds and installs them")
    sys.exit(77)
with tempfile.TemporaryDirectory() as name:
    for processor in ("x86_64", "aarch64"):
        (folder := pathlib.Path(name) / processor).mkdir()
        golden_screens(processor, folder)
        wheel = wheel_of(processor, folder)
        (installed if processor == os.uname().machine else answers_under_qemu)(wheel, folder)

for line in failures:
    print("FAILED", line)
print(f"{'; '.join(done_here)}: {len(failures)} failures")
sys.exit(1 if failures else 0)
