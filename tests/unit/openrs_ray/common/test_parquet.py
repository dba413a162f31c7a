"""One way to write and read Parquet files: whole or not at all, and one sentence for damage."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openrs_ray.common.parquet import read_table, write_table
from openrs_ray.errors import UserError

ROWS = pa.table({"number": [1, 2], "text": ["one", "two"]})


def test_what_is_written_is_read_and_the_name_has_the_checksum_of_the_file(tmp_path: Path) -> None:
    plain = write_table(tmp_path / "new" / "own-000007.parquet", ROWS)
    checked = write_table(tmp_path / "own.parquet", ROWS, checksum_in_name=True)
    assert plain.name == "own-000007.parquet" and checked.name.startswith("own-") and len(checked.stem) == 12
    crc32 = int(checked.stem[-8:], 16)
    assert read_table(plain) == read_table(checked, crc32=crc32) == pq.read_table(checked) == ROWS
    assert read_table(plain, ["text"]) == ROWS.select(["text"])
    with pytest.raises(UserError, match=r"own-[0-9a-f]{8}\.parquet does not have the content that was written"):
        read_table(checked, crc32=crc32 ^ 1)


def test_a_file_of_an_earlier_version_is_read_as_the_columns_of_now(tmp_path: Path) -> None:
    pq.write_table(ROWS, tmp_path / "old.parquet", compression="zstd")
    schema = pa.schema([("number", pa.int64()), ("text", pa.string()), ("new", pa.float64())])
    assert read_table(tmp_path / "old.parquet", schema=schema).to_pylist()[0] == {
        "number": 1,
        "text": "one",
        "new": None,
    }


@pytest.mark.parametrize("harm", ["cut", "emptied", "missing", "no column", "no UTF-8"])
def test_damage_is_one_sentence(tmp_path: Path, harm: str) -> None:
    path = write_table(tmp_path / "own.parquet", ROWS)
    columns = None
    match harm:
        case "cut":
            path.write_bytes(path.read_bytes()[:-9])
        case "emptied":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
        case "no column":
            columns = ["other"]
        case "no UTF-8":
            buffers = [None, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")]
            pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 1, buffers)}), path)
    with pytest.raises(UserError, match=r"own\.parquet cannot be read \(.+\)$") as error:
        read_table(path, columns, None if columns is None else ROWS.schema)
    assert "\n" not in str(error.value)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path / "own.parquet", ROWS)

    def full(_: Path, __: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError):
        write_table(path, ROWS.slice(1))
    assert [*tmp_path.iterdir()] == [path] and read_table(path) == ROWS
