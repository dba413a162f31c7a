"""Recognises models that vLLM would refuse, before an engine starts.

Importing vLLM takes seconds and changes the environment that Ray's processes inherit. Its table of models is read as text;
vLLM itself is asked, in a process of its own, only about models missing there.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from openrs_ray.common.last_error import last_error
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes of vLLM's attention on CPUs; with another one an engine dies at its first token."""
_TABLE = "_TEXT_GENERATION_MODELS"
_DEADLINE_S = 120.0
_ASK = """
import sys
from vllm.engine.arg_utils import EngineArgs
EngineArgs(model=sys.argv[1], skip_tokenizer_init=True, dtype=sys.argv[2]).create_model_config()
"""


def check_engine(config: RunConfig, model_path: str, model: Any) -> None:
    """UserError when vLLM has no engine for a model.

    Args:
        model_path: folder or Hub id.
        model: its transformers configuration.
    """
    on_cpu = _on_cpu(config)
    if on_cpu and (size := head_size(model)) not in CPU_HEAD_SIZES:
        sizes = ", ".join(map(str, CPU_HEAD_SIZES))
        raise UserError(
            f"the attention heads of {config.model.path} have size {size}, which vLLM does not have on a CPU (it has {sizes}): "
            "choose another model, or run on a GPU"
        )
    if not (on_cpu or torch.cuda.device_count()) or listed(*(model.architectures or ())):
        return
    if reason := _refusal(model_path, config.model.dtype):
        raise UserError(f"vLLM has no engine for model.path {config.model.path}: {reason}")


def _on_cpu(config: RunConfig) -> bool:
    """True if engines will run on a CPU, as far as is known here: `auto` may plan for GPUs elsewhere."""
    place = config.placement
    only_cpus = torch.version.cuda is None and place.gpu_memory_gib is None
    return place.device == "cpu" or (place.device == "auto" and only_cpus)


def head_size(model: Any) -> int:
    """Numbers in one attention head's key."""
    return int(getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads)


def listed(*architectures: str) -> bool:
    """True if the installed vLLM's table of text models has one of the architectures."""
    vllm = find_spec("vllm")
    if vllm is None or vllm.origin is None:
        return False
    source = (Path(vllm.origin).parent / "model_executor" / "models" / "registry.py").read_text(encoding="utf-8")
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == _TABLE:
            return any(name in ast.literal_eval(statement.value) for name in architectures)
    return False


def _refusal(model_path: str, dtype: str) -> str | None:
    """vLLM's reason to refuse a model, one line; None where it accepts it or gives no reason."""
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK, model_path, dtype],
            capture_output=True,
            text=True,
            timeout=_DEADLINE_S,
            check=False,
            env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"},
        )
    except subprocess.TimeoutExpired:
        return None
    reason = last_error(asked.stderr) if asked.returncode else None
    # Its list of what it has instead is hundreds of names long.
    return reason and reason.partition("Supported architectures")[0].partition("Value error, ")[2].rstrip(". ")
