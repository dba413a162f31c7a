from pathlib import Path

import pytest

from openrs_ray.errors import UserError
from openrs_ray.run.decisions import FILE, Decision, note_decision, read_decisions


def test_decisions_are_read_as_they_were_taken(tmp_path: Path) -> None:
    assert read_decisions(tmp_path) == []
    changes = {"learning_rate": (1e-4, 5e-5)}
    first = Decision(40, 1, "guard", "roll back", changes, {"entropy": [0.4, 0.1]}, "entropy fell", to_step=20)
    second = Decision(60, 2, "stage", "next stage", {"max_completion_tokens": (64, 128)}, {}, "few are cut")
    for decision in (first, second):
        note_decision(tmp_path, decision)
    assert read_decisions(tmp_path) == [first, second]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"step": "soon"}\n')
    with pytest.raises(UserError, match=r"decisions\.jsonl is damaged"):
        read_decisions(tmp_path)
