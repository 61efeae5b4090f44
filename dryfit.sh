#!/usr/bin/env bash
# Runs dryfit from source: installs what is missing, builds once, then runs. All talk goes to stderr; stdout is dryfit's.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$top/tools/install.sh" build >&2
build="$top/build/release"
if [ "${1:-}" = web ] && ! grep -q "DRYFIT_SITE:PATH=$top" "$build/CMakeCache.txt" 2> /dev/null; then
  echo "dryfit: building the page for the first time, some minutes" >&2
  "$top/tools/build_page.sh" >&2
  cmake -S "$top" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DDRYFIT_STATIC=ON -DDRYFIT_SITE="$top/build/web/site" > /dev/null
fi
if [ ! -f "$build/build.ninja" ]; then
  echo "dryfit: building for the first time, some minutes" >&2
  cmake -S "$top" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DDRYFIT_STATIC=ON > /dev/null
fi
if ! log=$(ninja -C "$build" dryfit 2>&1); then
  printf '%s\n' "$log" >&2
  exit 70
fi
exec "$build/dryfit" "$@"
