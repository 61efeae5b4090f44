#!/usr/bin/env bash
# Installs the Debian packages that are missing. install.sh build: what the binary needs; install.sh test: what the tests need too.
set -euo pipefail
packages=(g++ cmake ninja-build libcli11-dev libfmt-dev nlohmann-json3-dev)
if [ "${1:-build}" = test ]; then
  packages+=(libgtest-dev librapidcheck-dev libbenchmark-dev clang-19 libclang-rt-19-dev python3 python3-jsonschema shellcheck)
fi
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
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
