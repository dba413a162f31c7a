"""Spans of a request's stages in its engine, from the times that vLLM notes."""

import time
from typing import TYPE_CHECKING

from openrs_ray.run.spans import add_span

if TYPE_CHECKING:
    from vllm.outputs import RequestOutput


def record_stages(position: int, sample: int, output: "RequestOutput") -> None:
    """Record a request's waiting, prefill and decoding (pauses for pushes included)."""
    times = output.metrics
    if times is None or not 0 < times.queued_ts <= times.scheduled_ts <= times.first_token_ts <= times.last_token_ts:
        return
    wall = time.time_ns() - time.monotonic_ns()
    tokens = {"queue": 0, "prefill": len(output.prompt_token_ids or ()), "decode": len(output.outputs[0].token_ids)}
    marks = (times.queued_ts, times.scheduled_ts, times.first_token_ts, times.last_token_ts)
    for (stage, count), start, end in zip(tokens.items(), marks, marks[1:], strict=False):
        attributes = {"position": position, "sample": sample} | ({"tokens": count} if count else {})
        add_span(stage, wall + int(1e9 * start), int(1e9 * (end - start)), **attributes)
