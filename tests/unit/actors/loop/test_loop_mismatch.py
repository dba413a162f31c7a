"""The loop stops where learner and sampler disagree, and not because a step's own updates have moved the policy."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from simulated_run import SimulatedRun

from actors.learner.group import Update
from openrs_ray.errors import RunError
from openrs_ray.records import Group
from openrs_ray.run.progress import Progress


@pytest.mark.parametrize(("figures", "stops"), [
    ({"mismatch_kl": 0.04}, False), ({"mismatch_kl": 0.06}, True),
    ({"mismatch_kl": 0.06, "first_mismatch_kl": 0.04}, False), ({"mismatch_kl": 0.04, "first_mismatch_kl": 0.06}, True),
])  # fmt: skip
def test_the_limit_is_on_the_first_update(figures: dict[str, float], stops: bool, tmp_path: Path) -> None:
    """The default limit is 0.05."""

    async def train(groups: Sequence[Group], step: int, settings: object) -> Update:
        return Update({"clipped_share": 0.0, **figures}, np.zeros((len(groups), len(groups[0].rollouts))))

    async def one_step() -> None:
        run = SimulatedRun(tmp_path / "run", Progress(), steps=1)
        run.learner.train, run.seconds = train, lambda plan: 0.0  # type: ignore[method-assign]
        await run.steps(1)

    if stops:
        with pytest.raises(RunError, match=r"more than push\.max_mismatch_kl 0\.05"):
            asyncio.run(one_step())
    else:
        asyncio.run(one_step())
