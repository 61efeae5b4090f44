#!/usr/bin/env bash
# Installs what is missing. install.sh build: what the binary needs; test: what the tests need too; web: what the page needs;
# capture: torch with CUDA, transformers, timm and the package (6 GB) into build/integration/torch, for tests/python/capture_test.py;
# integration: test, web, a browser, Slurm, shells, and, pinned in tests/integration, the official MCP clients, readers of jobs and what builds the Python package, into build/integration.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
what=${1:-build}
packages=(g++ cmake ninja-build libfmt-dev libyaml-dev nlohmann-json3-dev)
if [ "$what" = test ] || [ "$what" = integration ]; then
  packages+=(libgtest-dev librapidcheck-dev libbenchmark-dev clang-19 libclang-rt-19-dev python3 python3-jsonschema shellcheck)
fi
if [ "$what" = web ] || [ "$what" = integration ]; then
  packages+=(clang-19 lld-19 libc++-19-dev-wasm32 libc++abi-19-dev-wasm32 libclang-rt-19-dev-wasm32 wasi-libc)
  command -v node > /dev/null || packages+=(nodejs)
fi
if [ "$what" = integration ]; then
  packages+=(chromium python3-venv python3-dev munge slurm-client slurmctld slurmd fish zsh mandoc)
  command -v npm > /dev/null || packages+=(npm)
fi
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -ne 0 ]; then
  echo "installing: ${missing[*]}"
  run=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo > /dev/null; then
      echo "error: these Debian packages are missing and only root can install them: ${missing[*]}" >&2
      echo "hint:  apt-get install ${missing[*]}" >&2
      exit 2
    fi
    run=(sudo)
  fi
  export DEBIAN_FRONTEND=noninteractive
  "${run[@]}" apt-get update -qq
  "${run[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi
if [ "$what" = capture ]; then
  python3 -m venv "$top/build/integration/torch"
  "$top/build/integration/torch/bin/pip" install --quiet --disable-pip-version-check -r "$top/tests/integration/requirements-capture.txt"
  exec "$top/build/integration/torch/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation "$top"
fi
[ "$what" = integration ] || exit 0
place=$top/build/integration
# again only where the pins have changed
stamp=$(cat "$top"/tests/integration/{requirements.txt,requirements-jobs.txt,requirements-site.txt,package.json} | sha256sum)
if [ "$(cat "$place/installed" 2> /dev/null)" != "$stamp" ]; then
  mkdir -p "$place/node"
  python3 -m venv "$place/venv"
  "$place/venv/bin/pip" install --quiet --disable-pip-version-check -r "$top/tests/integration/requirements.txt"
  python3 -m venv "$place/jobs"
  "$place/jobs/bin/pip" install --quiet --disable-pip-version-check -r "$top/tests/integration/requirements-jobs.txt"
  python3 -m venv "$place/site"
  "$place/site/bin/pip" install --quiet --disable-pip-version-check -r "$top/tests/integration/requirements-site.txt"
  cp "$top/tests/integration/package.json" "$place/node/"
  (cd "$place/node" && npm install --silent --no-audit --no-fund)
  printf '%s\n' "$stamp" > "$place/installed"
fi
