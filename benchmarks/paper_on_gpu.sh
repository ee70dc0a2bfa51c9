#!/usr/bin/env bash
# Trains the four models of the paper's comparison side by side on one GPU, each in its own process and as long.
#
#     benchmarks/paper_on_gpu.sh PACK OUT RECIPE MINUTES "SEEDS" [KEY=VALUE ...]
#     python benchmarks/paper.py celeba --data FOLDER --seeds 2 --recipe RECIPE --trained OUT
#
# CRITIC="NAME=VALUE ..." changes constants of the critic, and NO_COMPILE=1 saves the first minute. OUT/MODEL-SEED holds
# weights/ and grid.png; OUT/MODEL-SEED.log what was said. A step of so small a model mostly waits for Python, so that
# eight processes take hardly longer than one, where there are as many cores.
set -euo pipefail
pack=$1 out=$2 recipe=$3 minutes=$4 seeds=$5
shift 5
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONUNBUFFERED=1
mkdir -p "$out"
jobs=()
for seed in $seeds; do
    for model in csvae cond-vae cond-vae-info vae; do
        "${PYTHON:-python3}" benchmarks/train_on_gpu.py --pack "$pack" --out "$out/$model-$seed" --minutes "$minutes" \
            --recipe "$recipe" ${NO_COMPILE:+--no-compile} ${PICTURES:+--pictures "$PICTURES"} \
            ${CRITIC:+--critic $CRITIC} \
            --set "model.model=$model" "trainer.seed=$seed" "$@" > "$out/$model-$seed.log" 2>&1 &
        jobs+=($!)
    done
done
status=0
for job in "${jobs[@]}"; do wait "$job" || status=$?; done
exit "$status"
