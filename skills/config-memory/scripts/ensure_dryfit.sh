#!/usr/bin/env bash
# Prints the path of a dryfit binary: the one on PATH, else the one of this repository, built when needed.
set -euo pipefail
if command -v dryfit; then exit 0; fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
if [ -x "$root/dryfit.sh" ]; then
  "$root/dryfit.sh" version >&2
  echo "$root/build/release/dryfit"
  exit 0
fi
echo "error: dryfit is neither on PATH nor built here" >&2
echo "hint:  clone dryfit and run ./dryfit.sh version" >&2
exit 2
