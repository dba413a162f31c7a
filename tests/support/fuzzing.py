"""Hostile values for config fields, and files that were valid before a random change, all drawn from a seed."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

DEEP = 3000
HOSTILE = (
    *(".inf", "-.inf", ".nan", "1e32", "-1e32", "1e-320", "1e309", "-1", "0", "1", "2", "0.5", "-0.0", "1e9"),
    *("1" + "0" * 32, "-1" + "0" * 32, "1" + "0" * 400, "1" + "0" * 5000, "0x" + "f" * 5000, "1_000", "0o17"),
    *("true", "null", "", "~", "text", '""', '" "', '"a\\0b"', '"\\ud800"', '"a\\nb"', '"\\e[2J"', '"\\u202e"', '"é"'),
    *(
        "x" * 300,
        "x" * 100_000,
        "../..",
        "~nobody/x",
        "/dev/null",
        "/",
        ".",
        "/proc/self/mem",
        "a:b",
        "%s{0}",
        "[/red]",
    ),
    *(
        "[]",
        "{}",
        "[[]]",
        "{a: {b: {}}}",
        "[1, 2]",
        "[1.5, -2]",
        "[.nan, .inf]",
        "[null]",
        "{accuracy: .nan}",
        "{1: 2}",
    ),
    *("[" * DEEP + "]" * DEEP, "{a: " * DEEP + "}" * DEEP, "[" * 40 + "]" * 40, "[" + "1, " * 20_000 + "1]"),
    *(
        "{? [a] : b}",
        "*a",
        "&a [*a]",
        "!!python/object:os.system x",
        "!!binary ////",
        "2001-01-01",
        "'",
        "[1",
        "{",
        "\t",
        "@",
    ),
    "[&a [x, x], &b [*a, *a], &c [*b, *b], &d [*c, *c, *c], &e [*d, *d, *d], &f [*e, *e, *e], &g [*f, *f, *f, *f]]",
)
"""YAML texts."""


def nested(depth: int = DEEP) -> str:
    return '{"a":' * depth + "1" + "}" * depth


_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), "", "x" * 5000, "\0", "\ud800", "a\nb"),
    *([], {}, [[]], [None], ["a", 1], {"a": 1}, {"": {}}, [[[[[1]]]]], "1", "true", "../../etc", "/dev/null", -1.5),
)


def other_value(content: Any, rng: random.Random) -> Any:
    """Parsed JSON with one value, anywhere, replaced, taken away or doubled."""
    content = json.loads(json.dumps(content))
    places: list[tuple[Any, Any]] = [*_places(content)]
    if not places or rng.random() < 0.05:
        return rng.choice(_VALUES)
    inside, key = rng.choice(places)
    change = rng.random()
    if change < 0.15:
        del inside[key]
    elif change < 0.25 and isinstance(inside, dict):
        inside[str(rng.choice(("", "a", "\ud800", "x" * 300)))] = inside.pop(key)
    elif change < 0.35 and isinstance(inside, list):
        inside.append(inside[key])
    else:
        inside[key] = rng.choice(_VALUES)
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    keys: Any = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key
        yield from _places(content[key])


def _bytes(content: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(content) + 1), rng.choice((1, 1, 4, 100))
    noise = rng.choice((rng.randbytes(length), b"\xff\xfe", b"\0", b"\xc3\x28", b"{", b"[", b'"', b"9" * 5000, b"\n"))
    return rng.choice(
        (
            content[:at],
            content[at:],
            content[:at] + noise + content[at:],
            content[:at] + noise + content[at + len(noise) :],
            content[:at] + content[at + length :],
            content + content,
        )
    )


def _fixed(content: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        (b"", b"null", b"[]", b"{}", b"1", b'"', nested().encode(), b"\xff" * 64, b"[" * 10**5, b"PAR1", b"\n\n")
    )


def _json(content: bytes, rng: random.Random) -> bytes:
    return json.dumps(other_value(json.loads(content), rng)).encode()


def _json_line(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = rng.choice((_json, _json, _bytes, _fixed))(lines[at], rng)
    return b"\n".join(lines) + b"\n"


def mutated(name: str, content: bytes, rng: random.Random) -> bytes:
    """The content of a file of this name after a random change that fits its kind."""
    kinds: dict[str, tuple[Callable[[bytes, random.Random], bytes], ...]] = {
        ".json": (_json, _json, _json, _bytes, _fixed),
        ".jsonl": (_json_line, _json_line, _json_line, _bytes, _fixed),
    }
    kind = next((kinds[end] for end in kinds if name.endswith(end)), (_bytes, _bytes, _bytes, _fixed))
    return rng.choice(kind)(content, rng)
