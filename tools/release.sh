#!/usr/bin/env bash
# What users without a compiler take, for Linux on x86_64 and aarch64, built on either by zig's clang: archives (static binary, man pages, completions, skill, licence, bill of
# materials), wheels of the Python package, and their checksums. The same contents, the same bytes.
# Usage: tools/release.sh [--into FOLDER] [PART ...]         builds and packs, into build/dist. PART: archive-x86_64 archive-aarch64 wheel-x86_64 wheel-aarch64 [all]
#        tools/release.sh --pack NAME BINARY FOLDER [RUNS]   packs a binary that is built; RUNS: the same program for this machine [BINARY]
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

checksums() {  # folder
  (cd "$1" && find . -maxdepth 1 \( -name '*.tar.gz' -o -name '*.whl' \) -printf '%P\0' | sort -z | xargs -0 sha256sum -- > SHA256SUMS)
}

pack() {  # name, binary, folder, the same program for this machine
  local name=$1 binary=$2 folder=$3 runs=$4 stage
  stage=$(mktemp -d)
  local root=$stage/$name
  mkdir -p "$root/completions" "$folder"
  install -m 755 "$binary" "$root/dryfit"
  python3 "$top/tools/man_pages.py" "$runs" "$root/man/man1"
  for shell in bash zsh fish powershell; do "$runs" completions "$shell" > "$root/completions/dryfit.$shell"; done
  mv "$root/completions/dryfit.powershell" "$root/completions/dryfit.ps1"
  cp -r "$top/skills" "$root/skills"
  cp "$top/LICENSE" "$top/README.md" "$top/CHANGELOG.md" "$root/"
  python3 "$top/tools/bill_of_materials.py" "$binary" > "$root/dryfit.cdx.json"
  # modes by kind, not by this machine's umask
  find "$root" \( -type d -o -name dryfit -o -name '*.sh' \) -exec chmod 755 {} +
  find "$root" -type f ! -name dryfit ! -name '*.sh' -exec chmod 644 {} +
  # one owner, one time, one order, no name or time in gzip's head: the bytes depend on the contents alone
  tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$stage" -cf - "$name" | gzip -9n > "$folder/$name.tar.gz"
  rm -rf "$stage"
  checksums "$folder"
  echo "$folder/$name.tar.gz"
}

if [ "${1:-}" = --pack ]; then
  pack "$2" "$3" "$4" "${5:-$3}"
  exit
fi

binary() {  # processor; gives the path of its static binary
  local build=$top/build/release-$1
  cmake -S "$top" -B "$build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$top/cmake/zig.cmake" -DDRYFIT_TARGET="$1-linux-musl" -DCMAKE_BUILD_TYPE=Release -DDRYFIT_STATIC=ON > /dev/null
  ninja -C "$build" dryfit >&2
  echo "$build/dryfit"
}

wheel() {  # processor, folder
  local stage
  stage=$(mktemp -d)
  # loads where glibc is 2.17 (2012) or newer, which is what the tag says (PEP 600); the one it replaces speaks of the machine that built
  "$tools/pip" wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$stage" --config-settings=build-dir="$top/build/wheel-$1" \
    --config-settings=cmake.args="-DCMAKE_TOOLCHAIN_FILE=$top/cmake/zig.cmake;-DDRYFIT_TARGET=$1-linux-gnu.2.17" "$top" >&2
  "$tools/wheel" tags --remove --platform-tag "manylinux_2_17_$1" "$stage"/*.whl > /dev/null
  mkdir -p "$2"
  mv "$stage"/*.whl "$2/"
  rmdir "$stage"
  checksums "$2"
  find "$2" -name "*_$1.whl"
}

folder=$top/build/dist
if [ "${1:-}" = --into ]; then
  folder=$2
  shift 2
fi
[ $# -ne 0 ] || set -- archive-x86_64 archive-aarch64 wheel-x86_64 wheel-aarch64
for part; do
  if [[ ! $part =~ ^(archive|wheel)-(x86_64|aarch64)$ ]]; then
    printf "error: there is no part '%s'\nhint:  archive-x86_64 archive-aarch64 wheel-x86_64 wheel-aarch64\n" "$part" >&2
    exit 2
  fi
done
version=$(sed -n 's/^project(dryfit VERSION \([0-9.]*\).*/\1/p' "$top/CMakeLists.txt")
"$top/tools/install.sh" release >&2
tools=$top/build/release-tools/venv/bin
export SOURCE_DATE_EPOCH=315532800  # of what stands in a wheel: 1980, where the times of zip files begin
for part; do
  case $part in
    archive-*) pack "dryfit-$version-linux-${part#*-}" "$(binary "${part#*-}")" "$folder" "$(binary "$(uname -m)")" ;;
    wheel-*) wheel "${part#*-}" "$folder" ;;
  esac
done
