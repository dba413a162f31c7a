"""`--page` is a convenience: a run does not end for want of it."""

from types import SimpleNamespace
from typing import Any

import pytest

from launch.train import main
from openrs_ray.errors import UserError


def test_a_page_that_cannot_be_shown_is_a_warning(
    recipe: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []

    def refuse(run: object) -> None:
        raise UserError("no port is free")

    monkeypatch.setattr("openrs_ray.report.beside.page_beside", refuse)
    monkeypatch.setattr("launch.train._train", lambda config, console, document: trained.append(config) or 0)
    monkeypatch.setattr("launch.train.check_run", lambda config, resume: SimpleNamespace())
    monkeypatch.setattr("launch.train.resume_notes", lambda config: [])
    assert main([str(recipe), "--page"]) == 0
    assert len(trained) == 1 and "WARNING: the page cannot be shown: no port is free" in capsys.readouterr().out
