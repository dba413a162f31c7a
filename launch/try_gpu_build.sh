#!/usr/bin/env bash
# Tries the GPU build on a machine without a GPU: installs what is committed into a temporary clone, imports all of it, and
# lets vLLM choose its attention for open-rs3 on a pretended A40. Nothing is computed.
#   bash launch/try_gpu_build.sh
# 3 to 8 minutes and 10 GB below TMPDIR, given back at the end. Needs git and gcc besides what setup.sh needs. Before vLLM is
# told of the pretended A40 it says that it finds no vllm._C, which is the name of its kernels for CPUs.
set -euo pipefail
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(mktemp --directory --tmpdir openrs-gpu-build.XXXXXX)
trap 'rm -rf "$folder"' EXIT

git clone --quiet "$project" "$folder/project"
cd "$folder/project"
mkdir "$folder/driver"
cp launch/without_gpu/nvidia-smi "$folder/driver"
gcc -shared -fPIC -o "$folder/driver/libcuda.so.1" launch/without_gpu/libcuda.c

export PATH="$folder/driver:$PATH" LD_LIBRARY_PATH="$folder/driver" OPENRS_BUILD=gpu
export UV_CACHE_DIR="$folder/cache"   # beside .venv, which is linked to it and so takes no space of its own
bash launch/setup.sh trl
VLLM_LOGGING_LEVEL=ERROR .venv/bin/python -m launch.without_gpu.trial
.venv/bin/python -m pip list --format freeze | grep -E '^(cuda-|flashinfer|liger|nvidia-nccl|torch=|transformers|triton|vllm)'
echo "try_gpu_build: $(.venv/bin/python --version), $(du -sh --apparent-size .venv | cut -f 1) in .venv, ${SECONDS} s"
