"""What tools/release.sh built into build/integration/dist (./test.sh --integration), as its users meet it. Archives: every golden screen, of aarch64 under qemu, of Windows under wine.
Wheels: what they need of a machine, then the x86_64 one installed where no compiler is found and tests/python/package_test.py against it, and the aarch64 one's library
answering under qemu, Windows' under wine, as the program does. Of macOS: what its programs and libraries need of it; nothing here runs them."""
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
WINE = pathlib.Path("/usr/lib/wine/wine64")  # Debian's wine64
OBJDUMP = shutil.which("llvm-objdump-19") or shutil.which("llvm-objdump")
# Windows 10's own: the C library's parts (api-ms-win-crt-*) and these
OF_WINDOWS = {"kernel32.dll", "shell32.dll", "ws2_32.dll", "ntdll.dll", "advapi32.dll"}
OF_ZIG = {"fmt", "tomlplusplus", "libyaml", "nlohmann-json", "libc++", "libc++abi", "zig-compiler-rt"}
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
    made_of(archive, binary, OF_ZIG | {"libunwind", "musl", "mimalloc"})
    if processor != os.uname().machine:
        (program := folder / "emulated").write_text(f"#!/bin/sh\nexec {QEMU} {binary} \"$@\"\n")
        program.chmod(0o755)
        binary = program
    shown_by(binary, archive, folder)


def made_of(archive, binary, parts):
    bill = {c["name"] for c in json.loads((binary.parent / "dryfit.cdx.json").read_text())["components"]}
    expect(bill == parts, f"{archive.name}: components {bill}")


def shown_by(program, archive, folder):
    done = run([sys.executable, ROOT / "tests/cli/golden_test.py"], cwd=ROOT, env=os.environ | {"DRYFIT": str(program), "XDG_DATA_HOME": str(folder)})
    expect(done.returncode == 0, f"{archive.name}: {done.stdout[-2000:]}{done.stderr[-1000:]}")
    done_here.append(f"{archive.name} (golden screens)")


def under_wine(program, folder, name):
    """A script that runs it. No menus, no messages of wine's own; its C: lies in the folder."""
    (script := folder / name).write_text(f"#!/bin/sh\nexport WINEPREFIX={folder}/wine WINEDEBUG=-all WINEDLLOVERRIDES=winemenubuilder.exe=d\nexec {WINE} {program} \"$@\"\n")
    script.chmod(0o755)
    return script


def needs_windows_alone(wheel_or_archive, file):
    needed = {name.lower() for name in re.findall(r"DLL Name: (\S+)", run([OBJDUMP, "-p", file]).stdout)}
    strange = {n for n in needed if n not in OF_WINDOWS and not n.startswith("api-ms-win-crt-")}
    expect(needed and not strange, f"{wheel_or_archive.name}: {file.name} needs {strange or 'nothing, it seems'}")


def windows(folder):
    """The archive's program: golden screens, and what only Windows does otherwise; the wheel's library: what every other door is asked."""
    archive = DIST / f"dryfit-{VERSION}-windows-x86_64.zip"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    binary = folder / archive.stem / "dryfit.exe"
    needs_windows_alone(archive, binary)
    made_of(archive, binary, OF_ZIG | {"libunwind", "mingw-w64"})
    program = under_wine(binary, folder, "dryfit")
    (folder / "wine").mkdir()
    server = [WINE.parent / "wineserver64"]
    its = os.environ | {"WINEPREFIX": f"{folder}/wine"}
    for words in ([*server, "-p"], [program, "version"]):  # one server for all calls; the C: drive. What they start stays, and holds the streams it is given
        subprocess.run(words, env=its, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)
    try:
        first = run([program, "version"])
        expect(first.stdout == f"dryfit {VERSION}\n", f"{archive.name}: version {first.stdout!r} {first.stderr[-300:]}")
        shown_by(program, archive, folder)
        (log := folder / "Füße 日本.log").write_bytes((ROOT / "tests/doctor/logs/first_step.log").read_bytes())
        done = run([program, "doctor", log])
        expect(done.returncode == 0 and "CUDA out of memory on GPU 0" in done.stdout, f"{archive.name}: a name beyond ASCII: {done.stdout[:200]!r} {done.stderr[-300:]!r}")
        done = run([program, "doctor", "-"], input=log.read_text())
        expect(done.returncode == 0 and "CUDA out of memory on GPU 0" in done.stdout, f"{archive.name}: standard input: {done.stderr[-300:]!r}")
        done = run([program, "calibrate", "tests/watch/recordings/eight_h100.jsonl"], cwd=ROOT, env={k: v for k, v in os.environ.items() if k != "XDG_DATA_HOME"})
        expect("AppData\\Local\\dryfit\\calibration.json" in done.stdout and len(list((folder / "wine").rglob("calibration.json"))) == 1, f"{archive.name}: calibrate: {done.stdout[-300:]!r} {done.stderr[-300:]!r}")
        done = run([program, "mcp"], input='{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        expect(done.stdout == '{"jsonrpc":"2.0","id":1,"result":{}}\n', f"{archive.name}: mcp: {done.stdout!r} {done.stderr[-300:]!r}")
        wheel = DIST / f"dryfit-{VERSION}-py3-none-win_amd64.whl"
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder / "wheel")
        library = folder / "wheel/dryfit/libdryfit.dll"
        needs_windows_alone(wheel, library)
        shown = set(re.findall(r"^ +\d+ +0x[0-9a-f]+ +(\S+)$", run([OBJDUMP, "-p", library]).stdout, re.M))
        expect(shown == {"dryfit_call", "dryfit_free", "dryfit_main", "dryfit_version"}, f"{wheel.name}: it shows {sorted(shown)[:20]}")
        answers(wheel, "x86_64-windows-gnu", library, lambda door: under_wine(door, folder, "door"))
    finally:
        run([*server, "-k"], env=its)


