"""Values, sizes and reasons of errors as messages show them: on one line, and cut where they are long."""

import csv
import zlib

import httpx
import pytest

from openrs_ray.common.foreign import why, why_with_kind
from openrs_ray.common.formatting import as_json, gib, quoted, size_text


def test_long_values_are_cut_at_the_length_that_is_given() -> None:
    assert quoted("a\nb") == r"'a\nb'"
    assert quoted("x" * 58) == "'" + "x" * 58 + "'"
    assert quoted("x" * 59) == "'" + "x" * 56 + "..."
    assert len(quoted(list(range(100)), 20)) == 20


def test_values_without_end_are_shown_all_the_same() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert as_json(endless) == "a list that is too large to show"
    assert as_json(10**5000) == "a int that is too large to show"
    assert len(as_json(["x"] * 10**6)) < 2000


@pytest.mark.parametrize(
    ("size", "text", "number"),
    [
        (0, "0.0 MiB", "0.000"),
        (512 << 20, "512.0 MiB", "0.5"),
        (1 << 30, "1.0 GiB", "1.0"),
        (2 << 40, "2048.0 GiB", "2,048.0"),
    ],
)
def test_sizes_have_the_unit_that_fits(size: int, text: str, number: str) -> None:
    assert (size_text(size), gib(size)) == (text, number)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory", "/there"), "No such file or directory"),
        (ValueError("too long.\nIts second line"), "too long"),
        (KeyError("name"), "KeyError: 'name'"),
        (RuntimeError(), "RuntimeError"),
        (csv.Error("unexpected end of data"), "unexpected end of data"),
        (zlib.error("incorrect header check"), "incorrect header check"),
        (httpx.ConnectError("Connection refused"), "Connection refused"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (ValueError("x" * 400), "x" * 297 + "..."),
    ],
)
def test_the_reason_of_an_error_fits_the_end_of_a_sentence(error: Exception, reason: str) -> None:
    assert why(error) == reason


def test_an_error_that_nobody_foresaw_names_its_kind_once() -> None:
    assert why_with_kind(ValueError("no such\nthing")) == "ValueError: no such"
    assert why_with_kind(KeyError("name")) == "KeyError: 'name'"
    assert why_with_kind(RuntimeError()) == "RuntimeError"
