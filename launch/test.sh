#!/usr/bin/env bash
# Lint, types and every test that needs no GPU and is not marked slow.
#   bash launch/test.sh [PYTEST OPTION ...]     with options: the tests that they choose, in one process
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export RAY_USAGE_STATS_ENABLED=0

bash launch/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
fast=(.venv/bin/python -m pytest -m "not slow and not nightly and not gpu")
(($# == 0)) || exec "${fast[@]}" "$@"

# Two processes at once, of about the same time. The first starts no Ray and mostly computes; the other one mostly waits.
computing=(tests/unit/{launch,openrs_ray} tests/system/test_learner.py)
export OMP_NUM_THREADS=1
said=$(mktemp)
set -m   # a job of its own, which may be interrupted as a foreground one
"${fast[@]}" "${computing[@]}" >"$said" 2>&1 &
first=$!
trap 'kill "$first" 2>/dev/null || true; rm -f "$said"' EXIT
code=0
"${fast[@]}" "${computing[@]/#/--ignore=}" || code=$?
wait "$first" || code=$?
cat "$said"
exit "$code"
