"""The dashboard against a real Prometheus that reads a real Ray while a run trains on it."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, finish, named, start, tail, wait_until, write_recipe
from ray_head import free_port, ray_head

DASHBOARD = json.loads((ROOT / "launch" / "clusters" / "grafana" / "openrs.json").read_text(encoding="utf-8"))
PROMETHEUS = shutil.which("prometheus")


@dataclass(frozen=True)
class Head:
    """A Ray as docs/monitoring.md starts it."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    """Of a command that joins it."""
    ports: Path
    """Its list of metrics ports."""


@pytest.fixture
def head() -> Iterator[Head]:
    options = {
        "--metrics-export-port": free_port(), "--dashboard-port": free_port(), "--dashboard-agent-grpc-port": free_port()
    }  # fmt: skip
    with ray_head(*(word for name, port in options.items() for word in (name, str(port)))) as started:
        found = started.folder / "ray" / "prom_metrics_service_discovery.json"
        wait_until(found.exists, 120, started.process, started.log)
        yield Head(started.process, {**started.environment, "RAY_ADDRESS": f"127.0.0.1:{started.port}"}, found)


@pytest.fixture
def prometheus(head: Head, tmp_path: Path) -> Iterator[str]:
    """Address of a Prometheus with the page's settings, but for the file's place and a shorter interval."""
    assert PROMETHEUS
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    settings = page.split("# prometheus.yml\n")[1].split("```")[0]
    settings = settings.replace("/tmp/ray/prom_metrics_service_discovery.json", str(head.ports))
    (tmp_path / "prometheus.yml").write_text(settings.replace("scrape_interval: 10s", "scrape_interval: 1s"))
    address = f"127.0.0.1:{free_port()}"
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                PROMETHEUS, f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def answer(address: str, expression: str) -> list[dict[str, Any]]:
    query = urllib.parse.urlencode({"query": expression.replace("$run", "watched")})
    try:
        with urllib.request.urlopen(f"{address}/api/v1/query?{query}", timeout=10) as found:
            content = json.load(found)
    except OSError:  # not up yet
        return []
    assert content["status"] == "success"
    return [series for series in content["data"]["result"] if series["value"][1] != "NaN"]


@pytest.mark.nightly
@pytest.mark.cpu_engine
@pytest.mark.timeout(900)
@pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not installed (Debian package prometheus)")
def test_every_expression_of_the_dashboard_has_data_while_a_run_trains(
    head: Head, prometheus: str, tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    for name, value in head.environment.items():
        monkeypatch.setenv(name, value)
    recipe = write_recipe(
        tmp_path / "recipe.yaml", toy_folder, tmp_path / "runs", "watched", 100_000,
        cost={"price_per_gpu_hour": 100.0}, evaluation={"path": "toy-heldout", "problems": 4, "every_steps": 2},
        loss={"kl_beta": 0.01}, checkpoint={"every_steps": 1000},
    )  # fmt: skip
    log = tmp_path / "log"
    run = start([str(recipe)], log)
    try:
        wait_until(lambda: bool(answer(prometheus, "ray_openrs_step > 3")), 300, run, log)
        named(head.process, "RolloutWorker").kill()
        expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
        left = list(expressions)
        deadline = time.monotonic() + 200
        while left := [expression for expression in left if not answer(prometheus, expression)]:
            assert run.poll() is None and time.monotonic() < deadline, f"no data for {left}\n{tail(log)}"
            time.sleep(1)
        lost = "ray_openrs_losses_total{component='engine'} >= 1"
        wait_until(lambda: bool(answer(prometheus, lost)), 100, run, log)
        (reward,) = answer(prometheus, "ray_openrs_reward")
        assert reward["metric"]["run"] == "watched" and 0 <= float(reward["value"][1]) <= 3
        (step,) = answer(prometheus, "ray_openrs_step")
        (tokens,) = answer(prometheus, "ray_openrs_sampled_tokens_total")
        assert 16 <= float(tokens["value"][1]) / float(step["value"][1]) <= 2 * 16 * 24
        assert answer(prometheus, "max(ray_openrs_busy_ratio) <= 1")
    finally:
        run.send_signal(signal.SIGTERM)
        finish(run, log, 120)
