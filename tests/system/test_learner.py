"""Learner ranks in real processes with real DeepSpeed, against plain transformers in float64 one sequence at a time.

Gradients are read off SGD steps of learning rate 1, because Adam magnifies rounding.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from places import PYTHONPATH, SUPPORT
from several_updates import GROUPS, STEPS, UPDATES, hand_made_advantages, make_groups
from tiny import (
    RECORDED_LOSSES,
    make_config,
    make_sequences,
    make_temperatures,
    make_turns,
    naive_entropies,
    naive_logprobs,
    naive_model,
    naive_turns,
    save_model,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from actors.learner.group import Scores
from openrs_ray.algorithm.advantages import TrainingSequence
from openrs_ray.audit.losses import FIGURES
from openrs_ray.audit.tokens import StepTokens
from openrs_ray.audit.updates import UpdateAgain
from openrs_ray.cluster.disk import checkpoint_sizes
from openrs_ray.cluster.host_memory import host_parts
from openrs_ray.cluster.learner_memory import learner_phases
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.records import TokenLogprobs
from openrs_ray.run.moments import float32

pytestmark = pytest.mark.timeout(900)  # the first test runs all ranks of all scenarios

CASES: dict[str, list[tuple[int, str]]] = {
    # (ranks, ZeRO stage[, start model][, dtype]); every combination where the arithmetic is at stake
    "gradients": [(ranks, str(stage)) for ranks in (1, 2) for stage in (1, 2, 3)],
    "turns": [(1, "1,float32"), (1, "1,bfloat16"), (2, "2,float32"), (2, "3,bfloat16")],
    "temperatures": [(1, "1,float32"), (1, "2,bfloat16"), (2, "2,float32"), (2, "3,bfloat16")],
    "new_reference": [
        *((1, "1,float32,adamw"), (2, "3,float32,adamw"), (2, "2,bfloat16,adamw")),
        *((1, "2,bfloat16,adamw_8bit"), (2, "2,bfloat16,adamw_offload")),
    ],
    "large_parameters": [(2, "2"), (2, "3")],
    "with_reference": [(1, "2"), (2, "3")],
    "published": [(1, "1"), (2, "2"), (2, "3")],
    "other_loss": [(1, "1,gspo"), (2, "3,gspo"), (1, "2,dr_grpo"), (2, "2,dr_grpo"), (2, "1,sapo")],
    "entropy": [(1, "1,float32"), (2, "2,bfloat16"), (2, "3,float32")],
    "recorded": [(1, "1,float32"), (2, "2,bfloat16"), (2, "3,float32")],
    "updates": [(1, "1,float32"), (2, "3,float32"), (1, "2,bfloat16")],
    "lost_between_updates": [(1, "1,float32"), (2, "2,bfloat16"), (1, "2,float32,tied")],
    "distill": [(1, "1,16,float32"), (2, "3,16,float32"), (2, "2,0,float32"), (1, "3,0,float32"), (1, "2,16,bfloat16")],
    "distill_adapters": [(1, "1,16"), (2, "3,0")],
    "listens": [(1, "1"), (2, "1")],
    "clipping": [(1, "1"), (2, "2"), (2, "3")],
    "not_finite": [
        *((1, "1"), (2, "2"), (2, "3"), (1, "2,adamw_8bit,bfloat16"), (2, "2,adamw_offload,bfloat16")),
        (2, "3,adamw_offload"),
    ],
    "without_spread": [(1, "1"), (2, "3")],
    "wrong_count": [(2, "2")],
    "low_precision": [(1, "1"), (1, "3"), (2, "2")],
    "resume": [
        *((1, "2,float32"), (1, "3,float32"), (1, "1,bfloat16"), (1, "3,bfloat16")),
        *((2, "1,float32"), (2, "2,float32"), (2, "3,float32"), (2, "2,bfloat16"), (2, "3,bfloat16")),
        *((1, "2,bfloat16,adamw_8bit"), (2, "2,bfloat16,adamw_8bit"), (2, "3,bfloat16,adamw_8bit")),
        *((1, "2,bfloat16,adamw_offload"), (2, "2,bfloat16,adamw_offload"), (2, "3,bfloat16,adamw_offload")),
        *((1, "1,bfloat16,adamw_lora"), (2, "2,float32,adamw_lora"), (2, "3,bfloat16,adamw_lora")),
        *((1, "2,bfloat16,adamw_8bit_lora"), (2, "2,bfloat16,adamw_offload_lora")),
    ],
    "other_ranks": [  # with the ranks that saved as the second number: what the case of "resume" saved there
        *((2, "1,1,bfloat16"), (2, "1,2,float32"), (2, "1,3,float32"), (2, "1,3,bfloat16")),
        *((1, "2,1,float32"), (1, "2,2,float32"), (1, "2,3,float32"), (1, "2,2,bfloat16"), (1, "2,3,bfloat16")),
        *((2, "1,2,bfloat16,adamw_8bit"), (1, "2,3,bfloat16,adamw_8bit"), (1, "2,2,bfloat16,adamw_offload")),
        *((2, "1,1,bfloat16,adamw_lora"), (1, "2,2,float32,adamw_lora"), (1, "2,3,bfloat16,adamw_lora")),
    ],
    "lora": [(1, "1,all,1"), (1, "3,all,0"), (2, "2,attention,0"), (2, "3,all,1")],
    "lora_reference": [(1, "1,bfloat16"), (2, "3,bfloat16"), (2, "2,float32")],
    "lora_use": [(1, "1,tied,float32"), (1, "2,untied,bfloat16"), (2, "3,untied,bfloat16")],
    "warm_up": [
        *((1, "1,float32,0"), (1, "2,bfloat16,0.1"), (1, "3,bfloat16,0")),
        *((2, "1,bfloat16,0"), (2, "2,float32,0.1"), (2, "3,float32,0"), (2, "3,bfloat16,0.1")),
        *((1, "2,bfloat16,0,adamw_offload"), (2, "2,bfloat16,0,adamw_offload"), (2, "3,bfloat16,0,adamw_offload")),
    ],
    "update": [
        (1, "1,bfloat16,adamw_8bit"),
        (2, "2,bfloat16,adamw_8bit"),
        (2, "3,float32,adamw_8bit"),
        (1, "2,float32,adamw"),
    ],
    "elsewhere": [(1, "1,bfloat16"), (2, "2,bfloat16"), (2, "2,float32"), (2, "3,bfloat16")],
    "memory": [
        (1, "2,bfloat16"),
        (1, "2,bfloat16,adamw_lora"),
        (2, "1,bfloat16"),
        (2, "2,bfloat16"),
        (2, "2,float32"),
        (2, "3,bfloat16"),
    ],
    "use": [(1, "2,tied,float32"), (1, "1,untied,bfloat16"), (2, "3,tied,float32"), (2, "3,untied,bfloat16")],
}

OTHER_OPTIMIZERS = [(2, f"{stage},bfloat16,{kind}") for stage in (2, 3) for kind in ("adamw_8bit", "adamw_offload")]
"""Cases of the scenario "memory"."""

WIDE = Qwen2Config(
    hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=1,
    head_dim=64, vocab_size=8192, tie_word_embeddings=False,
)  # fmt: skip
"""10 million parameters: enough for them to outweigh everything else."""


LARGEST_GAP = 0.9 / 64
"""Between two of the 8-bit numbers up to 1 that a moment with a sign can have (0.9 / 128 for one without)."""


class Results:
    """What the worker processes left, and what they started from."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def of(self, ranks: int, scenario: str, rank: int = 0) -> Any:
        return torch.load(self.root / str(ranks) / f"{scenario}.{rank}.pt", weights_only=False)

    def start_model(self, name: str) -> Path:
        return self.root / "models" / name


