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

# Two processes at once: the unit tests compute, the others mostly wait for what they have started.
export OMP_NUM_THREADS=1
said=$(mktemp)
set -m   # a job of its own, which may be interrupted as a foreground one
"${fast[@]}" tests/unit >"$said" 2>&1 &
unit=$!
trap 'kill "$unit" 2>/dev/null || true; rm -f "$said"' EXIT
code=0
"${fast[@]}" --ignore=tests/unit || code=$?
wait "$unit" || code=$?
cat "$said"
exit "$code"
