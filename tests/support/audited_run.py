"""A run for audits, made in seconds: real settings, policies, verdicts, record, checkpoints and ledger, and no engine.

Texts are written, not sampled; the log-probabilities are those of the policies. The learner's figures come from formulas
written out here, in float64.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from system import tiny_sections
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from actors.learner.group import Update
from actors.loop.batch import Batch
from actors.loop.push import PushReport
from actors.loop.writer import RunWriter
from openrs_ray.algorithm.no_learning import LearningWatch
from openrs_ray.common.files import write_json
from openrs_ray.common.parquet import write_table
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.order import Mixture
from openrs_ray.evaluation import store
from openrs_ray.evaluation.held_out import held_out_scores
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.preparation.prepared import Prepared, prepare
from openrs_ray.records import Completion, Group, Problem, Rollout, TokenLogprobs, Verdict, VersionSpan
from openrs_ray.rewards.judge import Judges, judge_group
from openrs_ray.rewards.records import JudgeItem
from openrs_ray.run.attempts import AttemptSettings, start_attempt
from openrs_ray.run.budget import Budget
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.decisions import Decision, note_decision
from openrs_ray.run.ledger import note_beside
from openrs_ray.run.metrics import MetricsLog
from openrs_ray.run.progress import Progress
from openrs_ray.run.resume import begin_run
from openrs_ray.run.step_settings import StepSettings

STEPS, GROUPS, SAMPLES, HELD_OUT = 3, 4, 4, 5
BETA = 0.04
REWARD = """
def brevity(completion, token_count):
    return 1 - token_count / 100
