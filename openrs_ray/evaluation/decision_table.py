"""The table and the notes of an evaluation that sampled until it was decided, for its report."""

from typing import Any

Cells = list[list[str]]
"""Rows of a table, the heading first."""


def decision_tables(content: dict[str, Any]) -> list[tuple[str, Cells]]:
    """With its heading; none for a fixed number of samples."""
    return [("Sampled until decided", _rows(content))] if "until_decided" in content else []


def _rows(content: dict[str, Any]) -> Cells:
    rows = [["", "decision", "level of the last look", "completions saved", "tokens saved", "hours", "dollars"]]
    for name, decision in content["until_decided"]["benchmarks"].items():
        last, saved = decision["looks"][-1], decision["saved"]
        rows.append(
            [
                content["benchmarks"][name],
                decision["text"],
                f"{100 * last['level']:.2g} %",
                *(f"{saved[part]:,.0f}" for part in ("completions", "tokens")),
                *(f"{saved[part]:,.2f}" if saved[part] else "-" for part in ("hours", "dollars")),
            ]
        )
    return rows


def decision_notes(content: dict[str, Any]) -> list[str]:
    if content.get("looked_before"):
        return [
            "An evaluation until decided has looked at these samples before; p and intervals here take no account of that."
        ]
    if "until_decided" not in content:
        return []
    looks = ", ".join(map(str, content["until_decided"]["looks"]))
    return [
        f"Sampled until decided: looked at after {looks} samples of each problem, at levels that add up to 5 % over all looks "
        "and benchmarks. The interval of a difference holds over all of them together, for other problems of this kind; it is "
        "therefore wider than that of a number of samples fixed in advance, and p, corrected, is larger.",
        "The number of samples went by the difference, and intervals of single models take no account of that. The saving "
        "is the work that all samples would have taken on top, at the mean of all completions so far.",
    ]
