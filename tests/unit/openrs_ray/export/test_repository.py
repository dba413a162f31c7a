"""Pushing to the Hub: only by those who are logged in, private unless asked otherwise, against a stand-in for the Hub."""

from pathlib import Path

import pytest
from exportable import evaluated_run
from fake_hub import TOKEN, FakeHub, fake_hub
from huggingface_hub import constants

from launch.export import main
from openrs_ray.common import hub as reachable

Patch, Captured = pytest.MonkeyPatch, pytest.CaptureFixture[str]


def push(run: Path, hub: FakeHub, monkeypatch: Patch, *more: str) -> int:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # another test may have found no network
    monkeypatch.setattr(reachable, "problem", lambda: None)
    return main([str(run), "--push-to", "me/sums", *more])


@pytest.fixture
def run(tmp_path: Path, toy_folder: Path) -> Path:
    return evaluated_run(tmp_path / "runs", toy_folder, {0: 0.2, 50: 0.6, 100: 0.5})


def test_a_push_is_private_and_whole(run: Path, monkeypatch: Patch, capsys: Captured) -> None:
    with fake_hub() as hub:
        assert push(run, hub, monkeypatch) == 0, capsys.readouterr().err
    folder = run / "export" / "step-000050"
    assert hub.private == {"me/sums": True}
    assert hub.files == {file.name: file.read_bytes() for file in folder.iterdir()}
    card = hub.files["README.md"].decode()
    assert card in hub.cards, "its metadata were offered to the Hub's own check"
    assert "folder = 'me/sums'" in card and "vllm serve me/sums " in card
    assert f"pushed to {hub.url}/me/sums (private)" in capsys.readouterr().out


def test_what_is_public_must_be_asked_for(run: Path, monkeypatch: Patch, capsys: Captured) -> None:
    with fake_hub(private={"me/sums": False}) as hub:
        assert push(run, hub, monkeypatch) == 2
        assert "me/sums exists and is public: add --public" in capsys.readouterr().err
        assert not hub.files and not (run / "export").exists(), "said before anything is written"
        assert push(run, hub, monkeypatch, "--public") == 0
        assert hub.files and "(public)" in capsys.readouterr().out
    with fake_hub() as hub:
        assert push(run, hub, monkeypatch, "--public", "--folder", str(run / "again")) == 0
        assert hub.private == {"me/sums": False}


def test_without_a_login_nothing_begins(run: Path, monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("openrs_ray.export.repository.get_token", lambda: None)
    assert main([str(run), "--push-to", "me/sums"]) == 2
    assert "run `hf auth login`" in capsys.readouterr().err
    for name in ("sums", "me/sums/too", "me/s ums"):
        assert main([str(run), "--push-to", name]) == 2
        assert "write OWNER/NAME" in capsys.readouterr().err
    assert main([str(run), "--public"]) == 2
    assert "give --push-to" in capsys.readouterr().err
    assert not (run / "export").exists()


def test_a_hub_that_refuses_leaves_the_export(run: Path, monkeypatch: Patch, capsys: Captured) -> None:
    with fake_hub(refuse="/api/repos/create") as hub:
        assert push(run, hub, monkeypatch) == 1
    error = capsys.readouterr().err
    folder = run / "export" / "step-000050"
    assert f"`hf upload me/sums {folder}`" in error and error.count("\n") == 1
    assert (folder / "model.safetensors").is_file()
