"""Looks at rewards of the user's own before a run: their files, functions, arguments and parameters."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from openrs_ray.errors import UserError
from openrs_ray.rewards.inspection import inspected
from openrs_ray.rewards.own import GIVEN, OF_ALL, OF_ONE, OwnReward, Parameters, parameters_of, shown
from openrs_ray.user_code.loading import load, reason
from openrs_ray.user_code.reference import UserCode, is_reference


def own_rewards(
    weights: Iterable[str], parameters: Mapping[str, Parameters], code: Callable[[str], UserCode], memory_gib: float
) -> dict[str, OwnReward]:
    """Own rewards among the names of `rewards.weights`, loaded once in a process that can be killed.

    Args:
        parameters: `rewards.parameters`, by function name or whole reference.
        code: reads the file of a reference.

    Raises:
        UserError: a file, function, signature or parameter is wrong. Own code is not run in this process.
    """
    names = [name for name in weights if is_reference(name)]
    given = parameters_of(names, parameters)
    return {name: _own_reward(code(name), given[name], memory_gib) for name in names}


def _own_reward(code: UserCode, parameters: Parameters, memory_gib: float) -> OwnReward:
    failure = f"{code.path} ({code.reference}) cannot be imported"
    judges, takes = inspected(partial(_look, parameters), code, code.reference, failure, memory_gib)
    return OwnReward(code, judges, takes, parameters)


def _look(parameters: Parameters, code: UserCode) -> tuple[str, tuple[str, ...]]:
    """In the process that can be killed. UserError."""
    try:
        return _signature(code.reference, parameters, load(code))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{code.path} ({code.reference}) cannot be used: {reason(error, code)}") from error


def _signature(reference: str, parameters: Parameters, function: Any) -> tuple[str, tuple[str, ...]]:
    """Kind of thing that a function judges, and the given arguments that it names. UserError for what cannot be called."""
    if not callable(function) or isinstance(function, type):
        raise UserError(f"{reference} is no function: it is {shown(function)}")
    if _is_async(function):
        raise UserError(
            f"{reference} is async: make it a plain function, which may wait, since it has a process of its own"
        )
    arguments = _arguments(function)
    first = next(iter(arguments.values()), None)
    if first is None or first.name not in GIVEN or first.kind is first.KEYWORD_ONLY:
        raise UserError(
            f"the first argument of {reference} must be {OF_ONE} (the text of one) or {OF_ALL} (the texts of all of a problem), "
            f"not {first.name if first else 'missing'}"
        )
    others = {name: one for name, one in arguments.items() if one is not first}
    given = GIVEN[first.name]
    _check_arguments(reference, others, given, parameters)
    _check_parameters(reference, others, given, parameters)
    takes_all = any(one.kind is one.VAR_KEYWORD for one in others.values())
    return first.name, tuple(name for name in given if takes_all or name in others)


def _is_async(function: Any) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 - an object's
    return any(
        test(one) for one in (function, call) for test in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    )


def _arguments(function: Any) -> dict[str, inspect.Parameter]:
    """With annotations as types where they can be worked out."""
    try:
        return dict(inspect.signature(function, eval_str=True).parameters)
    except Exception:  # an annotation as text that names what is not there
        return dict(inspect.signature(function).parameters)


def _check_arguments(
    reference: str, others: Mapping[str, inspect.Parameter], given: Sequence[str], parameters: Parameters
) -> None:
    """UserError for an argument that would get no value, or none by its name."""
    for name, one in others.items():
        if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
            continue
        if one.kind is one.POSITIONAL_ONLY:
            raise UserError(f"{reference} takes {name} by position only: all but its first argument are given by name")
        if name not in given and name not in parameters and one.default is one.empty:
            raise UserError(
                f"{reference} asks for {name}, which it is not given: it may name {', '.join(given)}, and parameters with "
                f"a default or a value in rewards.parameters"
            )


def _check_parameters(
    reference: str, others: Mapping[str, inspect.Parameter], given: Sequence[str], parameters: Parameters
) -> None:
    takes_all = any(one.kind is one.VAR_KEYWORD for one in others.values())
    known = [name for name, one in others.items() if name not in given and one.kind is not one.VAR_KEYWORD]
    where = f"rewards.parameters.{reference.rpartition(':')[2]}"
    for name, value in parameters.items():
        if name in GIVEN[OF_ONE] or name in GIVEN[OF_ALL] or name in GIVEN:
            raise UserError(f"{where}.{name} is no parameter of {reference}: the run gives it")
        if name not in others and not takes_all:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UserError(f"{where}.{name} is no parameter of {reference}: {has}")
        if name in others:
            _check_type(f"{where}.{name}", others[name].annotation, value)


def _check_type(where: str, annotation: Any, value: Any) -> None:
    """UserError for a value that its annotation refuses; annotations that pydantic does not know are not looked at."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:  # also where a config may not be given
        try:
            adapter = TypeAdapter(annotation)
        except Exception:
            return
    try:
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"]
        raise UserError(f"{where} is {json.dumps(value)}: {message[:1].lower()}{message[1:]}") from error
