#!/usr/bin/env bash
# Installs what is missing, builds, runs every test. Ends with ctest's own closing lines; fails when one test fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./tools/install.sh test
jobs=$(nproc)
# tests run under sanitizers, the binary that the command-line tests drive is the release one, fuzz targets are clang's
cmake -S . -B build/release -G Ninja -DCMAKE_BUILD_TYPE=Release -DDRYFIT_STATIC=ON > /dev/null
ninja -C build/release -j "$jobs" dryfit dryfit-accuracy
cmake -S . -B build/test -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DDRYFIT_SANITIZE=ON -DDRYFIT_TESTS=ON -DDRYFIT_RELEASE_BINARY="$PWD/build/release/dryfit" > /dev/null
ninja -C build/test -j "$jobs"
cmake -S . -B build/fuzz -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_COMPILER=clang++-19 -DDRYFIT_FUZZ=ON > /dev/null
ninja -C build/fuzz -j "$jobs" fuzzers
ctest --test-dir build/test --output-on-failure -j "$jobs"
