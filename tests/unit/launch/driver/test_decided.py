"""The real command of a sequential evaluation, with engines replaced by models that are right as often as they are told to be."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_engines import FakeWorkers, answer, install
from transformers import AutoTokenizer

from actors.rollout.worker import Request
from launch.evaluate import main
from openrs_ray.evaluation.paired import Pair
from openrs_ray.evaluation.report import shown
from openrs_ray.evaluation.sequential import Plan, look
from openrs_ray.evaluation.store import CompletionStore, as_table
from openrs_ray.records import Completion

PROBLEMS, SAMPLES = 40, 8


class Models(FakeWorkers):
    """Right with the chance of its model, by the request's seed."""

    chances: dict[str, float]
    asked_of: list[tuple[str, int]]
    """Each request's model and number of the sample."""

    def answer(self, request: Request) -> Completion:
        name = Path(self.model).name
        self.asked_of.append((name, request.sample))
        right = np.random.default_rng(request.seed).random() < self.chances[name]
        return answer(request, 7 if right else 8)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> type[Models]:
    found: Any = install(monkeypatch, Models)
    found.asked_of, found.chances = [], {"trained": 0.8, "start": 0.3}
    return found  # type: ignore[no-any-return]


@pytest.fixture
def command(tmp_path: Path, toy_folder: Path) -> list[str]:
    for name in ("trained", "start"):
        shutil.copytree(toy_folder, tmp_path / name)
        (tmp_path / name / "config.json").write_text(
            json.dumps(json.loads((toy_folder / "config.json").read_text()) | {"own": name})
        )
    for name, problem in (("own", "3+4"), ("more", "2+5")):
        (tmp_path / f"{name}.jsonl").write_text((json.dumps({"problem": problem, "answer": "7"}) + "\n") * PROBLEMS)
    command = [str(tmp_path / "trained"), "--start", str(tmp_path / "start"), "--until-decided", "--prompt", "plain"]
    command += ["--samples", str(SAMPLES), "--max-tokens", "24", "--folder", str(tmp_path / "out")]
    command += ["--placement.num_rollout_gpus", "1", "--rewards.processes", "1", "--cost.price_per_gpu_hour", "1"]
    return [*command, "--benchmarks", "own", "--data", f"own={tmp_path}/own.jsonl"]


def report(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "out" / "trained" / "report.json").read_text())
    return content


def scores(folder: Path, model: str, samples: int) -> np.ndarray:
    return as_table(CompletionStore(folder / "out" / model).rows("own"), PROBLEMS, samples).correct()


