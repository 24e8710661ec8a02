#!/bin/bash
# Proves that the SIMT executor catches bugs: builds mutation_kernels.cu with each planted bug and runs it plainly (-O1;
# forward, reverse and random orders), under AddressSanitizer and UndefinedBehaviorSanitizer, and under ThreadSanitizer.
#
#   tests/simt_mutations/mutations.sh WORK_DIR [--all]
#
# Exit status 0: the correct kernels pass everywhere and every bug is caught somewhere. Without --all a bug that one
# build catches is not tried in the next. Environment: CXX (default g++), CXXFLAGS, JOBS (default 2).
set -u
if [ $# -lt 1 ] || { [ $# -gt 1 ] && [ "$2" != --all ]; }; then
  echo "usage: $0 WORK_DIR [--all]" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "$1" || exit 2
work=$(cd "$1" && pwd)
all=${2:-}
export here root work all
export CXX=${CXX:-g++}
export base="-std=c++20 -w -pthread -DBRACKET_SIMT -I$root -I$root/tests -I$root/kernels/cuda ${CXXFLAGS:-}"
num_mutations=23
builds="plain asan tsan"

flags_of() { # BUILD executor|kernel
  case $1-$2 in
    plain-*) echo "-O1 -g" ;;
    asan-*) echo "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined" ;;
    tsan-executor) echo "-O1 -g -DSIMT_TSAN" ;;
    tsan-kernel) echo "-O1 -g -fsanitize=thread" ;;
  esac
}

compile_common() { # BUILD: the executor and the program around the kernels
  local part
  mkdir -p "$work/$1"
  for part in "$root"/tests/simt/*.cpp; do
    $CXX $base $(flags_of $1 executor) -c "$part" -o "$work/$1/$(basename "$part" .cpp).o" || return 1
  done
  $CXX $base $(flags_of $1 kernel) -c "$here/mutation_main.cpp" -o "$work/$1/mutation_main.o"
}

runs_of() { # BUILD: order, seed and workers of each run
  case $1 in
    plain) printf '%s\n' "forward 0 1" "reverse 0 1" "random 0 1" "random 1 1" "random 2 2" "random 3 1" "random 4 1" "random 5 2" ;;
    asan) printf '%s\n' "forward 0 1" "random 2 1" ;;
    tsan) printf '%s\n' "forward 0 2" ;;
  esac
}

# One line: the mutation, caught or survived in each build, and how it showed first. Leaves MUTATION.result.
try_mutation() { # MUTATION
  local mutation=$1 build order seed workers program caught total status shown="" row
  row=$(printf '%8s' "$mutation")
  for build in plain asan tsan; do
    if [ -n "$shown" ] && [ -z "$all" ] && [ "$mutation" != 0 ]; then
      row+=$(printf '%8s' -)
      continue
    fi
    program=$work/$build/mutation_$mutation
    if ! $CXX $base $(flags_of $build kernel) -DBRACKET_MUTATION=$mutation -x c++ -c "$here/mutation_kernels.cu" -o "$program.o" ||
      ! $CXX $(flags_of $build kernel) -pthread "$work/$build"/[!m]*.o "$work/$build/mutation_main.o" "$program.o" -o "$program"; then
      echo "error cannot build mutation $mutation for $build" > "$work/$mutation.result"
      return
    fi
    caught=0 total=0
    while read -r order seed workers; do
      total=$((total + 1))
      SIMT_ORDER=$order SIMT_SEED=$seed SIMT_WORKERS=$workers timeout 60 "$program" > "$program.log" 2>&1
      status=$?
      if [ $status != 0 ]; then
        caught=$((caught + 1))
        [ -n "$shown" ] || shown=$(grep -m1 -E '^[a-z_]+[:,]|runtime error|SUMMARY' "$program.log" | sed "s|$root/||g" | cut -c1-150)
        [ -n "$shown" ] || shown="exit status $status"
      fi
    done < <(runs_of $build)
    row+=$(printf '%8s' "$caught/$total")
    rm -f "$program" "$program.o"
  done
  printf '%s  %s\n' "$row" "$shown"
  if [ -n "$shown" ]; then echo caught; else echo survived; fi > "$work/$mutation.result"
}

export -f flags_of compile_common runs_of try_mutation
rm -f "$work"/*.result
jobs=${JOBS:-2}
printf '%s\n' $builds | xargs -P "$jobs" -I{} bash -c 'compile_common {}' || { echo "$0: the executor does not compile" >&2; exit 1; }
printf '%8s%8s%8s%8s  %s\n' mutation plain asan tsan "runs that caught it; first sign"
seq 0 $num_mutations | xargs -P "$jobs" -I{} bash -c 'try_mutation {}' > "$work/table"
sort -n "$work/table"

failures=0
if [ "$(cat "$work/0.result" 2>/dev/null)" != survived ]; then
  echo "$0: the correct kernels fail" >&2
  failures=1
fi
for mutation in $(seq 1 $num_mutations); do
  result=$(cat "$work/$mutation.result" 2>/dev/null || echo "no result")
  [ "$result" = caught ] && continue
  echo "$0: mutation $mutation: $result" >&2
  failures=$((failures + 1))
done
[ $failures = 0 ] && echo "all $num_mutations planted bugs were caught, the correct kernels passed" || exit 1
