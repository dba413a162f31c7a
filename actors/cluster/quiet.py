"""Silences Ray's warnings about the intended configuration."""

import logging

_LOGGER = "ray._private.authentication.authentication_token_setup"
_AS_IT_SHOULD_BE = "Token authentication is enabled for this Ray cluster"


def silence_expected_warnings() -> None:
    """Drop the warning that Ray asks for a token; the opposite one is still shown."""
    logging.getLogger(_LOGGER).addFilter(_unexpected)  # the same function once, however often it is added


def _unexpected(record: logging.LogRecord) -> bool:
    return _AS_IT_SHOULD_BE not in record.getMessage()