def run_ranks(root: Path, scenarios: dict[int, list[str]]) -> None:
    """The scenarios of each number of ranks, all ranks at once; none is left behind."""
    command = [sys.executable, str(SUPPORT / "learner_worker.py"), str(root), json.dumps(scenarios)]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        code = process.wait(800)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert code == 0, "\n".join(log.read_text()[-4000:] for log in sorted(root.rglob("log*")))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    root = tmp_path_factory.mktemp("learner")
    results = Results(root)
    for name, family in (("tied", "qwen2"), ("untied", "llama")):
        folder = save_model(results.start_model(name), family, tied=name == "tied")
        words = {f"w{i}": i for i in range(64)}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0")))
        tokenizer.chat_template = "{{ messages[0]['content'] }}"
        tokenizer.save_pretrained(folder)
        # Which transformers reads but would not write with an exported policy.
        (folder / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.6}')
    AutoModelForCausalLM.from_config(WIDE).save_pretrained(results.start_model("wide"))
    all_cases = [(ranks, name, f"{name},{case}") for name, cases in CASES.items() for ranks, case in cases]
    all_cases += [(ranks, "memory", f"memory,{case}") for ranks, case in OTHER_OPTIMIZERS]
    scenarios = {}
    for ranks in (1, 2):  # "other_ranks" waits for what the others saved in "resume"
        (root / str(ranks)).mkdir()
        cases = sorted((name == "other_ranks", name != "resume", case) for r, name, case in all_cases if r == ranks)
        scenarios[ranks] = [case for _, _, case in cases]
    run_ranks(root, scenarios)
    return results


def naive_token_losses(
    model: Any, sequences: list[TrainingSequence], reference: Any = None, beta: float = 0.0
) -> list[torch.Tensor]:
    """The clipped loss of each completion token, by sequence, in float64 (epsilon 0.2)."""
    losses = []
    for s in sequences:
        logp = naive_logprobs(model, s.prompt_ids, s.completion_ids)
        ratio = torch.exp(logp - torch.from_numpy(s.sampler_logprobs).double())
        losses.append(-torch.minimum(ratio * s.advantage, ratio.clamp(0.8, 1.2) * s.advantage))
        if reference is not None:
            with torch.no_grad():
                of_start = naive_logprobs(reference, s.prompt_ids, s.completion_ids)
            losses[-1] = losses[-1] + beta * (torch.exp(of_start - logp) - (of_start - logp) - 1)
    return losses


