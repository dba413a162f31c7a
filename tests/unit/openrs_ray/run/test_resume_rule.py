"""Settings that may differ when a run goes on: another path to the same content, never other content under the same path."""

import json
import shutil
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_config

from launch.train import main
from openrs_ray.algorithm.schedule import learning_rate
from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.models.fingerprint import model_digest
from openrs_ray.preparation.prepared import prepare
from openrs_ray.run.budget import Budget
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.ledger import read_ledger
from openrs_ray.run.problems import FILE
from openrs_ray.run.resume import begin_run, check_resumable, check_run, resume_notes


@pytest.fixture
def start(tmp_path: Path, toy_folder: Path) -> RunConfig:
    """A run that has begun, with a file of every kind that a path may name."""
    model = shutil.copytree(toy_folder, tmp_path / "model")
    for name in ("data", "held"):
        rows = (json.dumps({"problem": f"{n}+{len(name)}", "answer": str(n + len(name))}) for n in range(10, 30))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    template = tmp_path / "template.jinja"
    template.write_text((model / "chat_template.jinja").read_text())
    config = make_config(
        tmp_path,
        run={"folder": str(tmp_path / "runs"), "name": "began"},
        model={"path": str(model), "dtype": "float32", "chat_template": str(template)},
        data={"path": str(tmp_path / "data.jsonl")},
        evaluation={"path": str(tmp_path / "held.jsonl")},
    )
    config.run.path.mkdir(parents=True)
    Budget(config, age_s=0.0).write()
    begin_run(config, prepare(config).summary())
    return config


def moved(config: RunConfig, section: str, field: str, path: Path) -> RunConfig:
    return RunConfig.model_validate(
        config.model_dump(mode="json")
        | {section: getattr(config, section).model_dump(mode="json") | {field: str(path)}}
    )


def goes_on(config: RunConfig) -> None:
    check_run(config, resume=True)
    begin_run(config, prepare(config).summary())


def test_a_start_is_noted_before_the_engines_start(start: RunConfig) -> None:
    """They take minutes, or fail: the ledger has the settings that the run's folder has."""
    goes_on(start)
    assert len(read_ledger(start.run.path).entries) == 1, "unchanged"  # type: ignore[union-attr]
    goes_on(start.model_copy(update={"learner": start.learner.model_copy(update={"learning_rate": 0.5})}))
    known = read_ledger(start.run.path)
    assert known is not None and [entry.about for entry in known.entries] == ["start", "start"]
    content = (start.run.path / "config.json").read_bytes()
    assert known.entries[1].files == {"config.json": sha256(content).hexdigest()}


PATHS = (("data", "path"), ("evaluation", "path"), ("model", "chat_template"), ("model", "path"))


def another_addition(path: Path) -> None:
    path.write_text(path.read_text().replace('"problem": "1', '"problem": "2', 1))


def another_template(path: Path) -> None:
    path.write_text(path.read_text() + "7")


