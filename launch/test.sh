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
fast="not slow and not nightly and not gpu"
(($# == 0)) || exec .venv/bin/python -m pytest -m "$fast" "$@"
# The given ones start no Ray and mostly compute; the others mostly wait. Both take about the same time.
exec bash launch/side_by_side.sh "$fast" tests/unit/openrs_ray tests/system/test_learner.py
