#!/usr/bin/env bash
# Sittings on a machine with one H100 or H200; each is one call and ends within its limit.
#
#   bash training/gpu.sh smoke 220                    # compiles, some steps: is all well, how fast?
#   bash training/gpu.sh sit 0 0.5 590                # first half of the run in 590 seconds
#   bash training/gpu.sh sit 0.5 1 590 --resume       # second half, on the same machine
#   bash training/gpu.sh sit 0.7 1 400 --weights DIR  # from an export, with fresh optimisers
#
# Reads $DATA (default training/data: the packed corpus, functions, perhaps tasks/ and tasks-held/),
# works in build/train, which must survive between sittings that resume, and leaves weights and log
# in $OUT. $WORKERS processes write fresh tasks meanwhile.
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
mkdir -p "$WORK/data/tasks" "$OUT"

generate() { # folder, seconds, workers, seed, further options
    local out=$1 seconds=$2 workers=$3 seed=$4
    shift 4
    nice -n 10 env OMP_NUM_THREADS=1 python3 -m training.tasks --out "$out" --seconds "$seconds" \
        --workers "$workers" --seed "$seed" --data "$DATA" --shard-tokens 400000 "$@"
}

prepare() { # seconds of task generation, seed
    for kind in tasks tasks-held; do
        if [ -d "$DATA/$kind" ]; then cp -r "$DATA/$kind/." "$WORK/data/$kind"; fi
    done
    # A second part of the corpus comes without the functions of the first.
    if [ -f "$DATA/functions.xz" ]; then cp "$DATA/functions.xz" "$WORK/"; fi
    if [ ! -f "$DATA/functions.xz" ] && [ -f "$WORK/functions.xz" ]; then
        cp "$WORK/functions.xz" "$DATA/"
    fi
    generate "$WORK/data/tasks/seed$2" "$1" "$WORKERS" "$2" >"$WORK/tasks-$2.log" 2>&1 &
    generator=$!
    trap 'kill $generator 2>/dev/null || true' EXIT
    local held=
    if [ ! -d "$WORK/data/tasks-held" ]; then
        generate "$WORK/data/tasks-held" 25 4 1 --held-out >"$WORK/held.log" 2>&1 &
        held=$!
    fi
    python3 -m training.pack tokens --data "$DATA" --out "$WORK/data"
    if [ -n "$held" ]; then wait "$held" || cat "$WORK/held.log"; fi
    for _ in $(seq 60); do # the first shards
        if [ -n "$(find "$WORK/data/tasks" -name '*.npz' -print -quit)" ]; then return; fi
        if ! kill -0 $generator 2>/dev/null; then break; fi
        sleep 1
    done
    echo "no tasks:" && tail -n 5 "$WORK/tasks-$2.log"
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
*)
    sed -n '2,12p' "$0"
    exit 2
    ;;
esac
