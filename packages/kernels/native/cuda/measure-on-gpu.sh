#!/bin/bash
# Everything that needs a GPU, in one run of at most ten minutes: builds or takes the prebuilt runner, checks every kernel and
# the golden models, looks for races and bad accesses where compute-sanitizer is installed, times, prints one table.
# use: measure-on-gpu.sh [OUTPUT_FOLDER] [GOLDEN_FOLDER]   (golden files: npx tsx packages/kernels/cuda-pack-golden.ts FOLDER)
# Needs no Node and no network. Leaves the GPU's settings as they are. Exit status 1: a check failed, and nothing was timed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
output=${1:-$here/../../build/cuda/measured}
golden=${2:-$here/../../build/cuda/golden}
runner=$here/../../build/cuda/native/variator-cuda
mkdir -p "$output"
started=$SECONDS
left() { echo $((590 - (SECONDS - started))); }

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >/dev/null 2>&1; then
  echo "SKIPPED: no GPU"
  exit 0
fi
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit --format=csv | tee "$output/machine.csv"

nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)
if [ ! -x "$runner" ]; then
  if [ -z "$nvcc" ]; then
    echo "SKIPPED: no nvcc, and no prebuilt $runner"
    exit 0
  fi
  echo "building with $nvcc ..."
  mkdir -p "$(dirname "$runner")"
  objects=$(mktemp -d)
  sources=$(ls "$here"/*.cu "$here"/*.cc "$here"/checks/*.cc "$here"/runner/*.cu "$here"/runner/*.cc "$here"/checks/*.cu 2>/dev/null | grep -vE '(^|/|_)emulat(or|ed)[_.]|/fiber\.')
  for shared in float_ops logit_rules logprobs sampling tensor; do sources="$sources $here/../$shared.cc"; done
  echo "$sources" | tr ' ' '\n' | xargs -P "$(nproc)" -I{} sh -c \
    "\"$nvcc\" -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a -DVARIATOR_TIER=tier_base -Xcompiler=-ffp-contract=off,-Wno-psabi -c {} -o \"$objects/\$(basename \$(dirname {})).\$(basename {}).o\"" || exit 1
  "$nvcc" -gencode=arch=compute_90a,code=sm_90a -cudart=static "$objects"/*.o -ldl -o "$runner" || exit 1
fi

echo "== every kernel against its slow version"
timeout "$(left)" "$runner" check --seeds 2 | tee "$output/check.txt" || exit 1
files=$(ls "$golden"/*.golden 2>/dev/null || true)
if [ -n "$files" ]; then
  echo "== golden tokens, and the same bits whatever the batch"
  timeout "$(left)" "$runner" golden $files | tee "$output/golden.txt" || exit 1
  tiny=$(ls "$golden"/llama-gqa.golden "$golden"/qwen3-qknorm.golden 2>/dev/null || true)
  if [ -n "$tiny" ]; then timeout "$(left)" "$runner" invariance $tiny | tee "$output/invariance.txt" || exit 1; fi
  if "$runner" golden --linear library --chunk 130 --least 0.9 $files >"$output/golden-library.txt" 2>&1; then cat "$output/golden-library.txt"
  elif grep -q "is not to be found" "$output/golden-library.txt"; then echo "SKIPPED: no cuBLASLt"
  else cat "$output/golden-library.txt"; exit 1; fi
  for linear in wgmma skinny; do
    chunk=130; if [ "$linear" = skinny ]; then chunk=40; fi
    echo "== golden tokens, $linear"
    timeout "$(left)" "$runner" golden --linear "$linear" --chunk "$chunk" --least 0.9 $files | tee "$output/golden-$linear.txt" || exit 1
  done
  wide=$(ls "$golden"/smollm2.golden 2>/dev/null || true)
  if [ -n "$wide" ]; then
    echo "== golden tokens, decoding by wgmma (heads of 64)"
    timeout "$(left)" "$runner" golden --decode wgmma --least 0.9 $wide | tee "$output/golden-decode.txt" || exit 1
  fi
  echo "== golden tokens, keys and values in fp8"
  timeout "$(left)" "$runner" golden --kv fp8 --least 0.85 $files | tee "$output/golden-kv-fp8.txt" || exit 1
  if [ -n "$tiny" ]; then timeout "$(left)" "$runner" invariance --kv fp8 $tiny | tee "$output/invariance-kv-fp8.txt" || exit 1; fi
  # Shares that the emulated device keeps with a margin: the tiny models' weights are random, with near ties in plenty.
  for format in e4m3 int4; do
    least=0.75; if [ "$format" = int4 ]; then least=0.35; fi
    for linear in mma gemv wgmma skinny; do
      case "$format-$linear" in int4-wgmma | int4-skinny) continue ;; esac
      chunk=130; if [ "$linear" = skinny ]; then chunk=40; fi
      echo "== golden tokens, weights in $format, $linear"
      timeout "$(left)" "$runner" golden --weights "$format" --linear "$linear" --chunk "$chunk" --least "$least" $files | tee "$output/golden-$format-$linear.txt" || exit 1
    done
    if [ -n "$tiny" ]; then timeout "$(left)" "$runner" invariance --weights "$format" $tiny | tee "$output/invariance-$format.txt" || exit 1; fi
  done
else
  echo "SKIPPED: no golden files in $golden"
fi

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
if [ -n "$sanitizer" ]; then
  for tool in memcheck racecheck synccheck; do
    echo "== compute-sanitizer $tool"
    timeout 60 "$sanitizer" --tool "$tool" --error-exitcode 1 "$runner" check 2>&1 | tail -15 | tee "$output/$tool.txt"
    status=${PIPESTATUS[0]}
    if [ "$status" = 124 ]; then echo "$tool: not finished within 60 s"; elif [ "$status" != 0 ]; then exit 1; fi
  done
else
  echo "SKIPPED: no compute-sanitizer"
fi

echo "== times"
timeout "$(left)" "$runner" time-step | tee "$output/times-step.txt"
timeout "$(left)" "$runner" time --json "$output/times.json" | tee "$output/times.txt"
timeout "$(left)" "$runner" time-hopper | tee "$output/times-hopper.txt"
