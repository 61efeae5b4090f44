#!/bin/sh
# Records PyTorch's own memory behaviour of nanochat, without a GPU, and rewrites tests/golden/oracle/{recordings,unseen}.jsonl.
#   tools/oracle/record.sh --nanochat PATH_OR_URL [--python PYTHON] [--only TEXT] [--work DIR]
#   tools/oracle/record.sh --nanochat ... --draw SEED,COUNT,SHAPES   runs that draw.py draws instead, to WORK/drawn.jsonl
#   tools/oracle/record.sh --nanochat ... --timed   which kernels are timed before their first launch (timed.py): tests/golden/oracle/timed_kernels.tsv, minutes
#   tools/oracle/record.sh --transformers [...]   Hugging Face models instead: tests/golden/oracle/transformers*.jsonl, a quarter of an hour
#   tools/oracle/record.sh --transformers5 [...]  the same with transformers 5: tests/golden/oracle/transformers_5*.jsonl, minutes
#   tools/oracle/record.sh --llamafactory [...] its trainers of preferences and rewards, with the TRL that it pins: tests/golden/oracle/transformers_factory*.jsonl, minutes
#   tools/oracle/record.sh --transformers --draw SEED,COUNT,KIND     runs that draw_transformers.py draws instead, to WORK/drawn.jsonl
#   tools/oracle/record.sh --torchtune [...]      torchtune's recipes instead: tests/golden/oracle/torchtune*.jsonl, minutes
#   tools/oracle/record.sh --torchtitan [...]     torchtitan's trainer instead: tests/golden/oracle/torchtitan*.jsonl, minutes
# Needs git, a C compiler and Python 3.11 or newer with venv; 8 GB of disk for torch and its CUDA libraries, 4 GB of memory, about an hour
# on one core for everything. --python takes an interpreter that has requirements.txt already. Work in build/oracle is kept and resumed.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
nanochat='' others='' python='' only='' drawn='' timed='' work="$root/build/oracle"
while [ $# -gt 0 ]; do
  case "$1" in
    --nanochat) nanochat=$2; shift 2 ;;
    --transformers | --transformers5 | --llamafactory | --torchtune | --torchtitan) others=${1#--}; shift ;;
    --python) python=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --draw) drawn=$2; shift 2 ;;
    --timed) timed=yes; shift ;;
    --work) work=$2; shift 2 ;;
    *) echo "record.sh: unknown argument '$1'; see the head of this file" >&2; exit 2 ;;
  esac
done
if [ -z "$nanochat$others" ]; then
  echo "record.sh: --nanochat is missing: a clone of nanochat or its URL, such as https://github.com/karpathy/nanochat" >&2
  exit 2
fi
mkdir -p "$work/lib" "$work/trees" "$work/raw"

if [ -z "$python" ]; then
  venv="$work/venv" requirements="$here/requirements.txt"
  case "$others" in torchtune | torchtitan | transformers5 | llamafactory) venv="$work/venv-$others" requirements="$here/requirements_$others.txt" ;; esac  # their libraries are not transformers'
  python="$venv/bin/python"
  [ -x "$python" ] || python3 -m venv "$venv"
  DS_BUILD_OPS=0 "$python" -m pip install --quiet --requirement "$requirements"
  if [ "$others" = transformers ]; then  # without what they train with, and FlashAttention without its library
    FLASH_ATTENTION_SKIP_CUDA_BUILD=TRUE "$python" -m pip install --quiet --no-deps --no-build-isolation --requirement "$here/requirements_axolotl.txt"
  elif [ "$others" = llamafactory ]; then  # without audio, pictures and its page
    "$python" -m pip install --quiet --no-deps llamafactory==0.9.5 trl==0.24.0
  fi
fi

cc -shared -fPIC -O1 -o "$work/lib/cuda_runtime.so" "$root/python/dryfit/tracing/shim/cuda_runtime.c"
cc -shared -fPIC -O1 -o "$work/lib/libcuda.so.1" "$root/python/dryfit/tracing/shim/cuda_driver.c"

if [ -n "$others" ]; then
  HF_HUB_OFFLINE=1 LD_LIBRARY_PATH="$work/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" LD_PRELOAD="$work/lib/cuda_runtime.so" \
    exec "$python" "$here/record_$others.py" --raw "$work/raw" --golden "$root/tests/golden/oracle" --only "$only" ${drawn:+--draw "$drawn"}
fi

# nanochat's trees, by commit; they stay under build/ and are never part of this project
git_dir="$work/nanochat.git"
[ -d "$git_dir" ] || git clone --quiet --bare "$nanochat" "$git_dir"
for commit in $(cd "$here" && python3 -c 'import cases; print(*sorted({*cases.COMMITS.values(), *cases.OWN_FP8.values()}))'); do
  [ -d "$work/trees/$commit" ] && continue
  git --git-dir "$git_dir" cat-file -e "$commit" 2> /dev/null || git --git-dir "$git_dir" fetch --quiet "$nanochat" '+refs/heads/*:refs/heads/*'
  rm -rf "$work/trees/$commit.part"
  mkdir "$work/trees/$commit.part"
  git --git-dir "$git_dir" archive "$commit" | tar -x -C "$work/trees/$commit.part"
  mv "$work/trees/$commit.part" "$work/trees/$commit"
done

if [ -n "$timed" ]; then set -- timed.py; else set -- record.py --raw "$work/raw" --only "$only" --draw "$drawn"; fi
tool=$1
shift
TORCHINDUCTOR_CACHE_DIR="$work/inductor" LD_LIBRARY_PATH="$work/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" LD_PRELOAD="$work/lib/cuda_runtime.so" \
  exec "$python" "$here/$tool" --trees "$work/trees" --golden "$root/tests/golden/oracle" "$@"
