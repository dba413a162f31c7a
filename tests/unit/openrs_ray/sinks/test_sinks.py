"""`run.sinks`: how it is written, and the sentences about what cannot be."""

from pathlib import Path

import pytest
from commands import said, write_mistakes
from system import system_config

from openrs_ray.errors import UserError
from openrs_ray.sinks import sinks
from openrs_ray.sinks.sinks import check_sinks


@pytest.mark.parametrize("given", ["wandb,mlflow", "wandb, mlflow", ["wandb", "mlflow"]])
def test_names_may_be_a_list_or_parted_by_commas(given: str | list[str], tmp_path: Path) -> None:
    assert system_config(tmp_path, tmp_path, run={"sinks": given}).run.sinks == ("wandb", "mlflow")


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        check_sinks(["trackio"])
    assert str(error.value) == (
        "run.sinks has trackio, which is not installed: run `.venv/bin/python -m pip install trackio`, or leave it out"
    )


def test_the_command_says_both_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_mistakes(tmp_path, tmp_path)
    unknown = said(capsys, recipe, "--run.sinks", "wandb,neptune")
    assert "run.sinks" in unknown and "wandb" in unknown and "mlflow" in unknown
    monkeypatch.setattr(sinks, "find_spec", lambda name: None)
    assert "run.sinks has mlflow, which is not installed" in said(capsys, recipe, "--run.sinks", "mlflow", "--dry-run")
    assert not (tmp_path / "runs").exists()