def needs_macos_alone(name, file, processor):
    """Mach-O by what loads it: the one library that a Mac always has, and the oldest macOS."""
    table = run([OBJDUMP, "--macho", "--all-headers", file]).stdout
    expect(("ARM64" in table) == (processor == "aarch64") and "MH_MAGIC_64" in table, f"{name}: {file.name} is of another processor")
    needed = set(re.findall(r"cmd LC_LOAD_DYLIB\n.*\n +name (\S+)", table))
    expect(needed == {"/usr/lib/libSystem.B.dylib"}, f"{name}: {file.name} needs {needed}")
    expect(re.findall(r"minos (\S+)", table) == ["11.0"], f"{name}: {file.name} wants macOS {re.findall(r'minos (.*)', table)}")


def macos(processor, folder):
    archive = DIST / f"dryfit-{VERSION}-macos-{processor}.tar.gz"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    binary = folder / archive.name.removesuffix(".tar.gz") / "dryfit"
    needs_macos_alone(archive.name, binary, processor)
    made_of(archive, binary, OF_ZIG)
    wheel = DIST / f"dryfit-{VERSION}-py3-none-macosx_11_0_{'arm64' if processor == 'aarch64' else processor}.whl"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    needs_macos_alone(wheel.name, folder / "dryfit/libdryfit.so", processor)
    done_here.append(f"{archive.name}, {wheel.name} (looked at)")


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
    """Over Debian's C library for that processor."""
    (script := folder / "door").write_text(f"#!/bin/sh\nexec {QEMU} -L {SYSROOT} -E LD_LIBRARY_PATH={folder}/dryfit {folder}/dryfit/door.exe\n")
    script.chmod(0o755)
    answers(wheel, "aarch64-linux-gnu.2.17", folder / "dryfit/libdryfit.so", lambda _: script)


def answers(wheel, target, library, runs):
    """tests/api/door.c for `target`, beside the wheel's library. runs: the program for this machine that runs it."""
    (zig,) = (ROOT / "build/release-tools/venv/lib").glob("python3*/site-packages/ziglang/zig")
    program = library.parent / "door.exe"
    done = run([zig, "cc", "-target", target, "-std=gnu11", f"-I{ROOT}/include", ROOT / "tests/api/door.c", library, "-o", program])
    expect(done.returncode == 0, f"door.c for {target}: {done.stderr[-1000:]}")
    door = runs(program)
    for request, reply in zip(doors.REQUESTS, doors.c_abi(doors.REQUESTS, door), strict=True):
        expect(reply == doors.command_line(request), f"{wheel.name}: {request}: {reply[0]} {reply[1][:200]!r}")
    done_here.append(f"{wheel.name} ({len(doors.REQUESTS)} requests)")


if not DIST.exists() or os.uname().machine != "x86_64" or QEMU is None or not SYSROOT.exists() or not WINE.exists() or OBJDUMP is None:
    print(f"no release in {DIST}, or no qemu or wine to try it with: ./test.sh --integration builds and installs them")
    sys.exit(77)
with tempfile.TemporaryDirectory() as name:
    for processor in ("x86_64", "aarch64"):
        (folder := pathlib.Path(name) / processor).mkdir()
        golden_screens(processor, folder)
        wheel = wheel_of(processor, folder)
        (installed if processor == os.uname().machine else answers_under_qemu)(wheel, folder)
        (folder := pathlib.Path(name) / f"macos-{processor}").mkdir()
        macos(processor, folder)
    (folder := pathlib.Path(name) / "windows").mkdir()
    windows(folder)

for line in failures:
    print("FAILED", line)
print(f"{'; '.join(done_here)}: {len(failures)} failures")
sys.exit(1 if failures else 0)
