"""Expected bands: each is of a recipe that there is, of a curve that the page draws, and says where it comes from."""

import json
from itertools import pairwise

import pytest
from places import ROOT

from openrs_ray.config.load import load_config
from openrs_ray.report.settings import expected_bands

EXPECTED = json.loads((ROOT / "openrs_ray" / "report" / "expected.json").read_text())
OF_OTHERS = ("sanity", "justrl-8k", "fastcurl-stages", "opd-justrl", "tina-lora", "prorl-lite")
CURVES = (ROOT / "openrs_ray" / "report" / "page" / "curves.js").read_text()


@pytest.mark.parametrize(("recipe", "curve"), [(recipe, curve) for recipe in EXPECTED for curve in EXPECTED[recipe]])
def test_a_band_can_be_drawn_and_has_a_source(recipe: str, curve: str) -> None:
    band = expected_bands(recipe)[curve]
    assert f'names: ["{curve}"' in CURVES, "a chart draws bands of its first curve"
    steps = [step for step, _, _ in band["points"]]
    assert steps[0] == 0 and all(before < after for before, after in pairwise(steps))
    assert steps[-1] == load_config(recipe, []).run.steps, "to the recipe's last step"
    assert all(low < high for _, low, high in band["points"]) and len(band["source"]) > 20


@pytest.mark.parametrize("recipe", OF_OTHERS)
def test_a_recipe_after_a_publication_has_a_band_or_says_that_it_has_none(recipe: str) -> None:
    header = (ROOT / "launch" / "recipes" / f"{recipe}.yaml").read_text().split("\n\n")[0]
    assert (recipe in EXPECTED) != ("no expected band" in " ".join(header.replace("#", "").split()))


def test_other_recipes_have_none() -> None:
    assert expected_bands(None) == {} == expected_bands("mine.yaml")
