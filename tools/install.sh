#!/usr/bin/env bash
# Installs what is missing. install.sh build: what the binary needs; test: what the tests need too; web: what the page needs;
# release: what tools/release.sh builds with, into build/release-tools: pinned tools of PyPI, and the sources of libyaml and mimalloc, which Debian has for the versions that it ships;
# capture: torch with CUDA, transformers, timm, Ray and the package (7 GB) into build/integration/torch, for tests/python/capture_test.py and Ray's job;
# integration: test, web, release, capture without the package, a browser, Slurm, shells, and, pinned in tests/integration, the official MCP clients, readers of jobs and what builds the Python package, into build/integration.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
what=${1:-build}
packages=(g++ cmake ninja-build libfmt-dev libtomlplusplus-dev libyaml-dev nlohmann-json3-dev)
if [ "$what" = test ] || [ "$what" = integration ]; then
  packages+=(libgtest-dev librapidcheck-dev libbenchmark-dev clang-19 libclang-rt-19-dev libc++-19-dev python3 python3-jsonschema shellcheck)
fi
if [ "$what" = web ] || [ "$what" = integration ]; then
  packages+=(clang-19 lld-19 libc++-19-dev-wasm32 libc++abi-19-dev-wasm32 libclang-rt-19-dev-wasm32 wasi-libc)
  command -v node > /dev/null || packages+=(nodejs)
fi
if [ "$what" = release ] || [ "$what" = integration ]; then
  packages+=(python3-venv dpkg-dev)
fi
if [ "$what" = integration ]; then
  packages+=(chromium qemu-user-static libc6-arm64-cross wine64 llvm-19 munge slurm-client slurmctld slurmd fish zsh mandoc)
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
if [ "$what" = capture ] || [ "$what" = integration ]; then
  place=$top/build/integration/torch
  stamp=$(sha256sum < "$top/tests/integration/requirements-capture.txt")
  if [ "$(cat "$place/installed" 2> /dev/null)" != "$stamp" ]; then
    python3 -m venv "$place"
    "$place/bin/pip" install --quiet --disable-pip-version-check -r "$top/tests/integration/requirements-capture.txt"
    printf '%s\n' "$stamp" > "$place/installed"
  fi
  if [ "$what" = capture ]; then
    exec "$place/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation "$top"
  fi
fi
if [ "$what" = release ] || [ "$what" = integration ]; then
  place=$top/build/release-tools
  yaml=$(dpkg-query -W -f='${source:Version}' libyaml-dev)
  stamp="libyaml $yaml, mimalloc, $(sha256sum < "$top/tests/integration/requirements-release.txt")"
  if [ "$(cat "$place/installed" 2> /dev/null)" != "$stamp" ]; then
    rm -rf "$place"
    mkdir -p "$place/lists/partial"
    python3 -m venv "$place/venv"
    "$place/venv/bin/pip" install --quiet --disable-pip-version-check -r "$top/tests/integration/requirements-release.txt"
    # the machine's own package sources, as sources of source code, in lists of their own
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2> /dev/null | sed -n 's/^deb /deb-src /p' > "$place/from.list" || true
    awk 'FNR == 1 { print "" } { sub(/^Types:.*/, "Types: deb-src"); print }' /etc/apt/sources.list.d/*.sources > "$place/from.sources" 2> /dev/null || true
    for from in list sources; do
      [ -s "$place/from.$from" ] || continue
      options=(-qq -o Dir::Etc::sourceparts=- -o Dir::Etc::sourcelist="$place/from.$from" -o Dir::State::lists="$place/lists" -o APT::Sandbox::User=root)
      apt-get "${options[@]}" update || continue
      (cd "$place" && apt-get "${options[@]}" source --download-only "libyaml=$yaml" mimalloc) && break
    done
    for source in libyaml mimalloc; do dpkg-source --no-check -x "$place/${source}"_*.dsc "$place/$source" > /dev/null; done
    printf '%s\n' "$stamp" > "$place/installed"
  fi
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
