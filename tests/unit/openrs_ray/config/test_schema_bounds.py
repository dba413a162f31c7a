"""Every number of every config has a finite lower and upper bound; infinities, NaN and NUL are refused."""

import math
import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import annotated_types
import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from tiny import make_config

from openrs_ray.config.load import checked
from openrs_ray.config.schema import RunConfig
from openrs_ray.curation.recipe import Boxed, Duplicates, Judged, Mix, Overlaps, Recipe, Solved
from openrs_ray.errors import UserError


def numbers(kind: Any, bounds: list[Any]) -> Iterator[tuple[type, list[Any]]]:
    """Every int and float in a type, with the bounds that hold for it."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        inner = [bound for part in parts[1:] for bound in (part.metadata if isinstance(part, FieldInfo) else [part])]
        yield from numbers(parts[0], [*inner, *bounds])
    elif origin in (Union, types.UnionType):
        for part in parts:
            yield from numbers(part, bounds)
    elif origin in (tuple, dict):
        for part in parts:
            yield from numbers(part, [])
    elif kind in (int, float):
        yield kind, bounds


def fields(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield model, name, field
        inside = [field.annotation, *get_args(field.annotation)]
        for kind in inside:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from fields(kind)


def limits(bounds: list[Any], names: tuple[str, str]) -> list[float]:
    return [getattr(bound, name) for bound in bounds for name in names if hasattr(bound, name)]


CONFIGS = (RunConfig, Recipe, Boxed, Duplicates, Overlaps, Solved, Judged, Mix)


def test_every_number_has_finite_bounds_on_both_sides() -> None:
    seen = 0
    for config in CONFIGS:
        for model, name, field in fields(config):
            for kind, bounds in numbers(field.annotation, field.metadata):
                where = f"{model.__name__}.{name}"
                low, high = limits(bounds, ("gt", "ge")), limits(bounds, ("lt", "le"))
                assert low and all(map(math.isfinite, low)), f"{where}: {kind.__name__} has no lower bound"
                assert high and max(high) <= 2**63, f"{where}: {kind.__name__} has no upper bound"
                seen += 1
    assert seen > 90


def test_the_walk_sees_a_field_without_bounds() -> None:
    class Loose(BaseModel):
        pair: tuple[float, float] | None = None
        bounded: Annotated[int, annotated_types.Ge(0)] = 0

    found = {name: list(numbers(field.annotation, field.metadata)) for name, field in Loose.model_fields.items()}
    assert [limits(bounds, ("gt", "ge")) for _, bounds in found["pair"]] == [[], []]
    assert [limits(bounds, ("gt", "ge")) for _, bounds in found["bounded"]] == [[0]]


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan", "1e32", "-1e32", "1" + "0" * 32, "1" + "0" * 5000])
def test_no_number_field_takes_what_is_no_number_of_this_world(text: str) -> None:
    base = {
        "run": {"name": "x", "steps": 1},
        "model": {"path": "toy"},
        "data": {"path": "toy"},
        "rollout": {"problems_per_step": 4, "completions_per_problem": 4, "max_completion_tokens": 4},
    }
    for section, part in RunConfig.model_fields.items():
        if not (isinstance(part.annotation, type) and issubclass(part.annotation, BaseModel)):
            continue
        for name, field in part.annotation.model_fields.items():
            if any(numbers(field.annotation, [])) and get_origin(field.annotation) is None:
                with pytest.raises(UserError, match=rf"{section}\.{name}"):
                    checked(
                        RunConfig,
                        {key: dict(value) for key, value in base.items()},
                        [f"--{section}.{name}={text}"],
                        "x",
                    )


def test_pairs_and_texts_are_checked(tmp_path: Any) -> None:
    for wrong in ({"learner": {"adam_betas": (1.5, -2)}}, {"learner": {"adam_betas": (0.9, 1.0)}}):
        with pytest.raises(ValidationError, match="adam_betas"):
            make_config(tmp_path, **wrong)
    for text in ("a\0b", "\ud800"):
        with pytest.raises(ValidationError, match=r"data\.path"):
            make_config(tmp_path, data={"path": text})
