"""The completions within a page that is not served: few of the run's, chosen to show most."""

from pathlib import Path
from typing import Any

from openrs_ray.errors import RunError, UserError
from openrs_ray.report.completions import Query, find, one
from openrs_ray.report.run_tokenizer import decoder_of

_MOST = 240
_MOST_TOKENS = 120_000
_KEY = ("phase", "step", "attempt", "position", "sample")


def selection(run: Path, runs: int = 1) -> dict[str, Any]:
    """{"rows": [...], "total": completions of training in the run, "note": sentence}; rows with tokens while there is room."""
    try:
        rows, total = _chosen(run, max(20, _MOST // runs))
    except (RunError, UserError) as error:
        return {"rows": [], "total": 0, "note": f"completions cannot be read: {error}"}
    tokenizer = decoder_of(run)
    left, full = _MOST_TOKENS // runs, []
    for row in rows:
        left -= int(row.get("length") or 0)
        full.append(one(run, *(row[name] for name in _KEY), tokenizer) if left > 0 else row)
    return {"rows": full, "total": total, "note": ""}


def _chosen(run: Path, most: int) -> tuple[list[dict[str, Any]], int]:
    """Shares of the first and last steps, the best, the worst, the longest, the most changed, the unjudged, and evaluations."""
    share = max(3, most // 8)
    last = find(run, Query(), 0, 1)
    wanted = [
        Query(),
        Query(order="best"),
        Query(order="worst"),
        Query(order="longest"),
        Query(order="most_changed"),
        Query(status=("timeout", "error")),
        Query(phase="evaluation"),
        Query(phase="evaluation", order="worst"),
    ]
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for query in wanted:
        for row in find(run, query, 0, share).rows:
            found.setdefault(tuple(row[name] for name in _KEY), row)
    if last.total > share:
        for row in find(run, Query(), last.total - share, share).rows:
            found.setdefault(tuple(row[name] for name in _KEY), row)
    return list(found.values())[:most], last.total
