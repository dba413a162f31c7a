"""Messages as they are shown: a capital letter and a full stop, but for names that must be read as they are."""

import pytest

from openrs_ray.common.formatting import sentences


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no checkpoint is whole", "No checkpoint is whole."),
        ("run r1's folder is full", "Run r1's folder is full."),
        ("rollout.top_p must be 1", "rollout.top_p must be 1."),
        ("--xyzzy is not an option", "--xyzzy is not an option."),
        ("/runs/r1 is not a folder", "/runs/r1 is not a folder."),
        ("vLLM could not start", "vLLM could not start."),
        ("Done already.", "Done already."),
        ("is it there?", "Is it there?"),
        ("2 mistakes:\n  run.name is empty\n  unknown field", "2 mistakes:\n  run.name is empty.\n  Unknown field."),
        ("", ""),
    ],
)
def test_a_message_becomes_a_sentence(text: str, shown: str) -> None:
    assert sentences(text) == shown and sentences(shown) == shown
