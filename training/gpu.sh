#!/usr/bin/env bash
# Sittings on a machine with one H100 or H200; each is one call and ends within its limit.
#
#   bash training/gpu.sh smoke 220                    # compiles, some steps: is all well, how fast?
#   bash training/gpu.sh sit 0 0.5 590                # first half of the run in 590 seconds
#   bash training/gpu.sh sit 0.5 1 590 --resume       # second half, on the same machine
#   bash training/gpu.sh sit 0.7 1 400 --weights DIR  # from an export, with fresh optimisers
#   bash training/gpu.sh tasks 300                    # only tasks, while the GPU does other work
#
# Reads $DATA (default training/data: the packed corpus, functions, people's fixes), works in
# build/train, which must survive between sittings that resume, and leaves weights and log in $OUT.
# $WORKERS processes write fresh tasks meanwhile, and a quarter as many of them openings, if the plan
# ($PLAN) has any.
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=${DATA:-training/data}
OUT=${OUT:-build/train/out}
WORKERS=${WORKERS:-$(($(nproc) > 3 ? $(nproc) - 3 : 1))}
PLAN=${PLAN:-training/configs/gpu.toml}
WORK=build/train
# Tokens a second below which a sitting gives up early, so that its time is not lost.
LEAST_SPEED=${LEAST_SPEED:-200000}
# Compiled kernels are kept between sittings.
export TORCHINDUCTOR_CACHE_DIR=$PWD/$WORK/kernels PYTHONUNBUFFERED=1
mkdir -p "$WORK/data/tasks" "$WORK/data/openings" "$OUT"

generate() { # folder, seconds, workers, seed, further options
    local out=$1 seconds=$2 workers=$3 seed=$4
    shift 4
    nice -n 10 env OMP_NUM_THREADS=1 python3 -m training.tasks --out "$out" --seconds "$seconds" \
        --workers "$workers" --seed "$seed" --data "$DATA" --shard-tokens 400000 "$@"
}

start() { # seconds of task generation, seed
    # A second part of the corpus comes without what is made from the whole of it.
    for made in functions.xz fixes.xz; do
        if [ -f "$DATA/$made" ]; then cp "$DATA/$made" "$WORK/"; fi
        if [ ! -f "$DATA/$made" ] && [ -f "$WORK/$made" ]; then cp "$WORK/$made" "$DATA/"; fi
    done
    local openings=0
    if grep -q '^openings' "$PLAN"; then openings=$((WORKERS / 4)); fi
    generate "$WORK/data/tasks/seed$2" "$1" $((WORKERS - openings)) "$2" \
        >"$WORK/tasks-$2.log" 2>&1 &
    generators=$!
    if [ "$openings" -gt 0 ]; then
        generate "$WORK/data/openings/seed$2" "$1" "$openings" "$2" --mix openings \
            --shard-tokens 100000 >"$WORK/openings-$2.log" 2>&1 &
        generators="$generators $!"
    fi
    trap 'kill $generators 2>/dev/null || true' EXIT
}

prepare() { # seconds of task generation, seed
    start "$@"
    local held=
    if [ ! -d "$WORK/data/tasks-held" ]; then
        generate "$WORK/data/tasks-held" 25 4 1 --held-out >"$WORK/held.log" 2>&1 &
        held=$!
    fi
    python3 -m training.pack tokens --data "$DATA" --out "$WORK/data"
    if [ -n "$held" ]; then wait "$held" || cat "$WORK/held.log"; fi
    for kind in tasks openings; do # the first shards of each
        for _ in $(seq 60); do
            if [ ! -f "$WORK/$kind-$2.log" ]; then continue 2; fi
            if [ -n "$(find "$WORK/data/$kind" -name '*.npz' -print -quit)" ]; then continue 2; fi
            if ! kill -0 $generators 2>/dev/null; then break; fi
            sleep 1
        done
        echo "no $kind:" && tail -n 5 "$WORK/$kind-$2.log"
    done
}

train() { # seconds of the whole call, further options
    local limit=$1
    shift
    python3 -m training.train --plan "$PLAN" --data "$WORK/data" \
        --seconds $((limit - SECONDS)) --least-speed "$LEAST_SPEED" "$@"
}

case "$1" in
smoke)
    limit=$2
    nvidia-smi --query-gpu=name,memory.total --format=csv,noheader
    prepare "$limit" 1
    rm -rf "$WORK/smoke"
    train "$limit" --run "$WORK/smoke" --from 0 --to 0.02 --export "$WORK/smoke"
    cp "$WORK/smoke/log.jsonl" "$OUT/smoke.jsonl"
    tail -n 3 "$WORK/tasks-1.log"
    # A model that learns is far below log(8192) = 9.01 by now.
    tail -n 1 "$WORK/smoke/log.jsonl" | python3 -c "
import json, sys
held = json.load(sys.stdin)['held']
sys.exit(0 if max(held.values()) < 5.5 else f'does not learn: {held}')"
    echo "smoke test passed"
    ;;
sit)
    from=$2 to=$3 limit=$4
    shift 4
    prepare $((limit - 60)) "1${from/./}"
    train "$limit" --run "$WORK/run" --from "$from" --to "$to" --export "$OUT" "$@"
    cp "$WORK/run/log.jsonl" "$OUT/"
    tail -n 12 "$WORK/tasks-1${from/./}.log"
    ;;
tasks)
    start "$2" 0
    wait
    ;;
*)
    sed -n '2,14p' "$0"
    exit 2
    ;;
esac
