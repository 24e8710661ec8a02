#!/usr/bin/env bash
# Everything that needs a GPU: tests (none may be skipped, a minimum must run), compute-sanitizer, benchmarks, their
# comparison with those stored in bench/results/h200, where the GPU is the same, and a table of kernels beside NVIDIA's
# libraries; JSON to a folder. Exit status 0 only when every test passed. What the machine cannot do is recorded as
# "unavailable", with the reason, and is not a pass.
# Usage: tools/gpu_check.sh RESULTS [BUILD]
#   RESULTS: folder for the JSON. BUILD: an existing build folder (default: build/cuda, built here first).
set -uo pipefail
case ${1:-} in -h | --help) echo "usage: tools/gpu_check.sh RESULTS [BUILD]"; exit 0 ;; -*) echo "usage: tools/gpu_check.sh RESULTS [BUILD]" >&2; exit 2 ;; esac
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
results=${1:?usage: tools/gpu_check.sh RESULTS [BUILD]}
build=${2:-}
mkdir -p "$results" && results=$(cd "$results" && pwd) || exit 2

if [ -z "$build" ]; then
  "$root/tools/install_deps.sh" && cd "$root" && cmake --preset cuda >/dev/null && cmake --build --preset cuda -j "$(nproc)" || exit 1
  build=$root/build/cuda
fi
build=$(cd "$build" && pwd) || exit 2
revision=$(git -C "$root" rev-parse HEAD 2>/dev/null || cat "$root/REVISION" 2>/dev/null || echo unknown)
echo "revision $revision"
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,power.limit --format=csv,noheader || echo "nvidia-smi: not available"
"$build/tools/bracket" doctor

export BRACKET_REQUIRE_GPU=1
python3 "$root/tools/gpu_check.py" --build "$build" --results "$results" --revision "$revision" \
  --stored "$root/bench/results/h200/bench.json"
