"""Reads the documentation, for tests that do what it says."""

import re

from places import ROOT


def code_below(heading: str, page: str = "extending", language: str = "python") -> str:
    """The first block of code of a language below a heading of a page in docs/."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(heading)}$.*?^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/{page}.md has no code below {heading!r}"
    return found[1]