def gradient_of(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def relative_error(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """L2 over all weights together."""
    assert got.keys() == expected.keys()
    difference = sum(((got[name].double() - expected[name].double()) ** 2).sum() for name in got)
    return float((difference / sum((expected[name].double() ** 2).sum() for name in expected)).sqrt())


def total_norm(gradient: dict[str, torch.Tensor]) -> float:
    return float(sum((value.double() ** 2).sum() for value in gradient.values()).sqrt())


@pytest.mark.parametrize(("ranks", "case"), CASES["gradients"])
def test_the_gradient_is_that_of_the_whole_step_however_it_is_split(results: Results, ranks: int, case: str):
    model = naive_model(results.start_model("untied"))
    splits = results.of(ranks, f"gradients,{case}")
    assert len(splits) == 4
    for (count, _), got in splits.items():
        sequences = make_sequences(9)[9 - count :]
        losses = torch.cat(naive_token_losses(model, sequences))
        expected = gradient_of(model, losses.mean())
        assert relative_error(got["gradient"], expected) < 1e-5
        metrics = got["metrics"]
        assert metrics["loss"] == pytest.approx(losses.mean().item(), rel=1e-4, abs=1e-6)
        assert metrics["grad_norm"] == pytest.approx(total_norm(expected), rel=1e-5)
        assert metrics["completion_tokens"] == len(losses)
        assert metrics["packed_tokens"] == sum(map(len, sequences))


@pytest.mark.parametrize(("ranks", "case"), CASES["turns"])
def test_only_sampled_tokens_of_a_rollout_have_a_gradient(results: Results, ranks: int, case: str):
    """Each turn's log-probabilities are computed one by one; a rollout's loss is the mean over its sampled tokens."""
    got, model = results.of(ranks, f"turns,{case}"), naive_model(results.start_model("untied"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(got["before"][name])
    losses = []
    for s in make_turns(9):
        logp = naive_turns(model, s)
        ratio = torch.exp(logp - torch.from_numpy(s.sampler_logprobs[s.mask]).double())
        losses.append(-torch.minimum(ratio * s.advantage, ratio.clamp(0.8, 1.2) * s.advantage).mean())
    expected = gradient_of(model, sum(losses) / 9)
    assert relative_error(got["gradient"], expected) < (1e-5 if "float32" in case else 0.1)
    assert got["metrics"]["completion_tokens"] == sum(s.sampled_tokens for s in make_turns(9))
    assert got["metrics"]["packed_tokens"] == sum(map(len, make_turns(9)))


@pytest.mark.parametrize(("ranks", "case"), CASES["temperatures"])
def test_completions_of_two_stages_have_the_gradient_at_their_own_temperature(results: Results, ranks: int, case: str):
    got, model = results.of(ranks, f"temperatures,{case}"), naive_model(results.start_model("untied"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(got["before"][name])

    def gradient(temperature: float | None) -> dict[str, torch.Tensor]:
        losses = []
        for s in make_temperatures(9):
            logp = naive_logprobs(model, s.prompt_ids, s.completion_ids, temperature or s.temperature)
            ratio = torch.exp(logp - torch.from_numpy(s.sampler_logprobs).double())
            losses.append(-torch.minimum(ratio * s.advantage, ratio.clamp(0.8, 1.2) * s.advantage))
        return gradient_of(model, torch.cat(losses).mean())

    bound = 1e-5 if "float32" in case else 0.1
    assert relative_error(got["gradient"], gradient(None)) < bound
    assert all(relative_error(got["gradient"], gradient(one)) > 2 * bound for one in (0.5, 1.0, 1.5))


@pytest.mark.parametrize(("ranks", "case"), CASES["new_reference"])
def test_a_new_reference_is_the_policy_of_its_step_and_adam_begins_anew(results: Results, ranks: int, case: str):
    got, rate = results.of(ranks, f"new_reference,{case}"), 1e-2
    assert got["before"][0]["kl"] < 1e-6 < 1e-4 < got["before"][1]["kl"]
    assert got["after"][0]["kl"] < 1e-6, "the policy is the reference"
    assert got["after"][1]["kl"] > 1e-4
    # The first step of Adam moves every weight by the learning rate, the third one by anything.
    moved = torch.cat([(got["moved"][name] - before).abs().flatten() for name, before in got["at_reset"].items()])
    moved = moved[moved > 0]
    assert moved.max() < 1.01 * rate and (moved > 0.98 * rate).float().mean() > 0.9
    assert {float(state["step"]) for state in got["kept"]} == {1.0}
    assert same(got["resumed"], got["unbroken"])
    for again, expected in zip(got["again"], got["after"], strict=True):
        assert {**again, "seconds": 0} == {**expected, "seconds": 0}


@pytest.mark.parametrize(("ranks", "case"), CASES["large_parameters"])
def test_parameters_larger_than_a_gradient_bucket_have_their_gradient(results: Results, ranks: int, case: str):
    model = naive_model(results.start_model("untied"))
    gradient = gradient_of(model, torch.cat(naive_token_losses(model, make_sequences(9))).mean())
    got = results.of(ranks, f"large_parameters,{case}")
    assert got["largest"] > 4 * 1000
    assert relative_error(got["gradient"], {name: 64 * value for name, value in gradient.items()}) < 1e-6


def test_metrics_are_the_same_for_every_split_and_rank(results: Results):
    means = ("clipped_share", "kl", "mismatch_kl", "entropy", "ratio", "loss", "grad_norm", "completion_tokens")
    first = results.of(1, "gradients,1")[9, 40]["metrics"]
    assert 0 < first["clipped_share"] < 1
    for ranks, case in CASES["gradients"]:
        for rank in range(ranks):
            for (count, _), got in results.of(ranks, f"gradients,{case}", rank).items():
                if count == 9:
                    assert {m: got["metrics"][m] for m in means} == pytest.approx(
                        {m: first[m] for m in means}, rel=1e-4
                    )


@pytest.mark.parametrize(("ranks", "case"), CASES["with_reference"])
def test_kl_to_the_start_model_has_its_gradient(results: Results, ranks: int, case: str):
    got = results.of(ranks, f"with_reference,{case}")
    start, moved = (naive_model(results.start_model("tied")) for _ in range(2))
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            parameter.copy_(got["before"][name])
    losses = torch.cat(naive_token_losses(moved, make_sequences(9, seed=1), start, 0.3))
    expected = {name: 0.1 * value for name, value in gradient_of(moved, losses.mean()).items()}
    # The weights move by a tenth of the gradient here, so the rounding of the weights weighs ten times more.
    assert relative_error(got["gradient"], expected) < 5e-5
    assert got["metrics"]["loss"] == pytest.approx(losses.mean().item(), rel=1e-4)
    assert got["metrics"]["kl"] > 1e-3
    assert same(got["gradient"], got["offloaded"]["gradient"])
    assert {**got["metrics"], "seconds": 0} == {**got["offloaded"]["metrics"], "seconds": 0}


@pytest.mark.parametrize(("ranks", "case"), CASES["distill"])
def test_a_teacher_and_rewards_have_the_gradient_of_both(results: Results, ranks: int, case: str):
    """Three quarters of the reverse KL, of a table of 17 columns or of the sampled tokens, and a quarter of GRPO's loss."""
    got, top_k = results.of(ranks, f"distill,{case}"), int(case.split(",")[1])
    teacher, model = (naive_model(results.start_model(name)) for name in ("tied", "untied"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(got["before"][name])
    losses, divergences = [], []
    for s, of_rewards in zip(make_sequences(9), naive_token_losses(model, make_sequences(9)), strict=True):
        ids = torch.tensor([*s.prompt_ids, *s.completion_ids])
        its, own = (each(ids[None]).logits[0, len(s.prompt_ids) - 1 : -1].log_softmax(-1) for each in (teacher, model))
        its, targets = its.detach(), ids[len(s.prompt_ids) :, None]
        if top_k == 0:
            divergences.append((own - its).gather(-1, targets)[:, 0].detach())
            ratio = torch.exp(own.gather(-1, targets)[:, 0] - torch.from_numpy(s.sampler_logprobs).double())
            value = 0.25 * s.advantage - 0.75 * divergences[-1]
            losses.append(-torch.minimum(ratio * value, ratio.clamp(0.8, 1.2) * value))
        else:
            order = own.detach().argsort(-1, descending=True)
            p, q = (table.exp().gather(-1, order) for table in (own, its))
            p, q = (torch.cat([part[:, :top_k], part[:, top_k:].sum(-1, keepdim=True)], -1) for part in (p, q))
            divergences.append((p * (p / q).log()).sum(-1))
            losses.append(0.75 * divergences[-1] + 0.25 * of_rewards)
    loss = torch.cat(losses).mean()
    exact = "float32" in case
    assert relative_error(got["gradient"], gradient_of(model, loss)) < (1e-5 if exact else 0.15)
    assert got["metrics"]["loss"] == pytest.approx(loss.item(), rel=1e-4 if exact else 0.1)
    expected = torch.cat(divergences).mean().item()
    assert got["metrics"]["teacher_kl"] == pytest.approx(expected, rel=1e-4 if exact else 0.1) and abs(expected) > 0.01
    assert ("top_share" in got["metrics"]) == (top_k > 0)
    assert same(got["gradient"], got["offloaded"]["gradient"])
    assert {**got["metrics"], "seconds": 0} == {**got["offloaded"]["metrics"], "seconds": 0}


@pytest.mark.parametrize(("ranks", "case"), CASES["distill_adapters"])
def test_adapters_come_closer_to_a_teacher(results: Results, ranks: int, case: str):
    got = results.of(ranks, f"distill_adapters,{case}")
    assert got["unmoved"] and got["teacher_kl"][-1] < 0.9 * got["teacher_kl"][0]


@pytest.mark.parametrize(("ranks", "case"), CASES["lora"])
def test_adapters_have_the_gradient_of_the_dense_weight_and_the_base_none(results: Results, ranks: int, case: str):
    """In float64: dL/dA and dL/dB from the whole dL/dW of the model with W + 2 B A, and a penalty to the model without."""
    got = results.of(ranks, f"lora,{case}")
    start, moved = (naive_model(results.start_model("tied")) for _ in range(2))
    halves = {name: tensor.double() for name, tensor in got["before"].items() if name.startswith(("lora_A", "lora_B"))}
    adapted = [name.removeprefix("lora_A:") for name in halves if name.startswith("lora_A:")]
    assert len(adapted) == 2 * (4 if "attention" in case else 7) and got["unmoved"]
    for name in adapted:
        with torch.no_grad():
            moved.get_parameter(name).add_(2 * halves[f"lora_B:{name}"] @ halves[f"lora_A:{name}"])
    losses = torch.cat(naive_token_losses(moved, make_sequences(9), start, 0.3))
    dense = gradient_of(moved, losses.mean())
    expected = {}
    for name in adapted:
        expected[f"lora_A:{name}"] = 2 * halves[f"lora_B:{name}"].T @ dense[name]
        expected[f"lora_B:{name}"] = 2 * dense[name] @ halves[f"lora_A:{name}"].T
    assert float(got["before"]["lora_scale"]) == 2
    assert relative_error({name: got["gradient"][name] for name in expected}, expected) < 1e-5
    assert got["metrics"]["loss"] == pytest.approx(losses.mean().item(), rel=1e-4, abs=1e-6)
    assert got["metrics"]["kl"] > 1e-3


@pytest.mark.parametrize(("ranks", "case"), CASES["lora_reference"])
def test_without_its_adapters_the_policy_is_the_start_model_bit_for_bit(results: Results, ranks: int, case: str):
    got = results.of(ranks, f"lora_reference,{case}", ranks - 1)
    assert torch.equal(got["found"], got["expected"])
    assert (got["with"] - got["found"]).abs().mean() > 0.01


@pytest.mark.parametrize(("ranks", "case"), CASES["lora_use"])
def test_adapters_are_exported_for_peft_and_merged_for_everybody_else(results: Results, ranks: int, case: str):
    got, (stage, start_model, dtype) = results.of(ranks, f"lora_use,{case}"), case.split(",")
    folder = results.root / str(ranks) / f"export-lora-{stage}-{start_model}-{dtype}"
    whole = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=getattr(torch, dtype))
    base = AutoModelForCausalLM.from_pretrained(results.start_model(start_model), dtype=getattr(torch, dtype)).double()
    plain = {name: parameter.clone() for name, parameter in base.named_parameters()}
    by_peft = PeftModel.from_pretrained(base, folder / "adapter", autocast_adapter_dtype=False)
    assert by_peft.peft_config["default"].lora_alpha == 12
    for name, weight in by_peft.merge_and_unload().named_parameters():
        rounded = torch.finfo(getattr(torch, dtype)).eps * weight.abs() + 1e-6
        assert bool(((whole.get_parameter(name).double() - weight).abs() <= rounded).all()), name
    moved = {
        name for name, weight in by_peft.get_base_model().named_parameters() if not torch.equal(weight, plain[name])
    }
    assert moved == {name.removeprefix("lora_A:") for name in got["adapters"] if name.startswith("lora_A:")}
    for s, score in zip(make_sequences(9, seed=2), got["scores"], strict=True):
        for model in (whole, by_peft.get_base_model()):
            expected = naive_logprobs(model, s.prompt_ids, s.completion_ids).detach().float()
            np.testing.assert_allclose(score, expected, atol=1e-4 if dtype == "float32" else 0.15)


@pytest.mark.parametrize(("ranks", "case"), CASES["published"])
def test_the_published_loss_is_the_mean_of_micro_batch_means(results: Results, ranks: int, case: str):
    model = naive_model(results.start_model("untied"))
    losses = naive_token_losses(model, make_sequences(8))
    means = [torch.cat(losses[i : i + 2]).mean() for i in range(0, 8, 2)]
    expected = gradient_of(model, torch.stack(means).mean())
    got = results.of(ranks, f"published,{case}")
    assert relative_error(got["gradient"], expected) < 1e-5
    everything = gradient_of(model, torch.cat(naive_token_losses(model, make_sequences(8))).mean())
    assert relative_error(got["gradient"], everything) > 0.01  # the two normalisations differ


@pytest.mark.parametrize(("ranks", "case"), CASES["other_loss"])
def test_losses_over_completions_divide_by_all_of_them_however_split(results: Results, ranks: int, case: str):
    model = naive_model(results.start_model("untied"))
    losses, ratios = [], []
    for s in make_sequences(9):
        difference = (
            naive_logprobs(model, s.prompt_ids, s.completion_ids) - torch.from_numpy(s.sampler_logprobs).double()
        )
        ratio = (difference.mean() if case.endswith("gspo") else difference).exp()
        if case.endswith("sapo"):
            temperature = 1.0 if s.advantage > 0 else 1.05
            losses.append(-(4 / temperature * torch.sigmoid(temperature * (ratio - 1)) * s.advantage).mean())
        else:
            losses.append(-torch.minimum(ratio * s.advantage, ratio.clamp(0.8, 1.3) * s.advantage).sum())
        ratios.append(difference.detach().exp())
    # 12 completions of which 3 are in no micro-batch; Dr. GRPO also divides by the longest completion allowed.
    loss = sum(losses) / (12 * 24 if case.endswith("dr_grpo") else 12)
    expected = gradient_of(model, loss)
    got, all_ratios = results.of(ranks, f"other_loss,{case}"), torch.cat(ratios)
    assert relative_error(got["gradient"], expected) < 1e-5
    assert got["metrics"]["loss"] == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
    share = all_ratios.sum() ** 2 / (len(all_ratios) * (all_ratios**2).sum())
    assert share < 0.9 and got["metrics"]["effective_sample_share"] == pytest.approx(share.item(), rel=1e-4)


@pytest.mark.parametrize(("ranks", "case"), CASES["entropy"])
def test_the_entropy_of_the_policy_has_its_gradient_in_every_completion(results: Results, ranks: int, case: str):
    got, model = results.of(ranks, f"entropy,{case}"), naive_model(results.start_model("untied"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(got["before"][name])
    sequences = [replace(s, advantage=s.advantage * (i % 2)) for i, s in enumerate(make_sequences(9))]
    entropies = torch.cat([naive_entropies(model, s.prompt_ids, s.completion_ids) for s in sequences])
    loss = (torch.cat(naive_token_losses(model, sequences)) - entropies).mean()
    expected = gradient_of(model, loss)
    assert relative_error(got["gradient"], expected) < (1e-5 if "float32" in case else 0.1)
    metrics, close = got["metrics"], 1e-4 if "float32" in case else 0.05
    assert metrics["loss"] == pytest.approx(loss.item(), rel=close)
    assert metrics["entropy"] == pytest.approx(entropies.mean().item(), rel=close)
    without = gradient_of(model, torch.cat(naive_token_losses(model, sequences)).mean())
    assert relative_error(got["gradient"], without) > 0.3, "the entropy is a part that can be seen"


@pytest.mark.parametrize(("ranks", "case"), CASES["recorded"])
def test_an_audit_finds_the_same_loss_in_what_the_ranks_keep_of_a_step(results: Results, ranks: int, case: str):
    sequences = make_turns(9)
    for name, loss in RECORDED_LOSSES.items():
        of_ranks = [results.of(ranks, f"recorded,{case}", rank)[name] for rank in range(ranks)]
        scored: dict[int, TokenLogprobs] = {}
        for batch, kept in (pair for got in of_ranks for pair in got["scored"]):
            places = np.array([(0, member) for member in range(9)])
            scored |= {sample: one for (_, sample), one in Scores(None, [batch], places).by_rollout([kept]).items()}
        assert scored.keys() == {*range(9)}
        columns = (
            [getattr(scored[sample], part) for sample in range(9)] for part in ("policy", "reference", "entropy")
        )
        values = np.array([[s.advantage for s in sequences]])
        tokens = StepTokens(
            values, values, [[s.sampler_logprobs[s.mask] for s in sequences]], *([each] for each in columns)
        )
        config = make_config(Path("/nowhere"), ranks, loss=loss)
        found = UpdateAgain(config, config.loss, tokens, slice(0, 1)).figures()
        metrics = of_ranks[0]["metrics"]
        assert {figure: metrics[figure] for figure in FIGURES} == pytest.approx(
            {figure: found[figure] for figure in FIGURES}, rel=2e-5, abs=1e-7
        )


@pytest.mark.parametrize(("ranks", "case"), CASES["updates"])
def test_each_update_has_the_gradient_of_its_share_against_the_policy_that_sampled(
    results: Results, ranks: int, case: str
):
    """The reference goes its own way in float64, from the start model through all updates."""
    got, model = results.of(ranks, f"updates,{case}"), naive_model(results.start_model("untied"))
    close, size, update = (
        (2e-5 if "float32" in case else 0.15),
        GROUPS // UPDATES,
        0,
    )  # in bfloat16 other tokens are clipped
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    for step in range(1, STEPS + 1):
        groups, totals = make_groups(step), []
        for share in (groups[i * size : (i + 1) * size] for i in range(UPDATES)):
            losses = []
            for group in share:
                for rollout, advantage in zip(group.rollouts, hand_made_advantages(group), strict=True):
                    logp = naive_logprobs(model, group.problem.prompt_ids, rollout.token_ids)
                    ratio = torch.exp(logp - torch.from_numpy(rollout.logprobs).double())
                    losses.append(-torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage))
            tokens = torch.cat(losses)
            gradient = gradient_of(model, tokens.mean())
            before, after = got["weights"][update : update + 2]
            moved = {name: (before[name].double() - after[name].double()) / 0.1 for name in after}
            assert relative_error(moved, gradient) < close, update
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter -= 0.1 * gradient[name]
            totals.append(tokens.detach())
            update += 1
        metrics, all_tokens = got["metrics"][step - 1], torch.cat(totals)
        assert metrics["completion_tokens"] == len(all_tokens) and metrics["updates"] == UPDATES
        assert metrics["loss"] == pytest.approx(all_tokens.mean().item(), abs=close)
        assert metrics["clipped_share"] > 0
        assert (metrics["learning_rate"], metrics["age_in_updates_max"]) == (0.1, UPDATES - 1)
    last = {name: p.detach() - start[name] for name, p in model.named_parameters()}
    assert relative_error({name: got["weights"][-1][name].double() - start[name] for name in last}, last) < close


@pytest.mark.parametrize(("ranks", "case"), CASES["lost_between_updates"])
def test_a_learner_lost_between_two_updates_ends_bit_for_bit_the_same(results: Results, ranks: int, case: str):
    for rank in range(ranks):
        got = results.of(ranks, f"lost_between_updates,{case}", rank)
        assert all(torch.equal(got["unbroken"][name], got["rebuilt"][name]) for name in got["unbroken"])
        assert not any(torch.equal(got["unbroken"][name], got["lost"][name]) for name in got["unbroken"])
        for expected, again in zip(got["expected"], got["got"], strict=True):
            assert {**expected, "seconds": 0} == {**again, "seconds": 0}


@pytest.mark.parametrize(("ranks", "case"), CASES["clipping"])
def test_clipping_is_by_the_global_norm_and_the_learning_rate_is_set(results: Results, ranks: int, case: str):
    got = results.of(ranks, f"clipping,{case}")
    assert got["metrics"]["grad_norm"] > 0.1
    assert total_norm(got["gradient"]) == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert got["metrics"]["learning_rate"] == 0.5


@pytest.mark.parametrize(("ranks", "case"), CASES["not_finite"])
def test_a_gradient_that_is_not_finite_ends_the_run_on_every_rank(results: Results, ranks: int, case: str):
    for rank in range(ranks):
        got = results.of(ranks, f"not_finite,{case}", rank)
        assert "step 1 is not finite" in got["message"]
        assert all(torch.equal(got["before"][name], got["after"][name]) for name in got["before"])


@pytest.mark.parametrize(("ranks", "case"), CASES["without_spread"])
def test_leaving_out_completions_of_advantage_0_changes_nothing(results: Results, ranks: int, case: str):
    got = results.of(ranks, f"without_spread,{case}")
    assert relative_error(got["fewer"], got["everything"]) < 1e-5
    assert total_norm(got["fewer"]) > 0.01
    assert got["nothing"]["grad_norm"] == 0 and got["nothing"]["loss"] == 0 and got["unmoved"]
    assert got["nobody"]["grad_norm"] == 0 and got["nobody"]["loss"] == 0, "all of its completions are left out"


@pytest.mark.parametrize(("ranks", "case"), CASES["wrong_count"])
def test_a_wrong_token_count_ends_the_run(results: Results, ranks: int, case: str):
    assert "but the step has 5" in results.of(ranks, f"wrong_count,{case}")["message"]


@pytest.mark.parametrize(("ranks", "case"), CASES["low_precision"])
def test_bfloat16_gradients_are_summed_in_float32(results: Results, ranks: int, case: str):
    got = results.of(ranks, f"low_precision,{case}")
    # Summing 16 equal numbers in bfloat16 is off by about 1e-3; halving the loss weight is exact.
    assert relative_error(got["many"], got["one"]) < 1e-5
    assert total_norm(got["one"]) > 0.01


@pytest.mark.parametrize(("ranks", "case"), CASES["resume"])
def test_a_resumed_learner_ends_bit_for_bit_the_same(results: Results, ranks: int, case: str):
    for rank in range(ranks):
        got = results.of(ranks, f"resume,{case}", rank)
        assert len(got["kept"]) > (1 if case.startswith("3") else 0) and same(got["kept"], got["loaded"])
        assert all(torch.equal(got["unbroken"][name], got["resumed"][name]) for name in got["unbroken"])
        for expected, again in zip(got["expected"], got["got"], strict=True):
            assert {**expected, "seconds": 0} == {**again, "seconds": 0}
        for expected, again in zip(got["drawn"], got["again"], strict=True):
            np.testing.assert_array_equal(expected, again)


def test_a_checkpoint_with_8_bit_moments_is_as_much_smaller_as_planned(results: Results) -> None:
    config = make_config(results.root)
    parameters = sum(p.numel() for p in naive_model(results.start_model("untied")).parameters())
    saved, planned = [], []
    for optimizer in ("adamw_offload", "adamw_8bit"):
        folder = results.root / "1" / f"checkpoint-2-bfloat16-{optimizer}"
        saved.append(sum(file.stat().st_size for file in folder.rglob("*.pt")))
        learner = config.learner.model_copy(update={"optimizer": optimizer})
        planned.append(checkpoint_sizes(config.model_copy(update={"learner": learner}), parameters)[1])
    assert saved[0] - saved[1] == pytest.approx(planned[0] - planned[1], rel=0.02)


def same(one: Any, other: Any) -> bool:
    """Bit for bit, through dictionaries and lists."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize(("ranks", "case"), CASES["warm_up"])
def test_the_warm_up_changes_nothing(results: Results, ranks: int, case: str):
    """Weights, optimizer and random states are as before it, and the first steps as without it."""
    for rank in range(ranks):
        got = results.of(ranks, f"warm_up,{case}", rank)
        assert same(got["before"], got["after"])
        if not case.startswith(("3", "1,float32")):  # of those remain small gathered parameters, and an empty bucket
            assert got["left"] < 0.1  # bytes per parameter: no gradient lies beside the first push
        assert same(got["warm"]["weights"], got["cold"]["weights"])
        for warm, cold in zip(got["warm"]["metrics"], got["cold"]["metrics"], strict=True):
            assert {**warm, "seconds": 0} == {**cold, "seconds": 0}


@pytest.mark.parametrize(("ranks", "case"), CASES["other_ranks"])
def test_another_number_of_ranks_goes_on_as_the_unbroken_learner_does(results: Results, ranks: int, case: str):
    saved_by, _, rest = case.partition(",")
    unbroken = results.of(int(saved_by), f"resume,{rest}")
    precise = 1e-5 if case.endswith("float32") else 0.02  # in bfloat16 the split itself changes the sums
    for rank in range(ranks):
        got = results.of(ranks, f"other_ranks,{case}", rank)
        assert all(torch.equal(got["loaded"][name], unbroken["saved"][name]) for name in unbroken["saved"])
        assert not got["left"]
        assert got["metrics"][0]["loss"] == pytest.approx(unbroken["expected"][0]["loss"], rel=1e-5)
        for expected, metrics in zip(unbroken["expected"], got["metrics"], strict=True):
            for name in ("loss", "grad_norm", "entropy", "completion_tokens", "learning_rate"):
                assert metrics[name] == pytest.approx(expected[name], rel=precise), name
        assert relative_error(got["weights"], unbroken["unbroken"]) < precise
        if case == "1,2,bfloat16,adamw_8bit":
            check_rounded_anew([results.of(2, f"other_ranks,{case}", other)["kept"][0] for other in range(2)], unbroken)
        # Saved anew, the same number of ranks loads it as it is.
        assert {**got["metrics"][-1], "seconds": 0} == {**got["again"], "seconds": 0}


def check_rounded_anew(halves: list[dict[str, torch.Tensor]], unbroken: Any) -> None:
    """The 8-bit moments of two ranks are those of the one that saved them, to half a gap of their own blocks."""
    for end, signs in (("1", 1), ("2", 2)):
        saved = float32(unbroken["kept"][0], end)
        got = torch.cat([float32(half, end) for half in halves])[: len(saved)]
        scale = torch.cat([half[f"absmax{end}"].repeat_interleave(256)[: len(half["state1"])] for half in halves])
        assert ((got - saved).abs() <= 1.01 * LARGEST_GAP / signs / 2 * scale[: len(saved)]).all()
        assert [half["step"] for half in halves] == [unbroken["kept"][0]["step"]] * 2


@pytest.mark.parametrize(("ranks", "case"), CASES["use"])
def test_export_buckets_and_scores_agree(results: Results, ranks: int, case: str):
    stage, name, dtype = case.split(",")
    exported = results.root / str(ranks) / f"export-{stage}-{name}-{dtype}"
    plain = AutoModelForCausalLM.from_pretrained(exported)
    assert plain.dtype == getattr(torch, dtype)
    names = [n for n, _ in plain.named_parameters()]
    assert ("lm_head.weight" in names) is (name == "untied")
    start = AutoModelForCausalLM.from_pretrained(results.start_model(name))
    assert not torch.equal(start.get_input_embeddings().weight, plain.get_input_embeddings().weight.float())

    for rank in range(ranks):
        got = results.of(ranks, f"use,{case}", rank)
        sent = [pair for bucket in got["buckets"] for pair in bucket]
        assert [n for n, _ in sent] == names
        assert got["metadata"] == [(n, dtype, tuple(tensor.shape)) for n, tensor in sent]
        assert all(
            torch.equal(tensor, parameter) for (_, tensor), parameter in zip(sent, plain.parameters(), strict=True)
        )
        sizes = [sum(tensor.nbytes for _, tensor in bucket) for bucket in got["buckets"]]
        assert len(sizes) > 1 and max(sizes) <= 40_000

        precise = naive_model(exported)
        for temperature, scores in got["scores"].items():
            for s, score in zip(make_sequences(9, seed=2), scores, strict=True):
                with torch.no_grad():
                    expected = naive_logprobs(precise, s.prompt_ids, s.completion_ids, temperature).numpy()
                assert score.shape == expected.shape and score.dtype == np.float32
                assert np.abs(score - expected).max() < (1e-4 if dtype == "float32" else 0.4)
        assert np.isfinite(got["metrics"]["grad_norm"])


@pytest.mark.parametrize(("ranks", "case"), [*CASES["memory"], *OTHER_OPTIMIZERS])
def test_a_rank_holds_within_a_tenth_what_the_memory_plan_says(
    results: Results, monkeypatch: pytest.MonkeyPatch, ranks: int, case: str
):
    monkeypatch.setattr("openrs_ray.cluster.learner_memory.BUCKET_PARAMETERS", 500_000)  # as these ranks have it
    measured = results.of(ranks, f"memory,{case}")
    phases = learner_phases(measured["config"], ModelShape.of(WIDE), checkpointing=False)
    assert phases.keys() == measured["peaks"].keys()
    on_host = host_parts(measured["config"], ModelShape.of(WIDE))
    # A CPU has one memory for both; there are no engines here.
    host = sum(size for name, size in on_host.items() if name != "start weights of the engines") / ranks
    for when, parts in phases.items():
        planned = (
            sum(parts.values()) - parts["CUDA"] - parts["push buffer"] + host
        )  # a CPU rank that pushes nothing has neither
        planned += only_here(case) if when == "in the probe" else 0
        assert measured["peaks"][when] == pytest.approx(planned, rel=0.1), when


def only_here(case: str) -> int:
    """Bytes of a scoring pass that the plan of a GPU does not have.

    A CPU has no product of bfloat16 matrices with a float32 result, and converts the head. Under ZeRO-3 DeepSpeed gathers the
    blocks of a model as small as this at once, and holds them twice.
    """
    converted = 4 * WIDE.vocab_size * WIDE.hidden_size if "bfloat16" in case else 0
    blocks = ModelShape.of(WIDE).parameters - 2 * WIDE.vocab_size * WIDE.hidden_size
    return converted + (2 * blocks if case.startswith("3") else 0)


@pytest.mark.parametrize(("ranks", "case"), CASES["update"])
def test_steps_of_8_bit_moments_are_those_of_adamw_in_float64(results: Results, ranks: int, case: str):
    """The first step exactly, its moments to half a gap of their block's scale, and later steps closely."""
    parts = [part for rank in range(ranks) for part in results.of(ranks, f"update,{case}", rank)]
    assert len(parts) > (ranks if case.startswith("3") else ranks - 1)
    eight, moved = case.endswith("8bit"), [0.0, 0.0]
    for first, *later in parts:
        average = square = torch.zeros_like(first["gradient"], dtype=torch.float64)
        for number, seen in enumerate((first, *later), start=1):
            gradient = seen["gradient"].double()
            average, square = 0.9 * average + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            root = (square / (1 - 0.999**number)).sqrt()
            change = -0.01 * (0.1 * seen["before"].double() + average / (1 - 0.9**number) / (root + 1e-8))
            error = seen["after"].double() - seen["before"].double() - change
            exact = number == 1 or not eight or first["state"]["state1"].dtype == torch.float32
            assert not exact or error.norm() < 1e-4 * change.norm()  # float32 weights of size 0.1 that move by 0.01
            moved = [moved[0] + float(error.norm() ** 2), moved[1] + float(change.norm() ** 2)]
            if number == 1 and eight and first["state"]["state1"].dtype == torch.uint8:
                for moment, end, signs in ((average, "1", 1), (square, "2", 2)):
                    scale = torch.cat([block.abs().max().expand(len(block)) for block in moment.split(256)])
                    off = (float32(seen["state"], end).double() - moment).abs()
                    assert (off <= 1.01 * LARGEST_GAP / signs / 2 * scale).all()
                    assert off.max() > 0.1 * LARGEST_GAP / signs * scale.max()  # it is in 8 bits
    assert (moved[0] / moved[1]) ** 0.5 < (0.1 if eight else 1e-4)


@pytest.mark.parametrize(("ranks", "case"), CASES["elsewhere"])
def test_adamw_in_the_hosts_memory_and_activations_there_change_nothing(results: Results, ranks: int, case: str):
    for rank in range(ranks):
        got = results.of(ranks, f"elsewhere,{case}", rank)
        for name in ("adamw_offload", "activations"):
            assert relative_error(got[name]["weights"], got["here"]["weights"]) < 1e-6
            for here, there in zip(got["here"]["metrics"], got[name]["metrics"], strict=True):
                assert {**there, "seconds": 0} == pytest.approx({**here, "seconds": 0}, rel=1e-5)
        assert same(got["activations"]["weights"], got["here"]["weights"])


@pytest.mark.parametrize(("ranks", "case"), [(2, "2,bfloat16"), (2, "3,bfloat16")])
def test_8_bit_moments_take_a_quarter_and_adamw_in_the_hosts_memory_none(results: Results, ranks: int, case: str):
    """On a CPU, which has one memory for both, the device's and the host's parts add up."""
    shape = ModelShape.of(WIDE)
    share, peaks = shape.parameters / ranks, results.of(ranks, f"memory,{case}")["peaks"]
    eight = results.of(ranks, f"memory,{case},adamw_8bit")
    assert eight["optimizer"] == pytest.approx((2 + 8 / 256) * share, rel=1e-3)
    for when, peak in eight["peaks"].items():
        assert peak == pytest.approx(peaks[when] - (6 - 8 / 256) * share, rel=0.01), when
    offloaded = results.of(ranks, f"memory,{case},adamw_offload")
    if case.startswith("2"):
        device, host = 2 * shape.parameters + 2 * shape.largest, 18 * share + 2 * shape.largest
        in_step = 4 * share
    else:
        device, host, in_step = 2 * share + 4 * 500_000, 20 * share, 0
    assert offloaded["at_rest"] == pytest.approx(device + host, rel=0.02)
    assert offloaded["peaks"]["in the optimizer step"] == pytest.approx(device + host + in_step, rel=0.02)


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_listen_on_loopback_alone(results: Results, rank: int) -> None:
    """The ranks listen for each other; nobody beyond their machine can reach them."""
    assert results.of(1, "listens,1") == {"127.0.0.1"}
    assert results.of(2, "listens,1", rank) == {"127.0.0.1"}
