"""The model card: metadata as the Hub reads them, figures as the run has them, and nothing about the machine."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from exportable import change_config, evaluated_run, note_answers
from huggingface_hub import ModelCard, ModelCardData

from openrs_ray.audit.chain import check_chain
from openrs_ray.common import hub
from openrs_ray.evaluation.identity import model_identity
from openrs_ray.evaluation.paired import Pair, compare
from openrs_ray.evaluation.run_reports import reports_in
from openrs_ray.evaluation.store import CompletionStore
from openrs_ray.export.card import model_card
from openrs_ray.export.folder import HERE
from openrs_ray.export.source import Source
from openrs_ray.run.checkpoint_files import Checkpoint
from openrs_ray.run.ledger import Ledger

BEFORE = [[False, False], [True, False], [False, False], [False, False], [False, True], [False, False], [False, False]]
AFTER = [[True, True], [True, True], [True, False], [True, True], [True, True], [True, True], [False, True]]


@pytest.fixture
def run(tmp_path: Path, toy_folder: Path) -> Path:
    folder = evaluated_run(tmp_path / "runs", toy_folder, {0: 0.2, 50: 0.85, 100: 0.5})
    note_answers(folder, 0, BEFORE)
    note_answers(folder, 50, AFTER)
    (folder / "cost.json").write_text(
        json.dumps({"spent": {"dollars": 12.5, "gpu_hours": 28.4, "hours": 7.1}, "seconds": {}})
    )
    attempt = folder / "attempts" / "001"
    attempt.mkdir(parents=True)
    gpus = [{"name": "NVIDIA A40"}, {"name": "NVIDIA A40"}]
    packages = {"vllm": "0.32.0", "torch": "2.13.0", "pytest": "9"}
    git = {"commit": "0123456789abcdef", "clean": True}
    environment = {"gpus": gpus, "packages": packages, "git": git, "host": "my-secret-host", "cpus": 4}
    (attempt / "environment.json").write_text(json.dumps(environment))
    return folder


def test_a_card_names_the_head_of_the_chain_and_an_audit_reads_it_there(run: Path) -> None:
    assert "## Proof" not in model_card(Source.find(run, 50), HERE)
    head = Ledger(run).note("attempt", attempt=1, from_step=0)
    assert head is not None
    card = run / "export" / "step-000050" / "README.md"
    card.parent.mkdir(parents=True)
    card.write_text(model_card(Source.find(run, 50), HERE))
    assert f"`{head.digest}` after 1 entries" in card.read_text() and check_chain(run).findings == []
    (run / "ledger").unlink()
    Ledger(run).note("attempt", attempt=1, from_step=0, made="anew")
    (finding,) = check_chain(run).findings
    assert finding.what.startswith("export/step-000050/README.md names the head")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "problem", lambda: "no network in this test")


def card_of(run: Path) -> ModelCard:
    return ModelCard(model_card(Source.find(run, "best"), HERE))


def test_its_figures_are_the_run_s(run: Path) -> None:
    text = card_of(run).text
    assert "| accuracy | start model | 20.0 % [10.0, 30.0] |" in text
    assert "| accuracy | step 50 | 85.0 % [75.0, 95.0] |" in text
    paired = compare([Pair(np.array(AFTER, float), np.array(BEFORE, float))])
    assert f"{100 * paired.difference.mean:+.1f} points [" in text and f"p = {paired.p:.3g} (paired" in text
    assert paired.p < 0.05 and "no difference is shown" not in text
    assert "same 7 problems" in text and "1 sample each at temperature 1" in text
    assert "chose this policy among 2" in text, "a maximum of several is optimistic"
    assert "$ 12.50" in text or "no price was given" not in text
    assert "28.40 GPU hours" in text and "7.10 hours" in text
    assert "2 x NVIDIA A40" in text and "torch 2.13.0, vllm 0.32.0" in text and "pytest" not in text
    assert "commit 0123456789ab" in text and "holds no report on benchmarks with this policy" in text


def test_a_gain_that_is_none_is_said_to_be_none(run: Path) -> None:
    for file in run.glob("completions/*"):
        file.unlink()
    note_answers(run, 0, [[True, False]] * 4)
    note_answers(run, 50, [[False, True]] * 4)
    assert "; no difference is shown." in card_of(run).text


def test_a_run_without_a_record_says_what_it_does_not_know(tmp_path: Path, toy_folder: Path) -> None:
    run = evaluated_run(tmp_path, toy_folder, {50: 0.5})
    text = card_of(run).text
    assert "The difference from the start model is not known" in text
    assert "kept no record of its hardware" in text and "holds no report on benchmarks with this policy" in text
    named = ModelCard(model_card(Source.find(run, 100), HERE)).text
    assert "was not evaluated on held-out problems" in named


def test_the_hub_reads_its_metadata(run: Path) -> None:
    change_config(
        run, model={"path": "Qwen/Qwen2.5-0.5B"}, data={"path": "knoveleng/open-rs"}, learner={"lora": {"rank": 8}}
    )
    data = card_of(run).data
    assert isinstance(data, ModelCardData)
    assert data.to_dict() == {
        "base_model": "Qwen/Qwen2.5-0.5B",
        "base_model_relation": "finetune",
        "datasets": ["knoveleng/open-rs"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["grpo", "reinforcement-learning", "openrs_ray"],
    }


def test_nothing_about_the_machine_leaves_it(run: Path) -> None:
    token = "hf_0123456789abcdefghij"
    change_config(
        run,
        model={"path": "/home/me/secret/my-model"},
        data={"path": "~/secret/problems.jsonl", "system_prompt": f"Be brief. {token}"},
        evaluation={"path": "/home/me/secret/held_out.jsonl"},
        rewards={"weights": {"/home/me/secret/rewards.py:brevity": 1.0}},
    )
    content = card_of(run).content
    for private in ("/home/me", "secret/", "my-secret-host", str(run.parent), token):
        assert private not in content, private
    for shared in (
        "my-model",
        "problems.jsonl",
        "held_out.jsonl",
        "rewards.py:brevity: 1.0",
        "completions_per_problem: 4",
    ):
        assert shared in content, shared


def test_a_difference_that_is_not_known_names_no_path(run: Path) -> None:
    text = model_card(Source.find(run, 100), HERE)  # whose completions nobody recorded
    assert "is not known: the record in sums has no evaluation of step 100." in text and str(run.parent) not in text


def test_rewards_from_files_of_one_name_are_all_in_it(run: Path) -> None:
    change_config(run, rewards={"weights": {"/home/me/a/mine.py:brief": 0.25, "/home/me/b/mine.py:brief": 0.75}})
    recipe = yaml.safe_load(card_of(run).content.split("## Recipe")[1].split("```yaml\n")[1].split("```")[0])
    weights = recipe["rewards"]["weights"]
    assert {name: weights[name] for name in weights if "mine.py" in name} == {
        "mine.py:brief": 0.25, "mine.py:brief (2)": 0.75
    }  # fmt: skip


def test_benchmarks_of_this_step_are_in_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (50, 100):
        report = run / "evaluation" / "robust" / f"step-{step:06d}" / "report.json"
        report.parent.mkdir(parents=True)
        report.write_text(json.dumps({"step": step}))
    monkeypatch.setattr(
        "openrs_ray.export.card.markdown", lambda content: f"# Evaluation of {content['step']}\n## Accuracy\n"
    )
    text = card_of(run).text
    assert "### Evaluation of 50\n#### Accuracy" in text and "Evaluation of 100" not in text


def test_benchmarks_of_a_policy_that_the_run_gave_up_are_not_in_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = run / "checkpoints" / "step-000050" / "policy"
    report = run / "evaluation" / "robust" / "step-000050" / "report.json"
    CompletionStore(report.parent).open({"model": model_identity(str(policy))}, {})
    report.write_text("{}")
    monkeypatch.setattr("openrs_ray.export.card.markdown", lambda content: "# Evaluation of AIME\n")
    (found,) = reports_in(run)
    assert "Evaluation of AIME" in card_of(run).text and found.outdated() == ""
    content = bytearray((policy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (policy / "model.safetensors").write_bytes(content)  # as where the run has gone back, and trained the step again
    monkeypatch.setattr(Checkpoint, "policy_damage", lambda self: None)
    assert "Evaluation of AIME" not in card_of(run).text and "step 50 was trained again" in found.outdated()
