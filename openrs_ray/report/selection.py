"""The completions within a page that is not served: few of the run's, chosen to show most."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openrs_ray.errors import RunError, UserError
from openrs_ray.report.completions import Query, find, one
from openrs_ray.report.run_tokenizer import decoder_of

_MOST = 240
_MOST_TOKENS = 60_000
_DIGITS = 4
_KEY = ("phase", "step", "attempt", "position", "sample")


def selection(run: Path, runs: int = 1) -> dict[str, Any]:
    """{"rows": [...], "total": completions of training in the run, "note": sentence}; rows with tokens while there is room.

    `runs`: how many share the page.
    """
    try:
        rows, total = _chosen(run, max(24, _MOST // runs))
    except (RunError, UserError) as error:
        return {"rows": [], "total": 0, "note": f"Completions cannot be read: {error}."}
    training = sum(row["phase"] == "train" for row in rows)
    note = (
        f"This file has {training:,} of the run's {total:,} completions of training; --serve shows all."
        if training < total
        else ""
    )
    return {"rows": _with_tokens(run, rows, _MOST_TOKENS // runs), "total": total, "note": note}


def _chosen(run: Path, most: int) -> tuple[list[dict[str, Any]], int]:
    """The first and last completions, the best, the worst, the longest, the most changed, the unjudged, and held-out ones."""
    share = max(3, most // 8)
    total = find(run, Query(), 0, 1).total
    wanted = [
        (Query(), 0),
        (Query(), max(0, total - share)),
        (Query(order="best"), 0),
        (Query(order="worst"), 0),
        (Query(order="longest"), 0),
        (Query(order="most_changed"), 0),
        (Query(status=("timeout", "error")), 0),
        (Query(phase="evaluation", order="worst"), 0),
    ]
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for query, offset in wanted:
        for row in find(run, query, offset, share).rows:
            found.setdefault(tuple(row[name] for name in _KEY), row)
    return [*found.values()][:most], total


def _with_tokens(run: Path, rows: list[dict[str, Any]], left: int) -> list[dict[str, Any]]:
    tokenizer = decoder_of(run)
    full = []
    for row in rows:
        left -= int(row["length"] or 0)
        full.append(_packed(one(run, **{name: row[name] for name in _KEY}, tokenizer=tokenizer)) if left > 0 else row)
    return full


def _packed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens in fewer bytes: log-probabilities rounded; a list of equal values as one of them (`source.js` undoes it)."""
    tokens = {name: [_rounded(value) for value in values] for name, values in row["tokens"].items()}
    return {**row, "tokens": {name: values[:1] if len({*values}) == 1 else values for name, values in tokens.items()}}


def _rounded(value: Any) -> Any:
    return round(value, _DIGITS) if isinstance(value, float) else value
