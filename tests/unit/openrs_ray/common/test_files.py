"""Small files that a kill, a full disk or a short write leaves whole or torn, never wrong."""

import errno
import os
from pathlib import Path

import pytest

from openrs_ray.common.files import append_line, read_json, read_lines
from openrs_ray.errors import UserError


def test_a_line_is_appended_whole_however_little_a_write_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, content[:3]))
    for number in range(3):
        append_line(tmp_path / "lines", {"number": number, "text": "x" * 50})
    assert read_lines(tmp_path / "lines") == [{"number": number, "text": "x" * 50} for number in range(3)]


def test_a_line_that_is_not_written_whole_is_an_error_and_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = os.write, 0

    def full(handle: int, content: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, content[:10])

    append_line(tmp_path / "lines", {"number": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            append_line(tmp_path / "lines", {"number": 2, "text": "x" * 50})
    append_line(tmp_path / "lines", {"number": 3})
    assert [line["number"] for line in read_lines(tmp_path / "lines")] == [1, 3]


@pytest.mark.parametrize("content", ["null", "[]", "3", "{", ""])
def test_what_is_no_mapping_is_damaged(tmp_path: Path, content: str) -> None:
    assert read_json(tmp_path / "file.json") is None
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(UserError, match=r"file\.json is damaged"):
        read_json(tmp_path / "file.json")
