"""Figures for Prometheus: named as Prometheus wants, all in the page, and all that the dashboard asks for."""

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from places import ROOT

from actors.loop import gauges
from actors.loop.gauges import Gauges
from actors.loop.system import System

DASHBOARD = json.loads((ROOT / "launch" / "clusters" / "grafana" / "openrs.json").read_text(encoding="utf-8"))
LINE = {
    **dict.fromkeys(gauges._OF_STEP, 0.5), "sampled_tokens": 3000.0, "step_s": 2.0, "rollout_wait_share": 0.25,
    "learner_wait_share": 0.5, "cost_usd": 0.5,
}  # fmt: skip


class Recorded:
    """Stands for Ray's Gauge and Counter."""

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        assert description
        self.kind, self.name, self.tags = "", name, tag_keys
        self.values: dict[tuple[str, ...], float] = {}

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert tuple(tags) == self.tags
        self.kind = "gauge"
        self.values[tuple(tags.values())] = value

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert tuple(tags) == self.tags and value > 0
        self.kind = "counter"
        self.values[tuple(tags.values())] = self.values.get(tuple(tags.values()), 0.0) + value


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Recorded]]:
    made: dict[str, Recorded] = {}

    def new(name: str, description: str, tag_keys: tuple[str, ...]) -> Recorded:
        assert name not in made, "Ray wants one object per name"
        made[name] = Recorded(name, description, tag_keys)
        return made[name]

    monkeypatch.setattr(gauges, "Gauge", new)
    monkeypatch.setattr(gauges, "Counter", new)
    yield made


def all_of_a_run() -> Gauges:
    run = Gauges("mine", 50, 1000)
    run.write(1, LINE, "train")
    run.write(1, {"accuracy": 0.5, "low": 0.25, "high": 0.75}, "evaluation")
    engines = SimpleNamespace(
        serving=[SimpleNamespace(sampling=5), SimpleNamespace(sampling=7)], losses=2, replacements=1
    )
    system: Any = SimpleNamespace(
        _engines=SimpleNamespace(supervisor=engines), _learner=SimpleNamespace(losses=1, life=2)
    )
    collector: Any = SimpleNamespace(judging=3, rewards=SimpleNamespace(losses=0))
    lookahead: Any = type("Ahead", (), {"ready": 4, "__len__": lambda self: 10})()
    for _ in range(2):
        System._sample(system, collector, lookahead, run)
    return run


def test_the_values_of_a_run(recorded: dict[str, Recorded]) -> None:
    run = all_of_a_run()
    run.write(2, LINE | {"cost_usd": 0.75, "kl": None, "reward": float("nan")}, "train")
    values = {name: metric.values for name, metric in recorded.items()}
    assert values["openrs_step"] == {("mine",): 2} and values["openrs_planned_steps"] == {("mine",): 50}
    assert values["openrs_tokens_per_second"] == {("mine",): 1500.0}
    assert values["openrs_sampled_tokens_total"] == {("mine",): 7000.0}, "with those of earlier attempts"
    assert values["openrs_cost_dollars_total"] == {("mine",): 0.75}
    assert values["openrs_busy_ratio"] == {("mine", "engines"): 0.75, ("mine", "learner"): 0.5}
    assert values["openrs_held_out_accuracy_ratio"] == {
        ("mine", "mean"): 0.5,
        ("mine", "low"): 0.25,
        ("mine", "high"): 0.75,
    }
    assert values["openrs_reward"] == {("mine",): 0.5} == values["openrs_kl_nats"], "what has no value stays"
    assert values["openrs_waiting_completions"] == {("mine", "engines"): 12, ("mine", "reward_pool"): 3}
    assert values["openrs_admitted_groups"] == {("mine", "ready"): 4, ("mine", "under_way"): 6}
    assert values["openrs_losses_total"] == {("mine", "engine"): 2, ("mine", "learner"): 1}
    assert values["openrs_replacements_total"] == {("mine", "engine"): 1, ("mine", "learner"): 1}


