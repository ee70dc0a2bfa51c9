#!/usr/bin/env bash
# Trains celeba-128 on a GPU that is there for a few minutes: one command of at most nine minutes.
#
#     benchmarks/train_on_gpu.sh DATA OUT [further arguments of train_on_gpu.py]
#
# DATA holds unpack.py and celeba128-pack.npz, or the pack in parts (split -b 28M celeba128-pack.npz part-), for a machine
# to which little can be carried at once. OUT gets weights/ and grid.png, every two minutes and at the end.
#
# On an H100 a step of 128 pictures took 70 ms, nearly all of it waiting for Python: take as large a batch as fills the
# time (--set trainer.batch_size=384). Compiling takes the first minute, unless its cache is there from an earlier call.
set -euo pipefail
data=$1 out=$2
shift 2
if [ ! -e "$data/celeba128-pack.npz" ]; then cat "$data"/part-* > "$data/celeba128-pack.npz"; fi
cd "$(dirname "$0")/.."
PYTHONPATH=$PWD exec "${PYTHON:-python3}" benchmarks/train_on_gpu.py --pack "$data/celeba128-pack.npz" --out "$out" "$@"
