#!/usr/bin/env bash
# Trains, judges and abuses Bracket at full length and holds the figures against their limits (tools/acceptance.py lists
# them): 12 runs of calibrated-2d, toy-a beside them, 50 kill -9, 200 damaged checkpoints.
# Leaves bench/results/acceptance.json and acceptance.md. Exit status 0 only when every limit is kept.
# Usage: tools/acceptance.sh [--smoke] [--program BRACKET] [--results FOLDER] [--parallel N] [--time wall|cpu]
#   --smoke      the first 4,000 of the 20,000 steps of two runs, against the limits for that, nothing else (the tests
#                kill and damage a few runs anyway); results go to build/acceptance
#   --program    an existing program; tests/interruption_test of the same build folder is used with it. Default: both
#                are built here in Release under build/acceptance
#   --results    where the two files go
#   --parallel   runs side by side, each on one thread; default: one per core, at most 4
#   --time cpu   hold processor seconds against the limit of two minutes a run: for machines that others use
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    --program)
      program=${2:?acceptance: --program needs the path of the bracket program}
      shift 2
      ;;
    -h | --help)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$root/tools/acceptance.sh"
      exit 0
      ;;
    *)
      arguments+=("$1")
      shift
      ;;
  esac
done

if [ -z "$program" ]; then
  "$root/tools/install_deps.sh"
  build=$root/build/acceptance
  cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBRACKET_CUDA=OFF -DBRACKET_TESTS=ON >/dev/null
  cmake --build "$build" -j "$(nproc)" --target bracket interruption_test
  program=$build/tools/bracket
fi
exec python3 "$root/tools/acceptance.py" --program "$program" "${arguments[@]}"
