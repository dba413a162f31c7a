"""The table of a curation: problems kept by each stage and reasons for the others, beside the paper's counts."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openrs_ray.common.files import replacing, write_json
from openrs_ray.curation.store import Counts


def markdown(name: str, counts: Sequence[Counts]) -> str:
    """A dash stands where the paper has no such stage. Its first count is of rows."""
    lines = [f"# {name}", "", "| stage | problems | kept | the paper | reasons |", "|---|---:|---:|---:|---|"]
    for number, one in enumerate(counts):
        paper = "-" if one.paper is None else f"{one.paper:,}{' rows' if number == 0 else ''}"
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in one.reasons.items()) or "-"
        lines.append(f"| {one.stage} | {one.entered:,} | {one.kept:,} | {paper} | {reasons} |")
    return "\n".join([*lines, ""])


def write(folder: Path, name: str, counts: Sequence[Counts]) -> dict[str, Any]:
    """Write report.json and report.md. Returns the content of the first."""
    content = {"name": name, "stages": [asdict(one) for one in counts]}
    write_json(folder / "report.json", content)
    with replacing(folder / "report.md") as temporary:
        temporary.write_text(markdown(name, counts), encoding="utf-8")
    return content
