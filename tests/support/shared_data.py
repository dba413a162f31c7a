"""Where the tests find the data that is shared beside the project, if it is."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

_SHARED = Path(os.environ.get("OPENRS_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"


def shared_file(relative: str) -> Path:
    """The file, or the test that asks is skipped."""
    path = _SHARED / relative
    if not path.exists():
        pytest.skip(f"no {relative} in the shared data")
    return path


def shared_rows(relative: str) -> list[dict[str, Any]]:
    path = shared_file(relative)
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
