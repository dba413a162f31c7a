"""Asks once whether the Hugging Face Hub answers; if not, libraries work offline, from this machine's cache."""

import os
import sys
import threading
from functools import cache

from openrs_ray.common.foreign import why
from openrs_ray.errors import UserError

_DEADLINE_S = 5.0
"""A resolver without network can take longer than a connection's timeout."""


class Unreachable(UserError):
    """A file is needed from the Hub, which cannot be reached."""


@cache
def problem() -> str | None:
    """Why the Hub cannot be reached; libraries work offline from then on."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    found = [f"no answer of {constants.ENDPOINT} within {_DEADLINE_S:.0f} s"]
    asking = threading.Thread(target=_ask, args=(constants.ENDPOINT, found), daemon=True)
    asking.start()
    asking.join(_DEADLINE_S)
    if not found:
        return None
    constants.HF_HUB_OFFLINE = True
    os.environ["HF_HUB_OFFLINE"] = "1"  # for the processes that load the model
    if "datasets" in sys.modules:
        sys.modules["datasets"].config.HF_HUB_OFFLINE = True
    return found[0]


def _ask(endpoint: str, found: list[str]) -> None:
    """Replaces `found` by the reason, or empties it."""
    import httpx

    try:
        httpx.head(endpoint, timeout=_DEADLINE_S)
    except (httpx.HTTPError, OSError) as error:
        found[:] = [f"{endpoint}: {why(error)}"]
    else:
        found.clear()


def unreachable(name: str, instead: str) -> Unreachable | None:
    """The error about a Hub id, and the way out `instead`; None where the Hub answers."""
    reason = problem()
    if reason is None:
        return None
    return Unreachable(
        f"the Hub cannot be reached ({reason}) and {name} is not in this machine's cache: connect, or download it elsewhere and "
        f"{instead}"
    )
