#!/usr/bin/env bash
# Installs what is missing, builds, runs every test. Ends with ctest's own closing lines; fails when one test fails.
# --integration: also the page in a browser, WebAssembly, the official MCP clients, the Python package, captures under a real torch, jobs and the releases, which otherwise are skipped
# where they are not installed (10 GB of downloads).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
level="test"
if [ "${1:-}" = --integration ]; then level="integration"; fi
./tools/install.sh "$level"
jobs=$(nproc)
site=()
if [ "$level" = integration ]; then
  ./tools/build_page.sh
  site=(-DDRYFIT_SITE="$PWD/build/web/site")
fi
# tests and fuzz targets run under clang's sanitizers; the binary that the command-line tests drive is g++'s release one
cmake -S . -B build/release -G Ninja -DCMAKE_BUILD_TYPE=Release -DDRYFIT_STATIC=ON "${site[@]}" > /dev/null
ninja -C build/release -j "$jobs" dryfit dryfit-accuracy
if [ "$level" = integration ]; then
  for python in venv torch; do ./build/integration/$python/bin/pip install --quiet --no-deps --no-build-isolation --force-reinstall .; done
  ./tools/release.sh --into build/integration/dist
fi
cmake -S . -B build/test -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_COMPILER=clang++-19 -DCMAKE_C_COMPILER=clang-19 \
  -DDRYFIT_SANITIZE=ON -DDRYFIT_TESTS=ON -DDRYFIT_RELEASE_BINARY="$PWD/build/release/dryfit" > /dev/null
ninja -C build/test -j "$jobs"
ctest --test-dir build/test --output-on-failure -j "$jobs"
