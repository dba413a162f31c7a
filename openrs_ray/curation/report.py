"""The table of a curation: problems kept by each stage and reasons for the others, beside the paper's counts."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

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


def write(folder: Path, name: str, counts: Sequence[Counts]) -> None:
    """report.json and report.md."""
    write_json(folder / "report.json", {"name": name, "stages": [asdict(one) for one in counts]})
    with replacing(folder / "report.md") as temporary:
        temporary.write_text(markdown(name, counts), encoding="utf-8")
