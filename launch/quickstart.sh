#!/usr/bin/env bash
# Sees the whole thing work: installs, teaches a tiny model arithmetic, lets GRPO improve it, shows before and after.
#   bash launch/quickstart.sh [--dotted.field VALUE ...]     any field of launch/recipes/quickstart.yaml
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export RAY_USAGE_STATS_ENABLED=0

bash launch/setup.sh
place=()
if grep -q ' gpu$' .venv/made_for; then   # the GPU build of vLLM has no CPU engine; one GPU serves both
    place=(--placement.device gpu --placement.colocated true --engine.gpu_memory_fraction 0.4)
fi
exec .venv/bin/python -m launch.train launch/recipes/quickstart.yaml \
    --run.name "quickstart-$(date +%Y%m%d-%H%M%S)" "${place[@]}" "$@"
