#!/usr/bin/env bash
# Runs tests in two processes at once: those of the given paths in one, all others in the other.
#   bash launch/side_by_side.sh MARKS PATH ...     MARKS as pytest's -m takes them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1
chosen=(.venv/bin/python -m pytest -m "$1")
shift
said=$(mktemp)
set -m   # a job of its own, which may be interrupted as a foreground one
"${chosen[@]}" "$@" >"$said" 2>&1 &
first=$!
trap 'kill "$first" 2>/dev/null || true; rm -f "$said"' EXIT
code=0
"${chosen[@]}" "${@/#/--ignore=}" || code=$?
wait "$first" || code=$?
cat "$said"
exit "$code"
