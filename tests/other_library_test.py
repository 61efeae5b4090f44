"""Every source compiles with libc++ too: the page, WebAssembly and the releases are built with it, all else that is tested with libstdc++. Parsed room by room, nothing is generated."""
import concurrent.futures
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# the pair that wasm32's libc++ has (its ABI 2) and no other
COMPILE = ["clang++-19", "-stdlib=libc++", "-fsyntax-only", "-std=c++2b", "-DDRYFIT_VERSION=\"0\"", "-D_LIBCPP_ABI_TRIVIALLY_COPYABLE_PAIR", "-DFMT_HEADER_ONLY", f"-I{ROOT}/src", f"-I{ROOT}/include", "-x", "c++", "-"]


def errors(room):
    sources = [s for s in sorted(room.glob("*.cpp")) if not s.stem.endswith("_windows")]
    done = subprocess.run(COMPILE, input="".join(f'#include "{s}"\n' for s in sources), capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr[-3000:]


rooms = sorted(p for p in (ROOT / "src").iterdir() if p.is_dir())
rooms.sort(key=lambda room: -sum(s.stat().st_size for s in room.glob("*.cpp")))  # the longest first
with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    found = [f"{room.name}:\n{text}" for room, text in zip(rooms, pool.map(errors, rooms)) if text]
print("\n".join(found) or f"{len(rooms)} rooms compile")
sys.exit(bool(found))