def one_weight_more(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    name = max(weights)
    weights[name] = weights[name] + torch.eye(1)[0, 0]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


CHANGES: dict[tuple[str, str], Callable[[Path], None]] = dict(
    zip(PATHS, (another_addition, another_addition, another_template, one_weight_more), strict=True)
)


@pytest.mark.parametrize(("section", "field"), PATHS)
def test_the_same_content_under_another_path_is_the_same_run(
    start: RunConfig, tmp_path: Path, section: str, field: str
) -> None:
    there = Path(getattr(getattr(start, section), field))
    elsewhere = tmp_path / "another machine" / there.name
    elsewhere.parent.mkdir()
    there.rename(elsewhere)
    goes_on(moved(start, section, field, elsewhere))
    assert str(elsewhere) in (start.run.path / "config.json").read_text()


@pytest.mark.parametrize(("section", "field"), PATHS)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_other_content_is_another_run_under_any_path(
    start: RunConfig, tmp_path: Path, section: str, field: str, elsewhere: bool
) -> None:
    path, config = Path(getattr(getattr(start, section), field)), start
    if elsewhere:
        path = path.rename(path.with_name("moved" + path.suffix))
        config = moved(start, section, field, path)
    CHANGES[section, field](path)
    with pytest.raises(
        UserError, match=r"(have changed since run began began|is not the one that run began began with)"
    ):
        goes_on(config)


def test_a_run_from_before_the_section_engine_goes_on(start: RunConfig) -> None:
    saved = start.model_dump(mode="json")
    old = {**saved, "rollout": saved["rollout"] | saved["engine"] | {"cpu_cache_gib": 0.5}}
    del old["engine"]
    assert len(old["rollout"]) == len(saved["rollout"]) + len(saved["engine"])
    (start.run.path / "config.json").write_text(json.dumps(old))
    again = load_config(start.run.path, ["--engine.max_sequences", "7"])
    assert (again.engine.cpu_cache_gib, again.engine.max_sequences) == (0.5, 7)
    goes_on(start)
    with pytest.raises(UserError, match=r"run\.seed was 42"):
        goes_on(RunConfig.model_validate(saved | {"run": saved["run"] | {"seed": 1}}))


def test_a_run_without_fingerprints_keeps_its_paths(start: RunConfig, tmp_path: Path) -> None:
    problems = json.loads((start.run.path / FILE).read_text())
    del problems["model"]
    (start.run.path / FILE).write_text(json.dumps(problems))
    goes_on(start)
    copy = shutil.copytree(tmp_path / "model", tmp_path / "copy")
    (start.run.path / FILE).write_text(json.dumps(problems))
    with pytest.raises(UserError, match=r"model\.path was .* cannot become"):
        goes_on(moved(start, "model", "path", copy))


def test_a_copy_of_a_model_has_its_digest_whatever_wrote_its_configuration(toy_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(toy_folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text()) | {"transformers_version": "4.0", "_name_or_path": "x"}
    (copy / "config.json").write_text(json.dumps(config))
    assert model_digest(str(copy)) == model_digest(str(toy_folder)) != ""
    (copy / "config.json").write_text(json.dumps(config | {"rope_theta": 7.0}))
    assert model_digest(str(copy)) != model_digest(str(toy_folder))
    assert model_digest("toy") == model_digest("owner/name") == ""


def test_the_dry_run_says_what_a_start_would_be_refused_for(
    start: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(start.model_dump(mode="json")))
    for options, code, said in (
        ((), 2, "exists already"),
        (("--resume", "--run.seed", "7"), 2, "run.seed was 42"),
        (("--resume",), 2, "checkpoints/manifest.json is missing"),
        (("--run.name", "other"), 0, ""),
    ):
        if options == ("--resume",):
            (start.run.path / "attempts.jsonl").touch()
        assert main([str(recipe), *options, "--dry-run"]) == code
        shown = capsys.readouterr()
        assert said in shown.err and "disk: up to" in shown.out


# The schedule


@pytest.mark.parametrize(("done", "instead"), [(6, "would have been"), (10, "10 steps would end here")])
def test_a_schedule_that_is_spread_anew_is_said_with_the_rates(start: RunConfig, done: int, instead: str) -> None:
    store = CheckpointStore(start.run.path / "checkpoints")
    store.begin(done)
    store.commit(done, "resume", {})
    cosine = {"learner": {"learning_rate": 2.0, "schedule": "cosine", "warmup_share": 0.0, "final_share": 0.1}}
    config = make_config(start.run.path, run={"folder": str(start.run.folder), "name": "began"}, **cosine)
    (start.run.path / "config.json").write_text(config.model_dump_json())
    assert resume_notes(config) == []
    longer = config.model_copy(update={"run": config.run.model_copy(update={"steps": 20})})
    (note,) = resume_notes(longer)
    before, after = learning_rate(done, 10, config.learner), learning_rate(done + 1, 20, config.learner)
    assert after > before, "it rises again"
    for part in (
        "run.steps was 10 and is 20",
        f"from {before:.3g} in step {done}",
        f"to {after:.3g} in step {done + 1}",
        instead,
    ):
        assert part in note
    constant = longer.model_copy(update={"learner": longer.learner.model_copy(update={"schedule": "constant"})})
    assert resume_notes(constant) == []


# Modes


def test_what_a_library_writes_for_its_owner_alone_gets_the_rights_of_the_rest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    folder = store.begin(1)
    (folder / "policy" / "model.safetensors").write_bytes(b"weights")
    (folder / "policy" / "model.safetensors").chmod(0o600)
    (folder / "state" / "tool.py").write_bytes(b"")
    (folder / "state" / "tool.py").chmod(0o700)
    checkpoint = store.commit(1, "kept", {})
    usual = tmp_path / "usual"
    usual.touch()
    mode = stat.S_IMODE(usual.stat().st_mode)
    assert stat.S_IMODE((checkpoint.policy / "model.safetensors").stat().st_mode) == mode
    assert stat.S_IMODE((checkpoint.state / "tool.py").stat().st_mode) == 0o700 | mode


def changed(config: RunConfig, section: str, **fields: Any) -> RunConfig:
    saved = config.model_dump(mode="json")
    return RunConfig.model_validate(saved | {section: saved[section] | fields})


def test_evaluations_of_a_run_have_one_limit_whatever_a_resume_changes(start: RunConfig) -> None:
    """Otherwise a start model that was cut and a policy that is not would be compared."""
    sentence = r"up to 24 tokens so far .* up to 20, .* give --evaluation\.max_completion_tokens 24"
    with pytest.raises(UserError, match=sentence):
        goes_on(changed(start, "rollout", max_completion_tokens=20))
    goes_on(start)
    shorter = changed(changed(start, "evaluation", max_completion_tokens=24), "rollout", max_completion_tokens=20)
    assert (shorter.max_evaluated_tokens, shorter.max_sequence_tokens, shorter.max_served_tokens) == (24, 36, 40)
    goes_on(shorter)
    goes_on(start)
    goes_on(changed(shorter, "rollout", max_completion_tokens=32))
    with pytest.raises(UserError, match="up to 24 tokens so far"):
        goes_on(changed(start, "evaluation", max_completion_tokens=64))


@pytest.mark.parametrize(("first", "then"), [("none", "int8"), ("int8", "none"), ("fp8", "fp8_kv")])
def test_evaluations_of_a_run_are_by_engines_that_round_alike(tmp_path: Path, first: str, then: str) -> None:
    """Otherwise the difference of two accuracies would be that of two samplers, too."""
    began = make_config(
        tmp_path,
        model={"path": "toy", "dtype": "bfloat16"},
        placement={"device": "gpu"},
        loss={"correction": "truncated"},
        rollout={"quantization": first},
        evaluation={"path": "held.jsonl"},
    )
    saved, other = began.model_dump(mode="json"), changed(began, "rollout", quantization=then)
    sentence = rf"rollout\.quantization {first} so far .* with {then}, .* give --rollout\.quantization {first}, or"
    with pytest.raises(UserError, match=sentence):
        check_resumable(saved, other)
    check_resumable(saved, began)
    check_resumable(
        changed(began, "evaluation", path=None).model_dump(mode="json"), changed(other, "evaluation", path=None)
    )


def test_without_held_out_problems_a_resume_may_change_the_length(start: RunConfig) -> None:
    none = changed(start, "evaluation", path=None)
    (start.run.path / "config.json").write_text(json.dumps(none.model_dump(mode="json")))
    check_resumable(none.model_dump(mode="json"), changed(none, "rollout", max_completion_tokens=20))
    assert none.max_served_tokens == 40 == changed(none, "evaluation", max_completion_tokens=64).max_served_tokens


def test_lengths_of_prompts_stay_in_the_record_when_no_stage_goes_by_them_any_more(start: RunConfig) -> None:
    """They prove the positions that earlier attempts passed over."""
    short = {"max_completion_tokens": 24, "max_prompt_tokens": 12, "until": {"step": 3}}
    goes_on(changed(start, "rollout", stages=[short, {"max_completion_tokens": 24}]))
    lengths = json.loads((start.run.path / FILE).read_text())["prompt_tokens"]
    assert len(lengths) == 20
    goes_on(start)
    assert json.loads((start.run.path / FILE).read_text())["prompt_tokens"] == lengths
