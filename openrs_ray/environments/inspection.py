"""Looks at an environment's class before anything starts, in a process that can be killed."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

from openrs_ray.config.environment import EnvironmentSection
from openrs_ray.environments.replier import REPLY_ARGUMENTS, Replier
from openrs_ray.errors import UserError
from openrs_ray.rewards.inspection import inspected

Tools = tuple[Mapping[str, Any], ...]
"""JSON schemas of functions, as chat templates take them."""


def tools_of(replier: Replier, section: EnvironmentSection) -> Tools:
    """Tools of an environment whose object can be made and answers as it should. UserError in one sentence."""
    what = f"environment {replier.name}"
    return inspected(_tools, replier, what, f"{what} cannot be made", section.memory_gib)


def _tools(replier: Replier) -> Tools:
    if fault := _fault(replier):
        raise UserError(f"environment {replier.name} {fault}")
    try:
        return _plain(getattr(replier.made, "tools", ()))
    except ValueError as error:
        raise UserError(f"environment {replier.name} has tools that are {error}") from error


def _fault(replier: Replier) -> str:
    """In words that follow the environment's name."""
    try:
        replier.prepare()
    except Exception as error:
        return f"cannot be made: {replier.reason(error)}"
    reply = getattr(replier.made, "reply", None)
    if not callable(reply):
        return "has no method reply, which answers a turn of the model (docs/environments.md)"
    if inspect.iscoroutinefunction(reply):
        return "has an async reply: make it a plain function, which may wait: it has its own process"
    if unknown := [one.name for one in inspect.signature(reply).parameters.values() if _is_not_given(one)]:
        return f"has a reply that asks for {', '.join(unknown)}; it may name {', '.join(REPLY_ARGUMENTS)}"
    return ""


def _is_not_given(one: inspect.Parameter) -> bool:
    if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
        return False
    return one.kind is one.POSITIONAL_ONLY or (one.name not in REPLY_ARGUMENTS and one.default is one.empty)


def _plain(tools: Any) -> Tools:
    """As JSON. ValueError."""
    shape = 'no list of {"type": "function", "function": {"name": ..., "parameters": ...}}'
    try:
        plain = json.loads(json.dumps(list(tools)))
        named = [tool["function"]["name"] for tool in plain]
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{shape}: {type(error).__name__}: {error}") from error
    if not all(isinstance(name, str) and name for name in named) or len(set(named)) < len(named):
        raise ValueError(f"{shape}, each with a name of its own")
    return tuple(plain)
