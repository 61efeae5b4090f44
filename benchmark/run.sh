#!/usr/bin/env bash
# The benchmark of estimators: builds dryfit, installs the rivals under build/benchmark, asks all about every measured row, writes benchmark/results.tsv and docs/benchmark.md.
# Usage: benchmark/run.sh [RIVAL ...] (those anew, the others as they were); DRYFIT_BINARY=... (with its dryfit-accuracy beside it) takes a binary that is built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
binary=${DRYFIT_BINARY:-}
if [ -z "$binary" ]; then
  ./dryfit.sh version > /dev/null
  ninja -C build/release dryfit dryfit-accuracy > /dev/null
  binary=build/release/dryfit
fi
exec python3 benchmark/run.py "$binary" "$@"
