#!/usr/bin/env bash
# Lint, types and every test that needs no GPU and is not marked slow.
#   bash launch/test.sh [PYTEST OPTION ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export RAY_USAGE_STATS_ENABLED=0

bash launch/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest -m "not slow and not nightly and not gpu" "$@"
