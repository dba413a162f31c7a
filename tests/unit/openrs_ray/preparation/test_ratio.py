"""Losses that rely on a ratio which is always 1 are refused at the start of a new run, and of none that has begun."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_config

from openrs_ray.errors import UserError
from openrs_ray.preparation.ratio import check_ratio_acts

TAUGHT = {"kind": "distill", "teacher": {"path": "toy-teacher"}}


def check(folder: Path, staleness: int = 0, **loss: Any) -> None:
    sections = {"loss": {"old_policy": "current"} | loss, "rollout": {"staleness": staleness}}
    check_ratio_acts(make_config(folder, run={"folder": str(folder)}, **sections))


@pytest.mark.parametrize(
    ("staleness", "loss", "sentence"),
    [
        (0, {"correction": "truncated"}, "correction truncated needs loss.old_policy sampler"),
        (0, {"kind": "cispo"}, "kind cispo needs loss.old_policy sampler"),
        (0, {"kind": "tis"}, "kind tis needs loss.old_policy sampler"),
        (0, {"kind": "sapo"}, "kind sapo needs loss.old_policy sampler"),
        (1, {}, "staleness above 0 needs loss.old_policy sampler, or loss.correction sequence_mask or token_mask"),
        (
            1,
            TAUGHT | {"teacher": {"path": "toy-teacher", "top_k": 0}},
            "staleness above 0 needs loss.old_policy sampler",
        ),
    ],
)
def test_a_new_run_is_refused(staleness: int, loss: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        check(tmp_path, staleness, **loss)
    check(tmp_path, staleness, **loss, old_policy="sampler")


def test_a_run_that_has_begun_goes_on(tmp_path: Path) -> None:
    run = make_config(tmp_path).run
    folder = tmp_path / run.name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"run": {}, "rollout": {}, "data": {}}))
    check(tmp_path, 1, correction="truncated")


@pytest.mark.parametrize("loss", [{"correction": "sequence_mask"}, {"correction": "token_mask"}, TAUGHT])
def test_masks_and_divergence_alone_need_no_ratio(loss: dict[str, Any], tmp_path: Path) -> None:
    check(tmp_path, 1, **loss)
