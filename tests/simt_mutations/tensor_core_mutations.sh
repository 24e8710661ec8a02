#!/bin/bash
# Proves that the executor catches bugs in the tensor-core products: plants one at a time in a copy of a kernel file and
# runs the launchers (tensor_core_main.cpp) forward, in reverse and in random orders.
#
#   tests/simt_mutations/tensor_core_mutations.sh WORK_DIR
#
# Exit status 0: the kernels as they are pass, and every bug is caught. Environment: CXX (default g++), CXXFLAGS.
set -u
if [ $# != 1 ]; then
  echo "usage: $0 WORK_DIR" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "$1" || exit 2
work=$(cd "$1" && pwd)
# Sections: of convolution_ops.cpp only the sizes are wanted, not the op list behind it.
compile=(${CXX:-g++} -std=c++20 -O0 -w -pthread -ffunction-sections -Wl,--gc-sections -DBRACKET_SIMT ${CXXFLAGS:-})
includes=(-I"$root" -I"$root/include" -I"$root/tests")
kernels="linear_sm80.cu convolution_sm80.cu"

# Name, file, and the edit that plants the bug.
mutations=(
  "rows g and g + 8 of a fragment exchanged|common/tensor_math.cuh|s/to_tf32(x\[i % kHalves\]/to_tf32(x[kHalves - 1 - i % kHalves]/"
  "bf16: rows of A hold one element twice|common/tensor_math.cuh|s/kHalves \* 2 + 1\]/kHalves * 2 + 2 - kHalves]/"
  "operands not rounded|common/tensor_math.cuh|s/words\[i\] = to_tf32(\(.*\));/words[i] = __float_as_uint(\1);/"
  "tf32x3 without one of its small products|common/tensor_math.cuh|/step, a.big, b.small/d"
  "tf32x3: small parts of the rounded value|common/tensor_math.cuh|s/to_tf32(value - __uint_as_float(fragment.big\[i\]))/to_tf32(0)/"
  "copies not waited for|common/tensor_product.cuh|/cp_async_wait<kTensorStages - 2>();/d"
  "wait one group too lenient|common/tensor_product.cuh|s/cp_async_wait<kTensorStages - 2>/cp_async_wait<kTensorStages - 1>/"
  "no barrier after the wait|common/tensor_product.cuh|/^      __syncthreads();/d"
  "barrier before the wait|common/tensor_product.cuh|/^      __syncthreads();/d; s/^      cp_async_wait/      __syncthreads();\n      cp_async_wait/"
  "no commit|common/tensor_product.cuh|/^    cp_async_commit();/d"
  "ring one slice too short|common/tensor_product.cuh|s/== kTensorStages - 1 ? 0/== kTensorStages - 2 ? 0/"
  "slice read without its padding|common/tensor_product.cuh|s/outer \* kPitch + p :/outer * kWidth + p :/"
  "rows beyond the end are copied|common/tensor_product.cuh|s/r < rows ? present : 0/present/"
  "the end of a row is copied in whole vectors|common/tensor_product.cuh|s/left > 0 ? static_cast<int>(left) \* 4 : 0/kBytes/"
  "vectors at any address|common/tensor_product.cuh|s/bits % 16 == 0 ? 16/true ? 16/"
  "warps of a tile in the wrong place|common/tensor_product.cuh|s/32 % kWarpsN \* kWarpColumns/32 % kWarpsM * kWarpColumns/"
  "sums of an instruction in the wrong rows|common/tensor_product.cuh|s/16 \* i + 8 \* half + lane \/ 4;/16 * i + 8 * (1 - half) + lane \/ 4;/"
  "sums of the item before not cleared|common/tensor_product.cuh|/^        clear<Tile>(sums);/d"
  "next item multiplied by the operand of the last|common/tensor_product.cuh|/^          b = work.b(copied);/d"
  "every item as deep as the first|common/tensor_product.cuh|s/to_multiply = work.slices(multiplied);/to_multiply = work.slices(work.first());/"
  "sums stored where the copies have got to|common/tensor_product.cuh|s/work.store(multiplied, sums)/work.store(copied, sums)/"
  "last chunk dropped|linear_sm80.cu|s|left = chunk_sums.rows / c.rows;|left = chunk_sums.rows / c.rows - 1;|"
  "sums of chunks taken from one chunk|linear_sm80.cu|s/next\[k\] = partial\[k \* step\]/next[k] = partial[0]/"
  "every chunk sums to the end|linear_sm80.cu|s/left < chunk_depth ? left : chunk_depth/left/"
  "chunks accumulate onto what is there|linear_sm80.cu|s/plan, Update::overwrite, NoEpilogue/plan, update, NoEpilogue/"
  "result overwritten instead of accumulated|linear_sm80.cu|s/store(target\[0\], first_sum, update)/store(target[0], first_sum, Update::overwrite)/"
  "patches reach into the next row of pixels|convolution_slices.cuh|s/static_cast<unsigned>(x) < static_cast<unsigned>(grid.width)/true/"
  "patches stay at the first taps|convolution_slices.cuh|/cursor.advance(grid, kSlice);/d"
  "patches copied across pixels|convolution_slices.cuh|s/copy_bytes(source, patch_grid.channels)/copy_bytes(source)/"
  "patches used before all threads found them|convolution_slices.cuh|/^  __syncthreads();$/{N;s/^  __syncthreads();\n}$/}/}"
  "patches of the next tile found while others copy|convolution_slices.cuh|0,/^  __syncthreads();/{//d}"
  "pixels that no tap reaches read tap (0, 0)|convolution_sm80.cu|/taps() == 0) place.patches/d"
  "weights of neighbouring taps instead of every stride-th|convolution_slices.cuh|s/cursor.tap_x) \* g->stride;/cursor.tap_x);/"
  "pixels of the next chunk counted twice|convolution_slices.cuh|s/pixels.left > 0 \&\& //; s/exists \&\& pixels.left > 0/exists/"
  "padding read as pixels|convolution_slices.cuh|s/shift_y = tap \/ geometry.kernel - geometry.padding/shift_y = tap \/ geometry.kernel/"
  "pixel classes stored without their offset|convolution_sm80.cu|s/place.x + at.x \* g.stride/at.x * g.stride/"
  "bits of a mask in the order of the fragments|common/product_epilogue.cuh|s/bit = 8 \* j + 2 \* lane + k/bit = 8 * lane + 2 * j + k/"
  "bits of a pair exchanged|common/product_epilogue.cuh|s/bit = 8 \* j + 2 \* lane + k/bit = 8 * j + 2 * lane + 1 - k/"
  "bits gathered from half of a quad|common/product_epilogue.cuh|s/offset = 1; offset < 4/offset = 1; offset < 2/"
  "bits of tangents not spread|common/product_epilogue.cuh|/if (tangent) gather();/d"
  "unused bits of a mask set|common/product_epilogue.cuh|s/masked \&\& inside \&\& Dev/masked \&\& Dev/; s/inside \&\& DeviceEpilogue::positive(v)));/DeviceEpilogue::positive(v)));/"
  "bias of a neighbouring channel|common/product_epilogue.cuh|s/e.bias_of(channel + 8 \* j + k)/e.bias_of(channel + 8 * j + 1 - k)/"
  "chunks: bias of a neighbouring channel|common/product_epilogue.cuh|s/c + e.bias_of(channel);/c + e.bias_of(channel ^ 1);/"
  "bias of every chunk|linear_sm80.cu|s/place.rest, inside, sum);/place.rest, inside, sum + (chunk_sums.rows \/ y.rows - 1) * epilogue.bias_of(place.rest));/"
  "no epilogue behind chunks|linear_sm80.cu|s/if (plain) return add_chunks/return add_chunks/"
  "chunks: rows not padded to bytes of the mask|linear_sm80.cu|s/pitch = 8 \* epilogue.pixel_bytes/pitch = epilogue.channels/"
  "chunks: byte of another lane|common/product_epilogue.cuh|s/votes >> lane/votes >> (lane % 16)/"
  "tangents read the mask of the row of their number|common/device_epilogue.cuh|s/first + Division(row, tangents).quotient/first + row % 3/"
  "tangents count from the first row of the mask|common/device_epilogue.cuh|s/: first + Division/: Division/"
  "masks of the last pixel|convolution_sm80.cu|s/return TileRow{at.quotient, at.rest, exists}/return TileRow{at.quotient, at.rest == 0 ? 0 : at.rest - 1, exists}/"
  "classes of pixels without their offset, with an epilogue|convolution_sm80.cu|s/g.in_width + place.x + at.x \* g.stride, exists/g.in_width + at.x * g.stride, exists/"
  "value of a curve without its bias|common/product_epilogue.cuh|s/in\[column\] + e.bias_of(channel + column)/in[column]/"
  "column beyond the end stored|linear_sm80.cu|s/if (n + 1 < c.cols) BRACKET_TARGET::store/BRACKET_TARGET::store/"
)

for part in "$root"/tests/simt/*.cpp "$root/kernels/convolution_ops.cpp" "$here/tensor_core_main.cpp"; do
  "${compile[@]}" "${includes[@]}" -c "$part" -o "$work/$(basename "$part" .cpp).o" || exit 1
done

# Runs the program until a run fails; prints the first line of that, nothing when all pass.
first_failure() { # PROGRAM
  local order seed
  while read -r order seed; do
    SIMT_ORDER=$order SIMT_SEED=$seed SIMT_WORKERS=1 timeout 120 "$1" > "$work/log" 2>&1 && continue
    echo "$order $seed: $(head -c 130 "$work/log" | head -1)"
    return
  done < <(printf '%s\n' "forward 0" "reverse 1" "random 2" "random 3")
}

build() { # DIRECTORY of mutated files, which come before those of the project
  local sources=() name
  for name in $kernels; do
    if [ -f "$1/kernels/cuda/$name" ]; then sources+=("$1/kernels/cuda/$name"); else sources+=("$root/kernels/cuda/$name"); fi
  done
  "${compile[@]}" -I"$1" "${includes[@]}" -x c++ "${sources[@]}" -x none "$work"/*.o -o "$work/program"
}

failures=0
build "$work/none" || exit 1
shown=$(first_failure "$work/program")
if [ -n "$shown" ]; then
  echo "$0: the kernels as they are fail: $shown" >&2
  failures=1
fi
for mutation in "${mutations[@]}"; do
  IFS='|' read -r name file edit <<< "$mutation"
  rm -rf "$work/mutated"
  mkdir -p "$work/mutated/kernels/cuda/common"
  mutated=$work/mutated/kernels/cuda/$file
  sed "$edit" "$root/kernels/cuda/$file" > "$mutated"
  if cmp -s "$mutated" "$root/kernels/cuda/$file"; then
    shown="" # the edit found nothing to change
  elif ! build "$work/mutated"; then
    shown=""
  else
    shown=$(first_failure "$work/program")
  fi
  printf '%-62s %s\n' "$name" "${shown:-SURVIVED}"
  [ -n "$shown" ] || failures=$((failures + 1))
done
[ $failures = 0 ] && echo "all ${#mutations[@]} planted bugs were caught, the kernels as they are passed" || exit 1