def test_names_are_as_prometheus_wants_them(recorded: dict[str, Recorded]) -> None:
    all_of_a_run()
    for name, metric in recorded.items():
        assert re.fullmatch(r"openrs(_[a-z]+)+", name)
        assert (metric.kind == "counter") == name.endswith("_total"), name
        assert not re.search(r"_(ms|milliseconds|minutes|hours|percent|mib|gib|usd)(_|$)", name), "base units only"


def test_the_page_lists_all_of_them_and_no_others(recorded: dict[str, Recorded]) -> None:
    all_of_a_run()
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8").split("\n## Prometheus and Grafana\n")[1]
    rows = re.findall(r"^\| (`.+?) \|", page, flags=re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert {f"openrs_{name}" for name in listed} == recorded.keys() and len(listed) == len(set(listed))


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_dashboard_asks_for_all_of_them_and_no_others(recorded: dict[str, Recorded]) -> None:
    all_of_a_run()
    asked = {name for expression in expressions() for name in re.findall(r"ray_(openrs_\w+)", expression)}
    assert asked == recorded.keys()
    for expression in expressions():
        for name, labels in re.findall(r"ray_(openrs_\w+)(\{[^}]*\})", expression):
            assert set(re.findall(r"(\w+)=", labels)) <= {*recorded[name].tags} and 'run=~"$run"' in labels


REFERENCE = {"type": "object", "properties": {"type": {"const": "prometheus"}, "uid": {"const": "${datasource}"}}}
SCHEMA = {
    # The parts of Grafana's kind `Dashboard` that this file has.
    "type": "object",
    "required": ["title", "schemaVersion", "panels", "templating", "time"],
    "properties": {
        "uid": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"},
        "title": {"type": "string", "minLength": 1},
        "description": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "timezone": {"type": "string"},
        "editable": {"type": "boolean"},
        "graphTooltip": {"enum": [0, 1, 2]},
        "time": {"type": "object", "required": ["from", "to"]},
        "timepicker": {"type": "object"},
        "fiscalYearStartMonth": {"type": "integer", "minimum": 0, "maximum": 11},
        "liveNow": {"type": "boolean"},
        "refresh": {"type": "string", "pattern": "^[0-9]+[smhd]$"},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "version": {"type": "integer", "minimum": 0},
        "annotations": {"type": "object"},
        "links": {"type": "array"},
        "templating": {
            "type": "object",
            "properties": {
                "list": {
                    "type": "array",
                    "items": {
                        "required": ["name", "type"],
                        "properties": {
                            "type": {"enum": ["query", "datasource"]},
                            "hide": {"enum": [0, 1, 2]},
                            "datasource": REFERENCE,
                        },
                    },
                }
            },
        },
        "panels": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "gridPos", "fieldConfig", "targets", "options", "datasource"],
                "additionalProperties": False,
                "properties": {
                    "id": {"type": "integer", "minimum": 1},
                    "type": {"enum": ["timeseries", "stat"]},
                    "title": {"type": "string"},
                    "description": {"type": "string"},
                    "datasource": REFERENCE,
                    "gridPos": {
                        "type": "object",
                        "required": ["h", "w", "x", "y"],
                        "properties": {
                            "h": {"type": "integer", "minimum": 1},
                            "w": {"type": "integer", "minimum": 1, "maximum": 24},
                            "x": {"type": "integer", "minimum": 0, "maximum": 23},
                            "y": {"type": "integer", "minimum": 0},
                        },
                    },
                    "fieldConfig": {
                        "type": "object",
                        "required": ["defaults", "overrides"],
                        "properties": {"overrides": {"type": "array"}},
                    },
                    "options": {"type": "object"},
                    "targets": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "object", "required": ["refId", "expr", "datasource"]},
                    },
                },
            },
        },
    },
    "additionalProperties": False,
}


def test_the_dashboard_has_the_form_that_grafana_documents() -> None:
    jsonschema.validate(DASHBOARD, SCHEMA)
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    cells = [
        (x, y) for panel in panels for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]  # fmt: skip
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) == 23, "panels neither overlap nor stand out"
