"""JSON of the page, from figures that need not be finite."""

import json
import math

import pytest

from openrs_ray.report.static import as_block, strict_json


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_becomes_null(figure: float) -> None:
    data = {"rows": [{"reward": figure, "text": "é<"}]}
    for text in (strict_json(data), strict_json(data, ascii_only=True), as_block(data)):
        assert json.loads(text, parse_constant=pytest.fail) == {"rows": [{"reward": None, "text": "é<"}]}
