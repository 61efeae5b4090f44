"""The documentation as a site: mkdocs takes every page and every link of docs/ (--strict), and every page is in the menu. ./test.sh --integration installs mkdocs."""
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MKDOCS = pathlib.Path(os.environ.get("DRYFIT_INTEGRATION", ROOT / "build/integration")) / "site/bin/mkdocs"
failures = []
menu = (ROOT / "mkdocs.yml").read_text()
for page in sorted((ROOT / "docs").glob("*.md")):
    if page.name not in menu:
        failures.append(f"{page.name} is not in mkdocs.yml")
if MKDOCS.exists():
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([MKDOCS, "build", "--strict", "--quiet", "--site-dir", folder], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ, NO_MKDOCS_2_WARNING="1"))
        if done.returncode != 0:
            failures.append(f"mkdocs: {done.stderr[-600:]}")
        for page in (ROOT / "docs").glob("*.md"):
            if done.returncode == 0 and not (pathlib.Path(folder) / f"{page.stem}.html").exists():
                failures.append(f"no {page.stem}.html")
for line in failures:
    print("FAILED", line)
print(f"{len(failures)} failures" + ("" if MKDOCS.exists() else f"; no mkdocs in {MKDOCS.parent}: ./test.sh --integration installs it"))
sys.exit(1 if failures else 0)
