"""Waits for actors, always with a deadline."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from ray.exceptions import RayActorError, RayError, RayTaskError

from openrs_ray.common.foreign import why
from openrs_ray.errors import Lost, RunError, UserError

T = TypeVar("T")


async def within(seconds: float, who: str, what: str, awaitable: Awaitable[T]) -> T:
    """Result of `awaitable`. Lost when the actor is late or dies; its own errors become RunErrors, except UserErrors.

    Example: await within(120, "rollout worker 1", "receive weights", handle.receive.remote(buckets))
    """
    try:
        return await asyncio.wait_for(_as_coroutine(awaitable), seconds)
    # First: Ray makes it an instance of its cause's class, too, which may be TimeoutError.
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError | RunError):
            raise type(cause)(*cause.args) from error
        raise RunError(f"{who} failed to {what}: {type(cause).__name__}: {cause}") from error
    except TimeoutError as error:
        raise Lost(f"the trainer waited {seconds:.0f} s for {who} to {what}, in vain") from error
    except RayActorError as error:
        raise Lost(f"{who} died while asked to {what}: {why(error)}") from error
    except RayError as error:  # a lost node, a lost object, an environment that could not be set up
        raise Lost(f"{who} could not {what}: {why(error)}") from error


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable
