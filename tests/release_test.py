"""The release archive (tools/release.sh --pack): the same bytes from different folders and umasks, whole, with true checksums and a bill of materials that a validator of CycloneDX takes."""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
DRYFIT = os.path.abspath(os.environ.get("DRYFIT", ROOT / "build/release/dryfit"))
PYTHON = pathlib.Path(os.environ.get("DRYFIT_INTEGRATION", ROOT / "build/integration")) / "site/bin/python"
NAME = "dryfit-test-linux"
failures = []


def expect(holds, what):
    if not holds:
        failures.append(what)


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    copy = folder / "elsewhere" / "tree"
    copy.mkdir(parents=True)
    for part in ("tools", "skills", "LICENSE", "README.md", "CHANGELOG.md", "CMakeLists.txt"):
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, copy / part)
    binary = shutil.copy(DRYFIT, copy / "dryfit")
    made = []
    for top, program, umask, place in ((ROOT, DRYFIT, "022", folder / "a"), (copy, binary, "077", folder / "b")):
        done = subprocess.run(["bash", "-c", f"umask {umask}; exec '{top}/tools/release.sh' --pack {NAME} '{program}' '{place}'"], capture_output=True, text=True)
        expect(done.returncode == 0, f"pack: {done.stderr[-400:]}")
        made.append((place / f"{NAME}.tar.gz").read_bytes())
    expect(made[0] == made[1], "two folders, two archives")
    expect((folder / "a/SHA256SUMS").read_text() == f"{hashlib.sha256(made[0]).hexdigest()}  {NAME}.tar.gz\n", "SHA256SUMS")
    with tarfile.open(folder / "a" / f"{NAME}.tar.gz") as archive:
        members = {m.name.removeprefix(NAME + "/"): m for m in archive.getmembers()}
        archive.extractall(folder / "out", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # Debian 12's Python has no filters
    commands = [c["name"] for c in json.loads(subprocess.run([DRYFIT, "help", "--json"], capture_output=True, text=True, check=True).stdout)["commands"]]
    for wanted in ("dryfit", "LICENSE", "README.md", "CHANGELOG.md", "dryfit.cdx.json", "completions/dryfit.bash", "completions/dryfit.zsh", "completions/dryfit.fish", "completions/dryfit.ps1",
                   "skills/config-memory/SKILL.md", "man/man1/dryfit.1", *(f"man/man1/dryfit-{c}.1" for c in commands)):
        expect(wanted in members, f"no {wanted}")
    expect(all(m.uid == m.gid == m.mtime == 0 and m.uname == "" for m in members.values()), "an owner or a time of this machine")
    expect({m.mode for n, m in members.items() if n == "dryfit" or m.isdir()} == {0o755} and members["LICENSE"].mode == 0o644, "modes")
    out = folder / "out" / NAME
    expect(subprocess.run([out / "dryfit", "version"], capture_output=True).returncode == 0, "the archive's binary does not run")
    bill = json.loads((out / "dryfit.cdx.json").read_text())
    expect(bill["metadata"]["component"]["hashes"][0]["content"] == hashlib.sha256((out / "dryfit").read_bytes()).hexdigest(), "the bill is of another binary")
    expect({c["name"] for c in bill["components"]} == {"fmt", "tomlplusplus", "libyaml", "nlohmann-json", "libstdc++", "glibc"}, "components")
    expect(subprocess.run([sys.executable, str(ROOT / "tools/bill_of_materials.py"), str(ROOT / "LICENSE")], capture_output=True).returncode != 0, "a bill of materials for a text")
    check = "import sys; from cyclonedx.validation.json import JsonStrictValidator; from cyclonedx.schema import SchemaVersion; e = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()); print(e or ''); sys.exit(e is not None)"
    have = PYTHON.exists() and subprocess.run([PYTHON, "-c", "import cyclonedx, jsonschema"], capture_output=True).returncode == 0
    if have:
        done = subprocess.run([PYTHON, "-c", check, out / "dryfit.cdx.json"], capture_output=True, text=True)
        expect(done.returncode == 0, f"CycloneDX: {done.stdout[-400:]}{done.stderr[-400:]}")

for line in failures:
    print("FAILED", line)
print(f"{len(failures)} failures" + ("" if have else "; no validator of CycloneDX here: ./test.sh --integration installs it"))
sys.exit(1 if failures else 0)
