"""Learning from a teacher beside learning from rewards, on a toy whose teaching was stopped early: docs/distillation.md.

One process of plain PyTorch, as `plain_loop`; the losses are this project's. Every token is fresh.

    PYTHONPATH=. .venv/bin/python tests/support/distilling.py --seeds 42 43 44
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from plain_loop import HELD_OUT, Sampled, Toy, loss_input, mean_loss
from rich.console import Console
from transformers import AutoModelForCausalLM, PreTrainedModel

from openrs_ray.algorithm.distillation import DistilledLogprobs, TeacherView
from openrs_ray.algorithm.losses import LossInput
from openrs_ray.common.console import say
from openrs_ray.config.loss import Loss
from openrs_ray.config.teacher import Teacher
from openrs_ray.evaluation.paired import Pair, compare
from openrs_ray.models.bundled import resolve_model
from openrs_ray.models.toy.arithmetic import distinct
from openrs_ray.models.toy.teach import ToySettings, build_toy
from openrs_ray.stats import Interval, mean_interval

PROBLEMS, COMPLETIONS, STEPS, WARM_UP, RATE = 8, 4, 80, 10, 3e-5
SAMPLES = 4
"""Of each held-out problem."""
TEACHER = "toy-teacher"
LOSSES = {
    "grpo": Loss(),
    "top_k 16": Loss(kind="distill", teacher=Teacher(path=TEACHER, top_k=16)),
    "top_k 0": Loss(kind="distill", teacher=Teacher(path=TEACHER, top_k=0)),
}
UNDER_TAUGHT = ToySettings(wrong_share=0.0, steps=250, threads=1)
"""It fails by slips of all kinds, not by one wrong procedure."""


class Taught:
    """The under-taught toy in a folder, and its teacher."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.toy = Toy(seed, folder)
        self._teacher = AutoModelForCausalLM.from_pretrained(resolve_model(TEACHER), dtype=torch.float32).eval()

    def held_out(self) -> np.ndarray:
        """float64 [problems, samples], with the same random numbers for every policy."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.toy.sample(distinct("heldout", HELD_OUT, 0), SAMPLES, 0.6).correct.reshape(-1, SAMPLES)

    def loss(self, batch: Sampled, loss: Loss) -> torch.Tensor:
        """Per sampled token."""
        if loss.kind != "distill":
            return self.toy.loss(batch, loss)[0]
        compare = self._by_likeliest if loss.teacher.top_k else self._by_sampled
        return mean_loss(compare(batch, batch.ids[:, batch.prompt :][batch.mask], loss), loss)[0]

    def _by_sampled(self, batch: Sampled, targets: torch.Tensor, loss: Loss) -> LossInput:
        own, its = (
            (_hidden(model, batch) @ model.lm_head.weight.T).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
            for model in (self.toy.model, self._teacher)
        )
        return replace(loss_input(batch, own), teacher_logprobs=its.detach())

    def _by_likeliest(self, batch: Sampled, targets: torch.Tensor, loss: Loss) -> LossInput:
        head, teacher = self.toy.model.lm_head.weight, self._teacher
        with torch.no_grad():
            view = TeacherView(_hidden(teacher, batch), teacher.lm_head.weight)
        given = _hidden(self.toy.model, batch), head, targets, view, loss.teacher.top_k, 1.0, len(targets)
        found = DistilledLogprobs.apply(*given, torch.float32)  # type: ignore[no-untyped-call]
        return replace(loss_input(batch, found[0]), divergence=found[1], top_share=found[2])


def _hidden(model: PreTrainedModel, batch: Sampled) -> torch.Tensor:
    """Last hidden states before each sampled token, [sampled tokens, hidden]."""
    states: torch.Tensor = model.base_model(batch.ids).last_hidden_state
    return states[:, batch.prompt - 1 : -1][batch.mask]


@dataclass(frozen=True)
class Lifted:
    before: np.ndarray
    """float64 [problems, samples] on the held-out problems."""
    after: np.ndarray


def train(seed: int, loss: Loss, folder: Path, rate: float = RATE) -> Lifted:
    """The rate rises over the warm-up and stays. `folder`: the start model."""
    taught = Taught(seed, folder)
    before, parameters = taught.held_out(), list(taught.toy.model.parameters())
    sums = distinct("train", PROBLEMS * STEPS, seed)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    for step in range(STEPS):
        batch = taught.toy.sample(sums[PROBLEMS * step : PROBLEMS * (step + 1)], COMPLETIONS, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARM_UP)
        optimizer.zero_grad()
        taught.loss(batch, loss).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return Lifted(before, taught.held_out())


def difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Interval:
    """Paired over the problems, whose samples are those of all seeds."""
    return compare([Pair(np.hstack(ours), np.hstack(theirs))]).difference


def show(console: Console, name: str, lifted: Mapping[str, Sequence[Lifted]]) -> None:
    ours = [run.after for run in lifted[name]]
    seeds = ", ".join(f"{100 * after.mean():.1f}" for after in ours)
    say(console, f"{name}: {mean_interval(np.hstack(ours))}; of the seeds {seeds}")
    say(console, f"  minus the start: {difference(ours, [run.before for run in lifted[name]])}")
    for other in lifted.keys() - {name}:
        say(console, f"  minus {other}: {difference(ours, [run.after for run in lifted[other]])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--rate", type=float, default=RATE)
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder)
        build_toy(start, UNDER_TAUGHT)
        lifted = {
            name: [train(seed, loss, start, options.rate) for seed in options.seeds] for name, loss in LOSSES.items()
        }
    say(console, f"at the start: {mean_interval(lifted['grpo'][0].before)}")
    for name in lifted:
        show(console, name, lifted)


if __name__ == "__main__":
    main()
