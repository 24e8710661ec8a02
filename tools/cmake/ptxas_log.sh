#!/bin/sh
# Runs a compiler and keeps what `ptxas -v` reports in a file beside the object; what else it says goes where it would.
# Usage: ptxas_log.sh OBJECT COMPILER [ARGUMENT...]
log=$1.ptxas
shift
"$@" 2>"$log"
status=$?
grep -v -e '^ptxas info' -e '^ *[0-9]* bytes stack frame' "$log" >&2
exit $status