"""


def audited_run(folder: Path, **changes: dict[str, Any]) -> Path:
    """A run of three steps with a KL penalty and an evaluation before, between and after, and a report on a benchmark.

    `changes`: of settings, by section.
    """
    model = _model(0)
    (folder / "start").mkdir(parents=True)
    model.save_pretrained(folder / "start")
    make_tokenizer().save_pretrained(folder / "start")
    (folder / "my_rewards.py").write_text(REWARD)
    sections = tiny_sections(folder, folder / "start", "audited", STEPS)
    sections["rewards"]["weights"] = {"accuracy": 2.0, "my_rewards.py:brevity": 1.0}
    sections["evaluation"] = {"hold_out": HELD_OUT, "samples": 2, "every_steps": 1}
    sections["loss"] = {"kl_beta": BETA}
    for section, values in changes.items():
        sections[section] |= values
    config = RunConfig.model_validate(sections)
    config.look_in([folder])
    asyncio.run(_Made(config, prepare(config), model).run())
    return config.run.path


class _Made:
    """One attempt, written by the real writer."""

    def __init__(self, config: RunConfig, prepared: Prepared, start: PreTrainedModel) -> None:
        self.config, self.prepared = config, prepared
        self.folder = config.run.path
        self.policies = [start, *(_model(step) for step in range(1, STEPS + 1))]
        self.judges = Judges.of(config.tasks, prepared.own_rewards)
        self.mixture = Mixture.of(config.run.seed, config.tasks, prepared.sizes)
        self.random = np.random.default_rng(0)

    async def run(self) -> None:
        self.folder.mkdir(parents=True)
        budget = Budget(self.config, age_s=0.0)
        budget.write()
        begin_run(self.config, self.prepared.summary())
        checkpoints = CheckpointStore(self.folder / "checkpoints", keep_last=STEPS)
        checkpoints.open()
        attempt = start_attempt(self.folder, 0, AttemptSettings.of(self.config))
        (self.folder / "attempts" / "001").mkdir(parents=True)
        write_json(
            self.folder / "attempts" / "001" / "environment.json", {"code_sha256": "c0de", "git": {"commit": "abc"}}
        )
        silent: Any = SimpleNamespace(**dict.fromkeys(("step", "note", "samples", "warn"), lambda *shown: None))
        metrics = MetricsLog(self.folder, attempt)
        watch = LearningWatch(self.config, ["<|end|>"])
        writer = RunWriter(self.config, attempt, watch, metrics, budget, silent, decoder=self.prepared.decoder.decoder)
        writer.begin(None)
        progress = Progress(held_out=HELD_OUT)
        for step in range(STEPS + 1):
            if step:
                progress = await self._step(writer, progress, step)
                await self._save(writer, checkpoints, progress)
            scores = await self._evaluate(writer, step)
            progress = replace(progress, **({"before": scores} if step == 0 else {"after": scores}), evaluated=step)
        metrics.close()
        writer.end(replace(progress, ended="steps"))
        self._report()

    async def _step(self, writer: RunWriter, progress: Progress, step: int) -> Progress:
        positions = range((step - 1) * GROUPS, step * GROUPS)
        problems = [self.prepared.problems[self.mixture.index(position)] for position in positions]
        groups = [
            self._group(place, problem, step - 1, SAMPLES) for place, problem in zip(positions, problems, strict=True)
        ]
        if step == 2:
            note_decision(self.folder, Decision(1, 1, "guard", "warn", {}, {"entropy": 0.1}, "The entropy is low."))
        scored = {
            (place, sample): TokenLogprobs(
                *(self._logprobs(version, group.problem, rollout) for version in (step - 1, 0))
            )
            for place, group in enumerate(groups)
            for sample, rollout in enumerate(group.rollouts)
        }
        values = _advantages(np.stack([group.rewards() for group in groups]))
        learned: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        learned.set_result(scored)
        update = Update(_figures(groups, values, scored), values, learned)
        times = dict.fromkeys(("collect_s", "train_s", "push_s", "step_s"), 1.0)
        progress = writer.write(
            progress, Batch(groups, []), update, PushReport(0.1, 10, None), times, StepSettings.of(self.config)
        )
        await writer.written()
        return progress

    async def _save(self, writer: RunWriter, checkpoints: CheckpointStore, progress: Progress) -> None:
        temporary = checkpoints.begin(progress.step)
        (temporary / "state" / "rank-0.pt").write_bytes(b"state of the learner")
        self.policies[progress.step].save_pretrained(temporary / "policy")
        self.prepared.files.write(temporary / "policy")
        kept = checkpoints.commit(progress.step, "kept", asdict(progress))
        writer.committed(progress.step, kept.folder.name)
        await writer.written()

    async def _evaluate(self, writer: RunWriter, step: int) -> Any:
        groups = [self._group(place, problem, step, 2) for place, problem in enumerate(self.prepared.held_out)]
        scores = held_out_scores(groups, self.config.tasks)
        await writer.evaluation(step, groups, scores)
        return scores.accuracy

    def _group(self, position: int, problem: Problem, version: int, samples: int) -> Group:
        rollouts = tuple(self._rollout(position, sample, problem, version) for sample in range(samples))
        texts = [each.whole for each in self.prepared.decoder(rollouts)]
        items = [
            JudgeItem(text, rollout.sampled_tokens, "stop", problem.gold, problem.text, problem.row, problem.task)
            for text, rollout in zip(texts, rollouts, strict=True)
        ]
        verdicts = [verdict for item in items if isinstance(verdict := self.judges(item), Verdict)]
        judged = judge_group(verdicts, [item.token_count for item in items], self.config.rewards.weights)
        return Group(position, problem, rollouts, judged, tuple(texts))

    def _rollout(self, position: int, sample: int, problem: Problem, version: int) -> Rollout:
        """A chain of random digits and an answer, which is right more often the newer the policy."""
        digits = "".join(map(str, self.random.integers(0, 10, self.random.integers(3, 9))))
        right = self.random.random() < 0.3 + 0.2 * version
        answer = problem.gold[0] if right else "7"
        tokenizer = self.prepared.tokenizer
        ids = np.array([*tokenizer(f"{digits} \\boxed{{{answer}}}")["input_ids"], self.prepared.eos_ids[0]], np.int32)
        blank = np.zeros(len(ids), np.float32)
        spans = (VersionSpan(version, 0, len(ids)),)
        rollout = Rollout.of([Completion(position, sample, ids, blank, "stop", spans, 0)])
        noise = 1e-4 * self.random.normal(size=len(ids))
        return replace(rollout, logprobs=(self._logprobs(version, problem, rollout) + noise).astype(np.float32))

    @torch.no_grad()
    def _logprobs(self, version: int, problem: Problem, rollout: Rollout) -> np.ndarray:
        ids = torch.tensor([*problem.prompt_ids, *rollout.token_ids.tolist()])
        table = self.policies[version](ids[None]).logits[0].log_softmax(-1)
        start = len(problem.prompt_ids)
        chosen: np.ndarray = table[start - 1 : -1].gather(-1, ids[start:, None])[:, 0].numpy()
        return chosen

    def _report(self) -> None:
        """As `launch.evaluate` leaves it: completions of a benchmark, and a report on them."""
        folder = self.folder / "evaluation" / "robust" / "audited-step-3"
        row = {"task": "sums", "problem": "1+1", "gold": ["2"], "text": "\\boxed{2}", "token_ids": [1, 2], "length": 2}
        more = {
            "finish_reason": "stop",
            "answer": "2",
            "detail": "",
            "worker": 0,
            "english_share": 1.0,
            "seed": 1,
            "sitting": 1,
        }
        status = ["correct", "wrong", "correct", "correct"]
        rows = [
            row | more | {"problem_index": index // 2, "sample": index % 2, "status": status[index]}
            for index in range(4)
        ]
        write_table(folder / "sums-000000.parquet", pa.Table.from_pylist(rows, schema=store.SCHEMA))
        figures = {"problems": 2, "samples": 2, "mean_tokens": 2.0, "truncated_share": 0.0, "unjudged": 0}
        average = {"average": {"mean": 0.75, "low": 0.4, "high": 0.95}}
        write_json(folder / "report.json", {"models": {"audited, step 3": {"sums": figures | average}}})
        note_beside(folder.parent, "report")


def _model(seed: int) -> PreTrainedModel:
    """A policy that nobody taught, with a mind of its own: its log-probabilities are far from those of other seeds."""
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=32, max_position_embeddings=256, tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def _advantages(rewards: np.ndarray) -> np.ndarray:
    deviation = rewards - rewards.mean(axis=1, keepdims=True)
    found: np.ndarray = deviation / (rewards.std(axis=1, ddof=1, keepdims=True) + 1e-4)
    return found


def _figures(groups: Sequence[Group], values: np.ndarray, scored: Any) -> dict[str, float]:
    """GRPO with the k3 penalty, token by token in float64 (arXiv 2402.03300, equations 3 and 4)."""
    losses, kls, mismatches, entropies, ratios = [], [], [], [], []
    for (place, sample), tokens in scored.items():
        for policy, reference, sampler in zip(
            tokens.policy.astype(np.float64),
            tokens.reference.astype(np.float64),
            groups[place].rollouts[sample].logprobs.astype(np.float64),
            strict=True,
        ):
            ratio, advantage = np.exp(policy - sampler), values[place, sample]
            kls.append(np.exp(reference - policy) - (reference - policy) - 1)
            mismatches.append(ratio - np.log(ratio) - 1)
            losses.append(-min(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage) + BETA * kls[-1])
            entropies.append(-policy)
            ratios.append(ratio)
    return {
        "loss": float(np.mean(losses)), "kl": float(np.mean(kls)), "mismatch_kl": float(np.mean(mismatches)),
        "entropy": float(np.mean(entropies)), "ratio": float(np.mean(ratios)), "clipped_share": 0.0,
        "effective_sample_share": float(np.sum(ratios) ** 2 / len(ratios) / np.sum(np.square(ratios))),
        "truncated_weight_share": 0.0, "masked_token_share": 0.0, "masked_sequence_share": 0.0,
        "completion_tokens": float(len(losses)),
        "grad_norm": 1.0, "learning_rate": 1e-3, "packed_tokens": 500.0, "seconds": 0.5,
    }  # fmt: skip
