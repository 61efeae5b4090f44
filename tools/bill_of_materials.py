#!/usr/bin/env python3
"""Software bill of materials of a release, CycloneDX 1.6 as JSON: what is compiled into the binary, with the versions of the packages that were there, and the binary's own hash.
Which packages: the libraries of tools/install.sh that docs/dependencies.md names as compiled in, and what the compiler links statically: zig's clang (tools/release.sh), which a program
for Linux names and which alone makes those for Windows and macOS, or g++. Usage: tools/bill_of_materials.py BINARY"""
import hashlib
import json
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
# Debian package, its name here, licence (SPDX)
LIBRARIES = [("libfmt-dev", "fmt", "MIT"), ("libtomlplusplus-dev", "tomlplusplus", "MIT"), ("libyaml-dev", "libyaml", "MIT"), ("nlohmann-json3-dev", "nlohmann-json", "MIT")]
OF_GCC = [("libstdc++-12-dev", "libstdc++", "GPL-3.0-or-later WITH GCC-exception-3.1"), ("libc6-dev", "glibc", "LGPL-2.1-or-later")]
# name, version, licence of what a program takes from the wheel of ziglang that is pinned (lib/libcxx, libcxxabi, libunwind, libc, compiler_rt of it)
ZIGLANG = "0.14.1"
OF_ZIG = [("libc++", "19.1.7", "Apache-2.0 WITH LLVM-exception"), ("libc++abi", "19.1.7", "Apache-2.0 WITH LLVM-exception")]
UNWIND = ("libunwind", "19.1.7", "Apache-2.0 WITH LLVM-exception")
# by how a program begins; of macOS the C library and the unwinder are the system's own
OF_SYSTEM = {b"\x7fELF": [UNWIND, ("musl", "1.2.5", "MIT")], b"MZ": [UNWIND, ("mingw-w64", "13.0.0", "ZPL-2.1")], b"\xcf\xfa\xed\xfe": []}
OF_ZIG_LAST = [("zig-compiler-rt", ZIGLANG, "MIT")]


def version_of(package):
    done = subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True)
    if done.returncode != 0 or not done.stdout:
        sys.exit(f"error: {package} is not installed, so its version cannot be told\nhint:  tools/install.sh build")
    return done.stdout


def component(name, version, licence, kind, package):
    place = f"pkg:{kind}/{package.replace('+', '%2B')}@{version.replace('+', '%2B').replace('~', '%7E').replace(':', '%3A')}"
    return {"type": "library", "bom-ref": place, "name": name, "version": version, "licenses": [{"expression": licence}], "purl": place}


def parts_of(binary):
    """The components of a program, by its kind and, of one for Linux, the compiler that its section .comment names."""
    of_debian = list(LIBRARIES)
    kind = next(start for start in OF_SYSTEM if binary.startswith(start))
    of_zig = OF_ZIG + OF_SYSTEM[kind] + OF_ZIG_LAST if kind != b"\x7fELF" or b"ziglang/zig-bootstrap" in binary else []
    if not of_zig:
        of_debian += OF_GCC
    elif f"ziglang=={ZIGLANG}\n" not in (TOP / "tests/integration/requirements-release.txt").read_text():
        sys.exit(f"error: the versions here are those of ziglang {ZIGLANG}, and another one is pinned\nhint:  look them up in its wheel, then change OF_ZIG")
    of_debian = [component(name, version_of(package), licence, "deb/debian", package) for package, name, licence in of_debian]
    if of_zig and kind == b"\x7fELF":  # from its source (tools/install.sh release)
        changes = (TOP / "build/release-tools/mimalloc/debian/changelog").read_text()
        of_debian.append(component("mimalloc", re.match(r"mimalloc \((.*)\)", changes).group(1), "MIT", "deb/debian", "mimalloc"))
    return of_debian + [component(name, version, licence, "generic", name) for name, version, licence in of_zig]


def main():
    version = re.search(r"project\(dryfit VERSION ([0-9.]+)", (TOP / "CMakeLists.txt").read_text()).group(1)
    binary = pathlib.Path(sys.argv[1]).read_bytes()
    if not any(binary.startswith(start) for start in OF_SYSTEM):
        sys.exit(f"error: {sys.argv[1]} is no program for Linux, Windows or macOS\nhint:  give the binary of tools/release.sh")
    digest = hashlib.sha256(binary).hexdigest()
    parts = parts_of(binary)
    bill = {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": f"dryfit@{version}", "name": "dryfit", "version": version, "licenses": [{"license": {"id": "MIT"}}], "hashes": [{"alg": "SHA-256", "content": digest}]}},
        "components": parts,
        "dependencies": [{"ref": f"dryfit@{version}", "dependsOn": [p["bom-ref"] for p in parts]}, *({"ref": p["bom-ref"]} for p in parts)],
    }
    print(json.dumps(bill, indent=1))


if __name__ == "__main__":
    main()
