"""The section `guard`: how far it goes, and that a reference is there where it may bring in a KL penalty."""

import pytest
from guarded import guarded

from openrs_ray.cluster.learner_memory import holds_reference
from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig
from openrs_ray.guard.rules import MEASURES


def test_every_rule_of_the_section_is_followed() -> None:
    sections = {
        name for name, field in type(guarded("warn").guard).model_fields.items() if hasattr(field.default, "window")
    }
    assert sections == {*MEASURES, "held_out"}


@pytest.mark.parametrize(
    ("guard", "rule", "expected"),
    [
        ("off", "roll_back", "off"),
        ("warn", "roll_back", "warn"),
        ("roll_back", "warn", "warn"),
        ("roll_back", "off", "off"),
    ],
)
def test_a_rule_goes_no_further_than_the_guard_and_than_itself(guard: str, rule: str, expected: str) -> None:
    assert guarded(guard, accuracy={"action": rule}).guard.action_of("accuracy") == expected


def test_a_rule_keeps_its_own_defaults_where_one_field_is_given() -> None:
    guard = load_config("quickstart", ["--guard.truncated_share.window=9"]).guard
    assert (guard.truncated_share.window, guard.truncated_share.limit, guard.action) == (9, 0.25, "off")


@pytest.mark.parametrize(
    ("action", "knobs", "there"),
    [("roll_back", ["kl"], True), ("warn", ["kl"], False), ("roll_back", ["learning_rate"], False)],
)
def test_the_reference_is_planned_for_where_a_rollback_may_need_it(action: str, knobs: list[str], there: bool) -> None:
    config = guarded(action, knobs=knobs)
    assert config.loss.kl_beta == 0 and config.needs_reference == holds_reference(config) == there
    content = config.model_dump(mode="json")
    content["learner"]["offload_reference"] = True
    if there:
        assert RunConfig.model_validate(content).learner.offload_reference
    else:
        with pytest.raises(ValueError, match="needs a reference model"):
            RunConfig.model_validate(content)
