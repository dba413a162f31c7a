"""Converts 8-bit moments of bitsandbytes' AdamW to float32 and back, to resume with another number of ranks.

Numbers share a scale by blocks, counted from the beginning of a rank's part of the model. With another number of ranks these
parts differ, and the moments are quantized again.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_BLOCK = 256  # numbers with one scale
_MOMENTS = {"exp_avg": "1", "exp_avg_sq": "2"}
"""torch's names of the moments, and the suffixes of bitsandbytes' names."""
_WRAPPED = "__bnb_optimizer_quant_state__"


def bitsandbytes() -> Any:
    """The library bitsandbytes, without its warning about 4-bit kernels, which are not used here."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes

    return bitsandbytes


def has_8_bit_moments(state: Path) -> bool:
    """True if a learner's saved state has 8-bit moments."""
    return any(_WRAPPED in moments for file in _parts(state)[:1] for moments in _states(_load(file)).values())


def with_float32_moments(state: Path, target: Path) -> Path:
    """Make the folder `target` with the files of `state`, 8-bit moments turned into float32 under torch's names."""
    target.mkdir(parents=True)
    for file in state.iterdir():
        (target / file.name).symlink_to(os.path.relpath(file, target))
    for file in _parts(state):
        saved = _load(file)
        states = _states(saved)
        states.update({number: _float32(moments) for number, moments in states.items()})
        (target / file.name).unlink()
        torch.save(saved, target / file.name)
    return target


def in_8_bits(optimizer: Any) -> bool:
    return hasattr(optimizer, "name2qmap")


def to_8_bits(optimizer: Any) -> None:
    """Turn float32 moments under torch's names into those of bitsandbytes' optimizer, in place."""
    quantize = bitsandbytes().functional.quantize_blockwise
    group = optimizer.param_groups[0]
    kept = group["params"]
    for part in list(optimizer.state):
        found = optimizer.state.pop(part)
        group["params"] = [part]  # where `init_state` looks for it; under ZeRO-3 groups are empty between steps
        optimizer.init_state(group, part, 0, 0)
        state = optimizer.state[part]
        state["step"] = int(found["step"])
        for name, number in _MOMENTS.items():
            if state[f"state{number}"].dtype == torch.uint8:
                codes, of = quantize(found[name], state[f"qmap{number}"], blocksize=_BLOCK)
                state[f"state{number}"].copy_(codes)
                state[f"absmax{number}"].copy_(of.absmax)
            else:  # bitsandbytes keeps those of a small part in float32
                state[f"state{number}"].copy_(found[name])
    group["params"] = kept


def _parts(state: Path) -> list[Path]:
    return sorted(state.glob("*_optim_states.pt"))


def _load(file: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=False, mmap=True)
    return saved


def _states(saved: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The optimizer's states in a rank's file, by part; with ZeRO-3 they lie deeper."""
    of_rank = saved["optimizer_state_dict"]
    states: dict[int, dict[str, Any]] = of_rank.get("base_optimizer_state", of_rank.get("optimizer_state_dict"))[
        "state"
    ]
    return states


def _float32(moments: Mapping[str, Any]) -> dict[str, Any]:
    return {"step": moments["step"]} | {name: float32(moments[_WRAPPED], number) for name, number in _MOMENTS.items()}


def float32(moments: Mapping[str, torch.Tensor], number: str) -> torch.Tensor:
    """Moment 1 or 2 of a part, as float32."""
    codes = moments[f"state{number}"]
    if codes.dtype == torch.float32:
        return codes
    scales, numbers = moments[f"absmax{number}"], moments[f"qmap{number}"]
    found: torch.Tensor = bitsandbytes().functional.dequantize_blockwise(
        codes, absmax=scales, code=numbers, blocksize=_BLOCK
    )
    return found
