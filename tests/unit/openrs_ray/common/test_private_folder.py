"""Folders and tokens that are nobody else's."""

import os
import stat
from pathlib import Path

import pytest

from actors.cluster import own_ray
from actors.cluster.own_ray import close_token_file, have_token, ray_folder
from openrs_ray.common import private_folder as private
from openrs_ray.common.private_folder import MARK, folder_of, private_folder, temporary_root
from openrs_ray.errors import RunError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(private, "temporary_root", lambda: str(tmp_path))
    return tmp_path


def test_of_rays_own_folder_only_the_logs_are_left_and_nobody_else_can_open_it(root: Path) -> None:
    with ray_folder() as folder:
        session = folder / "session_1"
        for name in ("logs/raylet.out", "sockets/raylet", "runtime_resources/x", "node_ip_address.json"):
            (session / name).parent.mkdir(parents=True, exist_ok=True)
            (session / name).write_text("x")
        folder.chmod(0o777)  # as Ray does
        assert mode(folder.parent) == 0o700 and folder.parent.parent == root
    assert [path.name for path in session.rglob("*")] == ["logs", "raylet.out"]


def test_rays_longest_socket_has_a_name_that_is_short_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/a/folder/with/a/name/that/is/too/long/for/sockets")
    monkeypatch.setattr(private.tempfile, "tempdir", None)
    longest = "x" * private._LONGEST
    session = "session_2026-11-25_21-48-20_802491_4194304"
    assert temporary_root() == "/tmp"
    assert len(f"{longest}/openrs-ray-abcdefgh/ray/{session}/sockets/plasma_store") <= 107


def test_an_actors_folder_is_made_once_and_closed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, "0123456789abcdef" * 2)
    folder = private_folder()
    assert folder == private_folder() == folder_of(os.environ[MARK]) and mode(folder) == 0o700


def test_a_folder_that_others_can_open_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, "f" * 32)
    folder_of("f" * 32).mkdir()
    folder_of("f" * 32).chmod(0o755)
    with pytest.raises(RunError, match="only this user can open"):
        private_folder()


def test_a_token_is_closed_to_others_and_where_there_is_none_it_is_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_ray.os, "environ", {**os.environ, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")})
    os.environ.pop("RAY_AUTH_TOKEN", None)
    close_token_file()
    have_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64 and not (tmp_path / "token").exists()
    del os.environ["RAY_AUTH_TOKEN"]
    (tmp_path / "token").write_text("0" * 64)
    (tmp_path / "token").chmod(0o644)
    close_token_file()
    have_token()
    assert mode(tmp_path / "token") == 0o600 and "RAY_AUTH_TOKEN" not in os.environ
