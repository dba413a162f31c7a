"""Reads command lines: options and fields in any order, one sentence for a mistake."""

import argparse
import difflib
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

from openrs_ray.errors import UserError


class Parser(argparse.ArgumentParser):
    def __init__(self, command: str, description: str | None, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"python -m launch.{command}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    @property
    def flags(self) -> list[str]:
        return [name for name in self._option_string_actions if name.startswith("--")]

    def add_json(self) -> None:
        """The option `--json`, for `openrs_ray.common.console.json_output`."""
        about = "write the result to stdout as one JSON document, and everything else to stderr"
        self.add_argument("--json", action="store_true", help=about)

    def parse_args(self, arguments: Sequence[str], namespace: None = None) -> argparse.Namespace:  # type: ignore[override]
        """Options of a command without fields."""
        options, rest = self.parse_known_args(arguments, namespace)
        if rest:
            raise UserError(self._unexpected(rest[0]))
        return options

    def parse_with_fields(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """The options, and the words that change fields."""
        own, fields = self._apart(arguments)
        try:
            options, rest = self.parse_known_args(own)
        except UserError:
            for word in fields:  # a misspelt option may have taken the word that is missed
                if word.startswith("--") and "." not in word and (near := self._near(word)):
                    raise UserError(f"{word} is not an option; the nearest one is {near}") from None
            raise
        if rest:
            near = self._near(rest[0])
            meant = f"the nearest option is {near}" if near else "change fields with --dotted.field VALUE"
            raise UserError(f"{rest[0]!r} was not expected here: {meant}")
        return options, fields

    def _apart(self, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        own: list[str] = []
        fields: list[str] = []
        left = deque(arguments)
        while left:
            word = left.popleft()
            if not word.startswith("--") or word.partition("=")[0] in self.flags:
                own.append(word)
                continue
            fields.append(word)
            if "=" not in word and left and not left[0].startswith("--"):
                fields.append(left.popleft())
        return own, fields

    def _unexpected(self, word: str) -> str:
        if not word.startswith("-"):
            return f"{word!r} was not expected here ({self.prog} --help)"
        near = self._near(word)
        meant = f"the nearest one is {near}" if near else f"{self.prog} --help lists them"
        return f"{word} is not an option; {meant}"

    def _near(self, word: str) -> str | None:
        spelt = {flag.lstrip("-"): flag for flag in self.flags}
        close = difflib.get_close_matches(word.lstrip("-"), spelt, n=1, cutoff=0.65)
        return spelt[close[0]] if close else None

    def error(self, message: str) -> NoReturn:
        missing = message.removeprefix("the following arguments are required: ")
        sentence = f"{missing} is missing" if missing != message else message.removeprefix("argument ")
        raise UserError(f"{sentence} ({self.prog} --help says what there is)")


def help_asked(arguments: Sequence[str]) -> str | None:
    """The section of `--help SECTION`, "" for all; None without help."""
    place = next((number for number, word in enumerate(arguments) if word in ("--help", "-h")), None)
    if place is None:
        return None
    after = arguments[place + 1 : place + 2]
    return after[0].lstrip("-") if after and after[0] not in ("--help", "-h") else ""
