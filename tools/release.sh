#!/usr/bin/env bash
# What users without a compiler take, for Linux, Windows and macOS, built on Linux by zig's clang: archives (program, man pages, completions, skill, licence, bill of materials),
# wheels of the Python package, and their checksums. The same contents, the same bytes.
# Usage: tools/release.sh [--into FOLDER] [PART ...]         builds and packs, into build/dist. PART: archive-MACHINE or wheel-MACHINE [all]; MACHINE: x86_64 or aarch64 (of Linux),
#                                                            x86_64-windows, aarch64-macos, x86_64-macos
#        tools/release.sh --pack NAME BINARY FOLDER [RUNS]   packs a binary that is built; RUNS: the same program for this machine [BINARY]
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

checksums() {  # folder
  (cd "$1" && find . -maxdepth 1 \( -name '*.tar.gz' -o -name '*.zip' -o -name '*.whl' \) -printf '%P\0' | sort -z | xargs -0 sha256sum -- > SHA256SUMS)
}

pack() {  # name, binary, folder, the same program for this machine
  local name=$1 binary=$2 folder=$3 runs=$4 stage
  stage=$(mktemp -d)
  local root=$stage/$name program=dryfit archive=$folder/$name.tar.gz
  if [[ $binary == *.exe ]]; then program=dryfit.exe archive=$folder/$name.zip; fi
  mkdir -p "$root/completions" "$folder"
  install -m 755 "$binary" "$root/$program"
  [ $program = dryfit.exe ] || python3 "$top/tools/man_pages.py" "$runs" "$root/man/man1"
  for shell in bash zsh fish powershell; do "$runs" completions "$shell" > "$root/completions/dryfit.$shell"; done
  mv "$root/completions/dryfit.powershell" "$root/completions/dryfit.ps1"
  cp -r "$top/skills" "$root/skills"
  cp "$top/LICENSE" "$top/README.md" "$top/CHANGELOG.md" "$root/"
  python3 "$top/tools/bill_of_materials.py" "$binary" > "$root/dryfit.cdx.json"
  # modes by kind, not by this machine's umask
  find "$root" \( -type d -o -name $program -o -name '*.sh' \) -exec chmod 755 {} +
  find "$root" -type f ! -name $program ! -name '*.sh' -exec chmod 644 {} +
  # one owner, one time, one order, no name or time in gzip's head: the bytes depend on the contents alone
  if [ $program = dryfit.exe ]; then
    python3 "$top/tools/zip_folder.py" "$root" "$archive"
  else
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$stage" -cf - "$name" | gzip -9n > "$archive"
  fi
  rm -rf "$stage"
  checksums "$folder"
  echo "$archive"
}

if [ "${1:-}" = --pack ]; then
  pack "$2" "$3" "$4" "${5:-$3}"
  exit
fi

# MACHINE: zig's target of its archive; of its wheel, the wheel's platform tag (macOS 11 and glibc 2.17, of 2012, are what they say: the oldest that load it)
declare -A program_for=([x86_64]=x86_64-linux-musl [aarch64]=aarch64-linux-musl [x86_64-windows]=x86_64-windows-gnu [aarch64-macos]=aarch64-macos.11.0-none [x86_64-macos]=x86_64-macos.11.0-none)
declare -A library_for=([x86_64]=x86_64-linux-gnu.2.17 [aarch64]=aarch64-linux-gnu.2.17 [x86_64-windows]=x86_64-windows-gnu [aarch64-macos]=aarch64-macos.11.0-none [x86_64-macos]=x86_64-macos.11.0-none)
declare -A tag_for=([x86_64]=manylinux_2_17_x86_64 [aarch64]=manylinux_2_17_aarch64 [x86_64-windows]=win_amd64 [aarch64-macos]=macosx_11_0_arm64 [x86_64-macos]=macosx_11_0_x86_64)
machines=(x86_64 aarch64 x86_64-windows aarch64-macos x86_64-macos)

name_of() {  # machine; "linux-x86_64", "windows-x86_64"
  local system=${1#*-}
  [ "$system" != "$1" ] || system=linux
  echo "$system-${1%%-*}"
}

binary() {  # machine; gives the path of its program
  local build=$top/build/release-${program_for[$1]%%.*} program=dryfit
  [[ $1 != *-windows ]] || program=dryfit.exe
  cmake -S "$top" -B "$build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$top/cmake/zig.cmake" -DDRYFIT_TARGET="${program_for[$1]}" -DCMAKE_BUILD_TYPE=Release -DDRYFIT_STATIC=ON > /dev/null
  ninja -C "$build" dryfit >&2
  echo "$build/$program"
}

wheel() {  # machine, folder
  local stage
  stage=$(mktemp -d)
  "$tools/pip" wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$stage" --config-settings=build-dir="$top/build/wheel-$1" \
    --config-settings=cmake.args="-DCMAKE_TOOLCHAIN_FILE=$top/cmake/zig.cmake;-DDRYFIT_TARGET=${library_for[$1]}" "$top" >&2
  "$tools/wheel" tags --remove --platform-tag "${tag_for[$1]}" "$stage"/*.whl > /dev/null  # the one it replaces speaks of the machine that built
  mkdir -p "$2"
  mv "$stage"/*.whl "$2/"
  rmdir "$stage"
  checksums "$2"
  find "$2" -name "*${tag_for[$1]}.whl"
}

folder=$top/build/dist
if [ "${1:-}" = --into ]; then
  folder=$2
  shift 2
fi
[ $# -ne 0 ] || set -- "${machines[@]/#/archive-}" "${machines[@]/#/wheel-}"
for part; do
  machine=${part#*-}
  if [[ ! $part =~ ^(archive|wheel)- ]] || [ -z "${program_for[${machine:-none}]:-}" ]; then
    printf "error: there is no part '%s'\nhint:  %s\n" "$part" "archive- or wheel- and one of: ${machines[*]}" >&2
    exit 2
  fi
done
version=$(sed -n 's/^project(dryfit VERSION \([0-9.]*\).*/\1/p' "$top/CMakeLists.txt")
"$top/tools/install.sh" release >&2
tools=$top/build/release-tools/venv/bin
export SOURCE_DATE_EPOCH=315532800  # of what stands in a wheel: 1980, where the times of zip files begin
for part; do
  case $part in
    archive-*) pack "dryfit-$version-$(name_of "${part#*-}")" "$(binary "${part#*-}")" "$folder" "$(binary "$(uname -m)")" ;;
    wheel-*) wheel "${part#*-}" "$folder" ;;
  esac
done
