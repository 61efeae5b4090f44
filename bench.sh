#!/usr/bin/env bash
# Speed and memory: whole processes (median of 50 runs, largest resident set) and the engine alone. Prints a table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./tools/install.sh test
cmake -S . -B build/release -G Ninja -DCMAKE_BUILD_TYPE=Release -DDRYFIT_STATIC=ON -DDRYFIT_BENCH=ON > /dev/null
ninja -C build/release dryfit dryfit-bench dryfit-processes dryfit-make-snapshot > /dev/null
build/release/bench/dryfit-processes build/release/dryfit build/release/bench/libnvidia-ml.so.1
# a CUDA memory snapshot of 1 GB, made here and thrown away
snapshot=$(mktemp --suffix .pickle)
trap 'rm -f "$snapshot"' EXIT
build/release/bench/dryfit-make-snapshot --size 1000000000 "$snapshot"
build/release/bench/dryfit-processes --file build/release/dryfit "$snapshot"
build/release/bench/dryfit-bench --benchmark_min_time=0.2