def test_it_stops_as_soon_as_the_difference_is_shown_and_says_what_it_saved(
    tmp_path: Path, engines: type[Models], command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    said = capsys.readouterr().out
    decision = report(tmp_path)["until_decided"]["benchmarks"]["own"]
    taken = decision["looks"][-1]["samples"]
    assert decision["outcome"] == "better" and taken in (1, 2, 4)
    assert f"own, after {taken} of 8 samples: better" in said and "would look at 1, 2, 4, 8 samples" in said
    assert {sample for _, sample in engines.asked_of} == {*range(taken)}
    assert len(engines.asked_of) == 2 * PROBLEMS * taken
    saved, mean = decision["saved"], report(tmp_path)["models"]["trained"]["own"]["mean_tokens"]
    assert saved["completions"] == 2 * PROBLEMS * (SAMPLES - taken) and saved["tokens"] == saved["completions"] * mean
    assert saved["dollars"] > 0 and saved["hours"] == pytest.approx(saved["dollars"])
    expected = look(Pair(scores(tmp_path, "trained", taken), scores(tmp_path, "start-model", taken)), Plan(SAMPLES))
    compared = report(tmp_path)["against_start_model"]["trained"]["own"]
    assert compared["difference"]["low"] == expected.difference.low > 0
    assert (compared["p"], compared["corrected"]) == (expected.p, expected.corrected)
    assert report(tmp_path)["models"]["trained"]["own"]["samples"] == taken
    text = (tmp_path / "out" / "trained" / "report.md").read_text()
    assert "difference in points [95 % over all looks]" in text and "## Sampled until decided" in text
    assert (
        "wider than that of a number of samples fixed in advance" in text and "What these samples can show" not in text
    )
    assert "Sampled until decided" in [table["heading"] for table in shown(report(tmp_path))["tables"]], (
        "on the run page, too"
    )


def test_an_engine_keeps_its_model_over_a_look(tmp_path: Path, engines: type[Models], command: list[str]) -> None:
    engines.chances["trained"] = 0.3
    assert main(command) == 0
    looks = report(tmp_path)["until_decided"]["benchmarks"]["own"]["looks"]
    assert len(looks) >= 3, "models that are alike take a while"
    loads = [Path(path).name for path in engines.loads]
    assert loads == ["trained", "start"] * (len(loads) // 2) + ["trained"] * (len(loads) % 2)
    assert len(loads) == 1 + len(looks)


def test_a_killed_one_goes_on_to_the_same_decision(tmp_path: Path, engines: type[Models], command: list[str]) -> None:
    engines.chances["trained"] = 0.45
    assert main(command) == 0
    whole = report(tmp_path)
    shutil.rmtree(tmp_path / "out")
    engines.lives = 15
    tries = 0
    while main(command) != 0:
        tries += 1
    assert tries > 2
    assert (
        report(tmp_path)["until_decided"]["benchmarks"]["own"]["looks"]
        == whole["until_decided"]["benchmarks"]["own"]["looks"]
    )
    assert report(tmp_path)["against_start_model"] == whole["against_start_model"]
    engines.lives, asked = 0, len(engines.asked_of)
    assert main(command) == 0 and len(engines.asked_of) == asked, "what is decided is sampled no further"


def test_samples_beyond_a_look_have_no_say_in_it(tmp_path: Path, engines: type[Models], command: list[str]) -> None:
    fixed = [part for part in command if part != "--until-decided"]
    assert main(fixed) == 0
    assert main(command) == 0
    decision = report(tmp_path)["until_decided"]["benchmarks"]["own"]
    taken = decision["looks"][-1]["samples"]
    assert taken < SAMPLES and decision["saved"]["completions"] == 0, "they were there"
    assert report(tmp_path)["models"]["trained"]["own"]["samples"] == taken


def test_a_fixed_number_of_samples_afterwards_says_that_they_were_looked_at(
    tmp_path: Path, engines: type[Models], command: list[str]
) -> None:
    said = "has looked at these samples before"
    fixed = [part for part in command if part != "--until-decided"]
    assert main(fixed) == 0
    assert said not in (tmp_path / "out" / "trained" / "report.md").read_text()
    assert main(command) == 0 and main(fixed) == 0
    assert said in (tmp_path / "out" / "trained" / "report.md").read_text()
    assert report(tmp_path)["models"]["trained"]["own"]["samples"] == SAMPLES


def test_another_plan_is_refused_in_the_same_folder(
    tmp_path: Path, engines: type[Models], command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    for more in (["--samples", "16"], ["--difference", "3"], ["--power", "0.9"]):
        capsys.readouterr()
        assert main([*command, *more]) == 2
        error = capsys.readouterr().err
        assert "began and cannot become" in error and "give another --folder" in error
    assert main([*command, "--samples", "16", "--folder", str(tmp_path / "elsewhere")]) == 0


def test_another_benchmark_is_refused_in_the_same_folder(
    tmp_path: Path, engines: type[Models], command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The levels were those of one comparison, and a second one would add its own."""
    assert main(command) == 0
    asked = len(engines.asked_of)
    assert main([*command[:-4], "--benchmarks", "more", "--data", f"more={tmp_path}/more.jsonl"]) == 2
    assert 'benchmarks was ["own"] when' in capsys.readouterr().err
    assert len(engines.asked_of) == asked


def test_each_benchmark_stops_by_itself(
    tmp_path: Path, engines: type[Models], command: list[str], toy_folder: Path
) -> None:
    """Two benchmarks, of which one model knows the problem of the second no better."""
    tokenizer = AutoTokenizer.from_pretrained(toy_folder)

    def by_benchmark(self: Models, request: Request) -> Completion:
        name = Path(self.model).name
        self.asked_of.append((name, request.sample))
        learnt = name == "trained" and "3+4" in tokenizer.decode(request.prompt_ids)
        right = np.random.default_rng(request.seed).random() < (0.9 if learnt else 0.3)
        return answer(request, 7 if right else 8)

    engines.answer = by_benchmark  # type: ignore[method-assign]
    assert main([*command, "--benchmarks", "own,more", "--data", f"more={tmp_path}/more.jsonl"]) == 0
    content = report(tmp_path)
    first, second = (content["until_decided"]["benchmarks"][name] for name in ("own", "more"))
    assert first["looks"][0]["level"] == Plan(SAMPLES, comparisons=2).level(1)
    assert set(content["against_start_model"]["trained"]) == {"own", "more"}, (
        "no average of samples stopped at different looks"
    )
    assert first["outcome"] == "better" and second["outcome"] in ("smaller", "hopeless", "not shown")
    assert second["looks"][-1]["samples"] > first["looks"][-1]["samples"]


MISTAKES = {
    "difference alone": (["--difference", "3"], "--difference is for an evaluation that samples --until-decided"),
    "one sample": (["--until-decided", "--samples", "1"], "from two samples of each problem on"),
    "as published": (["--until-decided", "--protocol", "as_published"], "from two samples of each problem on"),
    "no start model": (["--until-decided"], "compares one model with its start model"),
    "power": (["--until-decided", "--power", "1"], "--power is 1; allowed: 0.5 to 0.99"),
    "points": (["--until-decided", "--difference", "0"], "--difference is 0; allowed: above 0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, toy_folder: Path, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    (tmp_path / "own.jsonl").write_text('{"problem": "3+4", "answer": "7"}\n')
    arguments, expected = MISTAKES[mistake]
    start = [] if mistake == "no start model" else ["--start", str(toy_folder)]
    data = ["--benchmarks", "own", "--data", f"own={tmp_path}/own.jsonl", "--folder", str(tmp_path / "out")]
    assert main([str(toy_folder), *start, *data, *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and expected in error


def test_a_dry_run_says_what_it_is_expected_to_save(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["until_decided"]
    alike, asked, twice = found["expected"]["own"]
    assert found["looks"] == [1, 2, 4, 8] and alike["difference"] == 0
    assert twice["share"] < asked["share"] < 1 and 0.7 < asked["shown"] < 0.9
    assert not (tmp_path / "out").exists()


def test_a_dry_run_without_the_option_only_names_it(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.driver.decided.expectations", None)  # 60,000 simulated paths per benchmark
    monkeypatch.setattr("openrs_ray.evaluation.expected.expected", None)
    fixed = [part for part in command if part != "--until-decided"]
    assert main([*fixed, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.count("--until-decided") == 1 and "may need fewer of them" in said
    assert main([*fixed, "--dry-run", "--json"]) == 0
    assert "until_decided" not in json.loads(capsys.readouterr().out)
