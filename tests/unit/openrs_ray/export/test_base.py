"""The start model and its licence, as far as its own files say it."""

from pathlib import Path

import pytest

from openrs_ray.common import hub
from openrs_ray.export.base import Base
from openrs_ray.export.card import licence_note
from openrs_ray.models.bundled import SMOLLM2

CARD = "---\nlicense: {licence}\nlanguage: en\n---\n# A model\n"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "problem", lambda: "no network in this test")


def model(folder: Path, card: str | None = None, **files: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    if card is not None:
        (folder / "README.md").write_text(card)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_a_folder_s_card_names_the_licence(tmp_path: Path) -> None:
    folder = model(tmp_path / "mine", CARD.format(licence="mit"), LICENSE="MIT License", NOTICE="all of it")
    base = Base.of(str(folder))
    assert (base.name, base.hub_id, base.licence()) == ("mine", None, "mit")
    assert [file.name for file in base.licence_files()] == ["LICENSE", "NOTICE"]
    assert licence_note(base).startswith("This model was made from mine, whose licence is mit")


WITHOUT = ["# no metadata\n", "---\nlanguage: en\n---\n", "---\n: [\n---\n", "---\nlicense: [a]\n---\n"]


@pytest.mark.parametrize("card", [None, *WITHOUT])
def test_an_unknown_licence_is_said_to_be_unknown(tmp_path: Path, card: str | None) -> None:
    base = Base.of(str(model(tmp_path / "mine", card)))
    assert base.licence() is None and base.licence_files() == []
    assert "not known here: look it up" in licence_note(base)


def test_a_snapshot_of_the_hub_has_its_id(tmp_path: Path) -> None:
    folder = model(
        tmp_path / "hub" / "models--Qwen--Qwen2.5-0.5B" / "snapshots" / "abc", CARD.format(licence="apache-2.0")
    )
    base = Base.of(str(folder))
    assert (base.name, base.hub_id, base.licence()) == ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B", "apache-2.0")


def test_names() -> None:
    assert Base.of("Qwen/Qwen2.5-0.5B").hub_id == "Qwen/Qwen2.5-0.5B"
    assert Base.of("Qwen/Qwen2.5-0.5B").licence() is None, "its card is on the Hub, which cannot be reached"
    assert (Base.of(SMOLLM2).hub_id, Base.of(SMOLLM2).licence()) == (
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "apache-2.0",
    )
    assert (Base.of("toy").hub_id, Base.of("toy").licence()) == (None, "apache-2.0")
    assert Base.of("/home/me/models/secret-project/model").name == "model"
