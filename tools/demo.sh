#!/usr/bin/env bash
# Trains 25 Gaussians with the preset calibrated-2d on the best device present, prints what the bounds say beside the
# exact likelihood, and leaves a picture. A run that is complete is not trained again.
# Usage: tools/demo.sh [FOLDER]      FOLDER: where run and picture go (default: build/demo in the project)
set -euo pipefail
usage="usage: tools/demo.sh [FOLDER]"
case ${1:-} in -h | --help) echo "$usage"; exit 0 ;; -*) echo "$usage" >&2; exit 2 ;; esac
[ $# -le 1 ] || { echo "$usage" >&2; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${1:-$root/build/demo}
mkdir -p "$out"

"$root/tools/install_deps.sh" --run-only
# Kernels for a GPU are worth compiling only where there is one.
cuda=OFF
[ -e /dev/nvidia0 ] && cuda=AUTO
cmake -S "$root" -B "$root/build/demo-program" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBRACKET_CUDA=$cuda \
  -DBRACKET_TESTS=OFF >/dev/null
cmake --build "$root/build/demo-program"
bracket=$root/build/demo-program/tools/bracket

steps=20000
if [ -d "$out/run/checkpoints/$(printf 'step_%08d' $steps)" ]; then
  echo "the run in $out/run is complete; remove it to train anew"
else
  "$bracket" train --preset calibrated-2d --data 25gaussians --steps $steps --seed 0 --device auto --out "$out/run" --force
fi
"$bracket" eval "$out/run"
"$bracket" density "$out/run" -o "$out/density.png"
echo "picture: $out/density.png"
echo "the program: $bracket; to call it by name: export PATH=\"$(dirname "$bracket"):\$PATH\""
