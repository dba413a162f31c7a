"""Main of the sandbox that holds the program under test: loads it and answers the referee's requests with data.

All that is here belongs to the program, which may change it at will: it can only choose its answers. It never sees the tests.
"""

import os
import sys
import types
from typing import Any

from wire import Gone, decoded, encoded, receive, send  # type: ignore[import-not-found]  # it lies beside this file in the sandbox


class Subject:
    def __init__(self) -> None:
        self._names: dict[str, Any] = {}
        self._kept: list[Any] = []

    def load(self, source: str) -> None:
        module = types.ModuleType("program")
        sys.modules["program"] = module
        self._names = module.__dict__
        exec(compile(source, "program.py", "exec", dont_inherit=True), self._names)

    def answer(self, request: list[Any]) -> list[Any]:
        """["ok", value, changed arguments by place] or ["raised", type, message]."""
        kind, *arguments = request
        try:
            return ["ok", *getattr(self, f"_{kind}")(*arguments)]
        except BaseException as error:  # SystemExit as well: a program that leaves has not answered
            return ["raised", type(error).__name__, str(error)[:300]]

    def _names_of(self, wanted: list[str]) -> list[Any]:
        return [{name: self._sent(self._names[name]) for name in wanted if name in self._names}]

    def _call(self, handle: int, positional: list[Any], named: dict[str, Any]) -> list[Any]:
        given = [self._received(one) for one in positional]
        value = self._kept[handle](*given, **{name: self._received(one) for name, one in named.items()})
        sent = self._sent(value)
        changed = {place: self._sent(one) for place, one in enumerate(given) if isinstance(one, list | dict | set)}
        return [sent, {place: one for place, one in changed.items() if one != positional[place]}]

    def _get(self, handle: int, name: str) -> list[Any]:
        return [self._sent(getattr(self._kept[handle], name))]

    def _set(self, handle: int, name: str, value: Any) -> list[Any]:
        setattr(self._kept[handle], name, self._received(value))
        return [None]

    def _item(self, handle: int, key: Any) -> list[Any]:
        return [self._sent(self._kept[handle][self._received(key)])]

    def _length(self, handle: int) -> list[Any]:
        return [len(self._kept[handle])]

    def _all(self, handle: int) -> list[Any]:
        return [self._sent(iter(self._kept[handle]))]

    def _text(self, handle: int) -> list[Any]:
        return [str(self._kept[handle])]

    def _truth(self, handle: int) -> list[Any]:
        return [bool(self._kept[handle])]

    def _sent(self, value: Any) -> Any:
        return encoded(value, self._handle)

    def _handle(self, value: Any) -> list[Any]:
        self._kept.append(value)
        return ["r", len(self._kept) - 1, type(value).__name__]

    def _received(self, content: Any) -> Any:
        return decoded(content, lambda handle, _: self._kept[handle])


def main() -> None:
    requests, answers = os.fdopen(3, "rb"), os.fdopen(4, "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what it prints is nobody's business
    subject = Subject()
    try:
        with open("program.txt", encoding="utf-8", errors="surrogatepass") as file:
            subject.load(file.read())
        send(answers, ["ok", None])
    except BaseException as error:
        send(answers, ["raised", type(error).__name__, str(error)[:300]])
    try:
        while True:
            send(answers, subject.answer(receive(requests)))
    except Gone:
        os._exit(0)  # threads of the program may wait for ever


if __name__ == "__main__":
    main()
