"""`fidelity: as_published` with real engines and a real learner: what the authors ran, held to their formulas."""

import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import finish, start, tail
from tiny import naive_logprobs, naive_model

from openrs_ray.models.bundled import resolve_model
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.run.metrics import read_metrics

STEPS, TEMPERATURE = 2, 0.5


@pytest.mark.nightly
@pytest.mark.cpu_engine
def test_two_steps_as_the_authors_ran_them(tmp_path: Path) -> None:
    fields = {
        "fidelity": "as_published",
        "run.folder": tmp_path,
        "run.steps": STEPS,
        "evaluation.path": "null",
        "rollout.temperature": TEMPERATURE,
        "rewards.weights": "{cosine: 2.0, format: 1.0}",
        "rewards.cosine.max_length": 40,
        "loss.kl_beta": 0.04,
    }
    arguments = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
    log = tmp_path / "log"
    assert finish(start(["launch/recipes/quickstart.yaml", *arguments], log), log) == 0, tail(log)

    metrics = list(read_metrics(tmp_path / "quickstart"))
    # Sampled at 0.5; sampler and learner would differ much more if one of them still divided by it.
    assert [line["step"] for line in metrics] == [1, 2] and all(line["mismatch_kl"] < 1e-6 for line in metrics)

    assert all(line["clipped_share"] == 0 for line in metrics)

    rows = pq.read_table(sorted((tmp_path / "quickstart" / "completions").glob("*.parquet"))).to_pylist()
    assert len(rows) == STEPS * 256
    for row in rows:
        rewards = dict(row["rewards"])
        length = len(row["text"].removeprefix("<think>"))  # which the template writes, not the model
        wave = 0.5 * (1 + math.cos(math.pi * length / 40))  # not clamped: some are longer
        expected = 0.5 + 0.5 * wave if row["status"] == "correct" else -0.5 + 0.5 * wave
        assert rewards["cosine"] == pytest.approx(expected, abs=1e-6), row
        assert rewards["format"] == float(row["text"].count("\n</think>\n") == 1)
    assert any(len(row["text"]) > 47 for row in rows) and {row["status"] for row in rows} >= {"correct", "wrong"}

    # The first step's loss: ratio 1 and no divergence yet, so the mean over groups of their token means of -A.
    groups: dict[int, list[tuple[int, float]]] = {}
    for row in (row for row in rows if row["step"] == 1):
        groups.setdefault(row["position"], []).append((len(row["token_ids"]), row["advantage"]))
    means = [sum(-n * a for n, a in group) / sum(n for n, _ in group) for group in groups.values()]
    assert len(means) == 32 and metrics[0]["loss"] == pytest.approx(sum(means) / len(means), abs=1e-5)

    # The sampler's own figures are those of temperature 1: by transformers, on the start model.
    model, tokenizer = naive_model(Path(resolve_model("toy"))), make_tokenizer()
    for row in [row for row in rows if row["step"] == 1][:8]:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["problem"]}], add_generation_prompt=True, return_dict=False
        )
        found = naive_logprobs(model, tuple(prompt), row["token_ids"]).detach().tolist()
        assert row["logprobs"] == pytest.approx(found, abs=1e-3)
