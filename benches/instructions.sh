#!/usr/bin/env bash
# Counts the instructions of what the router does most, at 1,000 nodes of eight links. Unlike times, they depend on the
# compiler and the code alone, so that a change of a few percent shows on any machine. Needs valgrind.
#
#     benches/instructions.sh [CASE...]
set -euo pipefail
cd "$(dirname "$0")/.."

cases=(decode accept duplicate search table)
[ $# -eq 0 ] || cases=("$@")

bench=$(cargo bench --locked --no-default-features --bench router --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# count CASE REPETITIONS: of the whole process.
count() {
    ROUTER_CASE="$1 $2" valgrind --tool=callgrind --callgrind-out-file="$out" "$bench" >/dev/null 2>&1
    sed -n 's/^\(summary\|totals\): //p' "$out" | head -n 1
}

# What the preparation takes is in both counts.
for case in "${cases[@]}"; do
    few=$(count "$case" 10)
    many=$(count "$case" 60)
    printf '%-10s %9d instructions\n' "$case" $(((many - few) / 50))
done
