#!/usr/bin/env bash
# Builds the page into build/web/site: static files, ready for any web server; -DDRYFIT_SITE=build/web/site puts them into the binary for `dryfit web`.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$top/tools/install.sh" web
cmake -S "$top" -B "$top/build/web" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$top/cmake/wasm32.cmake" -DCMAKE_BUILD_TYPE=MinSizeRel -DDRYFIT_WASM=ON > /dev/null
ninja -C "$top/build/web" site
