#!/usr/bin/env bash
# All that wants a GPU, on one card in about 8 minutes: tests, ratios of steps, memory, copies and waits, and three rows
# of the main table of `icons`, from drawing its pictures on.
#
#     benchmarks/gpu.sh [folder for the results]      default: artifacts/gpu
#     QUICK=1 benchmarks/gpu.sh                       everything tiny, to try the script itself, on a CPU too
#
# It needs this repository and a Python with torch. Packages that this Python lacks are taken from wheels in `.whl/`,
# and are not installed into it.
set -u
cd "$(dirname "$0")/.."
repository=$PWD
results=$(realpath -m "${1:-artifacts/gpu}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$results"
rm -f "$results"/*.csv "$results"/*.txt "$results"/*.md
LIMIT=${LIMIT:-480} # seconds for everything
params=paper/profiles/icons.yaml

if compgen -G ".whl/*.whl" >/dev/null; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$work/site" .whl/*.whl || exit
fi
export PYTHONPATH=$work/site:$repository PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 HF_HOME=$work/hf
export TORCHINDUCTOR_CACHE_DIR=$work/inductor

# part <name> <most seconds> <command …>: its output goes into a log, its outcome into parts.txt
part() {
    local name=$1 most=$2 start=$SECONDS
    shift 2
    timeout "$most" "$@" >"$work/$name.log" 2>&1
    local code=$?
    echo "$name: $([ $code = 0 ] && echo done || echo "exit $code"), $((SECONDS - start)) s, at $SECONDS s" |
        tee -a "$results/parts.txt"
    return $code
}
left() { # seconds of the limit, less those that are kept for what comes after
    local seconds=$((LIMIT - SECONDS - $1))
    echo $((seconds > 1 ? seconds : 1))
}

tests=(python3 -m pytest -q -p no:cacheprovider tests/test_gpu.py)
suite=(python3 -m pytest -q -p no:cacheprovider -n 4 --dist loadfile) # the library's other tests, beside a GPU
suite+=($(ls tests/test_{train,methods,losses,encoders,evaluate,packing,stream,blip,cache,source,cli,adding}.py 2>/dev/null))
settings=(plain resident autocast channels_last compile)
further=(--settings plain tf32 "autocast, resident" "autocast, compile, resident" --batches 64 --rounds 3)
watched=(--settings plain resident "autocast, resident" --batches 64)
steps=(--rounds 5 --count 10)
rows=(CLIPErase MultiDelete "null space")
if [ -n "${QUICK:-}" ]; then
    python3 - "$params" "$work/quick.yaml" <<'PYTHON'
import json, sys
from cliperase.settings import read_params
params = read_params(sys.argv[1])
params |= {"seeds": [0]}
params["experiments"]["main"]["concepts"] = ["apple"]
params["pretrain"] |= {"steps": 4, "evaluate_every": 2}
params["unlearn"] |= {"steps": 2, "retain_batch": 32}
params["data"]["sets"]["icons"]["per_class"] = {"train": 4, "validation": 2, "test": 2, "heldout": 2}
json.dump(params, open(sys.argv[2], "w"))
PYTHON
    params=$work/quick.yaml
    suite=()
    settings=(plain resident)
    further=(--settings plain tf32 "autocast, resident" --models compact --batches 4 --rounds 1 --count 1)
    watched=(--settings plain --models compact --batches 4 --count 1)
    steps=(--models compact --batches 4 --rounds 1 --count 1)
fi
params=$(realpath "$params")

# The first half does not mind company: tests, pictures, the original, compilation into a cache, and the main table.
warm=()
if [ -z "${QUICK:-}" ]; then
    for model in compact ViT-B-32; do
        part "compile-$model" 200 python3 -m benchmarks.gpu steps --models $model --settings compile \
            --rounds 1 --count 1 --output "$work/warm-$model.csv" &
        warm+=($!)
    done
fi
part tests 150 "${tests[@]}" &
testing=($!)
if [ ${#suite[@]} -gt 0 ]; then
    part suite 180 "${suite[@]}" &
    testing+=($!)
fi
main_table() { # <name>: three rows, in a folder of their own
    mkdir -p "$work/$1" && cd "$work/$1" &&
        part "$1" 150 python3 -m paper experiment main --rows "${rows[@]}" --profile "$params" \
            --data "$work/data/icons" --model "$work/models" --output "$results/$1.csv"
}
part pictures 120 python3 data_prep/icons.py --set icons --params "$params" --output "$work/data/icons" &&
    part pretraining 120 python3 -m paper pretrain --profile "$params" --data "$work/data/icons" \
        --output "$work/models/original" && {
    (CUDA_VISIBLE_DEVICES="" main_table main_cpu) &
    of_cpu=$!
    (main_table main)
    wait $of_cpu
}
wait "${testing[@]}" ${warm[@]+"${warm[@]}"}
cat "$work/tests.log" "$work/suite.log" >"$results/tests.txt" 2>/dev/null

# The second half has the machine to itself.
part waits 60 python3 -m benchmarks.gpu waits "${watched[@]}" --output "$results/waits.csv"
part steps "$(left 10)" python3 -m benchmarks.gpu steps --settings "${settings[@]}" "${steps[@]}" \
    --seconds "$(left 40)" --output "$results/steps.csv"
if [ "$(left 30)" -gt 20 ]; then
    part further "$(left 10)" python3 -m benchmarks.gpu steps "${further[@]}" \
        --seconds "$(left 60)" --output "$results/steps_further.csv"
fi
for log in "$work"/*.log; do
    echo "== $(basename "$log" .log)"
    tail -c 20000 "$log"
done >"$results/log.txt"
python3 -m benchmarks.gpu_report "$results" && (cd "$results" && rm -f steps*.csv waits.csv tests.txt parts.txt)
