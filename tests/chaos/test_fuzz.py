"""No input ends in a traceback: hostile values in every field, and every file that is read, after random changes.

Bounded in time: each test draws from seeds until its share of `OPENRS_FUZZ_S` seconds (25) is over. A long run:

    OPENRS_FUZZ_S=3600 pytest tests/chaos/test_fuzz.py
"""

import json
import os
import random
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fuzzing import HOSTILE, mutated, other_value
from whole_run import write_run

import launch.cli.command
from launch import coverage, curate, evaluate, trace, train, verify
from launch.cli.command import command
from openrs_ray.common import killable as bounded
from openrs_ray.config.fields import Names
from openrs_ray.config.schema import RunConfig
from openrs_ray.curation.recipe import Recipe
from openrs_ray.errors import UserError
from openrs_ray.evaluation.store import SCHEMA, CompletionStore, as_table
from openrs_ray.run.checkpoint_files import Checkpoint
from openrs_ray.run.progress import Progress

Main = Callable[[list[str]], int]
SECONDS = float(os.environ.get("OPENRS_FUZZ_S", "25"))
ENOUGH_S = 20.0
"""No input may take longer than this."""


class Boundary:
    """Runs commands and holds their ends against the promise."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.unforeseen: list[str] = []
        self.ends: dict[int, int] = {}

    def note(self, error: BaseException) -> str:
        self.unforeseen.append("".join(traceback.format_exception(error)))
        return "unforeseen"

    def holds(self, main: Main, arguments: Sequence[str], what: object, codes: Sequence[int] = (0, 2)) -> None:
        """`what` says how to do it again."""
        began = time.monotonic()
        try:
            code = main(list(arguments))
        except SystemExit as end:  # argparse's
            code = int(end.code or 0)
        taken = time.monotonic() - began
        output = self._capfd.readouterr()
        assert not self.unforeseen, f"{what}: {self.unforeseen[0][-6000:]}"
        assert code in codes, (what, code, output.err[-2000:])
        assert "Traceback" not in output.out + output.err, (what, output.err[-3000:])
        if code == 2 and not output.err.startswith("usage: "):
            first, *others = output.err.splitlines()
            assert first.startswith("error: "), (what, output.err[:3000])
            assert bool(others) == first.endswith(" mistakes:"), (what, output.err[:3000])  # each on a line of its own
            assert all(line.startswith("  ") for line in others), (what, output.err[:3000])
        assert taken < ENOUGH_S, (what, taken)
        self.ends[code] = self.ends.get(code, 0) + 1


@pytest.fixture
def boundary(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Boundary]:
    made = Boundary(capfd)
    monkeypatch.setattr(launch.cli.command, "unforeseen", made.note)
    monkeypatch.setattr(bounded, "DEADLINE_S", 10.0)
    monkeypatch.setattr(
        "openrs_ray.rewards.golds.parseable_golds", lambda golds, **_: [bool(gold) for gold in golds]
    )  # starts processes
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("OPENRS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(train, "_prepare", _stop)
    yield made


def _stop(*_: object) -> Any:
    raise UserError("all was read")


def seeds(share: float) -> Iterator[random.Random]:
    """Seeded 0, 1, 2, ... while this share of the time lasts."""
    until, seed = time.monotonic() + share * SECONDS, 0
    while seed < 10 or time.monotonic() < until:
        drawn = random.Random(seed)
        drawn.number = seed  # type: ignore[attr-defined]
        yield drawn
        seed += 1


# Fields


def run_sections(folder: Path, model: Path) -> dict[str, Any]:
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({"problem": f"{n}+1", "answer": str(n + 1)}) + "\n" for n in range(12)))
    return {
        "run": {"name": "small", "folder": str(folder / "runs"), "steps": 10},
        "model": {"path": str(model), "dtype": "float32"},
        "data": {"path": str(data)},
        "rollout": {
            "problems_per_step": 4,
            "completions_per_problem": 4,
            "max_prompt_tokens": 100,
            "max_completion_tokens": 100,
        },
        "placement": {"device": "cpu", "num_learner_gpus": 1},
        "evaluation": {"hold_out": 2},
    }


def curation_sections(folder: Path) -> dict[str, Any]:
    data = folder / "raw.jsonl"
    rows = [{"problem": f"{n} plus 1", "answer": str(n + 1), "solution": f"\\boxed{{{n + 1}}}"} for n in range(12)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = folder / "other.jsonl"
    other.write_text('{"problem": "What is the name of the sum of two numbers that are given to nobody at all?"}')
    return {
        "name": "small",
        "folder": str(folder / "sets"),
        "sources": {"own": {"path": str(data), "columns": {"solution": "solution"}}},
        "stages": {
            "boxed": {"kind": "boxed"},
            "once": {"kind": "duplicates"},
            "apart": {"kind": "overlaps", "against": {"own": str(other)}, "words": 13},
            "mixed": {"kind": "mix", "counts": {"own": 1}},
        },
    }


def with_field(content: dict[str, Any], dotted: str, text: str) -> str:
    """A recipe with a YAML text at a field, in place of what is there."""
    content = json.loads(json.dumps(content))
    *parents, name = dotted.split(".")
    section = content
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            break
    else:
        section[name] = "@@"
    return json.dumps(content).replace('"@@"', text or "null")


@pytest.mark.parametrize(("kind", "share"), [("run", 0.3), ("curation", 0.1)])
def test_no_value_of_a_field_ends_in_a_traceback(
    kind: str, share: float, boundary: Boundary, tmp_path: Path, toy_folder: Path
) -> None:
    content = run_sections(tmp_path, toy_folder) if kind == "run" else curation_sections(tmp_path)
    model, main = (RunConfig, train.main) if kind == "run" else (Recipe, curate.main)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    boundary.holds(main, [str(recipe), "--dry-run"], "as it is", codes=[0])
    names = [*Names.of(model, content).all]
    inputs = [(dotted, text, way) for dotted in names for text in HOSTILE for way in ("file", "line")]
    random.Random(0).shuffle(inputs)
    until = time.monotonic() + share * SECONDS
    for dotted, text, way in inputs:
        if time.monotonic() > until and boundary.ends[2] > 10:  # not fewer where other work keeps the machine busy
            break
        given = [str(recipe), "--dry-run", f"--{dotted}={text}"]
        if way == "file":
            changed = tmp_path / "changed.yaml"
            changed.write_text(with_field(content, dotted, text))
            given = [str(changed), "--dry-run"]
        boundary.holds(main, given, (dotted, text[:60], way))
    assert boundary.ends[2] > 10, boundary.ends


# Files


def test_no_recipe_and_no_data_file_ends_in_a_traceback(boundary: Boundary, tmp_path: Path, toy_folder: Path) -> None:
    content = run_sections(tmp_path, toy_folder)
    rows = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    files = {
        "recipe.yaml": yaml.safe_dump(content, sort_keys=False).encode(),
        "data.jsonl": (tmp_path / "data.jsonl").read_bytes(),
        "data.json": json.dumps(rows).encode(),
        "data.parquet": b"",
        "template.jinja": b"{% for m in messages %}{{ m.content }}{% endfor %}<think>",
    }
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    files["data.parquet"] = (tmp_path / "data.parquet").read_bytes()
    for name, whole in files.items():
        (tmp_path / name).write_bytes(whole)
    for rng in seeds(0.12):
        name = rng.choice([*files])
        changed = mutated(name, files[name], rng)
        (tmp_path / name).write_bytes(changed)
        given = [str(tmp_path / "recipe.yaml"), "--dry-run"]
        if name.startswith("data."):
            given += ["--data.path", str(tmp_path / name)]
        elif name == "template.jinja":
            given += ["--model.chat_template", str(tmp_path / name)]
        boundary.holds(train.main, given, (rng.number, name, changed[:200]))
        (tmp_path / name).write_bytes(files[name])
    assert boundary.ends[2] >= 3, boundary.ends


ODD_COLUMNS = (
    pa.array([b"\xff\xfe", b"12"]),
    pa.array([{"a": 1}, None]),
    pa.array([[["1"]], [[]]]),
    pa.array([2**62, None]),
    pa.array([float("nan"), float("inf")]),
    pa.array([None, None], pa.null()),
    pa.array([2**62, 5], pa.timestamp("us")),
    pa.array([-(2**62), 5], pa.duration("us")),
    pa.array([True, False]),
    pa.array(["1", "2"]).dictionary_encode(),
    pa.Array.from_buffers(pa.string(), 2, [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff1")]),
)


@pytest.mark.parametrize("column", ["problem", "answer"])
def test_no_column_of_another_type_ends_in_a_traceback(
    column: str, boundary: Boundary, tmp_path: Path, toy_folder: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(run_sections(tmp_path, toy_folder)))
    for number, odd in enumerate(ODD_COLUMNS):
        columns = {"problem": pa.array(["1+1", "2+2"]), "answer": pa.array(["2", "4"])} | {column: odd}
        pq.write_table(pa.table(columns), tmp_path / "odd.parquet")
        changes = [
            "--data.path",
            str(tmp_path / "odd.parquet"),
            "--rollout.problems_per_step=1",
            "--evaluation.hold_out=0",
        ]
        boundary.holds(train.main, [str(recipe), "--dry-run", *changes], (column, number))


def test_no_file_of_a_model_ends_in_a_traceback(boundary: Boundary, tmp_path: Path, toy_folder: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(toy_folder, model)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(run_sections(tmp_path, model)))
    names = sorted(file.name for file in model.iterdir() if file.suffix in (".json", ".jinja"))
    for rng in seeds(0.2):
        name = rng.choice(names)
        whole = (model / name).read_bytes()
        if rng.random() < 0.05:
            changed = b"(missing)"
            (model / name).unlink()
        else:
            changed = mutated(name, whole, rng)
            (model / name).write_bytes(changed)
        boundary.holds(train.main, [str(recipe), "--dry-run"], (rng.number, name, changed[:200]))
        (model / name).write_bytes(whole)


@pytest.mark.parametrize("reader", ["coverage", "resume", "evaluate", "trace"])
def test_no_file_of_a_run_ends_in_a_traceback(
    reader: str, boundary: Boundary, tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curate, "run_lock", None)
    right = write_run(tmp_path / "right" / "small")
    config = json.loads((right / "config.json").read_text()) | run_sections(tmp_path, toy_folder)
    config["rollout"] |= json.loads((right / "config.json").read_text())["rollout"]
    config["run"] |= {"folder": str(tmp_path / "runs"), "steps": 20}
    (right / "config.json").write_text(json.dumps(RunConfig.model_validate(config).model_dump(mode="json")))
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "runs" / "small"
    recipe.write_text(json.dumps(config))
    main, given = {
        "coverage": (coverage.main, [str(run)]),
        "resume": (train.main, [str(recipe), "--resume"]),
        "evaluate": (
            evaluate.main,
            [str(run), "--benchmarks", "own", "--data", f"own={tmp_path / 'data.jsonl'}", "--dry-run"],
        ),
        "trace": (trace.main, [str(run)]),
    }[reader]
    names = sorted(file.relative_to(right).as_posix() for file in right.rglob("*") if file.is_file())
    states = [name for name in names if name.endswith((".json", ".jsonl"))]
    for rng in seeds(0.05):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(right, run)
        name = rng.choice(states if rng.random() < 0.85 else names)
        if rng.random() < 0.05:
            changed = b"(missing)"
            (run / name).unlink()
        elif rng.random() < 0.02:
            changed = b"(a folder)"
            (run / name).unlink()
            (run / name).mkdir()
        else:
            changed = mutated(name, (run / name).read_bytes(), rng)
            (run / name).write_bytes(changed)
        # 1: a run of which something is lost, and a record that is damaged, which a sentence or the table says
        boundary.holds(main, given, (rng.number, name, changed[:300]), codes=(0, 1, 2))


def test_no_file_of_an_evaluation_ends_in_a_traceback(boundary: Boundary, tmp_path: Path) -> None:
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names) | {
        "task": "own",
        "problem_index": 0,
        "sample": 0,
        "status": "correct",
        "length": 3,
        "finish_reason": "stop",
        "english_share": 1.0,
    }
    settings, fingerprints = {"model": "m", "seed": 1}, {"own": "f00d"}
    folder = tmp_path / "store"

    def fill() -> CompletionStore:
        shutil.rmtree(folder, ignore_errors=True)
        store = CompletionStore(folder)
        store.open(settings, fingerprints)
        pq.write_table(pa.Table.from_pylist([row], schema=SCHEMA), folder / "own-000000.parquet")
        return store

    @command
    def read(arguments: list[str]) -> None:
        store = CompletionStore(folder)
        store.open(settings, fingerprints)
        store.count()
        store.finished("own")
        with suppress(KeyError):  # one that is missing is sampled
            as_table(store.rows("own"), 1, 1)

    fill()
    boundary.holds(read, [], "as it is", codes=[0])
    for rng in seeds(0.03):
        fill()
        name = rng.choice(["settings.json", "own-000000.parquet"])
        if name.endswith("parquet") and rng.random() < 0.5:
            odd = row | {rng.choice([*row]): None}
            if rng.random() < 0.5:
                odd = row | {"status": "odd", "sample": rng.choice([None, 7, -1])}
            pq.write_table(pa.Table.from_pylist([odd], schema=SCHEMA), folder / name)
            changed = repr(odd).encode()
        else:
            changed = mutated(name, (folder / name).read_bytes(), rng)
            (folder / name).write_bytes(changed)
        boundary.holds(read, [], (rng.number, name, changed[:300]))


def test_no_file_of_a_curation_ends_in_a_traceback(boundary: Boundary, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(curation_sections(tmp_path), sort_keys=False))
    folder = tmp_path / "sets" / "small"
    boundary.holds(curate.main, [str(recipe)], "as it is", codes=[0])
    shutil.copytree(folder, tmp_path / "right")
    names = sorted(file.name for file in (tmp_path / "right").iterdir() if file.suffix in (".json", ".parquet"))
    for rng in seeds(0.06):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "right", folder)
        name = rng.choice(names)
        changed = mutated(name, (folder / name).read_bytes(), rng)
        (folder / name).write_bytes(changed)
        given = [str(recipe), *(["--dry-run"] if rng.random() < 0.3 else [])]
        boundary.holds(curate.main, given, (rng.number, name, changed[:300], given))


def test_no_answer_file_and_no_trainer_state_end_in_a_traceback(boundary: Boundary, tmp_path: Path) -> None:
    lines = b'{"pred": "\\\\boxed{1}", "gold": "1"}\n{"pred": "x", "gold": ["1", 2.5, null]}\n'

    @command
    def items(arguments: list[str]) -> None:
        list(verify.read_items(tmp_path / "answers.jsonl"))

    @command
    def trainer(arguments: list[str]) -> None:
        checkpoint = Checkpoint(tmp_path, 1, "kept", True, ())
        Progress.read(checkpoint.trainer_state(), tmp_path)

    state = json.dumps(asdict(Progress(step=3, position=9, ahead=(11,)))).encode()
    for rng in seeds(0.02):
        for name, whole, main in (("answers.jsonl", lines, items), ("trainer.json", state, trainer)):
            changed = mutated(name, whole, rng)
            (tmp_path / name).write_bytes(changed)
            boundary.holds(main, [], (rng.number, name, changed[:300]))


OPTIONS = (
    *("--samples", "--temperature", "--top-p", "--max-tokens", "--hours"),
    *("--step", "--seed", "--benchmarks", "--data", "--prompt"),
)


def test_no_option_of_the_evaluation_ends_in_a_traceback(boundary: Boundary, tmp_path: Path, toy_folder: Path) -> None:
    run_sections(tmp_path, toy_folder)
    given = [
        str(toy_folder),
        "--benchmarks",
        "own",
        "--data",
        f"own={tmp_path / 'data.jsonl'}",
        "--max-tokens=50",
        "--dry-run",
    ]
    boundary.holds(evaluate.main, given, "as it is", codes=[0])
    fields = [f"--{name}" for name in Names.of(RunConfig, {}).all]
    for rng in seeds(0.06):
        option, text = rng.choice(OPTIONS if rng.random() < 0.7 else fields), rng.choice(HOSTILE)
        boundary.holds(evaluate.main, [*given, f"{option}={text}"], (rng.number, option, text[:60]))


def test_a_planted_mistake_is_found(boundary: Boundary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @command
    def main(arguments: list[str]) -> None:
        json.loads("[" * 10**5)

    with pytest.raises(AssertionError, match="RecursionError"):
        boundary.holds(main, [], "planted")
    assert other_value({"a": [1, 2]}, random.Random(1)) != {"a": [1, 2]}
