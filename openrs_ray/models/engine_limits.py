"""Recognises models that vLLM would refuse, before an engine starts.

Importing vLLM takes seconds and changes the environment that Ray's processes inherit: its table of models is read as text.
"""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from openrs_ray.common.last_error import last_error
from openrs_ray.config.placement import Placement, Slots
from openrs_ray.config.schema import Model
from openrs_ray.errors import UserError

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes of vLLM's attention on CPUs; with others an engine dies at its first token."""
_TABLE = "_TEXT_GENERATION_MODELS"
_DEADLINE_S = 120.0
_ASK = """
import sys
from vllm.engine.arg_utils import EngineArgs
EngineArgs(model=sys.argv[1], skip_tokenizer_init=True, dtype=sys.argv[2]).create_model_config()
"""


def check_engine(model: Model, place: Slots, model_path: str, config: Any) -> None:
    """UserError when vLLM has no engine for the model (a folder or a Hub id)."""
    on_cpu = is_on_cpu(place)
    if on_cpu and (size := head_size(config)) not in CPU_HEAD_SIZES:
        sizes = ", ".join(map(str, CPU_HEAD_SIZES))
        raise UserError(
            f"the attention heads of {model.path} have size {size}, which vLLM does not have on a CPU (it has {sizes}): "
            "choose another model, or run on a GPU"
        )
    if not (on_cpu or torch.cuda.device_count()) or listed(*(config.architectures or ())):
        return
    # Asked in another process, and only about models that its table lacks.
    if reason := _refusal(model_path, model.dtype):
        raise UserError(f"vLLM has no engine for model {model.path}: {reason}")


def is_on_cpu(place: Slots) -> bool:
    """True if engines certainly run on a CPU; with `auto` the recipe may be meant for GPUs elsewhere."""
    planned = isinstance(place, Placement) and place.gpu_memory_gib is not None
    return place.device == "cpu" or (place.device == "auto" and torch.version.cuda is None and not planned)


def head_size(model: Any) -> int:
    """Numbers in one attention head's key."""
    return int(getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads)


def listed(*architectures: str) -> bool:
    """True if the installed vLLM's table of text models has one of these."""
    vllm = find_spec("vllm")
    if vllm is None or vllm.origin is None:
        return False
    source = (Path(vllm.origin).parent / "model_executor" / "models" / "registry.py").read_text(encoding="utf-8")
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == _TABLE:
            return any(name in ast.literal_eval(statement.value) for name in architectures)
    return False


def _refusal(model_path: str, dtype: str) -> str | None:
    """One line; None where vLLM accepts the model or gives no reason."""
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
