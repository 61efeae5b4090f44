#!/usr/bin/env bash
# The release archive of this machine's processor: static binary, man pages, completions, skill, licence, bill of materials; and its checksum. The same contents, the same bytes.
# Usage: tools/release.sh [FOLDER]                     builds, then packs (into build/dist)
#        tools/release.sh --pack NAME BINARY FOLDER    packs a binary that is built
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

pack() {  # name, binary, folder
  local name=$1 binary=$2 folder=$3 stage
  stage=$(mktemp -d)
  local root=$stage/$name
  mkdir -p "$root/completions" "$folder"
  install -m 755 "$binary" "$root/dryfit"
  python3 "$top/tools/man_pages.py" "$binary" "$root/man/man1"
  for shell in bash zsh fish powershell; do "$binary" completions "$shell" > "$root/completions/dryfit.$shell"; done
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
  (cd "$folder" && sha256sum -- *.tar.gz > SHA256SUMS)
  echo "$folder/$name.tar.gz"
}

if [ "${1:-}" = --pack ]; then
  pack "$2" "$3" "$4"
  exit
fi
version=$(sed -n 's/^project(dryfit VERSION \([0-9.]*\).*/\1/p' "$top/CMakeLists.txt")
"$top/tools/install.sh" build >&2
build=$top/build/release-archive
cmake -S "$top" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DDRYFIT_STATIC=ON > /dev/null
ninja -C "$build" dryfit >&2
pack "dryfit-$version-linux-$(uname -m)" "$build/dryfit" "${1:-$top/build/dist}"
