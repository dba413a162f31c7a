"""Looks at an environment's class before anything starts, in a process that can be killed."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openrs_ray.config.environment import EnvironmentSection
from openrs_ray.environments.replier import REPLY_ARGUMENTS, Replier
from openrs_ray.errors import RunError, UserError
from openrs_ray.records import Status
from openrs_ray.rewards.pool import CheckPool

Tools = tuple[Mapping[str, Any], ...]
"""JSON schemas of functions, as chat templates take them."""

DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Inspected:
    tools: Tools = ()
    fault: str = ""
    """In words that follow the environment's name."""


def inspected(replier: Replier, section: EnvironmentSection) -> Tools:
    """Tools of an environment whose object can be made and answers as it should. UserError in one sentence."""
    try:
        with CheckPool(_inspect, 1, DEADLINE_S, section.memory_gib, failed=_failed) as pool:
            found: Inspected = pool.submit(replier).result()
    except RunError as error:
        raise UserError(f"environment {replier.name} cannot be looked at: {error}") from error
    if found.fault:
        raise UserError(f"environment {replier.name} {found.fault}")
    return found.tools


def _failed(status: Status, detail: str, seconds: float) -> Inspected:
    return Inspected(fault=f"cannot be made: {detail}")


def _inspect(replier: Replier) -> Inspected:
    try:
        replier.prepare()
    except Exception as error:
        return Inspected(fault=f"cannot be made: {replier.reason(error)}")
    reply = getattr(replier.made, "reply", None)
    if not callable(reply):
        return Inspected(fault="has no method reply, which answers a turn of the model (docs/environments.md)")
    if inspect.iscoroutinefunction(reply):
        return Inspected(fault="has an async reply: make it a plain function, which may wait: it has its own process")
    if unknown := [one.name for one in inspect.signature(reply).parameters.values() if _is_not_given(one)]:
        given = ", ".join(REPLY_ARGUMENTS)
        return Inspected(fault=f"has a reply that asks for {', '.join(unknown)}; it may name {given}")
    return _with_tools(getattr(replier.made, "tools", ()))


def _is_not_given(one: inspect.Parameter) -> bool:
    if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
        return False
    return one.kind is one.POSITIONAL_ONLY or (one.name not in REPLY_ARGUMENTS and one.default is one.empty)


def _with_tools(tools: Any) -> Inspected:
    shape = 'has tools that are no list of {"type": "function", "function": {"name": ..., "parameters": ...}}'
    try:
        plain = json.loads(json.dumps(list(tools)))
        named = [tool["function"]["name"] for tool in plain]
    except (TypeError, ValueError, KeyError) as error:
        return Inspected(fault=f"{shape}: {type(error).__name__}: {error}")
    if not all(isinstance(name, str) and name for name in named) or len(set(named)) < len(named):
        return Inspected(fault=f"{shape}, each with a name of its own")
    return Inspected(tuple(plain))
