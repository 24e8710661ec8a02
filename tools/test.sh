#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test but those labelled slow (tools/acceptance.sh): the CPU suite, the
# CUDA kernels on the SIMT executor under several schedules, the package, and, with a toolkit, the compilation of all
# CUDA code. Tests labelled gpu run where there is a GPU; BRACKET_REQUIRE_GPU=1 makes its absence a failure.
# --sanitizers builds and runs the parts that matter again, under address, undefined-behaviour and thread sanitizers.
# Reports: build/*/junit*.xml. Usage: tools/test.sh [--sanitizers]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
jobs=$(nproc)
sanitizers=false
for argument in "$@"; do
  case $argument in
    --sanitizers) sanitizers=true ;;
    -h | --help) echo "usage: tools/test.sh [--sanitizers]"; exit 0 ;;
    *) printf "test.sh: unknown argument '%s'; usage: tools/test.sh [--sanitizers]\n" "$argument" >&2; exit 2 ;;
  esac
done
tools/install_deps.sh

stage() { printf '\n== %s (%d s) ==\n' "$1" "$SECONDS"; }
build() { cmake --preset "$1" >/dev/null && cmake --build --preset "$1" -j "$jobs" "${@:2}"; }
run() {  # run PRESET NAME ctest-arguments...
  ctest --test-dir "build/$1" --no-tests=error --output-on-failure -j "$jobs" --output-junit "junit-$2.xml" "${@:3}"
}

stage "build (Release, warnings are errors)"
build dev
if grep -q '^CMAKE_CUDA_COMPILER:.*=/' build/dev/CMakeCache.txt; then
  stage "registers of the CUDA kernels: no spills"
  tools/ptxas_table.py build/dev --json build/dev/ptxas.json --markdown build/dev/ptxas.md
fi
stage "all tests"
run dev all -LE slow
stage "kernels under other schedules"
SIMT_ORDER=reverse run dev simt-reverse -L simt
SIMT_ORDER=random SIMT_SEED=2 run dev simt-random -L simt
if ! $sanitizers; then
  printf '\nall stages passed in %d s (--sanitizers runs more)\n' "$SECONDS"
  exit
fi

# What they check is the library, of it under the thread sanitizer the CUDA kernels and the team of CPU threads: the
# rest comes compiled from the ordinary build. Only for now, so that later builds of these presets compile all anew.
for preset in asan tsan; do cmake --preset $preset "-DBRACKET_TEST_OBJECTS=$root/build/dev" >/dev/null; done
forget_objects() { for preset in asan tsan; do cmake --preset $preset -DBRACKET_TEST_OBJECTS= >/dev/null; done; }
trap forget_objects EXIT
stage "kernels and files, without CUDA, under address and undefined-behaviour sanitizers"
build asan --target simt_selftest simt_errors_selftest memory_test activation_test classification_test \
  convolution_test dense_test density_test elementwise_test images_test jacobian_ops_test kernel_box_test \
  linear_test lobpcg_block_test lobpcg_test losses_test masked_activation_test normalization_test optimizer_test \
  pooling_test random_test reduction_test files_compressed_test files_images_test files_json_lines_test files_safetensors_test files_table_test \
  dataset_test image_dataset_test
run asan asan -L 'cpu|simt' -LE slow

stage "the executor, kernels with shared memory, and CPU threads under the thread sanitizer"
build tsan --target simt_selftest simt_errors_selftest activation_test convolution_test dense_test density_test \
  jacobian_ops_test kernel_box_test linear_test lobpcg_block_test lobpcg_test masked_activation_test reduction_test \
  thread_team_test
# Two tests of many shapes take a quarter of the time and race in no other way than those beside them.
run tsan tsan -L simt -E 'ConvolutionTest.SpecialShapes|LobpcgTest.ConvergesTo'
run tsan tsan-threads -R ThreadTeam

printf '\nall stages passed in %d s\n' "$SECONDS"
