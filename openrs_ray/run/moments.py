"""8-bit moments of bitsandbytes' AdamW as float32 numbers, and back: what another number of ranks needs.

A block of numbers that share a scale is counted from the beginning of a rank's part of the model, which is another one on
another number of ranks: there the moments are rounded anew.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_BLOCK = 256  # numbers with one scale
_MOMENTS = {"exp_avg": "1", "exp_avg_sq": "2"}
"""torch's names, and the ends of bitsandbytes'."""
_WRAPPED = "__bnb_optimizer_quant_state__"


def with_float32_moments(state: Path, target: Path) -> Path:
    """A folder that holds what `state` does, 8-bit moments as float32; `state` itself where there are none."""
    parts = sorted(state.glob("*_optim_states.pt"))
    if not _in_8_bits(_load(parts[0])):
        return state
    target.mkdir(parents=True)
    for file in state.iterdir():
        if file not in parts:
            (target / file.name).symlink_to(os.path.relpath(file, target))
    for file in parts:
        saved = _load(file)
        for number, moments in (states := _states(saved)).items():
            states[number] = _float32(moments)
        torch.save(saved, target / file.name)
    return target


def in_8_bits(optimizer: Any) -> bool:
    return hasattr(optimizer, "name2qmap")


def to_8_bits(optimizer: Any) -> None:
    """Turn float32 moments under torch's names into those of bitsandbytes' optimizer, in place."""
    from bitsandbytes.functional import quantize_blockwise

    group = optimizer.param_groups[0]
    kept = group["params"]
    for part, state in list(optimizer.state.items()):
        found = optimizer.state.pop(part)
        group["params"] = [part]  # where `init_state` looks for it; under ZeRO-3 groups are empty between steps
        optimizer.init_state(group, part, 0, 0)
        state = optimizer.state[part]
        state["step"] = int(found["step"])
        for name, number in _MOMENTS.items():
            if state[f"state{number}"].dtype == torch.uint8:
                codes, of = quantize_blockwise(found[name], state[f"qmap{number}"], blocksize=_BLOCK)
                state[f"state{number}"].copy_(codes)
                state[f"absmax{number}"].copy_(of.absmax)
            else:  # a small part's
                state[f"state{number}"].copy_(found[name])
    group["params"] = kept


def _load(file: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=False, mmap=True)
    return saved


def _states(saved: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Of each part of the rank's; in a file of ZeRO-3 they lie deeper."""
    of_rank = saved["optimizer_state_dict"]
    states: dict[int, dict[str, Any]] = of_rank.get("base_optimizer_state", of_rank.get("optimizer_state_dict"))[
        "state"
    ]
    return states


def _in_8_bits(saved: dict[str, Any]) -> bool:
    return any(_WRAPPED in moments for moments in _states(saved).values())


def _float32(moments: Mapping[str, Any]) -> dict[str, Any]:
    return {"step": moments["step"]} | {name: float32(moments[_WRAPPED], number) for name, number in _MOMENTS.items()}


def float32(moments: Mapping[str, torch.Tensor], number: str) -> torch.Tensor:
    """Moment 1 or 2 of a part."""
    from bitsandbytes.functional import dequantize_blockwise

    codes = moments[f"state{number}"]
    if codes.dtype == torch.float32:
        return codes
    numbers: torch.Tensor = dequantize_blockwise(
        codes, absmax=moments[f"absmax{number}"], code=moments[f"qmap{number}"], blocksize=_BLOCK
    )
    return numbers
